//! Permissions at random: in a tree whose owners, modes and access control lists root changes again
//! and again, users with different ids and capabilities look up, open, create, rename and remove.

use super::draw::Dice;
use crate::directed::padded;
use crate::print::{AT_FLAGS, OPEN_FLAGS, RENAME_FLAGS};
use crate::probe::*;
use crate::sys::{Arg, Birth, Place, Syscall, calls};

/// The number of calls of one user; `--ops` counts these.
const CALLS: u64 = 40;

const DIRECTORIES: [&str; 8] = ["", "a/", "b/", "a/a/", "a/b/", "b/a/", "a/a/a/", "b/a/a/"];
const FILES: [&str; 7] = ["f", "g", "h", "p", "s", "l", "m"];
const TARGETS: [&str; 9] = [
    "f", "../g", "a/f", "../b", "a/a", "nowhere", "../a/b/h", ".", "l",
];
const IDS: [u32; 5] = [0, 1000, 1001, 70_000, 70_001];
const DIRECTORY_MODES: [u32; 16] = [
    0o755, 0o755, 0o777, 0o1777, 0o1777, 0o700, 0o711, 0o750, 0o770, 0o1775, 0o2775, 0o733, 0o555,
    0o070, 0o007, 0o1733,
];
const FILE_MODES: [u32; 14] = [
    0o644, 0o600, 0o640, 0o666, 0o755, 0o700, 0o070, 0o007, 0o444, 0o222, 0o4755, 0o2755, 0, 0o664,
];
/// Descriptors of directories, which users get from root.
const OPEN: [i32; 2] = [200, 201];

pub(super) fn run(p: &mut Probe, seed: u64, operations: u64) {
    p.group("access-random", |p| {
        let top = p.absolute(b"access-random");
        series(p, seed << 32 | 0xacce_5500, operations, |p, dice| {
            p.child("somebody", Birth::Fork, |p| {
                Somebody(p, dice.clone(), &top).go();
            });
        });
    });
}

/// Lets one user after the other make calls in the tree, which is the working directory; root
/// changes it in between.
pub(super) fn series(p: &mut Probe, seed: u64, operations: u64, user: impl Fn(&mut Probe, Dice)) {
    let mut dice = Dice(seed);
    for _ in 0..operations / CALLS {
        rearrange(p, &mut dice);
        user(p, Dice(dice.next()));
    }
    p.list(b".");
}

/// Root's changes between two users.
fn rearrange(p: &mut Probe, dice: &mut Dice) {
    for directory in &DIRECTORIES[1..] {
        p.quiet(
            calls::MKDIRAT,
            &[Arg::Fd(CWD), text(directory), Arg::Octal(0o755)],
        );
    }
    for _ in 0..8 {
        let directory = dice.pick(&DIRECTORIES);
        let name = format!("{directory}{}", dice.pick(&FILES));
        p.quietly_remove(&name, 0);
        match name.as_bytes().last() {
            Some(b'p') => p.mknod(&name, S_IFIFO | 0o644),
            Some(b's') => p.bind(name.as_bytes()),
            Some(b'l' | b'm') => p.symlink(dice.pick(&TARGETS).as_bytes(), &name),
            _ => {
                let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY;
                p.open(&name, flags, dice.pick(&FILE_MODES), None);
            }
        }
        p.lchown(&name, dice.pick(&IDS), dice.pick(&IDS));
        p.chmod_file(name.as_bytes(), dice.pick(&FILE_MODES));
        if dice.percent(20) {
            p.set_attribute(&name, "user.x", b"value");
        }
        list(p, dice, &name);
    }
    for _ in 0..4 {
        let directory = match dice.pick(&DIRECTORIES) {
            "" => ".",
            other => other,
        };
        p.lchown(directory, dice.pick(&IDS), dice.pick(&IDS));
        p.chmod(directory, dice.pick(&DIRECTORY_MODES));
        list(p, dice, directory);
    }
    for fd in OPEN {
        let directory = match dice.pick(&DIRECTORIES) {
            "" => ".",
            other => other,
        };
        let access = dice.pick(&[libc::O_RDONLY, libc::O_PATH]);
        p.open(directory, libc::O_DIRECTORY | access, 0, Some(fd));
    }
}

/// Sets or removes an access control list with ids of every kind.
fn list(p: &mut Probe, dice: &mut Dice, file: &str) {
    match dice.below(10) {
        0..6 => {}
        6 => p.remove_attribute(file, "system.posix_acl_access"),
        _ => {
            let entry = |tag: u16, permissions: usize, id: u32| {
                let permissions = u16::try_from(permissions).expect("three bits");
                let mut bytes = tag.to_le_bytes().to_vec();
                bytes.extend(permissions.to_le_bytes());
                bytes.extend(id.to_le_bytes());
                bytes
            };
            let mut value = 2u32.to_le_bytes().to_vec();
            value.extend(entry(0x01, dice.below(8), u32::MAX));
            value.extend(entry(0x02, dice.below(8), dice.pick(&IDS)));
            value.extend(entry(0x04, dice.below(8), u32::MAX));
            value.extend(entry(0x08, dice.below(8), dice.pick(&IDS)));
            value.extend(entry(0x10, dice.below(8), u32::MAX));
            value.extend(entry(0x20, dice.below(8), u32::MAX));
            p.set_attribute(file, "system.posix_acl_access", &value);
        }
    }
}

fn text(path: &str) -> Arg {
    Arg::Path(path.as_bytes().to_vec(), Place::Heap)
}

/// A user, and the absolute path of the tree.
pub(super) struct Somebody<'a>(
    pub(super) &'a mut Probe,
    pub(super) Dice,
    pub(super) &'a [u8],
);

impl Somebody<'_> {
    pub(super) fn go(&mut self) {
        let groups: Vec<u32> = (0..self.1.below(3)).map(|_| self.1.pick(&IDS)).collect();
        let [real, effective] = [self.1.pick(&IDS), self.1.pick(&IDS)];
        // For 0:0 with all capabilities, files of others in sticky directories are not protected
        // (docs/limits.md).
        let gid = match effective {
            0 => self.1.pick(&IDS[1..]),
            _ => self.1.pick(&IDS),
        };
        match self.1.below(10) {
            // Root, without one or several of the capabilities over files. Without CAP_DAC_OVERRIDE,
            // to the kernel it is the owner of all files (docs/limits.md).
            0 => {
                let dropped = self.1.pick(&[0x1, 0x8, 0x10, 0x9, 0x18, 0x19]);
                if let Ok(sets) = self.0.capabilities(0) {
                    self.0.capset(Sets {
                        effective: sets.effective & !dropped,
                        permitted: sets.permitted & !dropped,
                        ..sets
                    });
                }
                self.0.somebody(&groups, [gid; 3], [0; 3]);
            }
            // Real and effective ids differ.
            1 => self.0.somebody(&groups, [gid; 3], [real, effective, 0]),
            2 => {
                self.0.quietly_set(calls::SETFSGID, &[gid]);
                self.0.quietly_set(calls::SETFSUID, &[effective]);
            }
            _ => self.0.somebody(&groups, [gid; 3], [effective; 3]),
        }
        let credentials = self.0.credentials();
        self.0.say(&credentials);
        for _ in 0..CALLS {
            self.step();
        }
    }

    /// A place in the tree.
    fn place(&mut self) -> String {
        let directory = self.1.pick(&DIRECTORIES);
        match self.1.below(8) {
            // A slash behind an empty path would lead out of the tree.
            0 if !directory.is_empty() => directory.to_owned(),
            1 => format!("{directory}.."),
            2 => format!("{directory}."),
            _ => format!("{directory}{}", self.1.pick(&FILES)),
        }
    }

    /// A path to a place, written in one of many ways.
    fn path(&mut self) -> Arg {
        let place = self.place();
        let bytes = match self.1.below(15) {
            0..6 => place.into_bytes(),
            6..9 => [self.2, b"/", place.as_bytes()].concat(),
            9 => format!("{place}/").into_bytes(),
            10 => format!("./{}{place}", self.1.pick(&["l/", "m/", "a/../", "b/./"])).into_bytes(),
            11 => format!("/proc/self/cwd/{place}").into_bytes(),
            12 => format!("/proc/self/fd/{}/{place}", self.1.pick(&OPEN)).into_bytes(),
            // PATH_MAX is 4096, with the NUL.
            13 => padded(b"", place.as_bytes(), self.1.pick(&[500, 4090, 4095, 4096])),
            _ => format!("{place}/{}", self.1.pick(&FILES)).into_bytes(),
        };
        Arg::Path(bytes, Place::Heap)
    }

    fn directory(&mut self) -> Arg {
        Arg::Fd(self.1.pick(&[CWD, CWD, OPEN[0], OPEN[1]]))
    }

    fn flags(&mut self, flags: &[u32]) -> Arg {
        Arg::Bits(self.1.pick(flags), AT_FLAGS)
    }

    fn step(&mut self) {
        match self.1.below(100) {
            0..30 => self.look(),
            30..55 => self.open(),
            55..68 => self.make(),
            68..84 => self.remove(),
            84..94 => self.change(),
            _ => self.enter(),
        }
    }

    fn call(&mut self, syscall: Syscall, args: &[Arg]) {
        self.0.call(syscall, args);
    }

    fn look(&mut self) {
        let (path, directory) = (self.path(), self.directory());
        let output = Arg::Output(64, Place::Heap);
        let room = Arg::Number(64);
        match self.1.below(10) {
            0 => self.call(calls::STAT, &[path, Arg::Stat(Place::Heap)]),
            1 => self.call(calls::LSTAT, &[path, Arg::Stat(Place::Heap)]),
            2 => {
                let flags = self.flags(&[0, NOFOLLOW]);
                let stat = Arg::Stat(Place::Heap);
                self.call(calls::NEWFSTATAT, &[directory, path, stat, flags]);
            }
            3 => self.call(calls::READLINK, &[path, output, room]),
            4 => self.call(calls::READLINKAT, &[directory, path, output, room]),
            5 | 6 => {
                let mode = Arg::Octal(u32::try_from(self.1.below(8)).expect("three bits"));
                let flags = self.flags(&[0, NOFOLLOW, 0x200, 0x300]);
                self.call(calls::FACCESSAT2, &[directory, path, mode, flags]);
            }
            7 => {
                let name = Arg::Text(b"user.x".to_vec());
                self.call(calls::GETXATTR, &[path, name, output, room]);
            }
            8 => self.call(calls::STATFS, &[path, Arg::Output(120, Place::Heap)]),
            _ => self.watch(path),
        }
    }

    fn watch(&mut self, path: Arg) {
        let Ok(fd) = self.0.quiet(calls::INOTIFY_INIT1, &[Arg::Number(0)]).result else {
            return self.0.say("no inotify");
        };
        let mask = self.1.pick(&[0x2, 0x0200_0002, 0x0100_0002]);
        let fd = i32::try_from(fd).expect("a file descriptor");
        let args = [Arg::HiddenFd(fd), path, Arg::Number(mask)];
        self.call(calls::INOTIFY_ADD_WATCH, &args);
        self.0.quiet(calls::CLOSE, &[Arg::Fd(fd)]);
    }

    fn open(&mut self) {
        let (path, directory) = (self.path(), self.directory());
        let access = self
            .1
            .pick(&[libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR, 3]);
        let rest = self.1.pick(&[
            0,
            0,
            0,
            libc::O_TRUNC,
            libc::O_APPEND,
            libc::O_NOFOLLOW,
            libc::O_DIRECTORY,
            libc::O_NOATIME,
            libc::O_PATH,
            libc::O_CREAT,
            libc::O_CREAT,
            libc::O_CREAT | libc::O_EXCL,
            libc::O_CREAT | libc::O_TRUNC,
            libc::O_CREAT | libc::O_NOFOLLOW,
        ]);
        let flags = access | rest | libc::O_NONBLOCK;
        let bits = Arg::Bits(flags.cast_unsigned(), OPEN_FLAGS);
        let mode = Arg::Octal(self.1.pick(&FILE_MODES));
        self.0.opened(calls::OPENAT, &[directory, path, bits, mode]);
    }

    fn make(&mut self) {
        let (path, directory) = (self.path(), self.directory());
        let mode = Arg::Octal(self.1.pick(&DIRECTORY_MODES));
        let target = Arg::Text(self.1.pick(&TARGETS).into());
        match self.1.below(7) {
            0 | 1 => self.call(calls::MKDIRAT, &[directory, path, mode]),
            2 => self.call(calls::SYMLINKAT, &[target, directory, path]),
            3 => {
                let mode = Arg::Octal(S_IFIFO | 0o640);
                self.call(calls::MKNODAT, &[directory, path, mode, Arg::Number(0)]);
            }
            _ => {
                let (from, old) = (self.directory(), self.path());
                let flags = self.flags(&[0, 0, 0x400]);
                self.call(calls::LINKAT, &[from, old, directory, path, flags]);
            }
        }
    }

    fn remove(&mut self) {
        let (path, directory) = (self.path(), self.directory());
        match self.1.below(8) {
            0..3 => self.call(calls::UNLINKAT, &[directory, path, Arg::Bits(0, AT_FLAGS)]),
            3 => self.call(
                calls::UNLINKAT,
                &[directory, path, Arg::Bits(0x200, AT_FLAGS)],
            ),
            _ => {
                let (from, old) = (self.directory(), self.path());
                let flags = Arg::Bits(self.1.pick(&[0, 0, 0, 1, 2]), RENAME_FLAGS);
                self.call(calls::RENAMEAT2, &[from, old, directory, path, flags]);
            }
        }
    }

    fn change(&mut self) {
        let (path, directory) = (self.path(), self.directory());
        match self.1.below(6) {
            0 => {
                let mode = Arg::Octal(self.1.pick(&FILE_MODES));
                self.call(calls::FCHMODAT, &[directory, path, mode]);
            }
            1 => {
                let ids = [self.1.pick(&IDS), self.1.pick(&IDS)].map(Arg::Id);
                let [uid, gid] = ids;
                let flags = self.flags(&[0, NOFOLLOW]);
                self.call(calls::FCHOWNAT, &[directory, path, uid, gid, flags]);
            }
            2 => {
                let null = Arg::Path(Vec::new(), Place::Null);
                let flags = self.flags(&[0, NOFOLLOW]);
                self.call(calls::UTIMENSAT, &[directory, path, null, flags]);
            }
            3 => self.call(calls::TRUNCATE, &[path, Arg::Number(5)]),
            4 => {
                let name = Arg::Text(b"user.x".to_vec());
                let value = Arg::Input(b"v".to_vec());
                let [size, flags] = [1, 0].map(Arg::Number);
                self.call(calls::SETXATTR, &[path, name, value, size, flags]);
            }
            _ => self.connect(),
        }
    }

    fn connect(&mut self) {
        let kind = [libc::AF_UNIX, libc::SOCK_STREAM, 0].map(|word| Arg::Number(word.into()));
        let Ok(socket) = self.0.quiet(calls::SOCKET, &kind).result.map(fd) else {
            return self.0.say("no socket");
        };
        let place = self.place();
        let address = unix_address(place.as_bytes());
        let length = Arg::Number(i64::try_from(address.len()).expect("a short address"));
        let args = [Arg::HiddenFd(socket), Arg::Input(address), length];
        self.0.say(&format!("to {place}"));
        self.call(calls::CONNECT, &args);
        self.0.quiet(calls::CLOSE, &[Arg::Fd(socket)]);
    }

    /// Changes the working directory, and goes back to where it was by a descriptor.
    fn enter(&mut self) {
        let path = self.path();
        match self.1.below(3) {
            0 => {
                let fd = Arg::Fd(self.1.pick(&OPEN));
                self.call(calls::FCHDIR, &[fd]);
            }
            1 => self.call(calls::CHDIR, &[path]),
            _ => self.call(calls::CHROOT, &[path]),
        }
        let file = self.1.pick(&FILES);
        self.call(calls::STAT, &[text(file), Arg::Stat(Place::Heap)]);
        self.call(
            calls::UNLINKAT,
            &[Arg::Fd(CWD), text(file), Arg::Bits(0, AT_FLAGS)],
        );
    }
}
