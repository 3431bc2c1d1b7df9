//! The target's own mount namespaces and mounts: bind mounts, tmpfs, overlayfs, a procfs in another
//! directory.

use super::descriptors::by_descriptor;
use super::peers::PEOPLE;
use super::processes::enter_root;
use crate::probe::{CWD, EMPTY, KEEP, NOFOLLOW, Probe};
use crate::sys::{Arg, Birth, Place, calls};

pub(super) fn run(p: &mut Probe) {
    p.group("bind", bind);
    p.group("tmpfs", tmpfs);
    p.group("overlay", overlay);
    p.group("overlay-lower-links", overlay_lower_links);
    p.group("moved-proc", moved_proc);
    p.group("pivot", pivot);
    p.group("thread-mounts", thread_mounts);
    p.group("errnos", read_only);
}

pub(crate) fn mount(
    p: &mut Probe,
    source: &str,
    target: &str,
    kind: &str,
    flags: u64,
    options: &str,
) {
    let text = |value: &str| match value {
        "" => Arg::Path(Vec::new(), Place::Null),
        value => Arg::Text(value.into()),
    };
    let args = [
        text(source),
        text(target),
        text(kind),
        Arg::Word(flags),
        text(options),
    ];
    p.call(calls::MOUNT, &args);
}

/// Moves the caller to a mount namespace of its own, whose mounts do not propagate.
pub(crate) fn own_mounts(p: &mut Probe) {
    p.call(calls::UNSHARE, &[Arg::Number(libc::CLONE_NEWNS.into())]);
    mount(p, "", "/", "", libc::MS_REC | libc::MS_PRIVATE, "");
}

fn change_all(p: &mut Probe, files: &[&str], id: u32) {
    for (file, id) in files.iter().zip((id..).step_by(10)) {
        p.lstat(*file);
        p.chown(*file, id, id + 1);
        p.lchown(*file, id + 2, KEEP);
        p.fchownat(CWD, *file, KEEP, id + 3, NOFOLLOW);
        p.lchown(*file, KEEP, KEEP);
        p.stat(*file);
        p.statx(CWD, *file, NOFOLLOW, libc::STATX_BASIC_STATS);
    }
}

fn bind(p: &mut Probe) {
    p.mkdir("a", 0o755);
    p.mkdir("b", 0o755);
    for file in ["a/f", "b/f", "b/under", "c"] {
        p.create(file.as_bytes(), 0o4755, 1);
    }
    p.chown("b/f", 1, 1);
    p.open("b", libc::O_PATH, 0, Some(200));
    p.child("bind mounts", Birth::Fork, |p| {
        own_mounts(p);
        mount(p, "a", "b", "", libc::MS_BIND, "");
        mount(p, "a/f", "c", "", libc::MS_BIND, "");
        change_all(p, &["b/f", "b/under", "b", "c", "b/..", "a/f"], 100);
        // The directory below the mount, by a descriptor that was opened before.
        p.fchownat(200, "f", 7, 7, 0);
        p.fstatat(200, "under", 0);
        p.fchownat(200, "../b/f", 8, 8, 0);
        let absolute = p.absolute(b"bind/b/f");
        p.chown(&absolute, 9, KEEP);
        p.stat(&absolute);
        mount(
            p,
            "",
            "b",
            "",
            libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY,
            "",
        );
        change_all(p, &["b/f", "b", "b/missing", "a/f"], 200);
        p.open("b/f", libc::O_RDONLY, 0, Some(201));
        p.open("b/f", libc::O_PATH, 0, Some(202));
        by_descriptor(p, 201, 300);
        by_descriptor(p, 202, 310);
        p.chown("/proc/self/fd/202", 320, 320);
        p.fchownat(201, "", 1, 1, EMPTY | 0x8000);
        p.list(b".");
    });
    change_all(p, &["b/f", "b/under", "b", "c"], 400);
    p.list(b".");
}

fn populate(p: &mut Probe, directory: &str) -> [String; 9] {
    let name = |file: &str| format!("{directory}/{file}");
    p.create(name("f").as_bytes(), 0o4755, 5);
    p.create(name("locked").as_bytes(), 0, 0);
    p.mkdir(&name("d"), 0o2755);
    p.create(name("d/f").as_bytes(), 0o444, 5);
    p.symlink(b"f", &name("l"));
    p.symlink(b"nowhere", &name("dangling"));
    p.mknod(&name("fifo"), libc::S_IFIFO | 0o600);
    p.bind(name("socket").as_bytes());
    p.link(&name("f"), &name("hard"), 0);
    [
        "f", "locked", "d", "d/f", "l", "dangling", "fifo", "socket", "hard",
    ]
    .map(name)
}

fn tmpfs(p: &mut Probe) {
    p.mkdir("t", 0o755);
    p.create(b"t/f", 0o644, 0);
    p.chown("t/f", 1, 1);
    p.child("a fresh tmpfs", Birth::Fork, |p| {
        own_mounts(p);
        mount(p, "tmpfs", "t", "tmpfs", 0, "mode=0755");
        let files = populate(p, "t");
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        change_all(p, &files, 100);
        change_all(p, &["t", "t/."], 300);
        p.rename("t/fifo", "t/d/fifo", 0);
        p.lstat("t/d/fifo");
        p.unlink("t/d/fifo");
        p.mknod("t/fifo", libc::S_IFIFO | 0o600);
        p.lstat("t/fifo");
        p.open("t/l", libc::O_PATH | libc::O_NOFOLLOW, 0, Some(200));
        by_descriptor(p, 200, 400);
        p.list(b".");
        mount(p, "tmpfs", "t", "tmpfs", 0, "mode=0700");
        p.stat("t");
        p.create(b"t/f", 0o644, 0);
        p.stat("t/f");
    });
    p.stat("t");
    p.stat("t/f");
}

fn overlay(p: &mut Probe) {
    for directory in ["lower", "upper", "work", "merged"] {
        p.mkdir(directory, 0o755);
    }
    populate(p, "lower");
    p.chown("lower/d", 5, 5);
    p.chown("lower/d/f", 6, 6);
    p.child("an overlay", Birth::Fork, |p| {
        own_mounts(p);
        mount(
            p,
            "overlay",
            "merged",
            "overlay",
            0,
            "lowerdir=lower,upperdir=upper,workdir=work,userxattr",
        );
        p.list(b"merged");
        let files = ["f", "locked", "d", "d/f", "l", "dangling", "fifo", "hard"]
            .map(|file| format!("merged/{file}"));
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        change_all(p, &files, 100);
        p.create(b"merged/new", 0o644, 0);
        p.chown("merged/new", 8, 8);
        p.open("merged/d/f", libc::O_RDONLY, 0, Some(200));
        by_descriptor(p, 200, 300);
        p.unlink("merged/f");
        p.create(b"merged/f", 0o644, 0);
        p.list(b"merged");
    });
    p.list(b"lower");
}

/// In a lower layer, inodes that cannot carry an attribute have owners, too.
fn overlay_lower_links(p: &mut Probe) {
    for directory in ["lower", "upper", "work", "merged"] {
        p.mkdir(directory, 0o755);
    }
    populate(p, "lower");
    let special = ["l", "dangling", "fifo", "socket"];
    for (file, id) in special.iter().zip(5..) {
        p.lchown(&format!("lower/{file}"), id, id + 10);
    }
    p.child("an overlay", Birth::Fork, |p| {
        own_mounts(p);
        mount(
            p,
            "overlay",
            "merged",
            "overlay",
            0,
            "lowerdir=lower,upperdir=upper,workdir=work,userxattr",
        );
        p.list(b"merged");
        for file in special.map(|file| format!("merged/{file}")) {
            p.lstat(&file);
            p.lchown(&file, KEEP, 100);
            p.lstat(&file);
        }
        p.list(b"merged");
    });
    p.list(b"lower");
}

fn moved_proc(p: &mut Probe) {
    p.mkdir("p", 0o755);
    p.mkdir("jail", 0o755);
    p.mkdir("jail/proc", 0o755);
    p.create(b"f", 0o644, 0);
    p.create(b"jail/f", 0o644, 0);
    p.open("f", libc::O_RDONLY, 0, Some(200));
    p.open("jail", libc::O_PATH, 0, Some(201));
    p.child("the procfs in another place", Birth::Fork, |p| {
        own_mounts(p);
        mount(p, "/proc", "p", "", libc::MS_BIND | libc::MS_REC, "");
        for path in [
            "p/self/fd/200",
            "p/thread-self/fd/200",
            "p/self/fd/201/f",
            "p/self/cwd/f",
            "p/self/root/missing",
        ] {
            p.stat(path);
            p.chown(path, 42, 43);
        }
        p.open("p/self", libc::O_PATH | libc::O_DIRECTORY, 0, Some(202));
        p.fchownat(202, "fd/200", 44, 45, 0);
        mount(
            p,
            "/proc",
            "jail/proc",
            "",
            libc::MS_BIND | libc::MS_REC,
            "",
        );
        enter_root(p, "jail");
        p.chdir("/");
        for path in [
            "/proc/self/fd/200",
            "/proc/self/fd/201/f",
            "/proc/self/cwd/f",
            "/proc/self/root/f",
            "/dev/fd/200",
        ] {
            p.stat(path);
            p.chown(path, 46, 47);
        }
        p.fstat(200);
    });
    p.list(b".");
}

fn pivot(p: &mut Probe) {
    p.mkdir("new", 0o755);
    p.open(".", libc::O_PATH, 0, Some(200));
    p.child("another root by pivot_root", Birth::Fork, |p| {
        own_mounts(p);
        mount(p, "tmpfs", "new", "tmpfs", 0, "mode=0755");
        p.chdir("new");
        let here = || Arg::Text(b".".to_vec());
        p.call(calls::PIVOT_ROOT, &[here(), here()]);
        p.call(
            calls::UMOUNT2,
            &[here(), Arg::Number(libc::MNT_DETACH.into())],
        );
        p.chdir("/");
        p.create(b"/f", 0o644, 0);
        p.symlink(b"/f", "/l");
        change_all(
            p,
            &["/f", "/l", "/", "/new", "/../f", "/proc/self/fd/200"],
            100,
        );
        p.fchownat(200, "new", 1, 1, 0);
        p.list(b"/");
    });
    p.list(b".");
}

/// One thread mounts; the other threads reach its files only by descriptor.
fn thread_mounts(p: &mut Probe) {
    p.mkdir("t", 0o755);
    p.create(b"t/f", 0o644, 0);
    p.child("a process of its own", Birth::Fork, |p| {
        p.thread("a thread with mounts of its own", |p| {
            own_mounts(p);
            mount(p, "tmpfs", "t", "tmpfs", 0, "mode=0755");
            // Held open: the kernel removes the mounts of a namespace some time after its last
            // member has ended.
            p.open("/proc/thread-self/ns/mnt", libc::O_RDONLY, 0, Some(205));
            p.create(b"t/f", 0o600, 2);
            p.open("t/f", libc::O_RDONLY, 0, Some(200));
            p.open("t", libc::O_PATH, 0, Some(201));
            p.chown("t/f", 42, 43);
            p.chown("/proc/self/fd/201/f", 44, 45);
            p.chown("/proc/self/cwd/t/f", 46, 47);
            p.chown("/proc/thread-self/cwd/t/f", 48, 49);
            let absolute = p.absolute(b"thread-mounts/t/f");
            p.chown(&absolute, 50, 51);
        });
        p.stat("t/f");
        p.chown("t/f", 52, 53);
        by_descriptor(p, 200, 60);
        by_descriptor(p, 201, 70);
        p.chown("/proc/self/fd/200", 80, 81);
        p.chown("/proc/self/fd/201/f", 82, 83);
        p.stat("/proc/self/fd/200");
    });
    p.list(b".");
}

/// Where the mount is read-only, that comes before most permissions.
fn read_only(p: &mut Probe) {
    p.mkdir("d", 0o777);
    for (name, uid) in [("users", 999), ("roots", 0), ("others", 12)] {
        let file = format!("d/{name}");
        p.create(file.as_bytes(), 0o644, 1);
        p.chown(&file, uid, uid);
    }
    p.symlink(b"users", "d/link");
    p.child("a read-only mount", Birth::Fork, |p| {
        own_mounts(p);
        mount(p, "d", "d", "", libc::MS_BIND, "");
        let flags = libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY;
        mount(p, "d", "d", "", flags, "");
        for (who, prepare) in &PEOPLE[..4] {
            p.child(who, Birth::Fork, |p| {
                prepare(p);
                for file in ["d/users", "d/roots", "d/others", "d/link", "d"] {
                    change_all(p, &[file], 7);
                    p.chown(file, 999, 999);
                    p.chmod(file, 0o600);
                    let now = Arg::Path(Vec::new(), Place::Null);
                    let path = Arg::Path(file.into(), Place::Heap);
                    p.call(calls::UTIMENSAT, &[Arg::Fd(CWD), path, now, Arg::Number(0)]);
                }
            });
        }
    });
}
