//! What `scripts/bench` measures with: a supervisor that does nothing, and a loop over one system
//! call.
//!
//! ```text
//! bench null-supervisor PROFILE CMD...   runs CMD; the calls that PROFILE notifies are received and continued, as fast
//!                                        as it gets
//! bench loop KIND[,KIND...] N [PATH...]  for each kind and path: N calls; prints `kind path nanoseconds-per-call`
//! ```
//!
//! The null supervisor notifies what `subuidless profile` says and is the floor that nothing which
//! answers by notification can pass under. The loop makes raw calls, because libc would choose
//! another one; the figure is the median of eleven rounds, and a call that fails ends it. Kinds:
//! see [`KINDS`]; those that create leave what they make beside the path.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool"
)]
#![allow(
    unsafe_code,
    reason = "raw system calls are what is measured; the product's own live in src/sys"
)]

use std::ffi::{CStr, CString, OsString, c_char, c_int, c_long, c_ulong};
use std::fs::File;
use std::io::{self, Error};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::mpsc;
use std::time::Instant;

use libseccomp::{ScmpAction, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, execv, fork};
use serde::Deserialize;

const USAGE: &str =
    "usage: bench null-supervisor PROFILE CMD... | bench loop KIND[,KIND...] N [PATH...]";
const ROUNDS: usize = 11;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let result = match arguments.split_first() {
        Some((verb, rest)) if verb == "null-supervisor" && rest.len() >= 2 => {
            null_supervisor(Path::new(&rest[0]), &rest[1..])
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

const SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP: u64 = 1;
/// Linux 6.6, `_IOW('!', 4, __u64)`; newer than libc's headers.
const SECCOMP_IOCTL_NOTIF_SET_FLAGS: c_ulong = 0x4008_2104;
const SECCOMP_IOCTL_NOTIF_RECV: c_ulong = 0xc050_2100;
const SECCOMP_IOCTL_NOTIF_SEND: c_ulong = 0xc018_2101;

/// Only the thread that starts the command gets the filter, so this thread can serve it with no fd
/// sent anywhere.
fn null_supervisor(profile: &Path, command: &[OsString]) -> Result<ExitCode, AnyError> {
    let profile: Profile = serde_json::from_reader(File::open(profile)?)?;
    let (send_fd, listener) = mpsc::channel();
    let command = command.to_vec();
    std::thread::spawn(move || {
        let code = load_filter(&profile)
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

/// As much of `linux.seccomp` as says what is notified.
#[derive(Deserialize)]
struct Profile {
    syscalls: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    names: Vec<String>,
    action: String,
    #[serde(default)]
    args: Vec<Condition>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

fn load_filter(profile: &Profile) -> Result<RawFd, AnyError> {
    let mut filter = ScmpFilterContext::new(ScmpAction::Allow)?;
    let notified = |rule: &&Rule| rule.action == "SCMP_ACT_NOTIFY";
    for rule in profile.syscalls.iter().filter(notified) {
        let conditions: Result<Vec<_>, _> = rule.args.iter().map(Condition::compare).collect();
        let conditions = conditions?;
        for name in &rule.names {
            // Newer than the library: then it is newer than what the jobs call, too.
            let Ok(syscall) = ScmpSyscall::from_name(name) else {
                continue;
            };
            filter.add_rule_conditional(ScmpAction::Notify, syscall, &conditions)?;
        }
    }
    filter.load()?;
    Ok(filter.get_notify_fd()?)
}

impl Condition {
    fn compare(&self) -> Result<ScmpArgCompare, AnyError> {
        let (op, datum) = match self.op.as_str() {
            "SCMP_CMP_NE" => (ScmpCompareOp::NotEqual, self.value),
            "SCMP_CMP_LT" => (ScmpCompareOp::Less, self.value),
            "SCMP_CMP_LE" => (ScmpCompareOp::LessOrEqual, self.value),
            "SCMP_CMP_EQ" => (ScmpCompareOp::Equal, self.value),
            "SCMP_CMP_GE" => (ScmpCompareOp::GreaterEqual, self.value),
            "SCMP_CMP_GT" => (ScmpCompareOp::Greater, self.value),
            "SCMP_CMP_MASKED_EQ" => (ScmpCompareOp::MaskedEqual(self.value), self.value_two),
            other => return Err(format!("no comparison {other}").into()),
        };
        Ok(ScmpArgCompare::new(self.index, op, datum))
    }
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

/// What the kinds call with: one file, reached in every way, and where the kernel writes its
/// answers.
struct Subject {
    path: CString,
    name: CString,
    directory: File,
    file: File,
    zero: File,
    null: File,
    peer: UnixStream,
    answer: [u64; 4096],
    turn: u32,
    sum: u64,
}

type Kind = (&'static str, fn(&mut Subject) -> c_long);

const KINDS: [Kind; 31] = [
    ("stat-abs", |s| s.newfstatat(libc::AT_FDCWD, Name::Path, 0)),
    ("stat-rel", |s| {
        s.newfstatat(s.directory.as_raw_fd(), Name::Last, 0)
    }),
    // The loop's working directory is the file's.
    ("stat-cwd", |s| s.newfstatat(libc::AT_FDCWD, Name::Last, 0)),
    ("fstat", |s| {
        s.newfstatat(s.file.as_raw_fd(), Name::Empty, libc::AT_EMPTY_PATH)
    }),
    ("lstat", |s| {
        s.newfstatat(libc::AT_FDCWD, Name::Path, libc::AT_SYMLINK_NOFOLLOW)
    }),
    ("fstat-old", Subject::fstat),
    ("statx", Subject::statx),
    ("chown", |s| {
        s.turn ^= 1;
        s.fchownat(42 + s.turn)
    }),
    ("chown-same", |s| s.fchownat(42)),
    ("chmod", Subject::chmod),
    ("utimens", Subject::utimens),
    ("access", Subject::access),
    ("getuid", |_| getuid()),
    ("geteuid", |_| geteuid()),
    ("getresuid", Subject::getresuid),
    ("getgroups", Subject::getgroups),
    ("capget", Subject::capget),
    // To and fro, for who has 0 as the saved id.
    ("setresuid", Subject::setresuid),
    ("setresuid-same", |s| s.set_euid(0)),
    ("setgroups", Subject::setgroups),
    ("peercred", Subject::peercred),
    ("locks-limit", Subject::locks_limit),
    ("create", Subject::create),
    ("open-existing", Subject::open_existing),
    ("mkdir", Subject::mkdir),
    ("symlink", Subject::symlink),
    ("mkfifo", Subject::mkfifo),
    // A child that becomes /bin/true, with all that its start costs.
    ("exec", |_| exec()),
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
    // Even: what goes to and fro ends where it began.
    let each = (calls / ROUNDS / 2).max(1) * 2;
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
            peer: UnixStream::pair()?.0,
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

    fn chmod(&mut self) -> c_long {
        let path = self.path.as_ptr();
        self.turn ^= 1;
        // SAFETY: `path` ends with NUL and lives on.
        unsafe { libc::syscall(libc::SYS_fchmodat, libc::AT_FDCWD, path, 0o644 + self.turn) }
    }

    fn utimens(&mut self) -> c_long {
        let (path, now) = (self.path.as_ptr(), std::ptr::null::<u8>());
        // SAFETY: `path` ends with NUL and lives on; no times means now.
        unsafe { libc::syscall(libc::SYS_utimensat, libc::AT_FDCWD, path, now, 0) }
    }

    fn access(&mut self) -> c_long {
        let path = self.path.as_ptr();
        // SAFETY: `path` ends with NUL and lives on.
        unsafe { libc::syscall(libc::SYS_faccessat, libc::AT_FDCWD, path, libc::R_OK) }
    }

    fn getresuid(&mut self) -> c_long {
        let ids = self.answer.as_mut_ptr();
        // SAFETY: `ids` has room for all three, in one place.
        unsafe { libc::syscall(libc::SYS_getresuid, ids, ids, ids) }
    }

    fn getgroups(&mut self) -> c_long {
        let groups = self.answer.as_mut_ptr();
        // SAFETY: `groups` has room for more than 1024 ids.
        unsafe { libc::syscall(libc::SYS_getgroups, 1024, groups) }
    }

    fn capget(&mut self) -> c_long {
        const VERSION_3_OF_THIS_PROCESS: [u32; 2] = [0x2008_0522, 0];
        let (header, sets) = (VERSION_3_OF_THIS_PROCESS.as_ptr(), self.answer.as_mut_ptr());
        // SAFETY: the kernel writes two `struct __user_cap_data_struct`, for which `sets` has room.
        unsafe { libc::syscall(libc::SYS_capget, header, sets) }
    }

    fn setresuid(&mut self) -> c_long {
        self.turn ^= 1;
        self.set_euid(1000 * self.turn)
    }

    fn set_euid(&mut self, euid: u32) -> c_long {
        // SAFETY: takes numbers; the bare call changes this thread only, and there is no other.
        unsafe { libc::syscall(libc::SYS_setresuid, -1, euid, -1) }
    }

    fn setgroups(&mut self) -> c_long {
        const GROUPS: [u32; 3] = [4, 24, 100_000];
        // SAFETY: as many groups as are said.
        unsafe { libc::syscall(libc::SYS_setgroups, GROUPS.len(), GROUPS.as_ptr()) }
    }

    fn peercred(&mut self) -> c_long {
        let (socket, answer) = (self.peer.as_raw_fd(), self.answer.as_mut_ptr());
        let mut size = size_of::<libc::ucred>();
        // SAFETY: `answer` is larger than the `size` that the kernel may write.
        unsafe {
            libc::syscall(
                libc::SYS_getsockopt,
                socket,
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                answer,
                &raw mut size,
            )
        }
    }

    fn locks_limit(&mut self) -> c_long {
        let (none, limits) = (std::ptr::null::<u8>(), self.answer.as_mut_ptr());
        // SAFETY: sets nothing, and `limits` has room for a `struct rlimit64`.
        unsafe { libc::syscall(libc::SYS_prlimit64, 0, libc::RLIMIT_LOCKS, none, limits) }
    }

    /// A name that is new in the directory.
    fn new_name(&mut self, kind: char) -> CString {
        self.turn += 1;
        let name = format!("{kind}{}", self.turn);
        CString::new(name).expect("a letter and a number")
    }

    fn create(&mut self) -> c_long {
        let name = self.new_name('c');
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY | libc::O_CLOEXEC;
        open_and_close(self.directory.as_raw_fd(), &name, flags)
    }

    fn open_existing(&mut self) -> c_long {
        let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_CLOEXEC;
        open_and_close(libc::AT_FDCWD, &self.path, flags)
    }

    fn mkdir(&mut self) -> c_long {
        let name = self.new_name('d');
        let (directory, name) = (self.directory.as_raw_fd(), name.as_ptr());
        // SAFETY: `name` ends with NUL and lives on.
        unsafe { libc::syscall(libc::SYS_mkdirat, directory, name, 0o755) }
    }

    fn symlink(&mut self) -> c_long {
        let name = self.new_name('l');
        let (directory, name) = (self.directory.as_raw_fd(), name.as_ptr());
        // SAFETY: both strings end with NUL and live on.
        unsafe { libc::syscall(libc::SYS_symlinkat, c"target".as_ptr(), directory, name) }
    }

    fn mkfifo(&mut self) -> c_long {
        let name = self.new_name('f');
        let (directory, name) = (self.directory.as_raw_fd(), name.as_ptr());
        // SAFETY: `name` ends with NUL and lives on.
        unsafe { libc::syscall(libc::SYS_mknodat, directory, name, libc::S_IFIFO | 0o644, 0) }
    }

    /// A program that works on what it reads: three calls and 32 KiB of arithmetic, none of them
    /// hooked.
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

fn getuid() -> c_long {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::syscall(libc::SYS_getuid) }
}

fn geteuid() -> c_long {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::syscall(libc::SYS_geteuid) }
}

fn open_and_close(directory: RawFd, name: &CStr, flags: c_int) -> c_long {
    let name = name.as_ptr();
    // SAFETY: `name` ends with NUL and lives on.
    let fd = unsafe { libc::syscall(libc::SYS_openat, directory, name, flags, 0o644) };
    if fd < 0 {
        return fd;
    }
    // SAFETY: the call before has opened it, and nobody else knows it.
    unsafe { libc::syscall(libc::SYS_close, fd) }
}

fn exec() -> c_long {
    const PROGRAM: &CStr = c"/bin/true";
    // SAFETY: there is one thread, and the child only calls execv or _exit.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            let _ = execv(PROGRAM, &[PROGRAM]);
            // SAFETY: ends this process and nothing else.
            unsafe { libc::_exit(127) }
        }
        Ok(ForkResult::Parent { child }) => match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, 0)) => 0,
            _ => -1,
        },
        Err(_) => -1,
    }
}
