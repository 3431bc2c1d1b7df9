//! The supervisor's use of the command's standard error, for as long as the command runs.
//!
//! A reader that waits for the end of that pipe must not wait for the supervisor, which lives on
//! while background processes of the command have the filter. So supervisor and workers write to a
//! pipe of their own, and a thread forwards it until the command has ended.

use std::fs::File;
use std::io::{self, Read, Write, stderr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{dup2_stderr, pipe2};

use crate::error::{Context, Error};
use crate::linux::sys;

/// PIPE_BUF, longer than a log line: writes up to this size are atomic (pipe(7)).
const MOST: usize = 4096;

/// Standard error while it is forwarded.
#[derive(Debug)]
pub(crate) struct Lent {
    returned: Receiver<()>,
}

/// Standard error as it was, and what this process and its children write since then.
#[derive(Debug)]
pub(crate) struct Diverted {
    command: OwnedFd,
    to: OwnedFd,
    from: OwnedFd,
}

/// Turns standard error of this process into a pipe, for as long as the process `pid` runs. If that
/// is impossible, discards it: a pipe that stays open would block its reader.
pub(crate) fn divert(pid: u32) -> Option<Diverted> {
    try_to_divert(pid).map_err(|_| go_nowhere()).ok()
}

fn go_nowhere() -> io::Result<()> {
    let nowhere = File::options().write(true).open("/dev/null")?;
    Ok(dup2_stderr(&nowhere)?)
}

fn try_to_divert(pid: u32) -> io::Result<Diverted> {
    // One of the thread would tell when it executes the command (Linux 6.9 to 6.14).
    let command = sys::process_pidfd(pid)?;
    let to = stderr().as_fd().try_clone_to_owned()?;
    let (from, ours) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    dup2_stderr(&ours)?;
    Ok(Diverted { command, to, from })
}

impl Diverted {
    /// Forwards what was and is written, in a thread. If that is impossible, standard error is
    /// again what it was.
    pub(crate) fn forward(self) -> Result<Lent, Error> {
        const WHAT: &str = "starting a thread that forwards messages";
        let (tell, returned) = channel();
        let before = self.to.try_clone().doing(WHAT)?;
        let forward = move || {
            // There is no place to report an error to.
            let _ = pass_on(self.from.into(), File::from(self.to), &self.command);
            let _ = tell.send(());
        };
        let thread = std::thread::Builder::new().name("stderr".to_owned());
        match thread.spawn(forward) {
            Ok(_) => Ok(Lent { returned }),
            Err(error) => {
                dup2_stderr(&before).doing(WHAT)?;
                Err(Error::doing(WHAT, error))
            }
        }
    }
}

impl Lent {
    /// Waits until the last lines have been forwarded, but not for a reader that does not read.
    pub(crate) fn give_back(self) {
        // Long: on a busy machine the thread may take its time, and nobody waits for this process.
        const PATIENCE: Duration = Duration::from_secs(10);
        // The pipe ends when its last writer closes it.
        if go_nowhere().is_ok() {
            let _ = self.returned.recv_timeout(PATIENCE);
        }
    }
}

/// Forwards until the command has ended. Later writes to the pipe fail, which is harmless.
fn pass_on(mut from: File, mut to: File, command: &OwnedFd) -> io::Result<()> {
    let mut words = [0; MOST];
    loop {
        let goes_on = wait(&from, PollFlags::POLLIN, command)?;
        // Everything written before the end is in the pipe by now.
        loop {
            match from.read(&mut words) {
                Ok(0) => return Ok(()),
                Ok(length) => {
                    // After the end, a reader that has stopped must not block this thread.
                    if wait(&to, PollFlags::POLLOUT, command)? || is_ready(&to) {
                        to.write_all(&words[..length])?;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        if !goes_on {
            return Ok(());
        }
    }
}

fn is_ready(to: &File) -> bool {
    let mut fds = [PollFd::new(to.as_fd(), PollFlags::POLLOUT)];
    matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1..))
}

/// Waits until `fd` has one of `events`. Returns `false` if the command has ended.
fn wait(fd: &File, events: PollFlags, command: &OwnedFd) -> io::Result<bool> {
    let mut fds = [
        PollFd::new(fd.as_fd(), events),
        PollFd::new(command.as_fd(), PollFlags::POLLIN),
    ];
    loop {
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            result => {
                result?;
                break;
            }
        }
    }
    Ok(fds[1].revents().is_none_or(|events| events.is_empty()))
}
