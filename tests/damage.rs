//! Damage to the side store's files while they are in use: from outside, and from a container that has them mounted. It ends
//! no daemon and leaves no container without service, and nothing else is lost than what lay in that file.

mod common;

use std::path::{Path, PathBuf};

use common::{Bundle, Daemon, Place, run, until};

/// Damages the file `$1`.
const WAYS: [(&str, &str); 6] = [
    ("cut off", ": >\"$1\""),
    ("cut in the middle", "truncate -s 5000 \"$1\""),
    (
        "zeros",
        "head -c $(stat -c %s \"$1\") /dev/zero >\"$1.new\"; cat \"$1.new\" >\"$1\"",
    ),
    (
        "zeros in place",
        "dd if=/dev/zero of=\"$1\" bs=$(stat -c %s \"$1\") count=1 conv=notrunc status=none",
    ),
    (
        "garbage",
        "yes garbage | dd of=\"$1\" bs=$(stat -c %s \"$1\") count=1 iflag=fullblock conv=notrunc status=none",
    ),
    ("gone", "rm \"$1\""),
];

fn recent(place: &Place) -> PathBuf {
    place.runtime_directory().join("subuidless-recent")
}

fn lasting(place: &Place) -> PathBuf {
    place.path("home/.local/state/subuidless")
}

fn damage(place: &Place, way: &str, file: &Path) {
    let mut command = place.as_user("bash");
    run(command.args(["-euc", way, "bash"]).arg(file)).ok();
}

/// Nothing that can be done at all fails, and what is new is kept.
const GOES_ON: &str = "cd /work; touch $1; chown 5:6 $1; stat -c %u:%g $1; ln -s x $1-l; chown -h 7:8 $1-l; stat -c %u:%g $1-l
                       mkfifo $1-p; stat -c %F old-f; stat -c %F old-l";
const WENT_ON: &str = "5:6\n7:8\nregular empty file\nsymbolic link\n";

/// What a container does that had the store open before.
const MAIN: &str =
    "cd /work; touch old-f; chown 3:4 old-f; ln -s x old-l; chown -h 3:4 old-l; stat -c %u old-l
    : >ready; until [ -e go ]; do :; done
    stat -c %F old-l >main; { ";

/// For each way to damage a file: two containers and a command of `run` go on, and so does the daemon, which says once what is
/// wrong. `from_inside`: the second container does it.
fn goes_on(file: impl Fn(&Place) -> PathBuf, from_inside: bool, told: &str) {
    for (name, way) in WAYS {
        let place = Place::new();
        let daemon = Daemon::start(&place);
        for directory in [recent(&place), lasting(&place)] {
            until("a store", || directory.exists().then_some(()));
        }
        let file = file(&place);
        let bundle = Bundle::new(&place, &daemon).with_mount(
            file.parent().expect("a directory"),
            "/store",
            &["bind", "rw"],
        );
        let main = format!(
            "{MAIN} set -- main; {GOES_ON}; }} >>/work/main; : >/work/done; exec sleep 1000000"
        );
        let containers = [
            bundle.start(&["/bin/sh", "-euc", &main]),
            bundle.start(&["/bin/sleep", "1000000"]),
        ];
        let [first, second] = &containers;
        second.sh("until [ -e /work/ready ]; do :; done");
        // Both parts have something in them.
        until("it is on the disk", || {
            recent(&place).join("settled").exists().then_some(())
        });
        first.sh("cd /work; ln -s x old-m; chown -h 3:4 old-m");
        let before = daemon.pid();
        if from_inside {
            let inside = Path::new("/store").join(file.file_name().expect("a name"));
            second.sh(&format!("set -- {}; {way}", inside.display()));
        } else {
            damage(&place, way, &file);
        }
        second.sh(": >/work/go; until [ -e /work/done ]; do :; done");
        assert_eq!(
            second.sh("cat /work/main"),
            format!("symbolic link\n{WENT_ON}"),
            "{name}: {}",
            daemon.log()
        );
        for (number, container) in containers.iter().cycle().take(4).enumerate() {
            let script = format!("set -- new{number}; {GOES_ON}");
            assert_eq!(container.sh(&script), WENT_ON, "{name}: {}", daemon.log());
        }
        let script = format!(
            "mkdir -p work; ln -sfn x work/old-l; touch work/old-f; set -- cmd; {}",
            GOES_ON.replace("/work", "work")
        );
        let mut command = place.subuidless(["run", "--", "sh", "-euc", &script]);
        let ran = run(command.current_dir(place.path("home")));
        assert_eq!(ran.ok(), WENT_ON, "{name}: {}", daemon.log());
        assert_eq!(daemon.pid(), before);
        assert!(containers.iter().all(common::Running::is_running));
        assert_eq!(second.sh("stat -c %u:%g /work/new0"), "5:6\n");
        assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
        let lines = daemon.lines(&[told]);
        assert!(lines.len() <= 1, "{name}: {}", daemon.log());
        for container in containers {
            container.stop();
        }
        daemon.terminate();
    }
}

#[test]
fn a_recent_store_that_is_damaged_is_begun_anew() {
    goes_on(|place| recent(place).join("data.mdb"), true, "begun anew");
}

#[test]
fn locks_of_a_recent_store_that_are_damaged_are_begun_anew() {
    goes_on(|place| recent(place).join("lock.mdb"), false, "begun anew");
}

#[test]
fn a_lasting_store_that_is_damaged_is_left_alone() {
    goes_on(
        |place| lasting(place).join("data.mdb"),
        true,
        "cannot open the lasting",
    );
}

#[test]
fn locks_of_a_lasting_store_that_are_damaged_are_made_anew() {
    goes_on(
        |place| lasting(place).join("lock.mdb"),
        false,
        "have been made anew",
    );
}

#[test]
fn owners_says_so_where_a_store_is_damaged() {
    // An empty or missing file is a new database.
    for (name, way) in WAYS
        .iter()
        .filter(|(name, _)| !matches!(*name, "gone" | "cut off"))
    {
        let place = Place::new();
        let link = place.path("home/l");
        std::os::unix::fs::symlink("x", &link).expect("a link");
        std::os::unix::fs::lchown(
            &link,
            Some(place.user.uid.as_raw()),
            Some(place.user.gid.as_raw()),
        )
        .expect("chown to the user");
        let owners = |words: &[&str]| run(place.subuidless(["owners"]).args(words));
        owners(&["set", "-h", "5:6", "l"]).ok();
        // What lies in memory stays in the recent part.
        let memory = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
        place.give_to_user(memory.path());
        let mut links = place.as_user("sh");
        let many = "for n in $(seq 300); do ln -s x \"$1/$n\"; done";
        run(links.args(["-euc", many, "sh"]).arg(memory.path())).ok();
        owners(&["set", "-R", "7:8", memory.path().to_str().expect("UTF-8")]).ok();
        damage(&place, way, &recent(&place).join("data.mdb"));
        let error = owners(&["ls", "-d", "l"]);
        assert_eq!(error.status.code(), Some(1), "{name}: {}", error.stderr);
        assert!(
            error.stderr.contains("has been begun anew")
                && error.stderr.contains("call this again"),
            "{name}: {}",
            error.stderr
        );
        let listed = owners(&["ls", "-d", "l"]).ok();
        assert!(listed.contains("      5      6 "), "{name}: {listed}");
        damage(&place, way, &lasting(&place).join("data.mdb"));
        let told = owners(&["ls", "-d", "l"]);
        assert!(
            told.stderr.contains("cannot open the lasting side store"),
            "{name}: {}",
            told.stderr
        );
    }
}
