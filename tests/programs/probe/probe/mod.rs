//! One method per system call, each of which makes the call, and prints it with its result as one
//! line. After a successful change of owner, the line also shows the file, looked up in the same
//! way.

mod attributes;
mod creation;
mod credentials;
mod effects;
mod exec;
mod tasks;

pub(crate) use attributes::Time;
pub(crate) use creation::*;
pub(crate) use credentials::*;
pub(crate) use exec::SHOW;
pub(crate) use tasks::Worker;

use crate::print::{self, AT_FLAGS, OPEN_FLAGS, Printer, RENAME_FLAGS};
use crate::sys::{self, Answer, Arg, Memory, Place, Syscall, UNTOUCHED, calls};

pub(crate) const CWD: i32 = libc::AT_FDCWD;
pub(crate) const NOFOLLOW: u32 = 0x100;
pub(crate) const EMPTY: u32 = 0x1000;
/// The id that means "unchanged" in chown(2).
pub(crate) const KEEP: u32 = u32::MAX;

/// A path argument: its bytes, and their place in memory.
#[derive(Clone)]
pub(crate) struct Path(pub(crate) Vec<u8>, pub(crate) Place);

impl<T: AsRef<[u8]> + ?Sized> From<&T> for Path {
    fn from(bytes: &T) -> Path {
        Path(bytes.as_ref().to_vec(), Place::Heap)
    }
}

impl From<Place> for Path {
    fn from(place: Place) -> Path {
        Path(Vec::new(), place)
    }
}

#[derive(Clone)]
pub(crate) struct Probe {
    memory: Memory,
    printer: Printer,
    /// The numbers of the lines that started this child and its ancestors, such as `12.`.
    lineage: String,
    line: u64,
    skip: Vec<String>,
    only: Vec<String>,
}

fn at(flags: u32) -> Arg {
    Arg::Bits(flags, AT_FLAGS)
}

fn path(path: impl Into<Path>) -> Arg {
    let Path(bytes, place) = path.into();
    Arg::Path(bytes, place)
}

impl Probe {
    pub(crate) fn new(directory: Vec<u8>, skip: Vec<String>, only: Vec<String>) -> Probe {
        let printer = Printer { directory };
        Probe {
            memory: Memory::new(),
            printer,
            lineage: String::new(),
            line: 0,
            skip,
            only,
        }
    }

    pub(crate) fn directory(&self) -> &[u8] {
        &self.printer.directory
    }

    /// As [`Probe::new`], for a program that a probe has started from its line `line`.
    pub(crate) fn heir(line: &str) -> Probe {
        Probe {
            lineage: format!("{line}."),
            ..Probe::new(Vec::new(), Vec::new(), Vec::new())
        }
    }

    /// An absolute path below the working directory.
    pub(crate) fn absolute(&self, relative: &[u8]) -> Vec<u8> {
        [self.directory(), b"/", relative].concat()
    }

    pub(crate) fn skips(&self, name: &str) -> bool {
        self.skip.iter().any(|skip| skip == name)
    }

    /// Runs one group of cases in a directory of its own, unless `--skip` or `--only` leave it out.
    pub(crate) fn group(&mut self, name: &str, cases: impl FnOnce(&mut Probe)) {
        if self.skips(name) || !(self.only.is_empty() || self.only.iter().any(|only| only == name))
        {
            return self.say(&format!("== {name}: skipped"));
        }
        self.say(&format!("== {name}"));
        let home = self.absolute(name.as_bytes());
        self.quiet(
            calls::MKDIRAT,
            &[Arg::Fd(CWD), path(&home), Arg::Octal(0o755)],
        );
        self.quiet(calls::CHDIR, &[path(&home)]);
        cases(self);
        let directory = self.absolute(b"");
        self.quiet(calls::CHDIR, &[path(&directory)]);
    }

    /// Prints a line with its number.
    pub(crate) fn say(&mut self, text: &str) {
        self.line += 1;
        sys::write_line(format!("{}{} {text}\n", self.lineage, self.line).as_bytes());
    }

    /// Makes a call that is not part of the comparison.
    pub(crate) fn quiet(&mut self, syscall: Syscall, args: &[Arg]) -> Answer {
        sys::invoke(self.memory, syscall, args)
    }

    /// Makes a call and prints it. Returns whether it succeeded.
    pub(crate) fn call(&mut self, syscall: Syscall, args: &[Arg]) -> bool {
        self.call_and(syscall, args, |_| String::new())
    }

    fn call_and(
        &mut self,
        syscall: Syscall,
        args: &[Arg],
        after: impl FnOnce(&mut Probe) -> String,
    ) -> bool {
        let answer = self.quiet(syscall, args);
        let shown: Vec<String> = args.iter().map(|arg| self.printer.arg(arg)).collect();
        let seen = if answer.result.is_ok() {
            after(self)
        } else {
            String::new()
        };
        self.say(&format!(
            "{}({}) = {}{seen}",
            syscall.name,
            shown.join(", "),
            print::answer(&answer, args)
        ));
        answer.result.is_ok()
    }

    /// Makes a call that is not part of the comparison, with ids as arguments.
    pub(crate) fn quietly_set(&mut self, syscall: Syscall, ids: &[u32]) {
        let args: Vec<Arg> = ids.iter().copied().map(Arg::Id).collect();
        self.quiet(syscall, &args);
    }

    /// Makes a call, and prints it with the words that it wrote, whether or not it succeeded.
    pub(crate) fn peek(&mut self, syscall: Syscall, args: &[Arg]) {
        let answer = self.quiet(syscall, args);
        let untouched = u32::from_ne_bytes([UNTOUCHED; 4]);
        let mut written = String::new();
        for index in 0..args.len() {
            for word in answer.words(index) {
                written += &if word == untouched {
                    " .".to_owned()
                } else {
                    format!(" {}", print::id(word))
                };
            }
        }
        let shown: Vec<String> = args.iter().map(|arg| self.printer.arg(arg)).collect();
        self.say(&format!(
            "{}({}) = {}, wrote{written}",
            syscall.name,
            shown.join(", "),
            print::answer(&answer, args)
        ));
    }

    fn seen(&mut self, syscall: Syscall, args: &[Arg]) -> String {
        let answer = self.quiet(syscall, args);
        match answer.result {
            Ok(_) => format!(" -> {}", print::stat(&answer.stat())),
            Err(errno) => format!(" -> {}", print::errno(errno)),
        }
    }

    // chown(2)

    pub(crate) fn chown(&mut self, file: impl Into<Path>, uid: u32, gid: u32) {
        let file = path(file);
        let args = [file.clone(), Arg::Id(uid), Arg::Id(gid)];
        self.call_and(calls::CHOWN, &args, |p| {
            p.seen(calls::STAT, &[file, Arg::Stat(Place::Heap)])
        });
    }

    pub(crate) fn lchown(&mut self, file: impl Into<Path>, uid: u32, gid: u32) {
        let file = path(file);
        let args = [file.clone(), Arg::Id(uid), Arg::Id(gid)];
        self.call_and(calls::LCHOWN, &args, |p| {
            p.seen(calls::LSTAT, &[file, Arg::Stat(Place::Heap)])
        });
    }

    pub(crate) fn fchown(&mut self, fd: i32, uid: u32, gid: u32) {
        let args = [Arg::Fd(fd), Arg::Id(uid), Arg::Id(gid)];
        self.call_and(calls::FCHOWN, &args, |p| {
            p.seen(calls::FSTAT, &[Arg::Fd(fd), Arg::Stat(Place::Heap)])
        });
    }

    pub(crate) fn fchownat(
        &mut self,
        fd: i32,
        file: impl Into<Path>,
        uid: u32,
        gid: u32,
        flags: u32,
    ) {
        let file = path(file);
        let args = [
            Arg::Fd(fd),
            file.clone(),
            Arg::Id(uid),
            Arg::Id(gid),
            at(flags),
        ];
        let again = [Arg::Fd(fd), file, Arg::Stat(Place::Heap), at(flags)];
        self.call_and(calls::FCHOWNAT, &args, |p| {
            p.seen(calls::NEWFSTATAT, &again)
        });
    }

    // stat(2), statx(2)

    pub(crate) fn stat(&mut self, file: impl Into<Path>) {
        self.call(calls::STAT, &[path(file), Arg::Stat(Place::Heap)]);
    }

    pub(crate) fn lstat(&mut self, file: impl Into<Path>) {
        self.call(calls::LSTAT, &[path(file), Arg::Stat(Place::Heap)]);
    }

    pub(crate) fn fstat(&mut self, fd: i32) {
        self.call(calls::FSTAT, &[Arg::Fd(fd), Arg::Stat(Place::Heap)]);
    }

    pub(crate) fn fstatat(&mut self, fd: i32, file: impl Into<Path>, flags: u32) {
        self.call(
            calls::NEWFSTATAT,
            &[Arg::Fd(fd), path(file), Arg::Stat(Place::Heap), at(flags)],
        );
    }

    pub(crate) fn statx(&mut self, fd: i32, file: impl Into<Path>, flags: u32, mask: u32) {
        let mask = Arg::Mask(mask);
        self.call(
            calls::STATX,
            &[
                Arg::Fd(fd),
                path(file),
                at(flags),
                mask,
                Arg::Statx(Place::Heap),
            ],
        );
    }

    /// Makes the three calls of stat(2) whose last argument is a buffer, with the buffer at
    /// `place`.
    pub(crate) fn stat_into(&mut self, fd: i32, file: impl Into<Path>, place: Place) {
        let file = path(file);
        let mask = Arg::Mask(libc::STATX_BASIC_STATS);
        self.call(calls::STAT, &[file.clone(), Arg::Stat(place)]);
        self.call(calls::LSTAT, &[file.clone(), Arg::Stat(place)]);
        self.call(calls::FSTAT, &[Arg::Fd(fd), Arg::Stat(place)]);
        self.call(
            calls::NEWFSTATAT,
            &[Arg::Fd(CWD), file.clone(), Arg::Stat(place), at(0)],
        );
        self.call(
            calls::STATX,
            &[Arg::Fd(CWD), file, at(0), mask, Arg::Statx(place)],
        );
    }

    // Other calls that create, move or change files

    pub(crate) fn chmod(&mut self, file: impl Into<Path>, mode: u32) {
        self.call(
            calls::FCHMODAT,
            &[Arg::Fd(CWD), path(file), Arg::Octal(mode)],
        );
    }

    /// As [`Probe::chmod`], but leaves directories alone.
    pub(crate) fn chmod_file(&mut self, file: &[u8], mode: u32) {
        let answer = self.quiet(calls::STAT, &[path(file), Arg::Stat(Place::Heap)]);
        if answer.result.is_ok() && answer.stat().st_mode & libc::S_IFMT == libc::S_IFDIR {
            return;
        }
        self.chmod(file, mode);
    }

    pub(crate) fn mkdir(&mut self, file: impl Into<Path>, mode: u32) {
        self.call(
            calls::MKDIRAT,
            &[Arg::Fd(CWD), path(file), Arg::Octal(mode)],
        );
    }

    /// Creates a fifo, a socket or a regular file, depending on `mode`.
    pub(crate) fn mknod(&mut self, file: impl Into<Path>, mode: u32) {
        self.call(
            calls::MKNODAT,
            &[Arg::Fd(CWD), path(file), Arg::Octal(mode), Arg::Number(0)],
        );
    }

    pub(crate) fn symlink(&mut self, target: &[u8], file: impl Into<Path>) {
        self.call(
            calls::SYMLINKAT,
            &[Arg::Text(target.to_vec()), Arg::Fd(CWD), path(file)],
        );
    }

    pub(crate) fn link(&mut self, old: impl Into<Path>, new: impl Into<Path>, flags: u32) {
        self.call(
            calls::LINKAT,
            &[Arg::Fd(CWD), path(old), Arg::Fd(CWD), path(new), at(flags)],
        );
    }

    pub(crate) fn rename(&mut self, old: impl Into<Path>, new: impl Into<Path>, flags: u32) {
        let flags = Arg::Bits(flags, RENAME_FLAGS);
        self.call(
            calls::RENAMEAT2,
            &[Arg::Fd(CWD), path(old), Arg::Fd(CWD), path(new), flags],
        );
    }

    pub(crate) fn unlink(&mut self, file: impl Into<Path>) {
        self.call(calls::UNLINKAT, &[Arg::Fd(CWD), path(file), at(0)]);
    }

    pub(crate) fn rmdir(&mut self, file: impl Into<Path>) {
        self.call(calls::UNLINKAT, &[Arg::Fd(CWD), path(file), at(0x200)]);
    }

    /// Returns whether it succeeded.
    pub(crate) fn chdir(&mut self, file: impl Into<Path>) -> bool {
        self.call(calls::CHDIR, &[path(file)])
    }

    /// Opens a file. With `keep_as`, its descriptor gets that number; otherwise it is closed again.
    pub(crate) fn open(
        &mut self,
        file: impl Into<Path>,
        flags: i32,
        mode: u32,
        keep_as: Option<i32>,
    ) {
        let file = path(file);
        let bits = Arg::Bits(flags.unsigned_abs(), OPEN_FLAGS);
        let answer = self.quiet(
            calls::OPENAT,
            &[Arg::Fd(CWD), file.clone(), bits.clone(), Arg::Octal(mode)],
        );
        let result = match (answer.result.map(fd), keep_as) {
            (Ok(fd), Some(number)) => {
                self.keep(fd, number);
                format!("fd {number}")
            }
            (Ok(fd), None) => {
                self.quiet(calls::CLOSE, &[Arg::HiddenFd(fd)]);
                "fd, closed".to_owned()
            }
            (Err(errno), _) => print::errno(errno),
        };
        let [file, bits] = [file, bits].map(|arg| self.printer.arg(&arg));
        self.say(&format!("open({file}, {bits}, {mode:#o}) = {result}"));
    }

    /// Moves `fd` to `number`, which is the same in every run.
    pub(crate) fn keep(&mut self, fd: i32, number: i32) {
        self.quiet(
            calls::DUP3,
            &[
                Arg::Fd(fd),
                Arg::Fd(number),
                Arg::Number(libc::O_CLOEXEC.into()),
            ],
        );
        self.quiet(calls::CLOSE, &[Arg::Fd(fd)]);
    }

    pub(crate) fn close(&mut self, fd: i32) {
        self.call(calls::CLOSE, &[Arg::Fd(fd)]);
    }

    /// Creates a file of `size` bytes with exactly the mode given.
    pub(crate) fn create(&mut self, file: &[u8], mode: u32, size: i64) {
        self.open(file, libc::O_CREAT | libc::O_WRONLY, 0o600, None);
        self.call(calls::TRUNCATE, &[path(file), Arg::Number(size)]);
        self.chmod(file, mode);
    }

    /// Binds a Unix socket to a path, which may be as long as an address can be.
    pub(crate) fn bind(&mut self, file: &[u8]) {
        let address = unix_address(&file[..file.len().min(107)]);
        let length = i64::try_from(address.len()).expect("a short address");
        let kind = [libc::AF_UNIX, libc::SOCK_STREAM, 0].map(|word| Arg::Number(word.into()));
        let Ok(socket) = self.quiet(calls::SOCKET, &kind).result.map(fd) else {
            return self.say("no socket");
        };
        self.call(
            calls::BIND,
            &[
                Arg::HiddenFd(socket),
                Arg::Input(address),
                Arg::Number(length),
            ],
        );
        self.quiet(calls::CLOSE, &[Arg::Fd(socket)]);
    }
}

/// The file descriptor that a call returned.
pub(crate) fn fd(value: i64) -> i32 {
    i32::try_from(value).expect("a file descriptor")
}
