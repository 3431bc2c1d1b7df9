//! Owners for which there is little room, or none: inodes full of attributes, and a side store that
//! is full or that cannot be made.

mod common;

use std::fs;
use std::process::Stdio;

use common::command::{launch, sh};
use common::{Place, Ran, run, small_rootfs};

/// A file and a directory whose inode has no room for one more attribute: their owners are kept all
/// the same, as nothing else is different there.
#[test]
fn an_inode_that_is_full_of_attributes_has_an_owner() {
    const FILL: &str = "fill() { for size in 3800 400 100 20 1; do n=0; \
        while setfattr -n user.$size.$n -v $(head -c $size /dev/zero | tr '\\0' a) $1 2>/dev/null; do n=$((n + 1)); done; done; \
        while setfattr -n user.1.0 -v 1$(getfattr --only-values -n user.1.0 $1 2>/dev/null) $1 2>/dev/null; do :; done; }; ";
    let place = Place::new();
    let ours = |script: &str| sh(&place, &format!("{FILL}{script}")).ok();
    let outside = |script: &str| run(place.as_user("sh").args(["-euc", script])).ok();
    ours("umask 022; mkdir t; cd t; touch f g; mkdir d; chown 3:4 g; fill f; fill d; fill g");
    assert_eq!(
        ours(
            "cd t; chown 5:6 f; chown 7:8 d; chown 100000:200000 g; touch d/x
            stat -c %u:%g f d g d/x"
        ),
        "5:6\n7:8\n100000:200000\n0:0\n"
    );
    let look = "stat -c %u:%g f d g; getfattr -d f | grep -c rootless || :";
    assert_eq!(
        ours(&format!("cd t; {look}")),
        "5:6\n7:8\n100000:200000\n0\n"
    );
    // Nothing of it is in the attributes.
    assert_eq!(
        outside("getfattr -d t/f t/d | grep -c rootless || :"),
        "0\n"
    );
    // Who may change them, without opening them.
    let by = |user: &str, script: &str| {
        let mut command = launch(&place, &["--user", user, "--", "sh", "-c", script]);
        run(&mut command).status.code()
    };
    assert_eq!(by("5", "chmod 640 t/f && chmod 644 t/f"), Some(0));
    assert_eq!(by("6", "chmod 640 t/f"), Some(1));
    assert_eq!(by("7", "touch t/d/y"), Some(0));
    assert_eq!(by("6", "touch t/d/z"), Some(1));
    // From outside, too, and to a copy.
    let owners = |words: &[&str]| run(place.subuidless(["owners"]).args(words)).ok();
    assert!(owners(&["ls", "-d", "t/f"]).contains("      5      6 "));
    owners(&["export", "t", "-o", "list"]);
    outside("cp -a t copy");
    owners(&["import", "copy", "-i", "list"]);
    assert_eq!(
        ours(&format!("cd copy; {look}")),
        "5:6\n7:8\n100000:200000\n0\n"
    );
    owners(&["set", "9:9", "copy/f"]);
    assert_eq!(ours("stat -c %u:%g copy/f"), "9:9\n");
    // Room again: the next chown goes into the attribute, and nothing older shows when that goes.
    let room = "cd t; setfattr -x user.3800.0 f; stat -c %u:%g f; chown 11:12 f; stat -c %u:%g f";
    assert_eq!(ours(room), "5:6\n11:12\n");
    assert_eq!(outside("getfattr -d t/f | grep -c rootless"), "1\n");
    assert_eq!(ours("cd t; chown 0:0 f d; stat -c %u:%g f d"), "0:0\n0:0\n");
    assert_eq!(ours("stat -c %u:%g t/g copy/d"), "100000:200000\n7:8\n");
}

/// Runs `script` below `subuidless run`, with a place for what is recent that `prepare` makes on
/// `$R` and `/dev/shm`, where only this script sees it; its standard error is no terminal.
fn with_recent(place: &Place, prepare: &str, script: &str) -> Ran {
    let mut command = place.as_root("unshare");
    let words = format!(
        "{prepare}; exec setpriv --reuid={} --regid={} --init-groups -- \"$S\" run -- sh -c \"$1\"",
        place.user.uid, place.user.gid
    );
    command
        .args(["--mount", "sh", "-euc", &words, "sh", script])
        .env("S", place.binary())
        .env("R", place.runtime_directory())
        .env("HOME", place.path("home"))
        .env("XDG_RUNTIME_DIR", place.runtime_directory());
    // To the end of the pipe: the supervisor may pass the last lines on when the command has ended.
    let output = command.stdin(Stdio::null()).output().expect("a command");
    Ran {
        status: output.status,
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

const USERS: &str = "mode=1777";

/// An owner that cannot be kept is an error of the chown that sets it, and the command's standard
/// error says why.
#[test]
fn an_owner_that_cannot_be_kept_is_an_error_of_chown() {
    let script = "ln -sfn x l; touch f; chown 5:6 f; chown -h 0:0 l; stat -c %u:%g f l
        chown -h 5:6 l; echo $?; stat -c %u:%g l";
    let nowhere =
        "mount -t tmpfs -o mode=755 none /dev/shm; rm -rf \"$R\"; touch \"$R\"".to_owned();
    let full = format!(
        "mount -t tmpfs -o {USERS},size=4k none /dev/shm; mount -t tmpfs -o {USERS},size=8k none \"$R\"; : >\"$R/full\"; \
         head -c 8192 /dev/zero >\"$R/full\""
    );
    for (prepare, errno, reason) in [
        (nowhere, "Input/output error", "no place for the side store"),
        (full, "No space left on device", "No space left on device"),
    ] {
        let place = Place::new();
        let ran = with_recent(&place, &prepare, script);
        assert_eq!(
            String::from_utf8_lossy(&ran.stdout),
            "5:6\n0:0\n1\n0:0\n",
            "{}",
            ran.stderr
        );
        // chown(1) writes its line in two pieces, and ours may come between them.
        assert!(
            ran.stderr.contains("'l'") && ran.stderr.contains(&format!(": {errno}\n")),
            "{}",
            ran.stderr
        );
        let ours: Vec<_> = ran
            .stderr
            .lines()
            .filter(|line| line.contains("side store"))
            .collect();
        assert!(
            ours.iter().any(|line| line.contains(reason)),
            "{}",
            ran.stderr
        );
        let failed = ours
            .iter()
            .filter(|line| line.contains("logged once"))
            .count();
        assert_eq!(failed, 1, "{}", ran.stderr);
    }
}

/// The same of a container, whose supervisor says it as long as the runtime is there.
#[test]
fn an_owner_that_cannot_be_kept_is_an_error_in_a_container_of_run() {
    let place = Place::new();
    let rootfs = small_rootfs(&place);
    let prepare = "mount -t tmpfs -o mode=755 none /dev/shm; : >\"$R/subuidless-recent\"";
    let words = format!(
        "{prepare}
        exec setpriv --reuid={} --regid={} --init-groups -- \"$S\" run --rootfs \"$1\" -- /bin/sh -c \"$2\"",
        place.user.uid, place.user.gid
    );
    let mut command = place.as_root("unshare");
    command
        .args(["--mount", "sh", "-euc", &words, "sh"])
        .arg(&rootfs)
        .arg("cd /tmp; ln -s x l; chown -h 5:6 l; echo $?; stat -c %u:%g l")
        .env("S", place.binary())
        .env("R", place.runtime_directory())
        .env("HOME", place.path("home"))
        .env("XDG_RUNTIME_DIR", place.runtime_directory());
    let ran = run(&mut command);
    assert_eq!(ran.stdout, b"1\n0:0\n", "{}", ran.stderr);
    assert!(
        ran.stderr.contains("no place for the side store"),
        "{}",
        ran.stderr
    );
}

/// One errno, however often it is tried.
#[test]
fn memory_that_fills_up_is_no_space_left() {
    let place = Place::new();
    let (uid, gid) = (place.user.uid, place.user.gid);
    // Another one would not be her runtime directory.
    let prepare = format!("mount -t tmpfs -o mode=700,uid={uid},gid={gid},size=400k none \"$R\"");
    let script = "mkdir d; cd d; n=0; while [ $n -lt 4000 ]; do ln -s x $n; n=$((n + 1)); done; \
                  LC_ALL=C chown -h 5:6 * 2>&1 | sed 's/.*: //' | sort | uniq -c | sed 's/^ *[0-9]* //'; \
                  stat -c %u:%g * | sort | uniq";
    // A lasting store would take it all.
    fs::write(place.path("home/.local"), "").unwrap();
    let ran = with_recent(&place, &prepare, script);
    assert_eq!(
        String::from_utf8_lossy(&ran.stdout),
        "No space left on device\n0:0\n5:6\n",
        "{}",
        ran.stderr
    );
}

/// A limit of address space, and no runtime directory that can be used, are no reason to lose an
/// owner.
#[test]
fn where_owners_can_be_kept_they_are() {
    let place = Place::new();
    let script = "ln -sfn x l; chown -h 5:6 l; stat -c %u:%g l";
    let missing =
        format!("mount -t tmpfs -o {USERS} none /dev/shm; export XDG_RUNTIME_DIR=/no/such");
    for prepare in [&missing, "ulimit -v 1000000"] {
        let ran = with_recent(&place, prepare, script);
        assert_eq!(ran.stdout, b"5:6\n", "{}", ran.stderr);
    }
}
