//! `subuidless owners gc`: entries of files that are gone are removed, and those of files that are
//! there are kept.

mod common;

use common::entries::{MAKE, sh, sweep};
use common::real::reboot;
use common::{Bundle, Daemon, Place, run, set_mode};

#[test]
fn owners_gc_removes_what_is_gone_and_keeps_what_is_there() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundle = Bundle::new(&place, &daemon);
    let everything = bundle.rootfs();
    let everything = everything.to_str().expect("UTF-8");
    let seen = sh(
        &bundle,
        "mkdir -p a/b c; make a/b/ 16; make c/ 16; rm c/1 c/2 c/3 c/4; mv a/b/1 c/1
        mv -f a/b/2 a/b/3; ln c/5 a/hard; look",
    );
    daemon.terminate();
    // By handle and by birth each. Four were removed, and one was overwritten.
    let list = sweep(&place, &["--dry-run", "--missing", everything]).ok();
    assert_eq!(list.lines().count(), 11, "{list}");
    assert!(
        list.contains(" of 2:3: not below these directories\n"),
        "{list}"
    );
    assert!(
        list.ends_with("\n64 entries, 10 would be removed, 54 kept\n"),
        "{list}"
    );
    assert_eq!(
        sweep(&place, &["--missing", everything]).ok(),
        "64 entries, 10 removed, 54 kept\n"
    );
    assert_eq!(
        sweep(&place, &["--dry-run", "--missing", everything]).ok(),
        "54 entries, 0 would be removed, 54 kept\n"
    );
    let daemon = Daemon::start(&place);
    assert_eq!(sh(&bundle, "look"), seen);
    // Beside a daemon and a container; not everything is on the disk yet.
    let container = bundle.start(&["/bin/sleep", "1000000"]);
    let inside = |script: &str| container.sh(&format!("{MAKE}{script}"));
    let seen = inside("make new 8; rm new1 c/5; look");
    assert_eq!(
        sweep(&place, &["--missing", everything]).ok(),
        "70 entries, 2 removed, 68 kept\n"
    );
    assert_eq!(inside("look"), seen);
    let seen = inside("chown -h 77:78 new2; chmod 600 new2; make other 4; look");
    container.stop();
    let daemon = reboot(&place, daemon);
    assert_eq!(sh(&bundle, "look"), seen);
    // What cannot be looked at may hold anything.
    sh(
        &bundle,
        "mkdir closed; make closed/ 4; chmod 0 closed; rm new3",
    );
    let error = sweep(&place, &["--missing", everything]).error();
    assert!(error.contains("closed"), "{error}");
    let seen = sh(&bundle, "chmod 700 closed; look");
    let nowhere = place.path("nowhere");
    sweep(&place, &[nowhere.to_str().expect("UTF-8")]).error();
    sweep(&place, &[]).error();
    assert_eq!(
        sweep(&place, &["--missing", everything]).ok(),
        "84 entries, 2 removed, 82 kept\n"
    );
    daemon.terminate();
    let daemon = Daemon::start(&place);
    assert_eq!(sh(&bundle, "look"), seen);
    drop(daemon);
}

#[test]
fn owners_gc_goes_by_the_directories_that_it_is_told_of() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let [first, second] = [0; 2].map(|_| Bundle::new(&place, &daemon));
    let seen = [&first, &second].map(|bundle| sh(bundle, "make '' 4; look"));
    daemon.terminate();
    let [one, other] = [&first, &second].map(|bundle| bundle.rootfs().display().to_string());
    let list = sweep(&place, &["--dry-run", "--missing", &one]).ok();
    assert!(
        list.ends_with("\n16 entries, 8 would be removed, 8 kept\n"),
        "{list}"
    );
    assert!(list.contains(": not below these directories\n"), "{list}");
    // They live, and only the user could say that they do not.
    let swept = sweep(&place, &[&one]).ok();
    assert!(
        swept.starts_with(
            "16 entries, 0 removed, 16 kept\n4 of those kept are of files that are not below"
        ),
        "{swept}"
    );
    assert_eq!(
        sweep(&place, &["--missing", &one, &other]).ok(),
        "16 entries, 0 removed, 16 kept\n"
    );
    // Another file system's are not concerned.
    let elsewhere = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
    set_mode(elsewhere.path(), 0o755);
    let elsewhere = elsewhere.path().to_str().expect("UTF-8");
    assert_eq!(
        sweep(&place, &["--missing", elsewhere]).ok(),
        "16 entries, 0 removed, 16 kept\n"
    );
    let daemon = Daemon::start(&place);
    assert_eq!([&first, &second].map(|bundle| sh(bundle, "look")), seen);
    daemon.terminate();
}

/// Whatever exists keeps its owner: in another directory, moved out of the one that is looked
/// through, or mounted below it.
#[test]
fn owners_gc_removes_nothing_that_lives() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundle = Bundle::new(&place, &daemon);
    let seen = sh(
        &bundle,
        "mkdir tree other; make tree/ 4; make other/ 4; mv other/0 moved; mv other/1 tree/in; look",
    );
    daemon.terminate();
    let other = bundle.rootfs().join("work/other").display().to_string();
    let tree = bundle.rootfs().join("work/tree").display().to_string();
    for words in [&[other.as_str()][..], &[&tree], &[&other, &tree]] {
        let swept = sweep(&place, words).ok();
        assert!(swept.contains("16 entries, 0 removed, 16 kept"), "{swept}");
    }
    let daemon = Daemon::start(&place);
    assert_eq!(sh(&bundle, "look"), seen);
    daemon.terminate();
}

/// A tree may be deeper than a path can be long.
#[test]
fn owners_gc_looks_through_trees_of_any_depth() {
    let place = Place::new();
    let make = r#"$name = "d" x 200; mkdir "deep"; chdir "deep";
        for (1 .. 30) { mkdir $name; chdir $name or die $! }
        symlink "x", "l"; symlink "x", "gone"; system "chown -h 5:6 l gone"; unlink "gone""#;
    let mut command = place.as_user("sh");
    command
        .current_dir(place.path("home"))
        .args(["-c", "$S run -- perl -e \"$1\"", "sh", make]);
    run(command.env("S", place.binary())).ok();
    let deep = place.path("home/deep").display().to_string();
    assert_eq!(
        sweep(&place, &["--missing", &deep]).ok(),
        "4 entries, 2 removed, 2 kept\n"
    );
    let list = run(&mut place.subuidless(["owners", "ls", &deep])).ok();
    assert_eq!(list.matches(" 5      6 ").count(), 1, "{list}");
}

/// Nobody writes to a fifo, so it must not be opened.
#[test]
fn owners_gc_of_a_fifo_ends() {
    let place = Place::new();
    let fifo = place.path("home/fifo");
    run(place.as_user("mkfifo").arg(&fifo)).ok();
    let mut command = place.as_user("timeout");
    command.arg("100").arg(place.binary());
    let swept = run(command.args(["owners", "gc"]).arg(&fifo)).ok();
    assert_eq!(swept, "0 entries, 0 removed, 0 kept\n");
}

/// Where an inode's number is another inode's, nobody has to be asked.
#[test]
fn owners_gc_removes_what_has_been_replaced() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundle = Bundle::new(&place, &daemon);
    // ext4 gives the lowest free number of the directory's group, and others make files meanwhile.
    let script = "mkdir d; make d/ 200; rm d/*; sync; n=0; while [ $n -lt 3000 ]; do ln -s x d/new$n; \
                  n=$((n + 1)); done; chown -h 8:9 d/new*; look";
    let seen = sh(&bundle, script);
    daemon.terminate();
    let directory = bundle.rootfs().display().to_string();
    let list = sweep(&place, &["--dry-run", &directory]).ok();
    let gone = list.matches("gone: its inode number").count();
    assert!(gone >= 2 && gone.is_multiple_of(2), "{list}");
    let swept = sweep(&place, &[&directory]).ok();
    let expected = format!("6400 entries, {gone} removed, {} kept\n", 6400 - gone);
    assert!(swept.starts_with(&expected), "{swept}");
    let daemon = Daemon::start(&place);
    assert_eq!(sh(&bundle, "look"), seen);
    daemon.terminate();
}

/// What is made, moved and changed while `owners gc` looks through the directories keeps its owner;
/// it may say that it can remove nothing then.
#[test]
fn owners_gc_beside_changes_loses_nothing() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundle = Bundle::new(&place, &daemon);
    let churn = format!(
        "{MAKE}mkdir a b; make a/ 40
        churn() {{ mv $1/* $2/; ln -s x $2/new; chown -h 3:4 $2/new; mv $2/new $1/; rm $1/new; }}
        until [ -e /work/stop ]; do churn a b; churn b a; : >/work/turned; done; : >/work/stopped
        sleep 1000000"
    );
    let container = bundle.start(&["/bin/sh", "-c", &churn]);
    let inside = |script: &str| container.sh(&format!("{MAKE}{script}"));
    inside("until [ -e turned ]; do :; done");
    let everything = bundle.rootfs().display().to_string();
    for round in 0..20 {
        let words: &[&str] = match round % 2 {
            0 => &[&everything],
            _ => &["--missing", &everything],
        };
        let swept = sweep(&place, words);
        assert!(
            swept.status.success() || swept.stderr.contains("meanwhile"),
            "{}",
            swept.stderr
        );
    }
    inside(": >stop; until [ -e stopped ]; do :; done");
    let seen = inside("look");
    for n in 0..40 {
        let owner = format!(" {}:{} ", n + 1, n + 2);
        let line = seen
            .lines()
            .find(|line| line.starts_with(&format!("/work/a/{n} ")));
        assert!(
            line.is_some_and(|line| line.contains(&owner)),
            "{n}: {seen}"
        );
    }
    container.stop();
    daemon.terminate();
}
