//! Damage to the side store's files while they are in use: from outside, and from a container that
//! has them mounted. It ends no daemon and leaves no container without service, and nothing else is
//! lost than what lay in that file.

mod common;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use common::{Bundle, Daemon, Place, run, until};

/// A way to damage a file has a name, and is a script for the file `$1`.
type Way = (&'static str, &'static str);

const WAYS: [Way; 6] = [
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
    let all = place.runtime_directory().join("subuidless-recent");
    let mut found = std::fs::read_dir(&all).expect("recent parts of side stores");
    found.next().expect("one of them").expect("its name").path()
}

fn lasting(place: &Place) -> PathBuf {
    place.path("home/.local/state/subuidless")
}

fn damage(place: &Place, way: &str, file: &Path) {
    let mut command = place.as_user("bash");
    run(command.args(["-euc", way, "bash"]).arg(file)).ok();
}

/// Nothing that can be done at all fails, and what is new is kept.
const GOES_ON: &str = "cd /work; touch $1; chown 5:6 $1; stat -c %u:%g $1; ln -s x $1-l
    chown -h 7:8 $1-l; stat -c %u:%g $1-l
                       mkfifo $1-p; stat -c %F old-f; stat -c %F old-l";
const WENT_ON: &str = "5:6\n7:8\nregular empty file\nsymbolic link\n";

/// What a container does that had the store open before.
const MAIN: &str =
    "cd /work; touch old-f; chown 3:4 old-f; ln -s x old-l; chown -h 3:4 old-l; stat -c %u old-l
    : >ready; until [ -e go ]; do :; done
    stat -c %F old-l >main; { ";

/// For each way to damage a file: two containers and a command of `run` go on, and so does the
/// daemon, which says once what is wrong. `from_inside`: the second container does it.
fn goes_on(ways: &[Way], file: impl Fn(&Place) -> PathBuf, from_inside: bool, told: &str) {
    for (name, way) in ways {
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
        if file.ends_with("data.mdb") {
            // Something is lost, and somebody says so.
            until(&format!("{name} is told of in {}", daemon.log()), || {
                [told, "removed, replaced or truncated"]
                    .iter()
                    .any(|part| !daemon.lines(&[part]).is_empty())
                    .then_some(())
            });
        }
        for container in containers {
            container.stop();
        }
        daemon.terminate();
    }
}

#[test]
fn a_recent_store_that_is_damaged_is_begun_anew() {
    goes_on(
        &WAYS,
        |place| recent(place).join("data.mdb"),
        true,
        "replaced by an empty one",
    );
}

#[test]
fn locks_of_a_recent_store_that_are_damaged_are_begun_anew() {
    goes_on(
        &WAYS,
        |place| recent(place).join("lock.mdb"),
        false,
        "replaced by an empty one",
    );
}

#[test]
fn a_lasting_store_that_is_damaged_is_left_alone() {
    goes_on(
        &WAYS,
        |place| lasting(place).join("data.mdb"),
        true,
        "cannot open the lasting",
    );
}

#[test]
fn locks_of_a_lasting_store_that_are_damaged_are_made_anew() {
    goes_on(
        &WAYS,
        |place| lasting(place).join("lock.mdb"),
        false,
        "have been replaced",
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
            error.stderr.contains("has been replaced by an empty one")
                && error.stderr.contains("run this again"),
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

/// What is done to the directories.
const REMOVED: [Way; 2] = [
    ("removed", "rm -rf \"${1%/*}\""),
    ("replaced", "rm -rf \"${1%/*}\"; : >\"${1%/*}\""),
];

#[test]
fn a_directory_of_the_store_that_is_removed_is_made_anew() {
    goes_on(
        &REMOVED,
        |place| recent(place).join("data.mdb"),
        false,
        "directory of the recent",
    );
    goes_on(
        &REMOVED[..1],
        |place| lasting(place).join("data.mdb"),
        false,
        "cannot open the lasting",
    );
}

/// What was kept is seen where the disk can only be read, and what is new is kept until the next
/// boot.
#[test]
fn a_lasting_store_on_a_disk_that_is_read_only_is_read() {
    let place = Place::new();
    let script = |script: &str| {
        let words = format!(
            "if [ \"$1\" = ro ]; then mount --bind \"$D\" \"$D\"; mount -o remount,bind,ro \"$D\"; fi; \
             exec setpriv --reuid={} --regid={} --init-groups -- \"$S\" run -- sh -euc \"$2\"",
            place.user.uid, place.user.gid
        );
        let mut command = place.as_root("unshare");
        let (how, script) = script.split_once(": ").expect("a way and a script");
        command
            .args(["--mount", "sh", "-euc", &words, "sh", how, script])
            .env("S", place.binary())
            .env("D", lasting(&place))
            .env("HOME", place.path("home"))
            .env("XDG_RUNTIME_DIR", place.runtime_directory());
        run(&mut command)
    };
    script("rw: ln -s x old").ok();
    // What that sets is on the disk when it ends.
    run(&mut place.subuidless(["owners", "set", "-h", "5:6", "old"])).ok();
    std::fs::remove_dir_all(recent(&place)).expect("what lies in memory");
    let ran = script("ro: ln -s x new; chown -h 7:8 new; stat -c %u:%g old new");
    assert_eq!(ran.stdout, b"5:6\n7:8\n", "{}", ran.stderr);
    let again = script("rw: chown -h 9 old; stat -c %u:%g old new").ok();
    assert_eq!(again, "9:6\n7:8\n");
}

/// It takes a gigabyte at the most, and would be read at every start of `run`.
#[test]
fn a_lasting_store_is_read_through_once() {
    let place = Place::new();
    let readers = || {
        let log = place.path("home/strace");
        let mut command = place.as_user("strace");
        command.args(["-f", "-qq", "-e", "trace=execve", "-o"]);
        command.arg(&log).arg(place.binary());
        run(command.args(["run", "--", "sh", "-c", "ln -sfn x l; chown -h 5:6 l"])).ok();
        let log = std::fs::read_to_string(log).expect("what was started");
        // Executed by the supervisor: it was traced.
        assert!(log.contains("\"settle-store\""), "{log}");
        log.matches("\"read-store\"").count()
    };
    assert_eq!(readers(), 1);
    assert_eq!(readers(), 0);
    assert_eq!(readers(), 0);
    // By somebody else.
    let data = lasting(&place).join("data.mdb");
    let bytes = std::fs::read(&data).expect("the store");
    std::fs::write(&data, bytes).expect("the same once more");
    assert_eq!(readers(), 1);
    std::fs::remove_dir_all(recent(&place)).expect("what lies in memory");
    assert_eq!(readers(), 1);
}

/// What a container does over and over: none of it fails.
const CHURN: &str = "cd /work; n=0; while [ ! -e stop ]; do n=$((n + 1)); ln -sfn x l$((n % 50))
    chown -h $n:5 l$((n % 50)) || echo \"$n failed\" >>failed
    stat l$(((n + 7) % 50)) >/dev/null 2>&1 || :
    echo $n >count.new; mv count.new count; done; exec sleep 1000000";

/// Bytes of chance at places of chance, in all four files. What is written over a lock may look
/// like one that is held for ever: then a worker waits for twenty seconds.
#[test]
fn whatever_is_written_into_the_store_s_files_the_container_goes_on() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundle = Bundle::new(&place, &daemon);
    let container = bundle.start(&["/bin/sh", "-c", CHURN]);
    let count = bundle.rootfs().join("work/count");
    let count = || std::fs::read_to_string(&count).ok();
    until("it has begun", count);
    let mut seed = 20_201_126u64;
    let mut below = |end: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % end.max(1)
    };
    for round in 0..200 {
        let directory = match below(4) {
            0 => lasting(&place),
            _ => recent(&place),
        };
        let file = directory.join(["data.mdb", "lock.mdb"][usize::from(below(2) == 1)]);
        let length = std::fs::metadata(&file).map_or(0, |file| file.len());
        let at = below(3).min(1) * below(length);
        let bytes: Vec<u8> = (0..=below(9000))
            .map(|_| u8::try_from(below(256)).expect("a byte"))
            .collect();
        // It may just be made anew.
        if let Ok(file) = File::options().write(true).open(&file) {
            file.write_all_at(&bytes, at).expect("damage");
        }
        let before = count();
        let what = format!("after round {round}, {}: {}", file.display(), daemon.log());
        until(&what, || (count() != before).then_some(()));
    }
    container.sh(": >/work/stop");
    let failed = container.sh("cat /work/failed 2>/dev/null || :");
    assert_eq!(failed, "", "{}", daemon.log());
    assert!(container.is_running());
    container.stop();
    daemon.terminate();
}

/// What moves entries to the disk is killed at random points, as often as it takes, beside a
/// container that makes more of them.
#[test]
fn nothing_is_lost_when_what_moves_entries_is_killed() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundle = Bundle::new(&place, &daemon);
    let script = "cd /work; n=0; while [ ! -e stop ]; do n=$((n + 1)); ln -s x l$n
        chown -h $n:$n l$n
        case $n in *3) rm l$n;; *5) chown -h 0:7 l$n;; esac; done; echo $n >made; exec sleep 1000000";
    let container = bundle.start(&["/bin/sh", "-euc", script]);
    let mut seed = 20_201_126u64;
    let mut killed = 0;
    for _ in 0..300 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let mut command = place.subuidless(["settle-store"]);
        let mut mover = command
            .args([recent(&place), lasting(&place)])
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("what moves entries");
        // setpriv takes some of that.
        std::thread::sleep(std::time::Duration::from_micros(1000 + (seed >> 51)));
        // It may have ended.
        killed += i32::from(mover.try_wait().expect("its end").is_none());
        let _ = mover.kill();
        mover.wait().expect("its end");
    }
    assert!(killed > 30, "only {killed} were in time");
    container.sh(": >/work/stop; until [ -e /work/made ]; do :; done");
    let look =
        "cd /work; n=0; made=$(cat made); while [ $n -lt $made ]; do n=$((n + 1)); owner=$n:$n
        case $n in *3) continue;; *5) owner=0:7;; esac
        found=$(stat -c %u:%g l$n); [ $found = $owner ] || echo l$n: $found; done; echo $n";
    let seen = container.sh(look);
    assert_eq!(seen, container.sh("cat /work/made"), "{}", daemon.log());
    container.stop();
    daemon.terminate();
    std::fs::remove_dir_all(recent(&place)).expect("what lies in memory");
    let _daemon = Daemon::start(&place);
    assert_eq!(bundle.sh(look), seen);
}

/// Without a daemon that would begin it anew, the guard's workers go on without the store.
#[test]
fn without_a_daemon_a_damaged_store_is_done_without() {
    let place = Place::new();
    let script = "ln -s x l; chown -h 5:6 l; echo >ready; until [ -e go ]; do sleep 0.01; done
        chown -h 7:8 l || echo refused; touch f; chown 5:6 f; stat -c %u:%g f; stat -c %F l";
    let output = File::create(place.path("output")).expect("a file");
    let mut command = place.subuidless(["run", "--", "sh", "-uc", script]);
    let mut command = command.stdout(output).spawn().expect("a command");
    let home = place.path("home");
    until("it has begun", || home.join("ready").exists().then_some(()));
    let find = |word: &str| {
        let mut found = place.processes().into_iter();
        found.find(|(_, words)| {
            words
                .split(|byte| *byte == 0)
                .any(|found| found == word.as_bytes())
        })
    };
    // The supervisor must not die between starting it and handing the listener over.
    until("a guard that has the listener", || {
        let files = std::fs::read_dir(format!("/proc/{}/fd", find("guard")?.0)).ok()?;
        let mut links = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
        links.find(|link| link.as_os_str() == "anon_inode:seccomp notify")
    });
    let (supervisor, _) = find("supervise").expect("a supervisor");
    nix::sys::signal::kill(supervisor, nix::sys::signal::Signal::SIGKILL).expect("killing it");
    damage(
        &place,
        "head -c 20000 /dev/urandom >\"$1\"",
        &recent(&place).join("data.mdb"),
    );
    std::fs::write(home.join("go"), "").expect("a file");
    let status = until("the command ends", || command.try_wait().expect("its end"));
    let seen = std::fs::read_to_string(place.path("output")).expect("its output");
    assert!(status.success(), "{seen}");
    assert!(seen.ends_with("5:6\nsymbolic link\n"), "{seen}");
}

/// A container puts a link or a fifo in the place of one of the files: nobody of us follows it or
/// waits for it.
#[test]
fn what_a_container_puts_in_the_place_of_the_store_s_files_leads_nowhere() {
    const RECENT: [&str; 5] = ["data.mdb", "lock.mdb", "settled", "read", "locks"];
    const LASTING: [&str; 3] = ["data.mdb", "lock.mdb", "format"];
    let files = RECENT.map(|name| ("/recent", name)).into_iter();
    let files = files.chain(LASTING.map(|name| ("/lasting", name)));
    for (directory, name) in files {
        let place = Place::new();
        let daemon = Daemon::start(&place);
        for directory in [recent(&place), lasting(&place)] {
            until("a store", || directory.exists().then_some(()));
        }
        let victim = place.path("home/victim");
        std::fs::write(&victim, "kept").expect("a file");
        place.give_to_user(&victim);
        let bundle = || {
            Bundle::new(&place, &daemon)
                .with_mount(&recent(&place), "/recent", &["bind", "rw"])
                .with_mount(&lasting(&place), "/lasting", &["bind", "rw"])
        };
        let work = "cd /work; touch f; chown 5:6 f; stat -c %u:%g f; ln -sfn x l
            chown -h 7:8 l 2>/dev/null ||:";
        let (first, second) = (bundle(), bundle());
        let first = first.start(&["/bin/sleep", "1000000"]);
        assert_eq!(first.sh(work), "5:6\n");
        for way in [
            format!("ln -sfn {} $file", victim.display()),
            format!("ln -sfn {} $file", place.path("home/missing").display()),
            "mkfifo $file".to_owned(),
        ] {
            first.sh(&format!("file={directory}/{name}; rm -rf $file; {way}"));
            assert_eq!(first.sh(work), "5:6\n", "{name}, {way}: {}", daemon.log());
            assert_eq!(second.sh(work), "5:6\n", "{name}, {way}: {}", daemon.log());
            let script = "touch g; chown 5:6 g; stat -c %u:%g g; ln -sfn x m
                chown -h 7:8 m 2>/dev/null ||:";
            let ran = run(&mut place.subuidless(["run", "--", "sh", "-euc", script]));
            assert_eq!(ran.ok(), "5:6\n", "{name}, {way}");
            run(&mut place.subuidless(["status"])).ok();
            assert_eq!(std::fs::read(&victim).expect("a file"), b"kept", "{name}");
            assert!(!place.path("home/missing").exists(), "{name}, {way}");
        }
        first.stop();
        daemon.terminate();
    }
}
