//! New files at random: users with different ids create files of every type in directories whose
//! owners and modes change, and try to change each other's files. Every user may search all
//! directories. No case depends on the permission for a path walk, an open without O_CREAT, or a
//! removal, which are not emulated; only root removes files.

use super::draw::Dice;
use crate::probe::*;
use crate::sys::{Birth, calls};

/// The number of steps of one user; `--ops` counts steps.
const STEPS: u64 = 15;

const HOMES: [&str; 5] = ["h0", "h1", "h2", "h3", "h4"];
const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "two words"];
const UIDS: [u32; 6] = [0, 0, 999, 1000, 70000, 0xffff_fffe];
const GIDS: [u32; 6] = [0, 50, 100, 999, 1000, 70001];
const HOME_MODES: [u32; 12] = [
    0o755, 0o777, 0o775, 0o757, 0o711, 0o2755, 0o2777, 0o2775, 0o2733, 0o555, 0o2555, 0o4777,
];
const MODES: [u32; 12] = [
    0o666, 0o644, 0o600, 0o777, 0o755, 0o2755, 0o4711, 0o6777, 0o1644, 0o400, 0, 0o2644,
];
const UMASKS: [u32; 6] = [0, 0o022, 0o077, 0o027, 0o002, 0o777];

pub(super) fn run(p: &mut Probe, seed: u64, operations: u64) {
    p.group("create-random", |p| {
        for home in HOMES {
            p.mkdir(home, 0o755);
        }
        let mut dice = Dice(seed << 32 | 0xc4ea_7e00);
        let births = [Birth::Fork, Birth::Vfork, Birth::Clone3];
        for (_, birth) in (0..operations / STEPS).zip(births.into_iter().cycle()) {
            rearrange(p, &mut dice);
            // The child has its own random numbers, so those of the parent do not depend on how
            // many it uses.
            let own = Dice(dice.next());
            p.child("somebody", birth, |p| Somebody(p, own.clone()).go());
        }
        p.list(b".");
    });
}

/// Root's changes between two users.
fn rearrange(p: &mut Probe, dice: &mut Dice) {
    let home = dice.pick(&HOMES);
    p.chown(home, dice.pick(&UIDS), dice.pick(&GIDS));
    p.chmod(home, dice.pick(&HOME_MODES));
    for _ in 0..dice.below(4) {
        let file = format!("{}/{}", dice.pick(&HOMES), dice.pick(&NAMES));
        p.quietly_remove(&file, 0);
        p.quietly_remove(&file, 0x200);
    }
    if dice.percent(10) {
        p.list(b".");
    }
}

struct Somebody<'a>(&'a mut Probe, Dice);

impl Somebody<'_> {
    fn become_one(&mut self) {
        let (uid, gid) = (self.1.pick(&UIDS), self.1.pick(&GIDS));
        let groups: Vec<u32> = (0..self.1.below(3)).map(|_| self.1.pick(&GIDS)).collect();
        match self.1.below(8) {
            0..5 => self.0.somebody(&groups, [gid; 3], [uid; 3]),
            5 => self.0.somebody(&groups, [0, gid, 0], [0, uid, 0]),
            6 => self.0.somebody(&groups, [gid, 0, 0], [uid, 0, 0]),
            _ => {
                self.0.quietly_set(calls::SETFSGID, &[gid]);
                self.0.quietly_set(calls::SETFSUID, &[uid]);
            }
        }
        self.0.state();
    }

    fn go(&mut self) {
        self.become_one();
        // The child of a vfork shares memory, but has a umask of its own.
        self.0.umask(self.1.pick(&UMASKS));
        for _ in 0..STEPS {
            match self.1.below(100) {
                0..30 => self.open(),
                30..62 => self.make(),
                62..68 => self.temporary(),
                68..74 => self.bind(),
                74..96 => self.change(),
                _ => self.0.umask(self.1.pick(&UMASKS)),
            }
        }
    }

    fn file(&mut self) -> String {
        let place = format!("{}/{}", self.1.pick(&HOMES), self.1.pick(&NAMES));
        match self.1.below(12) {
            0 => format!("./{place}"),
            1 => format!("/proc/self/cwd/{place}"),
            2 => {
                let absolute = self.0.absolute(b"create-random/");
                format!("{}{place}", String::from_utf8_lossy(&absolute))
            }
            3 => format!("{}/../{place}", self.1.pick(&HOMES)),
            _ => place,
        }
    }

    fn open(&mut self) {
        let (file, mode) = (self.file(), self.1.pick(&MODES));
        let access = self.1.pick(&[libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR]);
        let more = self.1.pick(&[
            0,
            libc::O_EXCL,
            libc::O_TRUNC,
            libc::O_APPEND,
            libc::O_NOFOLLOW,
            libc::O_CLOEXEC,
        ]);
        let flags = libc::O_CREAT | libc::O_NONBLOCK | access | more;
        match self.1.below(4) {
            0 => self.0.open2(&file, flags, mode),
            1 => self.0.openat(CWD, &file, flags, mode),
            2 => {
                let how = How {
                    flags: u64::from(flags.cast_unsigned()),
                    mode: mode.into(),
                    resolve: 0,
                };
                self.0.openat2(CWD, &file, how);
            }
            _ => {
                let home = self.1.pick(&HOMES);
                let name = self.1.pick(&NAMES);
                self.0.open(home, libc::O_PATH, 0, Some(200));
                self.0.openat(200, name, flags, mode);
            }
        }
    }

    fn make(&mut self) {
        let (file, mode) = (self.file(), self.1.pick(&MODES));
        match self.1.below(7) {
            0 | 1 => self.0.make_directory(&file, mode),
            2 => self.0.make_directory_at(CWD, &file, mode),
            3 => self.0.make_node(&file, S_IFIFO | mode, 0),
            4 => self.0.make_node_at(CWD, &file, S_IFREG | mode, 0),
            5 => {
                let target = format!("../{}/{}", self.1.pick(&HOMES), self.1.pick(&NAMES));
                self.0.make_link(target.as_bytes(), &file);
            }
            _ => self.0.make_link_at(b"nowhere/x", CWD, &file),
        }
    }

    fn temporary(&mut self) {
        let (home, mode) = (self.1.pick(&HOMES), self.1.pick(&MODES));
        let name = format!("{home}/{}", self.1.pick(&NAMES));
        self.0
            .temporary(home.as_bytes(), libc::O_RDWR, mode, name.as_bytes());
    }

    fn bind(&mut self) {
        let file = self.file();
        self.0.socket(libc::SOCK_STREAM, 201);
        // A worker cannot bind to a path through a target's own link in procfs.
        let file = file.trim_start_matches("/proc/self/cwd/").to_owned();
        self.0.bind_to(201, file.as_bytes());
    }

    fn change(&mut self) {
        let file = self.file();
        match self.1.below(6) {
            0 => self.0.change_mode(&file, self.1.pick(&MODES)),
            1 => self.0.lchown(&file, KEEP, self.1.pick(&GIDS)),
            2 => {
                let (uid, gid) = (self.1.pick(&UIDS), self.1.pick(&GIDS));
                self.0.lchown(&file, uid, gid);
            }
            3 => self.0.access(&file),
            4 => {
                let times = [Time::Old, Time::Now, Time::Omit];
                let times = [self.1.pick(&times), self.1.pick(&times)];
                let times = if self.1.percent(30) {
                    None
                } else {
                    Some(times)
                };
                self.0.times(&file, times, NOFOLLOW);
            }
            _ => self.0.set_attribute(&file, "user.random", b"value"),
        }
    }
}
