//! The calls that change a file's attributes, or ask what the caller may do with it. After a
//! change, the file is shown.

use super::{CWD, Path, Probe, at, path};
use crate::print;
use crate::sys::{Arg, Place, calls};

const AT_EACCESS: u32 = 0x200;

/// A time for utimensat(2).
#[derive(Clone, Copy)]
pub(crate) enum Time {
    Old,
    Now,
    Omit,
    /// Invalid: neither a time nor UTIME_NOW or UTIME_OMIT.
    Bad,
}

impl Time {
    /// The words of a `struct timespec`.
    fn words(self) -> [u32; 4] {
        match self {
            Time::Old => [1_000_000_000, 0, 5, 0],
            Time::Now => [0, 0, 0x3fff_ffff, 0],
            Time::Omit => [0, 0, 0x3fff_fffe, 0],
            Time::Bad => [0, 0, 1_000_000_000, 0],
        }
    }
}

impl Probe {
    /// Makes any variant of the chmod call on `file`, and shows the file.
    pub(crate) fn change_mode(&mut self, file: impl Into<Path>, mode: u32) {
        let file = path(file);
        let args = [file.clone(), Arg::Octal(mode)];
        self.made(calls::CHMOD, &args, CWD, file);
    }

    pub(crate) fn change_mode_at(&mut self, fd: i32, file: impl Into<Path>, mode: u32) {
        let file = path(file);
        let args = [Arg::Fd(fd), file.clone(), Arg::Octal(mode)];
        self.made(calls::FCHMODAT, &args, fd, file);
    }

    /// Sets the times of `file` (to the current time if `times` is `None`), and prints whether they
    /// are old afterwards.
    pub(crate) fn times(&mut self, file: impl Into<Path>, times: Option<[Time; 2]>, flags: u32) {
        let file = path(file);
        let buffer = match times {
            Some(times) => Arg::Words(times.map(Time::words).concat(), Place::Heap),
            None => Arg::Path(Vec::new(), Place::Null),
        };
        let args = [Arg::Fd(CWD), file.clone(), buffer, at(flags)];
        let answer = self.quiet(calls::UTIMENSAT, &args);
        let [file, flags] = [&file, &args[3]].map(|arg| self.printer.arg(arg));
        let shown = times.map_or("NULL".to_owned(), |times| {
            times
                .map(|time| match time {
                    Time::Old => "old",
                    Time::Now => "now",
                    Time::Omit => "omit",
                    Time::Bad => "bad",
                })
                .join("/")
        });
        let look = [args[1].clone(), Arg::Stat(Place::Heap)];
        let seen = self.quiet(calls::LSTAT, &look);
        let mut then = String::new();
        if seen.result.is_ok() {
            let stat = seen.stat();
            then = [stat.st_atime, stat.st_mtime]
                .map(|time| {
                    if time == 1_000_000_000 {
                        " old"
                    } else {
                        " recent"
                    }
                })
                .concat();
        }
        self.say(&format!(
            "utimensat({file}, {shown}, {flags}) = {},{then}",
            print::answer(&answer, &[])
        ));
    }

    /// Prints the results of access(2), which uses the real ids, and of faccessat2(2) with the
    /// effective ones, for each mode.
    pub(crate) fn access(&mut self, file: impl Into<Path>) {
        let file = path(file);
        let name = self.printer.arg(&file);
        let mut real = String::new();
        let mut effective = String::new();
        for (mode, letters) in (0..8).zip(["f", "x", "w", "wx", "r", "rx", "rw", "rwx"]) {
            let mode = Arg::Number(mode);
            let mut tell = |calls: [(crate::sys::Syscall, Vec<Arg>); 2]| {
                let answers = calls.map(|(call, args)| self.quiet(call, &args).result);
                let text = |answer: Result<i64, i32>| match answer {
                    Ok(_) => "yes".to_owned(),
                    Err(errno) => print::errno(errno),
                };
                if answers[0] == answers[1] {
                    format!(" {letters}:{}", text(answers[0]))
                } else {
                    format!(" {letters}:{}/{}", text(answers[0]), text(answers[1]))
                }
            };
            let here = || Arg::Fd(CWD);
            real += &tell([
                (calls::ACCESS, vec![file.clone(), mode.clone()]),
                (calls::FACCESSAT, vec![here(), file.clone(), mode.clone()]),
            ]);
            let flags = |flags: u32| vec![here(), file.clone(), mode.clone(), at(flags)];
            effective += &tell([
                (calls::FACCESSAT2, flags(AT_EACCESS)),
                (calls::FACCESSAT2, flags(AT_EACCESS | super::NOFOLLOW)),
            ]);
        }
        self.say(&format!("access {name}{real}"));
        if effective != real {
            self.say(&format!("  effectively{effective}"));
        }
    }

    pub(crate) fn set_attribute(&mut self, file: &str, name: &str, value: &[u8]) {
        let length = i64::try_from(value.len()).expect("a short value");
        let args = [
            Arg::Text(file.into()),
            Arg::Text(name.into()),
            Arg::Input(value.to_vec()),
            Arg::Number(length),
            Arg::Number(0),
        ];
        self.call(calls::SETXATTR, &args);
    }

    pub(crate) fn get_attribute(&mut self, file: &str, name: &str) {
        let args = [
            Arg::Text(file.into()),
            Arg::Text(name.into()),
            Arg::Output(64, Place::Heap),
            Arg::Number(64),
        ];
        self.peek(calls::GETXATTR, &args);
    }

    pub(crate) fn remove_attribute(&mut self, file: &str, name: &str) {
        let args = [file, name].map(|text| Arg::Text(text.into()));
        self.call(calls::REMOVEXATTR, &args);
    }
}
