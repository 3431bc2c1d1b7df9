//! The effects of a change of owner on a file: on which inodes it persists, and what else changes.

use crate::probe::{CWD, EMPTY, KEEP, NOFOLLOW, Probe};
use crate::sys::{Arg, Place, calls};

/// Ids around every limit of a signed, a 16-bit or a lossy conversion.
pub(crate) const IDS: [u32; 12] = [
    0,
    1,
    42,
    1000,
    65534,
    65535,
    65536,
    100_000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fffe,
    KEEP,
];

pub(super) fn run(p: &mut Probe) {
    p.group("owner-ids", ids);
    p.group("kinds", kinds);
    p.group("setid", setid);
    p.group("links", links);
    p.group("successors", successors);
    p.group("times", times);
    p.group("events", events);
    p.group("capability", capability);
    p.group("setgid-create", setgid_create);
    p.group("sticky", sticky);
}

/// Each id, as uid and as gid.
fn ids(p: &mut Probe) {
    p.create(b"f", 0o644, 0);
    p.chown("f", 0, 0);
    p.chown("f", KEEP, KEEP);
    for uid in IDS {
        for gid in [KEEP, uid, 7] {
            p.chown("f", uid, gid);
            p.lchown("f", gid, uid);
        }
    }
    p.chown("f", 0, 0);
    // The kernel uses only the lower half of the register as the id or the fd.
    let high = |low: u32| Arg::Word(0xdead_beef_0000_0000 | u64::from(low));
    let name = || Arg::Path(b"f".to_vec(), Place::Heap);
    p.call(calls::CHOWN, &[name(), high(42), high(43)]);
    p.stat("f");
    p.call(calls::LCHOWN, &[name(), high(KEEP), high(44)]);
    p.stat("f");
    // 0xffffff9c is AT_FDCWD.
    p.call(
        calls::FCHOWNAT,
        &[
            high(0xffff_ff9c),
            name(),
            high(45),
            high(KEEP),
            high(NOFOLLOW),
        ],
    );
    p.stat("f");
    p.open("f", libc::O_RDWR, 0, Some(200));
    p.call(calls::FCHOWN, &[high(200), high(46), high(47)]);
    p.call(calls::FSTAT, &[high(200), Arg::Stat(Place::Heap)]);
}

fn kinds(p: &mut Probe) {
    for mode in [
        0o644, 0, 0o444, 0o222, 0o111, 0o4755, 0o2755, 0o6711, 0o2644, 0o4000, 0o1644,
    ] {
        let name = format!("f{mode:o}");
        p.create(name.as_bytes(), mode, 3);
    }
    for mode in [0o755, 0, 0o700, 0o555, 0o2755, 0o6755, 0o1777] {
        let name = format!("d{mode:o}");
        p.mkdir(&name, 0o755);
        p.chmod(&name, mode);
    }
    p.symlink(b"f644", "to-file");
    p.symlink(b"d755", "to-directory");
    p.symlink(b"nowhere", "dangling");
    p.symlink(b"loop", "loop");
    p.symlink(b"to-file", "twice");
    p.mknod("fifo", libc::S_IFIFO | 0o640);
    p.bind(b"socket");
    p.mknod("node", libc::S_IFREG | 0o4640);
    p.mknod("device", libc::S_IFCHR | 0o600);
    p.list(b".");
    let mut names = listed();
    names.extend(
        [
            "to-file",
            "to-directory",
            "dangling",
            "loop",
            "twice",
            "fifo",
            "socket",
            "node",
        ]
        .map(String::from),
    );
    for (step, name) in (0..).zip(&names) {
        p.chown(name, 100 + step, 200 + step);
        p.lchown(name, 300 + step, KEEP);
        p.stat(name);
        p.lstat(name);
    }
    p.list(b".");
    for name in &names {
        p.fchownat(CWD, name, 0, KEEP, NOFOLLOW);
        p.fchownat(CWD, name, KEEP, 0, NOFOLLOW);
    }
    p.list(b".");
}

fn listed() -> Vec<String> {
    let files = [
        0o644, 0, 0o444, 0o222, 0o111, 0o4755, 0o2755, 0o6711, 0o2644, 0o4000, 0o1644,
    ];
    let directories = [0o755, 0, 0o700, 0o555, 0o2755, 0o6755, 0o1777];
    let files = files.iter().map(|mode| format!("f{mode:o}"));
    files
        .chain(directories.iter().map(|mode| format!("d{mode:o}")))
        .collect()
}

/// chown(2) clears the bits of a regular file, even when nothing else changes; a directory keeps
/// them.
fn setid(p: &mut Probe) {
    for mode in [0o4755, 0o2755, 0o6755, 0o6711, 0o2644, 0o6644, 0o7777] {
        let name = format!("f{mode:o}");
        p.create(name.as_bytes(), mode, 0);
        for (uid, gid) in [
            (KEEP, KEEP),
            (0, 0),
            (42, KEEP),
            (KEEP, 42),
            (42, 42),
            (KEEP, KEEP),
            (0, KEEP),
        ] {
            p.chmod(&name, mode);
            p.chown(&name, uid, gid);
            p.chmod(&name, mode);
            p.lchown(&name, uid, gid);
        }
        p.open(&name, libc::O_RDONLY, 0, Some(200));
        p.chmod(&name, mode);
        p.fchown(200, 43, KEEP);
        p.chmod(&name, mode);
        p.fchownat(200, "", KEEP, KEEP, EMPTY);
    }
    p.mkdir("d", 0o755);
    p.chmod("d", 0o6755);
    p.chown("d", KEEP, KEEP);
    p.chown("d", 42, 42);
    p.lchown("d", 0, 0);
    p.mknod("fifo", libc::S_IFIFO | 0o600);
    p.chmod("fifo", 0o6755);
    p.chown("fifo", 42, 42);
    p.bind(b"socket");
    p.chmod("socket", 0o6755);
    p.chown("socket", KEEP, KEEP);
    // In a user namespace a write clears the bits, too, and a chmod to the same mode restores them.
    p.chmod("f4755", 0o4755);
    p.open("f4755", libc::O_WRONLY, 0, Some(201));
    p.call(
        calls::WRITE,
        &[Arg::Fd(201), Arg::Input(b"x".to_vec()), Arg::Number(1)],
    );
    p.stat("f4755");
    p.chmod("f4755", 0o4755);
    p.open("f4755", libc::O_WRONLY | libc::O_TRUNC, 0, None);
    p.stat("f4755");
}

fn links(p: &mut Probe) {
    p.create(b"f", 0o644, 5);
    p.link("f", "hard", 0);
    p.chown("hard", 42, 43);
    p.stat("f");
    p.symlink(b"f", "soft");
    p.lchown("soft", 1, 2);
    p.stat("soft");
    p.lstat("soft");
    p.chown("soft", 3, 4);
    p.lstat("soft");
    p.stat("f");
    // A hard link to the symlink itself, and one to its target.
    p.link("soft", "soft-hard", 0);
    p.lchown("soft-hard", 5, 6);
    p.lstat("soft");
    p.link("soft", "through", 0x400);
    p.lstat("through");
    p.symlink(b"nowhere", "dangling");
    p.chown("dangling", 1, 1);
    p.lchown("dangling", 7, 8);
    p.stat("dangling");
    p.lstat("dangling");
    p.mknod("fifo", libc::S_IFIFO | 0o600);
    p.link("fifo", "fifo-hard", 0);
    p.chown("fifo-hard", 9, 10);
    p.stat("fifo");
    p.unlink("f");
    p.stat("hard");
    p.unlink("soft");
    p.lstat("soft-hard");
    p.list(b".");
}

/// An owner belongs to an inode: a new file with the name or the inode number of a removed one does
/// not inherit its owner.
fn successors(p: &mut Probe) {
    p.mkdir("d", 0o755);
    for round in 0..3 {
        p.create(b"f", 0o644, 0);
        p.chown("f", 42, 42);
        p.rename("f", "g", 0);
        p.stat("f");
        p.stat("g");
        p.create(b"f", 0o644, 0);
        p.stat("f");
        p.rename("f", "g", 2);
        p.stat("f");
        p.stat("g");
        p.rename("f", "g", 0);
        p.stat("g");
        p.unlink("g");
        p.symlink(b"x", "l");
        p.lstat("l");
        p.lchown("l", 50 + round, 60 + round);
        p.rename("l", "d/l", 0);
        p.lstat("d/l");
        p.unlink("d/l");
        p.mknod("q", libc::S_IFIFO | 0o600);
        p.stat("q");
        p.chown("q", 70, 70);
        p.unlink("q");
        p.bind(b"s");
        p.stat("s");
        p.lchown("s", 80, 80);
        p.unlink("s");
        p.symlink(b"y", "l");
        p.lstat("l");
        p.unlink("l");
        p.mkdir("e", 0o755);
        p.chown("e", 90, 90);
        p.rmdir("e");
        p.mkdir("e", 0o755);
        p.stat("e");
        p.rmdir("e");
    }
    // O_TRUNC preserves the file and its owner, with O_CREAT, too.
    p.create(b"f", 0o644, 9);
    p.chown("f", 42, 42);
    p.open(
        "f",
        libc::O_CREAT | libc::O_TRUNC | libc::O_WRONLY,
        0o600,
        None,
    );
    p.stat("f");
    p.open(
        "f",
        libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY,
        0o600,
        None,
    );
}

fn times(p: &mut Probe) {
    p.create(b"f", 0o644, 0);
    p.mkdir("d", 0o755);
    p.symlink(b"f", "l");
    p.mknod("fifo", libc::S_IFIFO | 0o600);
    p.open("f", libc::O_PATH, 0, Some(200));
    for file in ["f", "d", "l", "fifo"] {
        let name = file.as_bytes();
        p.watch_ctime(name, |p| p.lchown(file, 42, 42));
        p.watch_ctime(name, |p| p.lchown(file, 42, 42));
        p.watch_ctime(name, |p| p.lchown(file, KEEP, KEEP));
        p.watch_ctime(name, |p| p.lchown(file, 0, 0));
    }
    p.watch_ctime(b"f", |p| p.chown("l", 1, 1));
    p.watch_ctime(b"l", |p| p.chown("l", 1, 1));
    p.watch_ctime(b"f", |p| p.fchown(200, 1, 1));
    p.watch_ctime(b"f", |p| p.fchownat(200, "", 1, 1, EMPTY));
    p.watch_ctime(b"f", |p| p.stat("f"));
    p.watch_ctime(b"f", |p| p.fchownat(CWD, "f", 1, 1, 0x8000));
}

fn events(p: &mut Probe) {
    p.create(b"f", 0o644, 0);
    p.mkdir("d", 0o755);
    p.create(b"d/in", 0o644, 0);
    p.symlink(b"f", "l");
    p.mknod("fifo", libc::S_IFIFO | 0o600);
    p.open("f", libc::O_RDONLY, 0, Some(200));
    for file in ["f", "d", "l", "fifo"] {
        p.watch_events(file.as_bytes(), |p| p.lchown(file, 42, 42));
        p.watch_events(file.as_bytes(), |p| p.lchown(file, KEEP, KEEP));
        p.watch_events(file.as_bytes(), |p| p.lstat(file));
    }
    p.watch_events(b"f", |p| p.chown("l", 1, 1));
    p.watch_events(b"l", |p| p.chown("l", 1, 1));
    p.watch_events(b"d", |p| p.chown("d/in", 1, 1));
    p.watch_events(b".", |p| p.lchown("l", 1, 1));
    p.watch_events(b"f", |p| p.fchown(200, 0, 0));
    p.watch_events(b"f", |p| p.fchownat(CWD, "f", 1, 1, 0x8000));
    p.watch_events(b"f", |p| p.statx(CWD, "f", 0, libc::STATX_BASIC_STATS));
}

/// A change of owner removes the capabilities of a program (`security.capability`, see
/// capabilities(7)).
fn capability(p: &mut Probe) {
    // VFS_CAP_REVISION_2 with the effective bit, and cap_chown permitted.
    let value: Vec<u8> = [0x0200_0001_u32, 1, 0, 0, 0]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    let set = |p: &mut Probe, file: &str| {
        let (file, name) = (
            Arg::Text(file.into()),
            Arg::Text(b"security.capability".to_vec()),
        );
        let length = Arg::Number(20);
        p.call(
            calls::SETXATTR,
            &[
                file,
                name,
                Arg::Input(value.clone()),
                length,
                Arg::Number(0),
            ],
        );
    };
    let get = |p: &mut Probe, file: &str| {
        let (file, name) = (
            Arg::Text(file.into()),
            Arg::Text(b"security.capability".to_vec()),
        );
        p.call(
            calls::GETXATTR,
            &[file, name, Arg::Output(64, Place::Heap), Arg::Number(64)],
        );
    };
    p.create(b"f", 0o755, 3);
    p.open("f", libc::O_RDONLY, 0, Some(200));
    let changes: [fn(&mut Probe); 5] = [
        |p| p.chown("f", 42, 42),
        |p| p.lchown("f", 42, 42),
        |p| p.chown("f", KEEP, KEEP),
        |p| p.fchown(200, 0, KEEP),
        |p| p.fchownat(200, "", KEEP, 1, EMPTY),
    ];
    for change in changes {
        set(p, "f");
        get(p, "f");
        change(p);
        get(p, "f");
    }
    // A call that fails removes nothing.
    set(p, "f");
    p.fchownat(CWD, "f", 1, 1, 0x8000);
    get(p, "f");
}

/// A file made in a set-group-ID directory has the directory's group.
fn setgid_create(p: &mut Probe) {
    p.mkdir("d", 0o755);
    p.chown("d", 42, 43);
    p.create(b"d/before", 0o644, 0);
    p.chmod("d", 0o2755);
    p.create(b"d/file", 0o644, 0);
    p.mkdir("d/sub", 0o755);
    p.create(b"d/sub/file", 0o644, 0);
    p.symlink(b"x", "d/link");
    p.mknod("d/fifo", libc::S_IFIFO | 0o600);
    p.bind(b"d/socket");
    p.link("d/before", "d/hard", 0);
    p.list(b".");
}

/// A world-writable sticky directory: the sysctls fs.protected_* check the owners of the files in
/// it.
fn sticky(p: &mut Probe) {
    p.mkdir("t", 0o755);
    p.create(b"f", 0o644, 0);
    p.chmod("t", 0o1777);
    p.create(b"t/f", 0o666, 0);
    p.chown("t/f", 42, 42);
    p.open("t/f", libc::O_CREAT | libc::O_WRONLY, 0o600, None);
    p.symlink(b"../f", "t/l");
    p.lchown("t/l", 42, 42);
    p.stat("t/l");
    p.chown("t/l", 1, 1);
    p.link("t/f", "t/hard", 0);
    p.mknod("t/fifo", libc::S_IFIFO | 0o666);
    p.chown("t/fifo", 42, 42);
    p.open(
        "t/fifo",
        libc::O_CREAT | libc::O_RDWR | libc::O_NONBLOCK,
        0o600,
        None,
    );
    p.unlink("t/f");
    p.list(b".");
}
