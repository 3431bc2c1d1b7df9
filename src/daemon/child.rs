//! The process of a worker: a fork of the supervisor for the first one of a command, which prepares
//! while the command does; otherwise this program, executed again.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitStatus;

use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tracing::debug;

use crate::linux::{limits, sys};
use crate::log::Settings;
use crate::store::Places;
use crate::wire::mode::{Mode, Setup};

/// The process of a worker.
#[derive(Debug)]
pub(super) enum WorkerProcess {
    Executed(Child),
    /// With this pid, until its exit is known.
    Forked(Option<u32>),
}

impl WorkerProcess {
    /// Executes the worker of the container `id`; returns the other end of its standard input, too.
    pub(super) fn execute(setup: Setup, id: &str) -> io::Result<(Self, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = Mode::Worker(setup).command(title(id));
        command.stdin(OwnedFd::from(theirs));
        let child = Command::from(command).spawn()?;
        Ok((Self::Executed(child), ours))
    }

    /// As [`WorkerProcess::execute`], by a fork of this process, which must have one thread.
    fn fork(setup: Setup, id: &str) -> io::Result<(Self, UnixStream)> {
        let (pid, ours) = Mode::Worker(setup).fork(&title(id))?;
        Ok((Self::Forked(Some(pid)), ours))
    }

    /// Returns `None` once `wait` has returned.
    pub(super) fn pid(&self) -> Option<u32> {
        match self {
            Self::Executed(child) => child.id(),
            Self::Forked(pid) => *pid,
        }
    }

    /// Waits for its exit.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        match self {
            Self::Executed(child) => child.wait().await,
            Self::Forked(pid) => {
                let mut exits = signal(SignalKind::child())?;
                loop {
                    let child = pid.ok_or(io::ErrorKind::NotFound)?;
                    if let Some(status) = sys::try_wait(child)? {
                        *pid = None;
                        return Ok(status);
                    }
                    exits.recv().await;
                }
            }
        }
    }
}

/// The name of the worker of a container, for ps(1).
pub(super) fn title(id: &str) -> String {
    // The runtime chose the id, which may contain control characters.
    format!("subuidless: {}", id.escape_default())
}

/// The first worker of a command, which waits for its container.
#[derive(Debug)]
pub(crate) struct FirstWorker {
    /// The places of the side store, which it opens.
    pub(super) places: Places,
    /// `None` if it could not be forked.
    pub(super) process: Option<(WorkerProcess, UnixStream)>,
}

impl FirstWorker {
    /// Starts the worker of the command `id`. This process must have one thread.
    pub(crate) fn start(store: Option<PathBuf>, log: Settings, id: &str) -> Self {
        // The worker inherits them.
        limits::raise();
        let places = Places::prepare_quietly(store);
        let setup = Setup {
            log,
            recent: places.recent.clone(),
            lasting: places.lasting.clone(),
            socket: None,
        };
        let process = WorkerProcess::fork(setup, id)
            .inspect_err(|error| debug!(%error, "cannot fork a worker: executing one later"))
            .ok();
        Self { places, process }
    }
}
