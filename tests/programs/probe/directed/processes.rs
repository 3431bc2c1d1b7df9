//! Different callers: threads with a working directory or descriptors of their own, all kinds of
//! children, other roots.

use std::time::Duration;

use super::descriptors::by_descriptor;
use crate::probe::{CWD, EMPTY, KEEP, NOFOLLOW, Probe};
use crate::sys::{self, Arg, Birth, Place, calls};

pub(super) fn run(p: &mut Probe) {
    p.group("threads", threads);
    p.group("children", children);
    p.group("chroot", chroot);
}

fn unshare(p: &mut Probe, what: i32) {
    p.call(calls::UNSHARE, &[Arg::Number(what.into())]);
}

pub(crate) fn enter_root(p: &mut Probe, directory: &str) {
    p.call(calls::CHROOT, &[Arg::Path(directory.into(), Place::Heap)]);
}

/// Two directories with a file of the same name, and fd 200 open on one of them.
fn two_homes(p: &mut Probe) {
    p.mkdir("a", 0o755);
    p.mkdir("b", 0o755);
    p.create(b"a/f", 0o644, 1);
    p.create(b"b/f", 0o644, 2);
    p.symlink(b"f", "b/l");
    p.open("a/f", libc::O_RDONLY, 0, Some(200));
    p.open("a", libc::O_RDONLY | libc::O_DIRECTORY, 0, Some(201));
}

fn as_somebody(p: &mut Probe, id: u32) {
    for path in [
        "f",
        "l",
        "../a/f",
        "/proc/self/cwd/f",
        "/proc/thread-self/cwd/f",
        ".",
    ] {
        p.stat(path);
        p.chown(path, id, id);
        p.lchown(path, id + 1, KEEP);
    }
    for path in [
        "/proc/self/fd/200",
        "/proc/thread-self/fd/200",
        "/dev/fd/200",
        "/proc/thread-self/fd/201/f",
    ] {
        p.stat(path);
        p.chown(path, id + 2, KEEP);
    }
    by_descriptor(p, 200, id + 10);
    by_descriptor(p, 201, id + 20);
}

fn threads(p: &mut Probe) {
    two_homes(p);
    p.thread("a thread that shares everything", |p| as_somebody(p, 100));
    p.thread("a thread in another directory", |p| {
        unshare(p, libc::CLONE_FS);
        p.chdir("b");
        as_somebody(p, 200);
        p.call(calls::FCHDIR, &[Arg::Fd(201)]);
        as_somebody(p, 250);
    });
    p.thread("a thread with descriptors of its own", |p| {
        unshare(p, libc::CLONE_FS | libc::CLONE_FILES);
        p.open("b/f", libc::O_RDONLY, 0, Some(200));
        p.chdir("b");
        as_somebody(p, 300);
        p.close(200);
        as_somebody(p, 400);
        p.open(
            "/proc/thread-self/fd",
            libc::O_RDONLY | libc::O_DIRECTORY,
            0,
            Some(202),
        );
        p.fchownat(202, "201/f", 450, 450, 0);
    });
    p.thread("a thread with a root of its own", |p| {
        unshare(p, libc::CLONE_FS);
        enter_root(p, "b");
        p.chdir("/");
        p.stat("/f");
        p.chown("/f", 500, 500);
        p.lchown("/l", 501, 501);
        p.stat("/l");
        p.stat("/a/f");
        by_descriptor(p, 200, 510);
    });
    as_somebody(p, 600);
    p.child("a process whose first thread has ended", Birth::Fork, |p| {
        let mut left = p.clone();
        std::thread::spawn(move || {
            while !std::fs::read("/proc/self/stat")
                .is_ok_and(|stat| stat.windows(3).any(|part| part == b") Z"))
            {
                std::thread::sleep(Duration::from_millis(1));
            }
            left.chdir("b");
            as_somebody(&mut left, 700);
            sys::exit(0);
        });
        sys::exit_thread();
    });
    p.list(b".");
}

fn children(p: &mut Probe) {
    two_homes(p);
    p.child("fork", Birth::Fork, |p| {
        p.chdir("b");
        p.open("f", libc::O_RDONLY, 0, Some(200));
        as_somebody(p, 100);
        p.child("fork in a fork", Birth::Fork, |p| {
            p.chdir("../a");
            as_somebody(p, 150);
        });
    });
    as_somebody(p, 200);
    p.child("vfork", Birth::Vfork, |p| {
        p.chdir("b");
        p.close(200);
        as_somebody(p, 300);
    });
    as_somebody(p, 400);
    p.child("a child in a pid namespace of its own", Birth::Fork, |p| {
        unshare(p, libc::CLONE_NEWPID);
        p.chdir("b");
        p.child("its first process", Birth::Fork, |p| {
            // This procfs belongs to the outer pid namespace, where `self` has another number than
            // in the caller's.
            as_somebody(p, 500);
        });
    });
    p.list(b".");
}

fn jail(p: &mut Probe) {
    p.create(b"outside", 0o644, 0);
    p.create(b"f", 0o644, 0);
    for directory in [
        "jail",
        "jail/d",
        "jail/proc",
        "jail/proc/self",
        "jail/proc/self/fd",
        "jail/dev",
        "jail/dev/fd",
    ] {
        p.mkdir(directory, 0o755);
    }
    for file in [
        "jail/f",
        "jail/d/f",
        "jail/proc/self/fd/200",
        "jail/dev/fd/200",
    ] {
        p.create(file.as_bytes(), 0o644, 3);
    }
    p.symlink(b"/f", "jail/to-f");
    p.symlink(b"/d", "jail/to-d");
    p.symlink(b"/proc/self/fd/200", "jail/to-fd");
    p.symlink(b"../../../../f", "jail/d/up");
    p.symlink(b"/outside", "jail/to-outside");
    p.open("outside", libc::O_RDONLY, 0, Some(200));
    p.open(".", libc::O_RDONLY | libc::O_DIRECTORY, 0, Some(201));
    p.open("jail/d", libc::O_PATH, 0, Some(202));
}

fn inside(p: &mut Probe, id: u32) {
    let paths = [
        "/f",
        "/to-f",
        "/to-d/f",
        "/to-d/up",
        "/d/up",
        "/d/../../f",
        "/../f",
        "/to-outside",
        "/",
        "/.",
        "/..",
        "f",
        "d/f",
        "outside",
        "../outside",
        ".",
        "..",
        "/to-fd",
        "/proc/self/fd/200",
        "/dev/fd/200",
        "/proc/self/cwd/f",
        "jail/f",
        "jail/to-f",
        "/proc/thread-self/fd/200",
    ];
    for (path, id) in paths.into_iter().zip((id..).step_by(4)) {
        p.stat(path);
        p.lstat(path);
        p.chown(path, id, id);
        p.lchown(path, id + 1, KEEP);
        p.fchownat(202, path, KEEP, id + 2, 0);
        p.fstatat(202, path, NOFOLLOW);
        p.statx(CWD, path, 0, libc::STATX_UID | libc::STATX_GID);
    }
    p.fchownat(201, "outside", id, id, 0);
    p.fchownat(201, "../chroot/outside", id + 1, KEEP, 0);
    p.fchownat(201, "jail/to-f", KEEP, id + 1, 0);
    p.fchownat(202, "..", id, id, 0);
    p.fchownat(202, "../..", id + 3, id + 3, 0);
    p.fchownat(200, "", id + 5, id + 5, EMPTY);
    p.fstat(200);
}

fn chroot(p: &mut Probe) {
    jail(p);
    p.child("in a chroot", Birth::Fork, |p| {
        enter_root(p, "jail");
        p.chdir("/");
        inside(p, 1000);
        p.child("in a chroot in it", Birth::Fork, |p| {
            enter_root(p, "d");
            inside(p, 2000);
            p.chdir("/");
            inside(p, 3000);
        });
        p.list(b"/");
    });
    p.child(
        "in a chroot, with the working directory outside",
        Birth::Fork,
        |p| {
            enter_root(p, "jail");
            inside(p, 4000);
        },
    );
    p.child("in a chroot, made by vfork", Birth::Vfork, |p| {
        enter_root(p, "jail");
        inside(p, 5000);
    });
    p.child("in a chroot whose directory is gone", Birth::Fork, |p| {
        p.mkdir("gone", 0o755);
        enter_root(p, "gone");
        p.rmdir("gone");
        inside(p, 6000);
    });
    p.child("in a chroot and out again", Birth::Fork, |p| {
        enter_root(p, "jail");
        p.call(calls::FCHDIR, &[Arg::Fd(201)]);
        enter_root(p, ".");
        p.stat("/outside");
        p.chown("/outside", 7000, 7000);
        p.lchown("/jail/to-f", 7001, 7001);
    });
    p.list(b".");
}
