//! A command in a pid namespace of its own, or one after which something is left to do.
//!
//! This process stays outside, and starts two: the namespace's first one, the *reaper*, which takes
//! orphans, and the command. This process forwards signals to the command, stops and ends as it
//! does, and takes everything in the namespace with it: the reaper ends as soon as this process has
//! ended, for whichever reason, and the kernel kills the others.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, pthread_sigmask};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::wait;
use nix::unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp};

use crate::error::{Context, Error};
use crate::linux::procfs;
use crate::linux::sys::{self, Standard};
use crate::linux::title;
use crate::wire::mode;

const WHAT: &str = "starting a process in the new pid namespace";

/// The first process of a new pid namespace, which lives as long as this value.
#[derive(Debug)]
pub(super) struct Reaper {
    _alive: PipeWriter,
}

impl Reaper {
    /// Starts it as the first child after unshare(CLONE_NEWPID).
    pub(super) fn start() -> Result<Self, Error> {
        let (watched, alive) = io::pipe().doing(WHAT)?;
        let null = File::options().write(true).open("/dev/null").doing(WHAT)?;
        let standard = Standard {
            input: watched.as_fd(),
            output: Some(null.as_fd()),
            error: Some(null.as_fd()),
        };
        sys::fork(standard, be_reaper).doing(WHAT)?;
        Ok(Self { _alive: alive })
    }
}

fn be_reaper() -> Infallible {
    sys::ignore_children();
    title::set(["subuidless".as_ref(), "reaper".as_ref()]);
    // No terminal is to signal it. Fails never: a fork leads no process group.
    let _ = nix::unistd::setsid();
    let end = io::stdin().as_fd().try_clone_to_owned();
    if let Ok(end) = end {
        let _ = PipeReader::from(end).read(&mut [0]);
    }
    std::process::exit(0)
}

/// The command, as seen by the process that waits for it.
#[derive(Debug)]
pub(crate) struct Command {
    pid: Pid,
    process: OwnedFd,
    signals: SignalFd,
    /// Where this process had the terminal: the process group.
    foreground: Option<Pid>,
    /// The supervisor, until it is not the only one that serves the container.
    supervisor: Option<UnixStream>,
}

/// The two processes after [`split`].
#[derive(Debug)]
pub(crate) enum Half {
    /// The command, which is about to execute its program.
    Command,
    Waits(Command),
}

/// Forks the command, which goes on as this process would.
pub(crate) fn split() -> Result<Half, Error> {
    // Otherwise there would be no status to wait for.
    sys::heed_children();
    // What arrives from here on is for the command.
    let mut before = SigSet::empty();
    pthread_sigmask(
        SigmaskHow::SIG_SETMASK,
        Some(&SigSet::all()),
        Some(&mut before),
    )
    .doing(WHAT)?;
    let Some(pid) = sys::fork_both().doing(WHAT)? else {
        pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), None).doing(WHAT)?;
        return Ok(Half::Command);
    };
    Ok(Half::Waits(Command {
        pid: Pid::from_raw(pid.cast_signed()),
        process: sys::process_pidfd(pid).doing(WHAT)?,
        signals: SignalFd::new(&SigSet::all()).doing(WHAT)?,
        foreground: tcgetpgrp(io::stdin()).ok().filter(|it| *it == getpgrp()),
        supervisor: None,
    }))
}

impl Command {
    /// The pid, in this process's pid namespace.
    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// Lets the command end with an error if its supervisor dies while nobody else serves it: a
    /// runtime would wait for an answer forever, since it holds the listener itself while it
    /// creates a container.
    pub(super) fn served_by(self, supervisor: UnixStream) -> Result<Self, Error> {
        // What the runtime leaves behind is to be ended, too: this process becomes its parent.
        set_child_subreaper(true).doing("prctl(PR_SET_CHILD_SUBREAPER)")?;
        Ok(Self {
            supervisor: Some(supervisor),
            ..self
        })
    }

    /// Waits for a signal. Fails if nobody serves the command, and ends that.
    fn wait_for_signal(&mut self) -> Result<(), Error> {
        while let Some(supervisor) = &self.supervisor {
            let event = |file| PollFd::new(file, PollFlags::POLLIN);
            let mut events = [event(self.signals.as_fd()), event(supervisor.as_fd())];
            while poll(&mut events, PollTimeout::NONE) == Err(Errno::EINTR) {}
            if events[0].any() == Some(true) {
                break;
            }
            if !mode::has_shared(supervisor) {
                self.kill_family().doing("killing the runtime")?;
                return Err(Error::NoSupervisor);
            }
            self.supervisor = None;
        }
        Ok(())
    }

    /// Kills the command, and what it has started (see [`Self::served_by`]).
    fn kill_family(&self) -> io::Result<()> {
        let _ = sys::pidfd_send_signal(self.process.as_fd(), Signal::SIGKILL);
        while wait() != Err(Errno::ECHILD) {
            for child in procfs::children()? {
                let _ = kill(Pid::from_raw(child.cast_signed()), Signal::SIGKILL);
            }
        }
        Ok(())
    }

    /// Waits for the end of the command, to which this process's signals go until then.
    pub(crate) fn end(&mut self) -> Result<ExitStatus, Error> {
        const WAITING: &str = "waiting for the command";
        loop {
            self.wait_for_signal()?;
            // A stop or an end is told by SIGCHLD.
            let Some(signal) = self.signals.read_signal().doing(WAITING)? else {
                continue;
            };
            let number = signal.ssi_signo.cast_signed();
            if number != libc::SIGCHLD {
                // The kernel has sent those of the terminal to the command, too: it is in the same
                // process group, or has the terminal for itself. ESRCH: it has just ended.
                if signal.ssi_code != libc::SI_KERNEL {
                    let _ = sys::pidfd_send(self.process.as_fd(), number);
                }
                continue;
            }
            match sys::changed(self.pid()).doing(WAITING)? {
                None => {}
                Some(status) => match status.stopped_signal() {
                    // Until somebody continues this process.
                    Some(signal) => sys::take_signal(signal),
                    None => return Ok(status),
                },
            }
        }
    }

    /// Waits for the end of the command, and ends this process likewise, but for exit codes that
    /// `say` changes.
    pub(super) fn wait(
        mut self,
        reaper: Option<Reaper>,
        say: impl FnOnce(i32) -> i32,
    ) -> Result<Infallible, Error> {
        let end = self.end()?;
        drop(reaper);
        if let Some(group) = self.foreground {
            // A shell in the namespace cannot give the terminal back: this group has no number
            // there. Without SIGTTOU, which is blocked.
            let _ = tcsetpgrp(io::stdin(), group);
        }
        if let Some(signal) = end.signal() {
            let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
            sys::take_signal(signal);
        }
        std::process::exit(
            end.code()
                .map_or_else(|| 128 + end.signal().unwrap_or(0), say),
        )
    }
}
