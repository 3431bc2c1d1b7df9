//! The long seeded series of calls. It has no model of the files: each call meets the tree as the
//! calls before have left it, and errors are compared like successes.

mod access;
mod access_places;
mod creation;
mod credentials;
mod draw;

use draw::{DESCRIPTORS, Dice, GONE, HOMES, UP};

use crate::print::RENAME_FLAGS;
use crate::probe::{CWD, EMPTY, KEEP, NOFOLLOW, Path, Probe};
use crate::sys::{Arg, Birth, Place, calls};

/// The targets of symlinks, all of them inside of the working directory.
const TARGETS: [&[u8]; 14] = [
    b"a",
    b"b",
    b"c",
    b"two words",
    b"../a",
    b"d0",
    b"d1/a",
    b"d0/sub",
    b"nowhere/x",
    b"\xff\xfe",
    b"a/",
    b"/proc/self/cwd/a",
    b"/proc/self/fd/200",
    b"sub/../b",
];

const FILE_MODES: [u32; 9] = [
    0, 0o444, 0o600, 0o644, 0o755, 0o4755, 0o2755, 0o6711, 0o2644,
];
const HOME_MODES: [u32; 4] = [0o755, 0o700, 0, 0o1755];

struct Series<'a> {
    p: &'a mut Probe,
    dice: Dice,
    /// Index into `UP`.
    cwd: usize,
}

pub(crate) fn run(p: &mut Probe, seed: u64, operations: u64) {
    p.group("random", |p| {
        for directory in ["1", "1/2", "1/2/3", "1/2/3/d0", "1/2/3/d1", "1/2/3/d0/sub"] {
            p.mkdir(directory, 0o755);
        }
        p.chdir("1/2/3");
        let mut series = Series {
            p,
            dice: Dice(seed),
            cwd: 0,
        };
        for _ in 0..operations {
            series.step();
        }
        series.list();
    });
    credentials::run(p, seed, operations);
    creation::run(p, seed, operations);
    access::run(p, seed, operations);
    access_places::run(p, seed, operations / 4);
}

impl Series<'_> {
    fn step(&mut self) {
        match self.dice.below(1000) {
            0..310 => self.look(),
            310..600 => self.change_owner(),
            600..640 => self.bad_argument(),
            640..800 => self.make(),
            800..850 => self.open(),
            850..900 => self.chmod(),
            900..960 => self.remove_or_rename(),
            960..970 => self.write(),
            970..980 => self.move_on(),
            980..986 => self.watch_events(),
            986..993 => self.watch_ctime(),
            993..996 => self.elsewhere(),
            _ => self.list(),
        }
    }

    fn look(&mut self) {
        let (path, fd) = (self.path(), self.descriptor());
        let any = self.dice.pick(&[
            0,
            0,
            NOFOLLOW,
            EMPTY,
            EMPTY | NOFOLLOW,
            0x800,
            0x4000,
            0x2000,
        ]);
        let flags = any & (NOFOLLOW | EMPTY | 0x800);
        match self.dice.below(7) {
            0 => self.p.stat(path),
            1 => self.p.lstat(path),
            2 => self.p.fstat(fd),
            3 => self.p.fstatat(CWD, path, flags),
            4 => self.p.fstatat(fd, path, flags),
            5 if self.dice.percent(50) => self.p.fstatat(fd, "", flags | EMPTY),
            5 => self.p.statx(fd, "", any | EMPTY, libc::STATX_BASIC_STATS),
            _ => {
                let (uid, gid) = (libc::STATX_UID, libc::STATX_GID);
                let some = [
                    uid,
                    gid,
                    uid | gid | libc::STATX_MODE,
                    libc::STATX_NLINK,
                    libc::STATX_BTIME,
                    0,
                ];
                let mask = if self.dice.percent(50) {
                    libc::STATX_BASIC_STATS
                } else {
                    self.dice.pick(&some)
                };
                let at = if self.dice.percent(50) { CWD } else { fd };
                self.p.statx(at, path, any, mask);
            }
        }
    }

    fn change_owner(&mut self) {
        let (uid, gid, fd) = (self.id(), self.id(), self.descriptor());
        let (path, not_followed) = (self.path(), self.path_not_followed());
        match self.dice.below(7) {
            0 | 1 => self.p.chown(path, uid, gid),
            2 => self.p.lchown(not_followed, uid, gid),
            3 => self.p.fchown(fd, uid, gid),
            4 => self
                .p
                .fchownat(fd, "", uid, gid, self.dice.pick(&[EMPTY, EMPTY | NOFOLLOW])),
            5 => self
                .p
                .fchownat(fd, path, uid, gid, self.dice.pick(&[0, EMPTY])),
            _ => self.p.fchownat(CWD, not_followed, uid, gid, NOFOLLOW),
        }
    }

    fn bad_argument(&mut self) {
        let (uid, gid, fd) = (self.id(), self.id(), self.descriptor());
        let places = [
            Place::Null,
            Place::One,
            Place::Kernel,
            Place::NonCanonical,
            Place::Unmapped,
        ];
        let place = self.dice.pick(&places);
        let (path, cut) = (self.path(), Path(self.plain(), Place::Cut));
        match self.dice.below(9) {
            0 => self.p.chown(place, uid, gid),
            1 => self.p.lchown(place, uid, gid),
            2 => self.p.chown(cut, uid, gid),
            3 => self.p.fchownat(
                fd,
                place,
                uid,
                gid,
                self.dice.pick(&[0, EMPTY, NOFOLLOW, 0x8000]),
            ),
            4 => self.p.fchownat(
                fd,
                path,
                uid,
                gid,
                self.dice.pick(&[0x200, 0x800, 0x8000, u32::MAX]),
            ),
            5 => self.p.stat(cut),
            6 => self
                .p
                .fstatat(fd, place, self.dice.pick(&[0, EMPTY, NOFOLLOW])),
            7 => self.p.statx(
                fd,
                path,
                self.dice.pick(&[0x200, 0x6000, 0x8000]),
                0x8000_0fff,
            ),
            _ => {
                let buffers = [
                    Place::Null,
                    Place::ReadOnly,
                    Place::Cut,
                    Place::PageEnd,
                    Place::Kernel,
                ];
                self.p.stat_into(fd, path, self.dice.pick(&buffers));
            }
        }
    }

    /// Creates a file in one of the homes only, so that with `--skip setgid-create` no file
    /// inherits a group.
    fn make(&mut self) {
        let (file, fancy) = (self.plain(), self.path_of_file());
        match self.dice.below(10) {
            0..4 => {
                let flags = libc::O_CREAT
                    | self
                        .dice
                        .pick(&[0, libc::O_TRUNC, libc::O_EXCL, libc::O_NOFOLLOW]);
                let mode = self.dice.pick(&FILE_MODES);
                let path = if self.dice.percent(20) {
                    fancy
                } else {
                    Path(file, Place::Heap)
                };
                self.p
                    .open(path, flags | libc::O_RDWR | libc::O_NONBLOCK, mode, None);
            }
            4 | 5 => self
                .p
                .mkdir(&file, self.dice.pick(&[0o755, 0o700, 0o1777, 0o2755])),
            6 | 7 => self.p.symlink(self.dice.pick(&TARGETS), &file),
            8 => self.p.mknod(
                &file,
                self.dice.pick(&[libc::S_IFIFO, libc::S_IFREG]) | 0o644,
            ),
            _ => {
                let file = [UP[self.cwd].as_bytes(), &self.place()].concat();
                self.p.bind(&file);
            }
        }
    }

    fn open(&mut self) {
        let access = [
            libc::O_PATH,
            libc::O_PATH | libc::O_NOFOLLOW,
            libc::O_RDONLY,
            libc::O_RDWR,
            libc::O_RDONLY | libc::O_DIRECTORY,
        ];
        let (flags, slot) = (
            self.dice.pick(&access) | libc::O_NONBLOCK,
            self.dice.pick(&DESCRIPTORS),
        );
        let (path, not_followed) = (self.path(), self.path_not_followed());
        if self.dice.percent(8) {
            self.p.close(slot);
        } else {
            let path = if flags & libc::O_NOFOLLOW == 0 {
                path
            } else {
                not_followed
            };
            self.p.open(path, flags, 0, Some(slot));
        }
    }

    fn chmod(&mut self) {
        let file = self.plain();
        match self.dice.below(6) {
            0 => {
                let setgid = if self.p.skips("setgid-create") {
                    0o755
                } else {
                    0o2755
                };
                let mode = if self.dice.percent(30) {
                    setgid
                } else {
                    self.dice.pick(&HOME_MODES)
                };
                let home = self.dice.pick(&HOMES);
                let home = self.below_top(home.as_bytes());
                self.p.chmod(&home, mode);
            }
            1 => {
                let (fd, mode) = (
                    self.descriptor(),
                    self.dice.pick(&[0o644, 0o755, 0o1755, 0]),
                );
                self.p.call(calls::FCHMOD, &[Arg::Fd(fd), Arg::Octal(mode)]);
            }
            // Without following links: a link may lead to a home, whose mode must not change here.
            _ => self.p.chmod_file(&file, self.dice.pick(&FILE_MODES)),
        }
    }

    fn remove_or_rename(&mut self) {
        let (old, new, fancy) = (self.plain(), self.plain(), self.path());
        match self.dice.below(12) {
            0..4 => self.p.unlink(&old),
            4 => self.p.rmdir(&old),
            5..8 => self.p.rename(&old, &new, self.dice.pick(&[0, 0, 1])),
            8 => self.p.rename(&old, &new, 2),
            9 => self.p.link(&old, &new, self.dice.pick(&[0, 0x400])),
            10 => self.p.link(fancy, &new, 0),
            _ => {
                let [old, new] = ["d0", "d1"]
                    .map(|home| Arg::Path(self.below_top(home.as_bytes()), Place::Heap));
                let exchange = Arg::Bits(2, RENAME_FLAGS);
                self.p.call(
                    calls::RENAMEAT2,
                    &[Arg::Fd(CWD), old, Arg::Fd(CWD), new, exchange],
                );
            }
        }
    }

    fn write(&mut self) {
        let size = Arg::Number(self.dice.pick(&[0, 1, 4096]));
        let (file, fd) = (
            Arg::Path(self.plain(), Place::Heap),
            Arg::Fd(self.descriptor()),
        );
        match self.dice.below(3) {
            0 => self.p.call(calls::TRUNCATE, &[file, size]),
            1 => self.p.call(calls::FTRUNCATE, &[fd, size]),
            _ => self.p.call(
                calls::WRITE,
                &[fd, Arg::Input(b"text".to_vec()), Arg::Number(4)],
            ),
        };
    }

    fn move_on(&mut self) {
        let next = self.dice.below(UP.len());
        let home = if next == GONE { "gone/" } else { HOMES[next] };
        let home = self.below_top(home.as_bytes());
        if next == GONE {
            self.p.mkdir(&home, 0o755);
        }
        if self.p.chdir(&home) {
            self.cwd = next;
        }
        if next == GONE {
            self.p.rmdir(&home);
        }
    }

    fn watch_events(&mut self) {
        let (file, uid, gid) = (self.plain(), self.id(), self.id());
        self.p.watch_events(&file, |p| p.lchown(&file, uid, gid));
    }

    fn watch_ctime(&mut self) {
        let (file, uid, gid) = (self.plain(), self.id(), self.id());
        let follow = self.dice.percent(30);
        self.p.watch_ctime(&file, |p| {
            if follow {
                p.chown(&file, uid, gid)
            } else {
                p.lchown(&file, uid, gid)
            }
        });
    }

    /// Makes some calls in another thread or process.
    fn elsewhere(&mut self) {
        let (first, second, fd) = (self.path(), self.path_not_followed(), self.descriptor());
        let (uid, gid) = (self.id(), self.id());
        let work = |p: &mut Probe| {
            p.chown(first.clone(), uid, gid);
            p.lchown(second.clone(), gid, uid);
            p.stat(second.clone());
            p.fchown(fd, uid, KEEP);
            p.statx(CWD, first.clone(), 0, libc::STATX_BASIC_STATS);
        };
        match self.dice.below(3) {
            0 => self.p.thread("thread", work),
            1 => self.p.child("fork", Birth::Fork, work),
            _ => self.p.child("vfork", Birth::Vfork, work),
        }
    }

    fn list(&mut self) {
        let group = self.p.absolute(b"random");
        self.p.list(&group);
    }
}
