//! Permission to change files, and the results of access(2). All users may search all directories:
//! no case depends on the permission for a path walk.

use super::creation::{CALLERS, Caller};
use crate::probe::*;
use crate::sys::{Arg, Birth, Place, calls};

pub(super) fn run(p: &mut Probe) {
    p.group("permissions", permissions);
    p.group("permissions-kinds", kinds);
    p.group("permissions-access", access);
    p.group("permissions-bits", bits);
}

/// The name, owner and group of each file.
const OWNERS: [(&str, u32, u32); 5] = [
    ("own", 999, 999),
    ("own-foreign", 999, 50),
    ("of-group", 1000, 100),
    ("others", 1000, 1000),
    ("roots", 0, 0),
];

/// Makes every call that requires ownership, write permission or membership in the group.
fn change(p: &mut Probe, file: &str) {
    p.set_attribute(file, "user.a", b"value");
    p.set_attribute(file, "user.b", b"");
    p.remove_attribute(file, "user.a");
    p.remove_attribute(file, "user.missing");
    p.set_attribute(file, "unknown.a", b"value");
    p.lstat(file);
    for times in [
        Some([Time::Omit, Time::Omit]),
        Some([Time::Old, Time::Old]),
        Some([Time::Now, Time::Now]),
        Some([Time::Old, Time::Omit]),
        Some([Time::Omit, Time::Now]),
        Some([Time::Old, Time::Now]),
        Some([Time::Bad, Time::Now]),
        None,
    ] {
        p.times(file, times, 0);
    }
    let name = || Arg::Path(file.into(), Place::Heap);
    p.call(calls::UTIME, &[name(), Arg::Path(Vec::new(), Place::Null)]);
    let second = Arg::Words(vec![1_000_000_000, 0, 1_000_000_000, 0], Place::Heap);
    p.call(calls::UTIME, &[name(), second]);
    let microseconds = Arg::Words([[1_000_000_000, 0, 5, 0]; 2].concat(), Place::Heap);
    p.call(calls::UTIMES, &[name(), microseconds]);
    for (uid, gid) in [
        (999, KEEP),
        (KEEP, 999),
        (KEEP, 100),
        (999, 100),
        (KEEP, 50),
        (1000, KEEP),
        (0, 0),
        (1000, 100),
    ] {
        p.lchown(file, uid, gid);
    }
    for mode in [0o2755, 0o6711, 0o644] {
        p.change_mode(file, mode);
    }
    p.lchown(file, KEEP, 999);
    p.change_mode(file, 0o6775);
}

fn permissions(p: &mut Probe) {
    p.chmod(".", 0o777);
    for (owner, uid, gid) in OWNERS {
        for mode in [0o755, 0o600, 0o444, 0o6755, 0o2745, 0o666] {
            for (who, prepare) in CALLERS {
                let file = format!("{owner}-{mode:o}-{who}");
                p.create(file.as_bytes(), 0o600, 3);
                p.chown(&file, uid, gid);
                p.chmod(&file, mode);
                p.child(who, Birth::Fork, |p| {
                    prepare(p);
                    change(p, &file);
                });
            }
        }
    }
    p.list(b".");
}

/// Files that are not regular, and calls that take a descriptor.
fn kinds(p: &mut Probe) {
    p.chmod(".", 0o777);
    for (owner, uid, gid) in OWNERS {
        for (who, prepare) in &CALLERS[..4] {
            let name = |kind: &str| format!("{owner}-{who}-{kind}");
            p.create(name("file").as_bytes(), 0o640, 3);
            p.mkdir(&name("directory"), 0o755);
            p.mkdir(&name("setgid"), 0o755);
            p.mknod(&name("fifo"), S_IFIFO | 0o640);
            p.bind(name("socket").as_bytes());
            p.symlink(name("file").as_bytes(), &name("link"));
            p.symlink(b"nowhere", &name("dangling"));
            let all = [
                "file",
                "directory",
                "setgid",
                "fifo",
                "socket",
                "link",
                "dangling",
            ];
            for kind in all {
                p.lchown(&name(kind), uid, gid);
            }
            p.chmod(&name("setgid"), 0o2775);
            p.open(&name("file"), libc::O_RDONLY, 0, Some(200));
            p.open(&name("file"), libc::O_PATH, 0, Some(201));
            p.open(&name("directory"), libc::O_RDONLY, 0, Some(202));
            p.child(who, Birth::Fork, |p| {
                prepare(p);
                for kind in all {
                    let file = name(kind);
                    p.access(&file);
                    change(p, &file);
                    p.times(&file, Some([Time::Old, Time::Omit]), NOFOLLOW);
                    p.times(&file, None, NOFOLLOW);
                    p.chown(&file, KEEP, 100);
                    p.fchownat(CWD, &file, 999, 999, NOFOLLOW);
                }
                descriptors(p);
            });
        }
    }
    p.list(b".");
}

fn descriptors(p: &mut Probe) {
    for number in [200, 201, 202, 9999] {
        p.fchown(number, KEEP, 100);
        p.fchown(number, KEEP, 50);
        p.fchown(number, 0, KEEP);
        p.fchownat(number, "", KEEP, 999, EMPTY);
        p.call(calls::FCHMOD, &[Arg::Fd(number), Arg::Octal(0o2711)]);
        let link = format!("/proc/self/fd/{number}");
        p.chown(&link, KEEP, 999);
        p.change_mode(&link, 0o2755);
        p.times(&link, Some([Time::Old, Time::Old]), 0);
        p.set_attribute(&link, "user.c", b"value");
        p.access(&link);
        let attribute = [
            Arg::Fd(number),
            Arg::Text(b"user.d".to_vec()),
            Arg::Input(b"value".to_vec()),
            Arg::Number(5),
            Arg::Number(0),
        ];
        p.call(calls::FSETXATTR, &attribute);
        let none = Arg::Path(Vec::new(), Place::Null);
        let times = [Arg::Fd(number), none.clone(), none, Arg::Number(0)];
        p.call(calls::UTIMENSAT, &times);
    }
    p.change_mode_at(202, "missing", 0o700);
    p.change_mode_at(-1, "missing", 0o700);
    for place in [Place::Null, Place::Kernel, Place::Unmapped] {
        p.change_mode(place, 0o700);
        p.access(place);
        p.times(place, Some([Time::Old, Time::Old]), 0);
    }
    for name in ["", "missing", "missing/x"] {
        p.change_mode(name, 0o700);
        p.access(name);
        p.times(name, None, 0);
    }
}

fn access(p: &mut Probe) {
    p.chmod(".", 0o777);
    for (owner, uid, gid) in OWNERS {
        for mode in [
            0o777, 0o755, 0o644, 0o640, 0o600, 0o444, 0o400, 0o111, 0o100, 0o070, 0o060, 0o010,
            0o007, 0o006, 0o001, 0,
        ] {
            let file = format!("{owner}-{mode:o}");
            p.create(file.as_bytes(), 0o600, 3);
            p.chown(&file, uid, gid);
            p.chmod(&file, mode);
            let directory = format!("{owner}-{mode:o}-directory");
            p.mkdir(&directory, 0o755);
            p.chown(&directory, uid, gid);
            p.chmod(&directory, mode);
        }
    }
    p.symlink(b"own-600", "link");
    p.lchown("link", 1, 1);
    p.symlink(b"nowhere", "dangling");
    let others: [Caller; 4] = [
        ("a real user", |p| p.somebody(&[], [999, 0, 0], [999, 0, 0])),
        ("real root", |p| {
            p.somebody(&[100], [0, 999, 999], [0, 999, 999]);
        }),
        ("one in two groups", |p| {
            p.somebody(&[50, 1000], [998; 3], [998; 3]);
        }),
        ("root without a capability", |p| {
            p.capset(Sets::default());
        }),
    ];
    for (who, prepare) in CALLERS.into_iter().chain(others) {
        p.child(who, Birth::Fork, |p| {
            prepare(p);
            p.state();
            for (owner, ..) in OWNERS {
                for mode in [
                    "777", "755", "644", "640", "600", "444", "400", "111", "100", "70", "60",
                    "10", "7", "6", "1", "0",
                ] {
                    p.access(&format!("{owner}-{mode}"));
                    p.access(&format!("{owner}-{mode}-directory"));
                }
            }
            p.access("link");
            p.access("dangling");
            p.access("own-777/x");
            p.access("own-777-directory/missing");
            for (fd, name, mode, flags) in [
                (CWD, "own-777", 8, 0),
                (CWD, "own-777", -1, 0),
                (CWD, "own-777", 4, 0x8000),
                (CWD, "own-777", 4, 0x1200),
                (CWD, "", 4, EMPTY),
                (CWD, "", 4, 0),
                (-1, "own-777", 4, 0),
                (9999, "", 4, EMPTY),
            ] {
                p.call(
                    calls::FACCESSAT2,
                    &[
                        Arg::Fd(fd),
                        Arg::Text(name.into()),
                        Arg::Number(mode),
                        Arg::Number(i64::from(flags)),
                    ],
                );
            }
        });
    }
}

/// The set-user-ID and set-group-ID bits under chmod and chown, for members of the group and for
/// others.
fn bits(p: &mut Probe) {
    p.chmod(".", 0o777);
    for (who, prepare) in CALLERS {
        for (owner, uid, gid) in OWNERS {
            let (file, directory) = (format!("{who}-{owner}"), format!("{who}-{owner}-directory"));
            p.create(file.as_bytes(), 0o600, 3);
            p.mkdir(&directory, 0o755);
            p.chown(&file, uid, gid);
            p.chown(&directory, uid, gid);
            p.child(who, Birth::Fork, |p| {
                prepare(p);
                for mode in [0o2755, 0o2745, 0o6755, 0o4700, 0o1755, 0o7777] {
                    for file in [&file, &directory] {
                        p.change_mode(file, mode);
                        p.change_mode(file, mode);
                        p.chown(file, KEEP, 100);
                        p.change_mode(file, mode);
                        p.chown(file, KEEP, 999);
                        p.change_mode(file, mode);
                        p.chown(file, 999, gid);
                    }
                }
                p.open(&file, libc::O_RDONLY, 0, Some(200));
                for mode in [0o2755, 0o6711] {
                    p.call(calls::FCHMOD, &[Arg::Fd(200), Arg::Octal(mode)]);
                    p.fstat(200);
                }
            });
        }
    }
    // A chown that changes nothing is allowed for every user, unless it would clear bits.
    p.create(b"others", 0o600, 3);
    p.chown("others", 1000, 1000);
    for mode in [0o6777, 0o6755, 0o6700, 0o2745, 0o2755, 0o600] {
        p.chmod("others", mode);
        p.child("a stranger", Birth::Fork, |p| {
            p.somebody(&[], [999; 3], [999; 3]);
        });
    }
    p.list(b".");
}
