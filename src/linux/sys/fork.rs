//! Forks of this process that go on in this program, without an execve(2).

use std::convert::Infallible;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use libc::c_uint;
use nix::errno::Errno;

/// The standard files of a fork; `None`: that of this process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standard<'a> {
    pub(crate) input: BorrowedFd<'a>,
    pub(crate) output: Option<BorrowedFd<'a>>,
    pub(crate) error: Option<BorrowedFd<'a>>,
}

impl Standard<'_> {
    /// Called in a fork. Closes all other files: values that own them must not be used any more,
    /// nor dropped.
    fn take(self) -> Result<(), Errno> {
        let files = [Some(self.input), self.output, self.error];
        for (number, file) in (0..).zip(files) {
            if let Some(file) = file {
                // SAFETY: replaces a standard file, which no value owns.
                let taken = unsafe { libc::dup2(file.as_raw_fd(), number) };
                Errno::result(taken)?;
            }
        }
        const FIRST: c_uint = 3;
        // SAFETY: touches no memory. See above about the values that own the files.
        let closed = unsafe { libc::close_range(FIRST, c_uint::MAX, 0) };
        Errno::result(closed).map(drop)
    }
}

/// Forks, and returns the pid. The fork runs `child`, and has no files but the standard ones. This
/// process must have one thread.
pub(crate) fn fork(standard: Standard, child: impl FnOnce() -> Infallible) -> Result<u32, Errno> {
    match one_fork()? {
        0 => be_child(standard, child),
        pid => Ok(pid.unsigned_abs()),
    }
}

/// Forks. Both processes go on, with the same files: the parent with the child's pid, the child
/// with `None`. This process must have one thread.
pub(crate) fn fork_both() -> Result<Option<u32>, Errno> {
    Ok(match one_fork()? {
        0 => None,
        pid => Some(pid.unsigned_abs()),
    })
}

/// As [`fork`], by a second fork, in a session of its own and with SIGTERM ignored: the child is no
/// child of this process.
pub(crate) fn fork_orphan(
    standard: Standard,
    child: impl FnOnce() -> Infallible,
) -> io::Result<()> {
    let between = one_fork()?;
    if between == 0 {
        match one_fork().and_then(|pid| match pid {
            0 => nix::unistd::setsid().map(|_| true),
            _ => Ok(false),
        }) {
            Ok(true) => {
                // SAFETY: ignoring a signal runs no code.
                unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
                be_child(standard, child)
            }
            Ok(false) => exit(0),
            Err(errno) => exit(errno as i32),
        }
    }
    match wait(between, 0) {
        Ok(Some(ended)) if ended.success() => Ok(()),
        Ok(ended) => Err(match ended.and_then(|ended| ended.code()) {
            Some(errno) => io::Error::from_raw_os_error(errno),
            None => io::Error::other("a process was killed"),
        }),
        // This process ignores SIGCHLD.
        Err(error) if error.raw_os_error() == Some(libc::ECHILD) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Runs `task` in a fork, waits for it, and returns its result, an exit code. This process must
/// have one thread.
pub(crate) fn in_fork(task: impl FnOnce() -> i32) -> io::Result<i32> {
    let child = one_fork()?;
    if child == 0 {
        exit(task());
    }
    let ended = wait(child, 0)?.and_then(|ended| ended.code());
    ended.ok_or_else(|| io::Error::other("a process was killed"))
}

/// The status of the child `pid`, if it has exited.
pub(crate) fn try_wait(pid: u32) -> io::Result<Option<ExitStatus>> {
    wait(
        libc::pid_t::try_from(pid).map_err(|_| Errno::ECHILD)?,
        libc::WNOHANG,
    )
}

/// The status of the child `pid`, if it has exited or stopped since the last call.
pub(crate) fn changed(pid: u32) -> io::Result<Option<ExitStatus>> {
    let flags = libc::WNOHANG | libc::WUNTRACED;
    wait(
        libc::pid_t::try_from(pid).map_err(|_| Errno::ECHILD)?,
        flags,
    )
}

/// The status of the child `pid`, once it has exited.
pub(crate) fn wait_for(pid: u32) -> io::Result<ExitStatus> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| Errno::ECHILD)?;
    wait(pid, 0).and_then(|ended| ended.ok_or(io::ErrorKind::InvalidData.into()))
}

fn wait(pid: libc::pid_t, options: libc::c_int) -> io::Result<Option<ExitStatus>> {
    let mut status = 0;
    loop {
        // SAFETY: the kernel writes one `int`.
        match Errno::result(unsafe { libc::waitpid(pid, &raw mut status, options) }) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(Some(ExitStatus::from_raw(status))),
        }
    }
}

fn one_fork() -> Result<RawFd, Errno> {
    // SAFETY: this process has one thread, as required of the callers, so the fork is a whole copy
    // and may do all that this process may.
    Errno::result(unsafe { libc::fork() })
}

fn be_child(standard: Standard, child: impl FnOnce() -> Infallible) -> ! {
    match standard.take() {
        Ok(()) => match child() {},
        Err(errno) => {
            // Nobody waits for an orphan.
            let reason = errno.desc();
            let _ = writeln!(
                io::stderr(),
                "subuidless: closing files: close_range: {reason}"
            );
            exit(errno as i32)
        }
    }
}

fn exit(code: i32) -> ! {
    // SAFETY: _exit runs no destructor or exit handler of the parent.
    unsafe { libc::_exit(code) }
}
