//! Files by descriptor: plain descriptors, O_PATH, the magic links of proc(5), and files without a
//! path.

use crate::probe::{CWD, EMPTY, KEEP, NOFOLLOW, Probe, fd};
use crate::sys::{Arg, Place, calls, process_id, thread_id};

pub(super) fn run(p: &mut Probe) {
    p.group("descriptors", descriptors);
    p.group("magic", magic);
    p.group("magic-itself", magic_itself);
    p.group("deleted", deleted);
    p.group("anonymous", anonymous);
    p.group("shared-inode", shared_inode);
}

/// Makes every call that takes a descriptor, with one of them.
pub(crate) fn by_descriptor(p: &mut Probe, fd: i32, id: u32) {
    p.fstat(fd);
    p.fstatat(fd, "", EMPTY);
    p.fstatat(fd, "", 0);
    p.statx(fd, "", EMPTY, libc::STATX_BASIC_STATS);
    p.fchown(fd, id, id);
    p.fchownat(fd, "", id + 1, KEEP, EMPTY);
    p.fchownat(fd, "", KEEP, id + 2, EMPTY | NOFOLLOW);
    p.fchownat(fd, "", id, id, 0);
    p.fchownat(fd, "f", id + 3, id + 3, 0);
    p.fstatat(fd, "f", 0);
    p.fstatat(fd, "..", 0);
    p.fstatat(fd, ".", 0);
}

fn open_all(p: &mut Probe) {
    p.create(b"f", 0o644, 4);
    p.mkdir("d", 0o755);
    p.create(b"d/f", 0o600, 5);
    p.symlink(b"f", "l");
    p.symlink(b"nowhere", "dangling");
    p.mknod("fifo", libc::S_IFIFO | 0o600);
    p.bind(b"socket");
    p.open("f", libc::O_RDONLY, 0, Some(200));
    p.open("f", libc::O_WRONLY, 0, Some(201));
    p.open("f", libc::O_PATH, 0, Some(202));
    p.open("d", libc::O_RDONLY | libc::O_DIRECTORY, 0, Some(203));
    p.open("d", libc::O_PATH, 0, Some(204));
    p.open("l", libc::O_PATH | libc::O_NOFOLLOW, 0, Some(205));
    p.open("dangling", libc::O_PATH | libc::O_NOFOLLOW, 0, Some(206));
    p.open("fifo", libc::O_RDONLY | libc::O_NONBLOCK, 0, Some(207));
    p.open("fifo", libc::O_PATH, 0, Some(208));
    p.open("socket", libc::O_PATH, 0, Some(209));
    p.open("l", libc::O_RDONLY, 0, Some(210));
}

fn descriptors(p: &mut Probe) {
    open_all(p);
    for (id, fd) in (0..).zip(200..=211) {
        by_descriptor(p, fd, 1000 + 10 * id);
    }
    p.close(200);
    for fd in [-1, 200, 9999, CWD, i32::MAX, i32::MIN] {
        // AT_FDCWD with an empty path is the working directory, but fchown(2) does not know
        // AT_FDCWD.
        by_descriptor(p, fd, 2000);
        let absolute = p.absolute(b"descriptors/f");
        p.fchownat(fd, &absolute, 3000, 3000, 0);
        p.fstatat(fd, &absolute, 0);
        p.fchownat(fd, "f", 3001, 3001, 0);
    }
    p.list(b".");
}

/// `/proc/self/fd/N` and similar links lead to the file itself, even if that is a symlink, and
/// `self` is the caller.
fn magic(p: &mut Probe) {
    open_all(p);
    p.symlink(b"/proc/self/fd/200", "to-fd");
    p.symlink(b"/proc/self/fd", "to-fds");
    p.symlink(b"/dev/fd/204/f", "to-file-in-fd");
    let (pid, tid) = (process_id(), thread_id());
    let prefixes = [
        "/proc/self/fd/".to_owned(),
        "/proc/thread-self/fd/".to_owned(),
        "/dev/fd/".to_owned(),
        format!("/proc/{pid}/fd/"),
        format!("/proc/self/task/{tid}/fd/"),
        format!("/proc/{pid}/task/{tid}/fd/"),
        "//proc/./self//fd/../fd/".to_owned(),
        "/proc/self/root/proc/self/fd/".to_owned(),
        "/proc/../proc/thread-self/../../fd/".to_owned(),
        "to-fds/".to_owned(),
    ];
    for (prefix, start) in prefixes.iter().zip((1000..).step_by(200)) {
        for (fd, id) in (200..=211).zip((start..).step_by(10)) {
            let path = format!("{prefix}{fd}");
            p.stat(&path);
            p.chown(&path, id, id + 1);
            p.fchownat(CWD, &path, id + 2, KEEP, 0);
            p.fchownat(203, &path, KEEP, id + 3, 0);
            p.fstatat(CWD, &path, 0);
            p.statx(CWD, &path, 0, libc::STATX_BASIC_STATS);
        }
        for path in [
            "203/f", "204/f", "204/../f", "200/f", "200/", "204/", "204/..", "0200", "200x",
            "+200", "-1",
        ] {
            p.chown(&format!("{prefix}{path}"), start, start);
            p.lchown(&format!("{prefix}203/./f"), start + 1, start + 1);
            p.stat(&format!("{prefix}{path}"));
        }
    }
    for path in [
        "to-fd",
        "to-file-in-fd",
        "/proc/self/cwd/f",
        "/proc/thread-self/cwd/d/../l",
    ] {
        p.stat(path);
        p.chown(path, 50, 51);
        p.lchown(path, 52, 53);
        p.lstat(path);
    }
    p.chown("/proc/self/cwd", 60, 61);
    p.stat(".");
    p.chown("/proc/self/cwd/", 62, 63);
    p.stat("/proc/self/cwd");
    // The directory of descriptors as a directory for the at-calls, and as the working directory.
    p.open(
        "/proc/self/fd",
        libc::O_RDONLY | libc::O_DIRECTORY,
        0,
        Some(220),
    );
    p.fchownat(220, "200", 70, 71, 0);
    p.fstatat(220, "200", 0);
    p.open("/proc/self", libc::O_PATH, 0, Some(221));
    p.fchownat(221, "fd/202", 72, 73, 0);
    p.fchownat(221, "cwd/f", 74, 75, 0);
    p.chdir("/proc/self/fd");
    p.chown("203/f", 76, 77);
    p.chown("./202", 78, 79);
    p.stat("200");
    p.call(calls::FCHDIR, &[Arg::Fd(203)]);
    p.chown("../f", 80, 81);
    p.chown("/proc/self/cwd/../l", 82, 83);
    p.chdir("..");
    // Files of proc itself.
    for path in [
        "/proc/self/status",
        "/proc/self/fd",
        "/proc/self/task",
        "/proc/thread-self/fd/",
    ] {
        p.stat(path);
    }
    p.list(b".");
}

/// A magic link of proc(5) that is not followed.
fn magic_itself(p: &mut Probe) {
    p.create(b"f", 0o644, 4);
    p.open("f", libc::O_RDWR, 0, Some(200));
    for path in [
        "/proc/self/fd/200",
        "/proc/thread-self/fd/200",
        "/proc/self/fd/200/",
        "/dev/fd/200",
    ] {
        p.lstat(path);
        p.fstatat(CWD, path, NOFOLLOW);
        p.lchown(path, 42, 42);
        p.fchownat(CWD, path, 43, 43, NOFOLLOW);
        p.lstat(path);
        p.stat("f");
    }
    p.chown("/proc/self/status", 42, 42);
    p.stat("/proc/self/status");
}

fn deleted(p: &mut Probe) {
    p.create(b"f", 0o4644, 4);
    p.open("f", libc::O_RDONLY, 0, Some(200));
    p.open("f", libc::O_PATH, 0, Some(201));
    p.unlink("f");
    by_descriptor(p, 200, 10);
    by_descriptor(p, 201, 20);
    p.chown("/proc/self/fd/200", 30, 30);
    p.stat("/proc/self/fd/201");
    p.create(b"f", 0o644, 0);
    p.stat("f");
    p.fstat(200);
    p.symlink(b"x", "l");
    p.open("l", libc::O_PATH | libc::O_NOFOLLOW, 0, Some(202));
    p.unlink("l");
    by_descriptor(p, 202, 40);
    p.chown("/proc/self/fd/202", 45, 45);
    p.stat("/proc/thread-self/fd/202");
    // A file whose name ends with " (deleted)", and a deleted one, whose path in proc(5) has that
    // mark.
    p.create(b"g (deleted)", 0o644, 0);
    p.create(b"g", 0o644, 0);
    p.open("g", libc::O_RDONLY, 0, Some(203));
    p.unlink("g");
    p.fchown(203, 50, 50);
    p.chown("/proc/self/fd/203", 51, 51);
    p.stat("g (deleted)");
    p.mkdir("gone", 0o755);
    p.chdir("gone");
    p.rmdir("../gone");
    for path in [
        ".",
        "",
        "..",
        "x",
        "../f",
        "./",
        "/proc/self/cwd",
        "/proc/self/cwd/..",
        "/proc/self/cwd/x",
    ] {
        p.stat(path);
        p.lstat(path);
        p.chown(path, 60, 60);
        p.lchown(path, 61, 61);
        p.fchownat(CWD, path, 62, 62, EMPTY);
        p.fstatat(CWD, path, EMPTY);
        p.statx(CWD, path, EMPTY, libc::STATX_UID | libc::STATX_NLINK);
    }
    let absolute = p.absolute(b"deleted/f");
    p.chown(&absolute, 63, 63);
    p.open("new", libc::O_CREAT | libc::O_WRONLY, 0o600, None);
    p.chdir("..");
    p.list(b".");
}

/// Descriptors of files that have never been in a directory.
fn anonymous(p: &mut Probe) {
    let name = Arg::Text(b"m".to_vec());
    let memfd = p.quiet(calls::MEMFD_CREATE, &[name, Arg::Number(0)]);
    let kind = [libc::AF_UNIX, libc::SOCK_STREAM, 0].map(|word| Arg::Number(word.into()));
    let socket = p.quiet(calls::SOCKET, &kind);
    for (answer, number) in [memfd, socket].into_iter().zip(200..) {
        p.keep(fd(answer.result.unwrap_or(-1)), number);
        nameless(p, number);
    }
    p.open(".", libc::O_TMPFILE | libc::O_RDWR, 0o640, Some(210));
    by_descriptor(p, 210, 2000);
    let name = Arg::Path(b"named".to_vec(), Place::Heap);
    let from = Arg::Path(b"/proc/self/fd/210".to_vec(), Place::Heap);
    let follow = Arg::Number(libc::AT_SYMLINK_FOLLOW.into());
    p.call(
        calls::LINKAT,
        &[Arg::Fd(CWD), from, Arg::Fd(CWD), name, follow],
    );
    p.stat("named");
}

/// eventfds and similar files share one inode, which belongs to the host's root: in a user
/// namespace without a mapping for it, fstat(2) returns the overflow uid, emulated or not.
fn shared_inode(p: &mut Probe) {
    let event = p.quiet(calls::EVENTFD2, &[Arg::Number(0), Arg::Number(0)]);
    p.keep(fd(event.result.unwrap_or(-1)), 200);
    nameless(p, 200);
}

fn nameless(p: &mut Probe, number: i32) {
    by_descriptor(p, number, 1000);
    p.chown(&format!("/proc/self/fd/{number}"), 42, 43);
    p.stat(&format!("/proc/self/fd/{number}"));
}
