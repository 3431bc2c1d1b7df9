//! What `scripts/bench` measures with: a supervisor that does nothing, and a loop over one system call.
//!
//! ```text
//! bench null-supervisor CMD...           runs CMD; its hooked calls are received and continued, as fast as it gets
//! bench loop KIND[,KIND...] N [PATH...]  for each kind and path: N calls; prints `kind path nanoseconds-per-call`
//! ```
//!
//! The null supervisor notifies the calls that subuidless notifies and is the floor that nothing which answers by
//! notification can pass under. The loop makes raw calls, because libc would choose another one; the figure is the
//! median of eleven rounds, and a call that fails ends it. Kinds: see [`KINDS`].

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool"
)]
#![allow(
    unsafe_code,
    reason = "raw system calls are what is measured; the product's own live in src/sys.rs"
)]

use std::ffi::{CString, OsString, c_char, c_int, c_long, c_ulong};
use std::fs::File;
use std::io::{self, Error};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::mpsc;
use std::time::Instant;

use libseccomp::{ScmpAction, ScmpFilterContext, ScmpSyscall};

const USAGE: &str = "usage: bench null-supervisor CMD... | bench loop KIND[,KIND...] N [PATH...]";
const ROUNDS: usize = 11;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let result = match arguments.split_first() {
        Some((verb, command)) if verb == "null-supervisor" && !command.is_empty() => {
            null_supervisor(command)
        }
        Some((verb, rest)) if verb == "loop" && rest.len() >= 2 => measure(rest),
        _ => Err(USAGE.into()),
    };
    result.unwrap_or_else(|error| {
        eprintln!("bench: {error}");
        ExitCode::FAILURE
    })
}

// ---- null-supervisor

const HOOKED: [&str; 9] = [
    "chown",
    "lchown",
    "fchown",
    "fchownat",
    "stat",
    "lstat",
    "fstat",
    "newfstatat",
    "statx",
];
const SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP: u64 = 1;
/// Linux 6.6, `_IOW('!', 4, __u64)`; newer than libc's headers.
const SECCOMP_IOCTL_NOTIF_SET_FLAGS: c_ulong = 0x4008_2104;
const SECCOMP_IOCTL_NOTIF_RECV: c_ulong = 0xc050_2100;
const SECCOMP_IOCTL_NOTIF_SEND: c_ulong = 0xc018_2101;

/// Only the thread that starts the command gets the filter, so this thread can serve it with no fd sent anywhere.
fn null_supervisor(command: &[OsString]) -> Result<ExitCode, AnyError> {
    let (send_fd, listener) = mpsc::channel();
    let command = command.to_vec();
    std::thread::spawn(move || {
        let code = load_filter()
            .and_then(|fd| Ok(send_fd.send(fd)?))
            .and_then(|()| Ok(Command::new(&command[0]).args(&command[1..]).status()?))
            .map(|status| status.code().unwrap_or(128 + status.signal().unwrap_or(0)))
            .unwrap_or_else(|error| {
                eprintln!("bench: {}: {error}", Path::new(&command[0]).display());
                127
            });
        std::process::exit(code);
    });
    let listener = listener.recv()?;
    set_sync_wake_up(listener);
    loop {
        continue_one(listener)?;
    }
}

fn load_filter() -> Result<RawFd, AnyError> {
    let mut filter = ScmpFilterContext::new(ScmpAction::Allow)?;
    for name in HOOKED {
        filter.add_rule(ScmpAction::Notify, ScmpSyscall::from_name(name)?)?;
    }
    filter.load()?;
    Ok(filter.get_notify_fd()?)
}

/// Before Linux 6.6 this is EINVAL, and each call costs ten times as much.
fn set_sync_wake_up(listener: RawFd) {
    // SAFETY: the argument of this ioctl is a number, not a pointer.
    let result = unsafe {
        libc::ioctl(
            listener,
            SECCOMP_IOCTL_NOTIF_SET_FLAGS,
            SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP,
        )
    };
    if result < 0 {
        eprintln!("bench: SYNC_WAKE_UP: {}", Error::last_os_error());
    }
}

fn continue_one(listener: RawFd) -> io::Result<()> {
    let mut notification = NOTIFICATION;
    // SAFETY: the kernel writes one `seccomp_notif`, which is what the pointer points to.
    let received =
        unsafe { libc::ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &raw mut notification) };
    if received < 0 {
        return target_gone(Error::last_os_error());
    }
    let reply = libc::seccomp_notif_resp {
        id: notification.id,
        val: 0,
        error: 0,
        flags: CONTINUE,
    };
    // SAFETY: the kernel reads one `seccomp_notif_resp`, which is what the pointer points to.
    let sent = unsafe { libc::ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &raw const reply) };
    if sent < 0 {
        return target_gone(Error::last_os_error());
    }
    Ok(())
}

/// `SECCOMP_USER_NOTIF_FLAG_CONTINUE`
const CONTINUE: u32 = 1;
const NOTIFICATION: libc::seccomp_notif = libc::seccomp_notif {
    id: 0,
    pid: 0,
    flags: 0,
    data: libc::seccomp_data {
        nr: 0,
        arch: 0,
        instruction_pointer: 0,
        args: [0; 6],
    },
};

/// ENOENT: the target was killed in the middle of its call.
fn target_gone(error: Error) -> io::Result<()> {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::EINTR) => Ok(()),
        _ => Err(error),
    }
}

// ---- loop

/// What the kinds call with: one file, reached in every way, and where the kernel writes its answers.
struct Subject {
    path: CString,
    name: CString,
    directory: File,
    file: File,
    zero: File,
    null: File,
    answer: [u64; 4096],
    turn: u32,
    sum: u64,
}

type Kind = (&'static str, fn(&mut Subject) -> c_long);

const KINDS: [Kind; 11] = [
    ("stat-abs", |s| s.newfstatat(libc::AT_FDCWD, Name::Path, 0)),
    ("stat-rel", |s| {
        s.newfstatat(s.directory.as_raw_fd(), Name::Last, 0)
    }),
    // The loop's working directory is the file's.
    ("stat-cwd", |s| s.newfstatat(libc::AT_FDCWD, Name::Last, 0)),
    ("fstat", |s| {
        s.newfstatat(s.file.as_raw_fd(), Name::Empty, libc::AT_EMPTY_PATH)
    }),
    ("fstat-old", Subject::fstat),
    ("statx", Subject::statx),
    ("chown", |s| {
        s.turn ^= 1;
        s.fchownat(42 + s.turn)
    }),
    ("chown-same", |s| s.fchownat(42)),
    ("getpid", |_| getpid()),
    ("getppid", |_| getppid()),
    ("spin", Subject::spin),
];

enum Name {
    Path,
    Last,
    Empty,
}

fn measure(arguments: &[OsString]) -> Result<ExitCode, AnyError> {
    let calls: usize = arguments[1].to_str().ok_or(USAGE)?.parse()?;
    let here = [OsString::from("/dev/null")];
    let paths = if arguments.len() > 2 {
        &arguments[2..]
    } else {
        &here
    };
    for name in arguments[0].to_str().ok_or(USAGE)?.split(',') {
        let kind = KINDS.iter().find(|kind| kind.0 == name);
        let (_, call) = kind.ok_or_else(|| {
            let names: Vec<_> = KINDS.iter().map(|kind| kind.0).collect();
            format!("no kind {name}; there are: {}", names.join(" "))
        })?;
        for path in paths.iter().map(Path::new) {
            let nanoseconds = median_of_rounds(*call, calls, &mut Subject::new(path)?)
                .map_err(|error| format!("{name} {}: {error}", path.display()))?;
            println!("{name} {} {nanoseconds:.1}", path.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[allow(
    clippy::cast_precision_loss,
    reason = "nanoseconds and counts far below 2^52"
)]
fn median_of_rounds(
    call: fn(&mut Subject) -> c_long,
    calls: usize,
    subject: &mut Subject,
) -> io::Result<f64> {
    let each = (calls / ROUNDS).max(1);
    let mut rounds = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..each {
            if call(subject) < 0 {
                return Err(Error::last_os_error());
            }
        }
        rounds.push(start.elapsed().as_nanos() as f64 / each as f64);
    }
    rounds.sort_by(f64::total_cmp);
    Ok(rounds[ROUNDS / 2])
}

impl Subject {
    fn new(path: &Path) -> Result<Self, AnyError> {
        let directory = path.parent().ok_or("a path needs a file name")?;
        let name = path.file_name().ok_or("a path needs a file name")?;
        std::env::set_current_dir(directory)?;
        Ok(Self {
            path: CString::new(path.as_os_str().as_bytes())?,
            name: CString::new(name.as_bytes())?,
            directory: File::open(directory)?,
            file: File::open(path)?,
            zero: File::open("/dev/zero")?,
            null: File::options().write(true).open("/dev/null")?,
            answer: [0; 4096],
            turn: 0,
            sum: 0,
        })
    }

    fn newfstatat(&mut self, dirfd: RawFd, name: Name, flags: c_int) -> c_long {
        let name: *const c_char = match name {
            Name::Path => self.path.as_ptr(),
            Name::Last => self.name.as_ptr(),
            Name::Empty => c"".as_ptr(),
        };
        let answer = self.answer.as_mut_ptr();
        // SAFETY: `name` ends with NUL and lives on; `answer` is larger than `struct stat`.
        unsafe { libc::syscall(libc::SYS_newfstatat, dirfd, name, answer, flags) }
    }

    fn fstat(&mut self) -> c_long {
        let answer = self.answer.as_mut_ptr();
        // SAFETY: `answer` is larger than `struct stat`.
        unsafe { libc::syscall(libc::SYS_fstat, self.file.as_raw_fd(), answer) }
    }

    fn statx(&mut self) -> c_long {
        let (path, answer) = (self.path.as_ptr(), self.answer.as_mut_ptr());
        let mask = libc::STATX_BASIC_STATS;
        // SAFETY: `path` ends with NUL and lives on; `answer` is larger than `struct statx`.
        unsafe { libc::syscall(libc::SYS_statx, libc::AT_FDCWD, path, 0, mask, answer) }
    }

    fn fchownat(&mut self, id: u32) -> c_long {
        let path = self.path.as_ptr();
        // SAFETY: `path` ends with NUL and lives on.
        unsafe { libc::syscall(libc::SYS_fchownat, libc::AT_FDCWD, path, id, id, 0) }
    }

    /// A program that works on what it reads: three calls and 32 KiB of arithmetic, none of them hooked.
    fn spin(&mut self) -> c_long {
        let buffer = self.answer.as_mut_ptr();
        let size = size_of_val(&self.answer);
        // SAFETY: `buffer` has room for `size` bytes.
        let read = unsafe { libc::syscall(libc::SYS_read, self.zero.as_raw_fd(), buffer, size) };
        for word in self.answer {
            for byte in word.to_ne_bytes() {
                self.sum = (self.sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
            }
        }
        self.answer[0] = self.sum;
        // SAFETY: `buffer` holds `size` bytes.
        let written =
            unsafe { libc::syscall(libc::SYS_write, self.null.as_raw_fd(), buffer, size) };
        read.min(written).min(getppid())
    }
}

fn getpid() -> c_long {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::syscall(libc::SYS_getpid) }
}

fn getppid() -> c_long {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::syscall(libc::SYS_getppid) }
}
