//! How a path leads to a file or to an errno, and the order in which the kernel checks bad
//! arguments.

use crate::probe::{CWD, EMPTY, KEEP, NOFOLLOW, Path, Probe};
use crate::sys::{Arg, Place, calls};

pub(super) fn run(p: &mut Probe) {
    p.group("names", names);
    p.group("walks", walks);
    p.group("lengths", lengths);
    p.group("loops", loops);
    p.group("flags", flags);
    p.group("pointers", pointers);
    p.group("statx", statx);
}

/// Makes every call that takes a path, with the same file.
fn every_way(p: &mut Probe, file: impl Into<Path>, id: u32) {
    let file = file.into();
    p.stat(file.clone());
    p.lstat(file.clone());
    p.fstatat(CWD, file.clone(), 0);
    p.fstatat(CWD, file.clone(), NOFOLLOW);
    p.statx(CWD, file.clone(), 0, libc::STATX_BASIC_STATS);
    p.chown(file.clone(), id, id);
    p.lchown(file.clone(), id + 1, KEEP);
    p.fchownat(CWD, file.clone(), KEEP, id + 2, 0);
    p.fchownat(CWD, file, id + 3, id + 3, NOFOLLOW);
}

fn names(p: &mut Probe) {
    let longest = vec![b'L'; 255];
    let names: [&[u8]; 10] = [
        b"plain",
        b"with space",
        b"new\nline",
        b"\xff\xfe\x80",
        b"caf\xe9",
        b"-r",
        b"quote\"\\'",
        b"tab\t\x01\x7f",
        b"...",
        &longest,
    ];
    for name in names {
        p.create(name, 0o644, 1);
        every_way(p, name, 1000);
    }
    every_way(p, &vec![b'M'; 256], 1);
    p.open(
        &vec![b'M'; 256],
        libc::O_CREAT | libc::O_WRONLY,
        0o600,
        None,
    );
    p.list(b".");
}

fn walks(p: &mut Probe) {
    p.mkdir("d", 0o755);
    p.mkdir("d/e", 0o755);
    p.create(b"f", 0o644, 0);
    p.create(b"d/f", 0o600, 2);
    p.mkdir("locked", 0o755);
    p.create(b"locked/f", 0, 0);
    p.chmod("locked", 0);
    p.symlink(b"d", "to-d");
    p.symlink(b"f", "to-f");
    p.symlink(b"d/", "to-d-slash");
    p.symlink(b"f/", "to-f-slash");
    p.symlink(b"../walks/d/e/..", "to-dots");
    p.symlink(b"nowhere", "dangling");
    p.symlink(b"/proc/self/cwd/d", "to-magic");
    p.symlink(b"/", "to-root");
    let relative: [&[u8]; 34] = [
        b"",
        b".",
        b"./",
        b"..",
        b"d",
        b"d/",
        b"d//",
        b"d/.",
        b"d/..",
        b"d/f",
        b"d//f",
        b"./d/./f",
        b"d/e/../f",
        b"d/e/../../f",
        b"../walks/f",
        b"f/",
        b"f/.",
        b"f/x",
        b"f/..",
        b"to-d",
        b"to-d/",
        b"to-d/f",
        b"to-d/..",
        b"to-f",
        b"to-f/",
        b"to-d-slash",
        b"to-f-slash",
        b"to-dots/f",
        b"dangling",
        b"dangling/",
        b"to-magic/f",
        b"nowhere/..",
        b"locked/f",
        b"d/f\\",
    ];
    for (id, path) in (0..).zip(relative) {
        every_way(p, path, 1000 + 10 * id);
    }
    for (id, path) in (0..).zip(relative) {
        let absolute = p.absolute(&[b"walks/", path].concat());
        every_way(p, &absolute, 2000 + 10 * id);
    }
    for prefix in [
        &b"//"[..],
        b"/.//",
        b"/../../",
        b"/proc/self/root",
        b"/proc/self/root/proc/thread-self/root",
    ] {
        let path = [prefix, &p.absolute(b"walks/to-d/f")].concat();
        every_way(p, &path, 3000);
    }
    let through_root = [b"to-root", p.absolute(b"walks/d/f").as_slice()].concat();
    every_way(p, &through_root, 4000);
    p.list(b".");
}

/// A path of exactly `length` bytes: `directory` (empty, or ending with a slash), as many `./` as
/// needed, and `name`. For an odd number of bytes, there is a second slash in the middle, which the
/// output omits.
pub(crate) fn padded(directory: &[u8], name: &[u8], length: usize) -> Vec<u8> {
    let room = length.saturating_sub(directory.len() + name.len());
    let (first, rest) = (8.min(room / 2), room / 2 - 8.min(room / 2));
    let odd = if room % 2 == 1 { "/" } else { "" };
    [
        directory,
        "./".repeat(first).as_bytes(),
        odd.as_bytes(),
        "./".repeat(rest).as_bytes(),
        name,
    ]
    .concat()
}

fn lengths(p: &mut Probe) {
    p.create(b"f", 0o644, 0);
    p.mkdir("d", 0o755);
    p.open("d", libc::O_RDONLY | libc::O_DIRECTORY, 0, Some(200));
    p.create(b"d/f", 0o644, 0);
    let home = p.absolute(b"lengths/");
    for length in [4094, 4095, 4096, 4097, 5000] {
        every_way(p, &padded(b"", b"f", length), 10);
        every_way(p, &padded(&home, b"f", length), 20);
        every_way(p, &padded(b"/proc/self/cwd/", b"f", length), 30);
        every_way(p, &padded(b"/proc/self/fd/200/", b"f", length), 40);
        every_way(p, &padded(b"", b"missing", length), 50);
        p.fchownat(200, &padded(b"", b"f", length), 60, 60, 0);
    }
    for length in [4095, 4096] {
        every_way(p, Path(padded(b"", b"f", length), Place::PageEnd), 70);
        every_way(p, Path(padded(b"", b"f", length), Place::Cut), 80);
    }
    p.list(b".");
}

/// The kernel follows at most forty links. Chains of 21 to 40 links are omitted: the kernel repeats
/// a walk that raced with a rename, and still counts the links of the first try (fs/namei.c,
/// total_link_count), so they fail now and then.
fn loops(p: &mut Probe) {
    p.create(b"f", 0o644, 0);
    p.symlink(b"f", "c1");
    for link in 2..=42 {
        p.symlink(format!("c{}", link - 1).as_bytes(), &format!("c{link}"));
    }
    p.mkdir("d", 0o755);
    p.open("d", libc::O_PATH, 0, Some(200));
    p.symlink(b"..", "d/up");
    p.symlink(b"b", "a");
    p.symlink(b"a", "b");
    p.symlink(b"self/x", "self");
    let home = p.absolute(b"loops/");
    for name in [
        "c1", "c17", "c18", "c41", "c42", "a", "a/x", "self", "self/",
    ] {
        every_way(p, name, 100);
        every_way(p, &[home.as_slice(), name.as_bytes()].concat(), 200);
        every_way(p, &format!("/proc/self/cwd/{name}"), 300);
        p.fchownat(200, &format!("../{name}"), 400, 400, 0);
        p.fchownat(200, &format!("up/{name}"), 500, 500, 0);
        p.fstatat(200, &format!("../{name}"), 0);
        p.fstatat(200, &format!("up/{name}"), 0);
    }
}

fn flags(p: &mut Probe) {
    p.create(b"f", 0o644, 0);
    p.symlink(b"f", "l");
    p.open(".", libc::O_RDONLY | libc::O_DIRECTORY, 0, Some(200));
    p.open("f", libc::O_RDONLY, 0, Some(201));
    p.open("l", libc::O_PATH | libc::O_NOFOLLOW, 0, Some(202));
    let absolute = p.absolute(b"flags/l");
    let all = [
        0,
        NOFOLLOW,
        EMPTY,
        EMPTY | NOFOLLOW,
        0x200,
        0x400,
        0x800,
        0x1000,
        0x2000,
        0x4000,
        0x6000,
        0x8000,
    ];
    let wild = [
        0x1,
        0x8000_0000,
        u32::MAX,
        EMPTY | 0x400,
        NOFOLLOW | 0x800,
        EMPTY | 0x1_0000,
    ];
    for flags in all.into_iter().chain(wild) {
        for file in [b"f".as_slice(), b"l", b"", b"missing", b"f/x", &absolute] {
            for fd in [CWD, 200, 201, 202, -1] {
                p.fchownat(fd, file, 42, KEEP, flags);
                p.fstatat(fd, file, flags);
                p.statx(fd, file, flags, libc::STATX_UID);
            }
        }
        // Two errors at once: which errno takes precedence?
        p.fchownat(-1, Place::Null, 1, 1, flags);
        p.fchownat(200, Place::Null, 1, 1, flags);
        p.fchownat(201, Place::One, 1, 1, flags);
        p.fstatat(-1, Place::Null, flags);
        p.fstatat(200, Place::Null, flags);
        p.fstatat(201, Place::Kernel, flags);
        p.fstatat(CWD, Place::Null, flags);
        p.statx(-1, Place::Null, flags, libc::STATX_UID);
        p.statx(200, Place::Null, flags, libc::STATX_UID);
        p.statx(202, Place::Null, flags, 0x8000_0000);
    }
}

fn pointers(p: &mut Probe) {
    p.create(b"f", 0o644, 0);
    p.open("f", libc::O_RDONLY, 0, Some(200));
    for place in [
        Place::Null,
        Place::One,
        Place::Kernel,
        Place::NonCanonical,
        Place::Unmapped,
    ] {
        every_way(p, place, 42);
        p.fchownat(200, place, 1, 1, EMPTY);
        p.fchownat(-1, place, 1, 1, 0);
        p.fstatat(200, place, EMPTY);
        p.fstatat(-1, place, 0);
        p.statx(200, place, EMPTY, libc::STATX_BASIC_STATS);
    }
    for place in [Place::PageEnd, Place::Cut] {
        every_way(p, Path(b"f".to_vec(), place), 50);
        every_way(p, Path(b"./././f".to_vec(), place), 60);
        every_way(p, Path(b"missing".to_vec(), place), 70);
        every_way(p, Path(Vec::new(), place), 80);
        p.fchownat(200, Path(Vec::new(), place), 90, 90, EMPTY);
        p.fstatat(200, Path(Vec::new(), place), EMPTY);
    }
    p.chown("f", 42, 42);
    let places = [
        Place::PageEnd,
        Place::Cut,
        Place::ReadOnly,
        Place::Unmapped,
        Place::Null,
        Place::One,
        Place::Kernel,
        Place::NonCanonical,
    ];
    for place in places {
        p.stat_into(200, "f", place);
        p.stat_into(9999, "missing", place);
        p.stat_into(-1, Place::Null, place);
    }
}

fn statx(p: &mut Probe) {
    p.create(b"f", 0o4755, 7);
    p.mkdir("d", 0o2755);
    p.symlink(b"f", "l");
    p.mknod("fifo", libc::S_IFIFO | 0o600);
    p.open("f", libc::O_PATH, 0, Some(200));
    p.chown("f", 42, 43);
    p.chown("d", 44, 45);
    p.lchown("l", 46, 47);
    p.chown("fifo", 48, 49);
    let (uid, gid) = (libc::STATX_UID, libc::STATX_GID);
    let masks = [
        0,
        uid,
        gid,
        uid | gid,
        libc::STATX_MODE,
        libc::STATX_TYPE | uid,
        libc::STATX_SIZE | gid,
    ];
    let more = [
        libc::STATX_BASIC_STATS,
        0xfff,
        libc::STATX_BTIME,
        0x1000 | uid,
        0x7fff_ffff,
        0x8000_0000,
        u32::MAX,
    ];
    for mask in masks.into_iter().chain(more) {
        for file in ["f", "d", "l", "fifo", "missing"] {
            p.statx(CWD, file, 0, mask);
            p.statx(CWD, file, NOFOLLOW | 0x800, mask);
            p.statx(CWD, file, 0x2000, mask);
        }
        p.statx(200, "", EMPTY, mask);
        p.statx(200, "", 0x4000 | EMPTY, mask);
        p.statx(CWD, "", EMPTY, mask);
        p.statx(CWD, Place::Null, EMPTY, mask);
    }
    let (mask, buffer) = (Arg::Mask(uid), Arg::Statx(Place::Null));
    let file = Arg::Path(b"missing".to_vec(), Place::Heap);
    p.call(
        calls::STATX,
        &[Arg::Fd(CWD), file, Arg::Number(0), mask, buffer],
    );
}
