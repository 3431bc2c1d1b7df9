//! Root file systems: a small one of busybox and single programs, and a real Debian.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::place::{Place, set_mode};
use super::program::tool;
use super::run::{run, run_with_input};

/// Names the tar of a Debian root file system (minbase with rsync, attr, acl, libcap2-bin);
/// `scripts/test` sets it.
pub(crate) const DEBIAN: &str = "SUBUIDLESS_TEST_ROOTFS";

/// Whose files a root file system consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owned {
    /// For the oracle, with all ids mapped.
    ByRoot,
    ByUser,
}

/// busybox with all its applets, and an empty /work.
pub(super) fn small(place: &Place, directory: &Path, owned: Owned) {
    for name in ["bin", "dev", "etc", "proc", "root", "sys", "tmp", "work"] {
        let path = directory.join(name);
        fs::create_dir_all(&path).expect("a directory of the root file system");
        set_mode(&path, 0o755);
        hand_over(place, &path, owned);
    }
    hand_over(place, directory, owned);
    let busybox = tool("busybox");
    let inside = directory.join("bin/busybox");
    fs::copy(&busybox, &inside).expect("copying busybox");
    hand_over(place, &inside, owned);
    let applets = run(Command::new(&busybox).arg("--list")).ok();
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", directory.join("bin").join(applet)).expect("an applet");
    }
}

/// busybox below the user's home, with some users, for `run --rootfs`.
pub(crate) fn small_rootfs(place: &Place) -> PathBuf {
    let directory = place.path("home/rootfs");
    fs::create_dir(&directory).expect("a directory for a root file system");
    small(place, &directory, Owned::ByUser);
    set_mode(&directory.join("tmp"), 0o1777);
    let passwd = "root:x:0:0::/root:/bin/sh\nweb:x:998:997::/work:/bin/sh\n";
    let group = "root:x:0:\nextra:x:50:web\n";
    for (name, text) in [("etc/passwd", passwd), ("etc/group", group)] {
        let path = directory.join(name);
        fs::write(&path, text).expect("a file of users");
        place.give_to_user(&path);
    }
    directory
}

/// A program with the shared libraries that it takes, as /NAME.
pub(super) fn add_program(place: &Place, directory: &Path, program: &Path, owned: Owned) {
    let name = program.file_name().expect("a program has a name");
    copy(place, program, &directory.join(name), owned);
    // ldd fails for a static one.
    let libraries = run(Command::new(tool("ldd")).arg(program));
    let libraries = String::from_utf8(libraries.stdout).expect("UTF-8 output");
    for path in libraries
        .split_ascii_whitespace()
        .filter(|word| word.starts_with('/'))
    {
        let inside = directory.join(path.trim_start_matches('/'));
        fs::create_dir_all(inside.parent().expect("a library lies in a directory"))
            .expect("a directory for libraries");
        copy(place, Path::new(path), &inside, owned);
    }
}

fn copy(place: &Place, from: &Path, to: &Path, owned: Owned) {
    fs::copy(from, to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    set_mode(to, 0o755);
    hand_over(place, to, owned);
}

fn hand_over(place: &Place, path: &Path, owned: Owned) {
    if owned == Owned::ByUser {
        place.give_to_user(path);
    }
}

/// The tar of the Debian root file system.
#[track_caller]
pub(crate) fn debian_tar() -> PathBuf {
    let path = std::env::var_os(DEBIAN)
        .map(PathBuf::from)
        .unwrap_or_else(|| {
            panic!(
                "{DEBIAN} is not set: `scripts/test` makes a Debian root file system and sets it"
            )
        });
    assert!(
        path.is_file(),
        "{DEBIAN}={} is no file: `scripts/test` makes it",
        path.display()
    );
    path
}

/// A script for a Debian that the user has unpacked: gives files the owners that they have in the
/// tar, and does nothing to those of the oracle.
pub(crate) fn debian_owners() -> String {
    static SCRIPT: OnceLock<String> = OnceLock::new();
    let make = || {
        let mut command = Command::new(tool("tar"));
        command.args(["--numeric-owner", "-tvf"]).arg(debian_tar());
        let listed = run(&mut command).ok();
        // MODE UID/GID SIZE DATE TIME ./PATH
        let mut script = String::new();
        for line in listed.lines() {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let (owner, path) = (words[1].replace('/', ":"), words[5]);
            if owner != "0:0" && path != "./" {
                let path = path.trim_start_matches('.');
                // chown takes the set-ID bits away.
                script += &format!(
                    "mode=$(stat -c %a {path}); chown {owner} {path}; chmod $mode {path}\n"
                );
            }
        }
        script
    };
    SCRIPT.get_or_init(make).clone()
}

/// A Debian, unpacked: by root with its owners, by the user with all files her own.
pub(super) fn debian(place: &Place, directory: &Path, owned: Owned) {
    let mut command = match owned {
        Owned::ByRoot => place.as_root(tool("tar")),
        Owned::ByUser => {
            place.give_to_user(directory);
            let mut command = place.as_user(tool("tar"));
            command.arg("--no-same-owner");
            command
        }
    };
    command
        .args(["--exclude=./dev/*", "-xpf", "-", "-C"])
        .arg(directory);
    // Opened by us: the user may not get to where it lies.
    let tar = fs::File::open(debian_tar()).expect("the Debian tar");
    run_with_input(&mut command, tar.into()).ok();
}
