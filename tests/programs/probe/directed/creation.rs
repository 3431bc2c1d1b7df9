//! Owners and modes of new files: every call that creates one, in all kinds of directories, by all
//! kinds of callers, with several umasks.

use crate::probe::*;
use crate::sys::{Arg, Birth, Place, calls};

pub(super) fn run(p: &mut Probe) {
    p.group("create", create);
    p.group("create-modes", modes);
    p.group("create-acl", default_acl);
    p.group("create-after", after);
}

pub(super) type Caller = (&'static str, fn(&mut Probe));

pub(super) const CALLERS: [Caller; 9] = [
    ("root", |_| ()),
    ("user", |p| p.somebody(&[100], [999; 3], [999; 3])),
    ("on-files", |p| {
        p.quietly_set(calls::SETFSGID, &[998]);
        p.quietly_set(calls::SETFSUID, &[999]);
    }),
    ("for-a-while", |p| {
        p.somebody(&[], [0, 998, 0], [0, 999, 0]);
    }),
    ("of-root", |p| p.somebody(&[], [999, 0, 0], [999, 0, 0])),
    ("group", |p| p.somebody(&[50], [998; 3], [0; 3])),
    ("on-files-group", |p| {
        p.quietly_set(calls::SETFSGID, &[999]);
    }),
    ("odd", |p| {
        p.somebody(&[50], [0xffff_fffe; 3], [70000; 3]);
    }),
    ("capable", |p| {
        p.prctl(PR_SET_KEEPCAPS, &[1]);
        p.somebody(&[], [998; 3], [998; 3]);
        let own = p.own_capabilities();
        p.capset(Sets {
            effective: own.permitted,
            ..own
        });
    }),
];

/// The callers with which the mode bits of new files differ.
fn few() -> [Caller; 5] {
    [0, 1, 2, 5, 8].map(|index| CALLERS[index])
}

/// The name, owner, group and mode of each directory.
pub(super) const HOMES: [(&str, u32, u32, u32); 13] = [
    ("own", 999, 999, 0o755),
    ("roots", 0, 0, 0o755),
    ("open", 0, 0, 0o777),
    ("sticky", 0, 0, 0o1777),
    ("group", 0, 100, 0o775),
    ("not-group", 0, 50, 0o775),
    ("others", 1000, 1000, 0o755),
    ("setgid-own", 999, 100, 0o2755),
    ("setgid-foreign", 999, 50, 0o2755),
    ("setgid-open", 1000, 70001, 0o2777),
    ("closed-own", 999, 999, 0o555),
    ("owner-shut-out", 999, 998, 0o077),
    ("group-shut-out", 0, 100, 0o757),
];

pub(super) fn homes(p: &mut Probe) {
    for (name, uid, gid, mode) in HOMES {
        p.mkdir(name, 0o755);
        p.chown(name, uid, gid);
        p.chmod(name, mode);
    }
}

/// Makes each call that creates files, in `home`.
fn make_all(p: &mut Probe, home: &str, mark: &str) {
    let name = |what: &str| format!("{home}/{mark}-{what}");
    p.creat(&name("creat"), 0o666);
    p.open2(&name("open"), libc::O_CREAT | libc::O_RDWR, 0o644);
    p.open(home, libc::O_PATH | libc::O_DIRECTORY, 0, Some(200));
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY | libc::O_CLOEXEC;
    p.openat(200, &format!("{mark}-openat"), flags, 0o600);
    let how = How {
        flags: 0o2102,
        mode: 0o777,
        resolve: 0,
    };
    p.openat2(200, &format!("{mark}-openat2"), how);
    p.temporary(
        home.as_bytes(),
        libc::O_RDWR,
        0o640,
        name("tmpfile").as_bytes(),
    );
    p.make_directory(&name("mkdir"), 0o777);
    p.make_directory_at(200, &format!("{mark}-mkdirat"), 0o2755);
    p.make_node(&name("fifo"), S_IFIFO | 0o666, 0);
    p.make_node(&name("regular"), S_IFREG | 0o4751, 0);
    p.make_node_at(200, &format!("{mark}-socket"), S_IFSOCK | 0o777, 0);
    p.make_node_at(200, &format!("{mark}-untyped"), 0o640, 0);
    p.make_link(b"nowhere", &name("symlink"));
    p.make_link_at(b"/", 200, &format!("{mark}-symlinkat"));
    p.socket(libc::SOCK_STREAM, 201);
    p.bind_to(201, name("bind").as_bytes());
    p.socket(libc::SOCK_DGRAM, 202);
    let absolute = p.absolute(format!("create/{}", name("absolute")).as_bytes());
    p.bind_to(202, &absolute);
}

fn create(p: &mut Probe) {
    homes(p);
    for mask in [0o022, 0, 0o027] {
        for (who, prepare) in CALLERS {
            p.child(who, Birth::Fork, |p| {
                prepare(p);
                p.state();
                p.umask(mask);
                for (home, ..) in HOMES {
                    make_all(p, home, &format!("{who}-{mask:o}"));
                }
            });
        }
    }
    p.list(b".");
}

/// Which requested set-user-ID, set-group-ID and sticky bits a new file gets.
fn modes(p: &mut Probe) {
    homes(p);
    for (who, prepare) in few() {
        p.child(who, Birth::Fork, |p| {
            prepare(p);
            for mask in [0, 0o022, 0o110] {
                p.umask(mask);
                for home in ["open", "setgid-own", "setgid-foreign", "setgid-open"] {
                    for mode in [0o2777, 0o7777, 0o2767, 0o2644, 0o17_7777] {
                        let name = |what: &str| format!("{home}/{who}-{mask:o}-{mode:o}-{what}");
                        p.creat(&name("creat"), mode);
                        p.open2(
                            &name("open"),
                            libc::O_CREAT | libc::O_EXCL | libc::O_RDWR,
                            mode,
                        );
                        p.make_directory(&name("mkdir"), mode);
                        p.make_node(&name("fifo"), S_IFIFO | mode & 0o7777, 0);
                        p.make_node(&name("regular"), S_IFREG | mode & 0o7777, 0);
                        p.temporary(
                            home.as_bytes(),
                            libc::O_WRONLY,
                            mode,
                            name("tmp").as_bytes(),
                        );
                    }
                }
            }
        });
    }
}

/// The value of `system.posix_acl_default` or `_access` with entries for the owner, the group, a
/// mask and all others.
pub(super) fn acl(owner: u16, group: u16, mask: Option<u16>, other: u16) -> Vec<u8> {
    let entry = |tag: u16, permissions: u16| {
        let [tag, permissions] = [tag, permissions].map(u16::to_le_bytes);
        [tag.as_slice(), &permissions, &[0xff; 4]].concat()
    };
    let entries = [
        entry(1, owner),
        entry(4, group),
        mask.map(|mask| entry(0x10, mask)).unwrap_or_default(),
        entry(0x20, other),
    ];
    [2_u32.to_le_bytes().as_slice(), &entries.concat()].concat()
}

/// A default ACL replaces the umask, and is inherited.
fn default_acl(p: &mut Probe) {
    let lists = [
        ("open", acl(7, 7, None, 7)),
        ("narrow", acl(7, 5, None, 0)),
        ("masked", acl(7, 7, Some(5), 1)),
        ("masked-out", acl(6, 7, Some(0), 4)),
    ];
    for (list, value) in &lists {
        for (kind, uid, gid, mode) in [
            ("own", 999, 999, 0o755),
            ("setgid", 999, 50, 0o2755),
            ("all", 0, 0, 0o777),
        ] {
            let home = format!("{list}-{kind}");
            p.mkdir(&home, 0o755);
            p.set_attribute(&home, "system.posix_acl_default", value);
            p.chown(&home, uid, gid);
            p.chmod(&home, mode);
            p.get_attribute(&home, "system.posix_acl_default");
            for (who, prepare) in few() {
                for mask in [0o022, 0o077] {
                    p.child(who, Birth::Fork, |p| {
                        prepare(p);
                        p.umask(mask);
                        let name = |what: &str| format!("{home}/{who}-{mask:o}-{what}");
                        p.creat(&name("creat"), 0o666);
                        p.open2(&name("open"), libc::O_CREAT | libc::O_RDWR, 0o2755);
                        p.temporary(
                            home.as_bytes(),
                            libc::O_RDWR,
                            0o664,
                            name("tmpfile").as_bytes(),
                        );
                        p.make_directory(&name("mkdir"), 0o777);
                        p.make_directory(&name("mkdir/mkdir"), 0o700);
                        p.make_node(&name("fifo"), S_IFIFO | 0o666, 0);
                        p.make_link(b"x", &name("symlink"));
                        p.socket(libc::SOCK_STREAM, 201);
                        p.bind_to(201, name("bind").as_bytes());
                        for what in ["creat", "open", "tmpfile", "mkdir", "fifo", "bind"] {
                            p.get_attribute(&name(what), "system.posix_acl_access");
                        }
                        for what in ["mkdir", "mkdir/mkdir"] {
                            p.get_attribute(&name(what), "system.posix_acl_default");
                        }
                    });
                }
            }
        }
    }
    p.list(b".");
}

/// A new file behaves as any other one: for its creator, for other users, and if it is renamed,
/// linked or removed.
fn after(p: &mut Probe) {
    homes(p);
    for (who, prepare) in CALLERS {
        p.child(who, Birth::Fork, |p| {
            prepare(p);
            let file = format!("open/{who}");
            p.open(
                &file,
                libc::O_CREAT | libc::O_RDWR | libc::O_APPEND,
                0o640,
                Some(200),
            );
            for text in ["one", "two"] {
                p.call(
                    calls::WRITE,
                    &[Arg::Fd(200), Arg::Input(text.into()), Arg::Number(3)],
                );
            }
            p.fstat(200);
            let zero = [libc::SEEK_SET, 0].map(|number| Arg::Number(number.into()));
            p.call(calls::LSEEK, &[&[Arg::Fd(200)], zero.as_slice()].concat());
            p.peek(
                calls::READ,
                &[Arg::Fd(200), Arg::Output(8, Place::Heap), Arg::Number(8)],
            );
            p.chmod(&file, 0o600);
            p.link(&file, &format!("{file}-link"), 0);
            p.rename(&file, &format!("{file}-new"), 0);
            p.stat(&format!("{file}-link"));
            p.unlink(&format!("{file}-link"));
            p.make_directory(&format!("{file}-directory"), 0o755);
            p.creat(&format!("{file}-directory/inside"), 0o644);
            p.child("a child", Birth::Vfork, |p| {
                p.creat(&format!("{file}-directory/by-vfork"), 0o644);
            });
            p.thread("a thread that is somebody else", |p| {
                p.quietly_set(calls::SETFSUID, &[1000]);
                p.creat(&format!("open/{who}-thread"), 0o644);
            });
            p.creat(&format!("open/{who}-first"), 0o644);
            p.watch_ctime(format!("{file}-new").as_bytes(), |p| {
                p.open2(&format!("{file}-new"), libc::O_CREAT | libc::O_RDONLY, 0);
            });
            p.watch_events(b"open", |p| {
                p.creat(&format!("open/{who}-seen"), 0o644);
            });
            p.watch_events(b"open", |p| {
                p.make_directory(&format!("open/{who}-seen-directory"), 0o755);
            });
        });
    }
    p.list(b".");
}
