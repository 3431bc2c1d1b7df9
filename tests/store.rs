//! The side store: where it lies, and what becomes of owners when it cannot be used.

mod common;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use common::entries::{MAKE, sh, store_of, sweep};
use common::real::{bash, reboot};
use common::{Bundle, Daemon, Place, Ran, run, set_mode};

#[test]
fn owners_are_seen_while_they_are_moved_to_disk() {
    // Asks for what is not in the store, all the time; in the meantime what is in it comes to its
    // disk for the first time.
    let script = r#"mkdir /work; cd /work; mkfifo known other; mknod device c 510 7; chown 5:6 known
        perl -MTime::HiRes=time -e '$end = time + 2.5; while (time < $end) { lstat "other" or die }'
        stat -c '%u:%g %F' known device other; chown 7:8 device; stat -c '%u:%g %F' device"#;
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let seen = bash(&Bundle::debian(&place, &daemon), script);
    assert_eq!(
        String::from_utf8_lossy(&seen),
        "5:6 fifo\n0:0 character special file\n0:0 fifo\n7:8 character special file\n"
    );
}

#[test]
fn a_store_lies_where_it_is_told_to() {
    let place = Place::new();
    let store = place.path("home/deep/own store");
    let words = ["--store", store.to_str().expect("UTF-8")];
    let daemon = Daemon::start_with(&place, &words);
    let bundle = Bundle::new(&place, &daemon);
    let seen = sh(&bundle, "make '' 4; look");
    daemon.terminate();
    assert!(store.join("data.mdb").is_file() && !store_of(&place).exists());
    let directory = bundle.rootfs().display().to_string();
    let swept = sweep(&place, &["--missing", "--store", words[1], &directory]).ok();
    assert_eq!(swept, "8 entries, 0 removed, 8 kept\n");
    fs::remove_dir_all(place.runtime_directory().join("subuidless-recent")).expect("recent");
    let elsewhere = Daemon::start(&place);
    assert!(
        !sh(&bundle, "look").contains("character"),
        "of another store"
    );
    elsewhere.terminate();
    let daemon = Daemon::start_with(&place, &words);
    assert_eq!(sh(&bundle, "look"), seen);
    drop(daemon);
}

#[test]
fn a_store_whose_directory_cannot_be_made_is_told_of_and_the_container_goes_on() {
    let place = Place::new();
    fs::write(place.path("home/missing"), "").expect("a file in the way");
    let nowhere = place.path("home/missing/deep");
    let nowhere = nowhere.to_str().expect("UTF-8");
    let daemon = Daemon::start_with(&place, &["--store", nowhere]);
    let bundle = Bundle::new(&place, &daemon);
    let script = "cd /work; ln -s x l; chown -h 7:8 l; stat -c %u:%g l";
    assert_eq!(bundle.sh(script), "7:8\n");
    daemon.wait_for(&["no lasting side store", nowhere]);
    daemon.terminate();
}

/// With a daemon whose store cannot be used for the reason `told`: containers go on, what they make
/// is seen until the next boot, and what had been kept is there once the store can be used again.
fn goes_on_without_its_store(
    spoil: impl FnOnce(&Place, &Path),
    mend: impl FnOnce(&Place, &Path),
    told: &str,
) {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundle = Bundle::new(&place, &daemon);
    let kept = sh(&bundle, "make kept 4; look");
    daemon.terminate();
    let store = store_of(&place);
    spoil(&place, &store);
    let daemon = Daemon::start(&place);
    daemon.wait_for(&[told, store.to_str().expect("UTF-8")]);
    let made = sh(&bundle, "make new 4; look | grep new");
    let container = bundle.start(&["/bin/sleep", "1000000"]);
    let inside = |script: &str| container.sh(&format!("{MAKE}{script}"));
    assert_eq!(inside("look | grep new"), made);
    assert_eq!(
        inside("touch f; chown 5:6 f; stat -c %u:%g f; rm f"),
        "5:6\n"
    );
    daemon.terminate();
    let daemon = Daemon::start(&place);
    assert_eq!(inside("look | grep new"), made);
    container.stop();
    daemon.terminate();
    mend(&place, &store);
    // What was new has been waiting for it.
    let daemon = Daemon::start(&place);
    assert_eq!(sh(&bundle, "look | grep -v new"), kept);
    assert_eq!(sh(&bundle, "look | grep new"), made);
    let daemon = reboot(&place, daemon);
    assert_eq!(sh(&bundle, "look | grep -v new"), kept);
    assert_eq!(sh(&bundle, "look | grep new"), made);
    daemon.terminate();
}

#[test]
fn a_store_that_is_read_only_is_waited_for() {
    goes_on_without_its_store(
        |_, store| set_mode(&store.join("data.mdb"), 0o400),
        |_, store| set_mode(&store.join("data.mdb"), 0o600),
        "denied",
    );
}

#[test]
fn a_store_of_a_newer_format_is_waited_for() {
    goes_on_without_its_store(
        |_, store| fs::write(store.join("format"), "2\n").expect("another format"),
        |_, store| fs::write(store.join("format"), "1\n").expect("the format"),
        "newer version",
    );
}

fn damaged(told: &str, damage: impl FnOnce(Vec<u8>) -> Vec<u8>) {
    let copy = |place: &Place| place.path("whole.mdb");
    goes_on_without_its_store(
        |place, store| {
            let data = store.join("data.mdb");
            fs::copy(&data, copy(place)).expect("a copy of the store");
            let bytes = damage(fs::read(&data).expect("the store"));
            fs::write(data, bytes).expect("damaging the store");
        },
        |place, store| {
            fs::copy(copy(place), store.join("data.mdb")).expect("the whole store");
        },
        told,
    );
}

#[test]
fn a_store_that_is_no_store_is_waited_for() {
    damaged("MDB_INVALID", |bytes| vec![b'x'; bytes.len()]);
}

#[test]
fn a_store_that_was_cut_off_is_waited_for() {
    damaged("cannot open the lasting side store", |mut bytes| {
        bytes.truncate(bytes.len() / 2 - 100);
        bytes
    });
}

#[test]
fn a_store_whose_pages_are_damaged_is_waited_for() {
    // All but its first two pages, which tell of the others.
    damaged("cannot open the lasting side store", |mut bytes| {
        bytes[8192..].fill(0xa5);
        bytes
    });
}

#[test]
fn a_full_disk_keeps_what_is_new_in_memory() {
    let place = Place::new();
    let store = store_of(&place);
    fs::create_dir_all(&store).expect("a directory for the store");
    let tmpfs = |options: &str, flags: MsFlags| {
        let all = format!(
            "{options},mode=700,uid={},gid={}",
            place.user.uid, place.user.gid
        );
        mount(
            Some("none"),
            &store,
            Some("tmpfs"),
            flags,
            Some(all.as_str()),
        )
        .expect("mounting a small file system");
    };
    let _mount = Unmount(store.clone());
    tmpfs("size=96k", MsFlags::empty());
    let daemon = Daemon::start(&place);
    let bundle = Bundle::new(&place, &daemon);
    let container = bundle.start(&["/bin/sleep", "1000000"]);
    let inside = |script: &str| container.sh(&format!("{MAKE}{script}"));
    let mut seen = inside("mkdir first; make first/ 20; look");
    for n in 0.. {
        assert!(n < 20, "the disk is never full: {}", daemon.log());
        if daemon.log().contains("cannot write the side store to disk") {
            break;
        }
        seen = inside(&format!("mkdir more{n}; make more{n}/ 200; look"));
        std::thread::sleep(std::time::Duration::from_millis(1100));
    }
    assert_eq!(inside("look"), seen);
    seen = inside("chown -h 7:8 first/*; rm first/3; mkdir last; make last/ 20; look");
    daemon.terminate();
    let daemon = Daemon::start(&place);
    daemon.wait_for(&["cannot write the side store to disk"]);
    assert_eq!(inside("look"), seen);
    tmpfs("size=10m", MsFlags::MS_REMOUNT);
    daemon.wait_for(&["can be written to disk again"]);
    container.stop();
    let daemon = reboot(&place, daemon);
    assert_eq!(sh(&bundle, "look"), seen);
    daemon.terminate();
}

/// A full disk when the daemon starts, or memory with no room for what is recent.
#[test]
fn a_disk_that_is_full_from_the_beginning_stops_nothing() {
    for name in ["home/.local/state/subuidless", "run/subuidless-recent"] {
        let place = Place::new();
        let directory = place.path(name);
        fs::create_dir_all(&directory).expect("a directory");
        let options = format!(
            "size=64k,mode=700,uid={},gid={}",
            place.user.uid, place.user.gid
        );
        mount(
            Some("none"),
            &directory,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .expect("mounting a small file system");
        let _mount = Unmount(directory.clone());
        // Its socket lies elsewhere.
        let socket = place.path("home/socket");
        let mut command = place.subuidless(["serve"]);
        command.arg(&socket);
        let filler = directory.join("filler");
        let mut file = fs::File::create(&filler).expect("a file");
        while file.write_all(&[0; 512]).is_ok() {}
        let daemon = Daemon::spawn(&place, command, socket);
        let bundle = Bundle::new(&place, &daemon);
        let seen = sh(
            &bundle,
            "touch f; chown 5:6 f; stat -c %u:%g f; ln -s x l; chown -h 7:8 l || true; mkfifo p
            look | wc -l",
        );
        assert!(seen.starts_with("5:6\n"), "{seen}");
        let log = daemon.log();
        assert!(log.contains("WARN") || log.contains("ERROR"), "{log}");
        daemon.terminate();
    }
}

/// A shell in the user's home, with this program as $S.
fn in_home(place: &Place, words: &str) -> Ran {
    let mut command = place.as_user("sh");
    command.current_dir(place.path("home"));
    run(command.args(["-c", words]).env("S", place.binary()))
}

/// A command and a daemon, or another command, of the same runtime directory.
#[test]
fn each_store_has_its_owners_whoever_runs_beside_it() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundle = Bundle::new(&place, &daemon);
    let seen = sh(&bundle, "make '' 4; look");
    let in_home = |words: &str| in_home(&place, words).ok();
    for round in ["7:8", "9:10", "11:12"] {
        // Longer than it takes the daemon to move something to its disk.
        let set = format!("rm -f l; ln -s x l; chown -h {round} l; sleep 1.2; stat -c %u:%g l");
        let look = format!("{round}\n");
        assert_eq!(
            in_home(&format!("$S run --store other -- sh -c '{set}'")),
            look
        );
        assert_eq!(in_home("$S run --store other -- stat -c %u:%g l"), look);
        assert_eq!(in_home("$S run -- stat -c %u:%g l"), "0:0\n");
    }
    assert_eq!(sh(&bundle, "look"), seen);
    let daemon = reboot(&place, daemon);
    assert_eq!(sh(&bundle, "look"), seen);
    assert_eq!(
        in_home("$S run --store other -- stat -c %u:%g l"),
        "11:12\n"
    );
    daemon.terminate();
}

/// What is on a read-only disk is seen; a command hears that what is new does not get there, once.
#[test]
fn a_disk_that_is_read_only_shows_what_it_has_and_the_rest_is_told() {
    let place = Place::new();
    let in_home = |words: &str| in_home(&place, words);
    in_home("ln -s x old; ln -s x set; $S owners set -h 5:6 old").ok();
    let store = store_of(&place);
    let bind = |source: Option<&Path>, flags| {
        mount(source, &store, NOTHING, MsFlags::MS_BIND | flags, NOTHING).expect("a bind mount");
    };
    bind(Some(&store), MsFlags::empty());
    let _mount = Unmount(store.clone());
    bind(None, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY);
    let script = "ln -s x new; ln -s x more; chown -h 7:8 new more; stat -c %u:%g old new";
    let ran = in_home(&format!("$S run -- sh -c '{script}'"));
    let told = "the side store's disk is read-only: owners of symlinks";
    assert_eq!(ran.stderr.matches(told).count(), 1, "{}", ran.stderr);
    assert_eq!(ran.ok(), "5:6\n7:8\n");
    let ran = in_home("$S owners set -h 1:2 set");
    assert_eq!(ran.status.code(), Some(1));
    assert!(
        ran.stderr.contains("until the next boot") && ran.stderr.contains("Read-only file system"),
        "{}",
        ran.stderr
    );
    assert_eq!(in_home("$S run -- stat -c %u:%g set").ok(), "1:2\n");
}

const NOTHING: Option<&str> = None;

/// Ends a mount with its test.
struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}
