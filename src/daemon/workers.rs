//! One worker process for each listener: spawn, wait, start another one if it dies before its targets.

use std::cell::Cell;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::ExitStatus;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sendfd::SendWithFd;
use tokio::process::Command;
use tracing::{error, info, warn};

use crate::board::Board;
use crate::oci::ContainerProcessState;
use crate::seccomp::ListenerFd;

/// Between two attempts to start a worker for the same container, the first one excepted.
const PAUSE: Duration = Duration::from_millis(200);
/// Deaths in a row without a served call before the attempts become rarer.
const PATIENCE: u32 = 10;

#[derive(Debug)]
pub(super) struct Workers {
    /// Arguments that all workers share.
    arguments: Vec<OsString>,
    running: Cell<usize>,
}

impl Workers {
    pub(super) fn new(arguments: Vec<OsString>) -> Self {
        Self {
            arguments,
            running: Cell::new(0),
        }
    }

    pub(super) fn running(&self) -> usize {
        self.running.get()
    }

    /// Keeps a worker for `listener` until its last target has ended.
    ///
    /// The listener is held here, too: without a worker, calls wait for the next one instead of failing with ENOSYS.
    pub(super) async fn supervise(&self, state: ContainerProcessState, listener: ListenerFd) {
        let ContainerProcessState {
            id, status, bundle, ..
        } = state;
        info!(container = %id, %status, %bundle, "container");
        let board = match Board::create() {
            Ok(board) => board,
            Err(errno) => {
                error!(container = %id, %errno, "no memory for a worker's board: the container's calls will fail");
                return;
            }
        };
        self.running.set(self.running.get() + 1);
        let mut idle_deaths = 0;
        loop {
            let before = board.served().total();
            let ended = self.run_one(&id, &listener, &board).await;
            if !has_targets(&listener) {
                break;
            }
            match ended {
                Ok(status) => warn!(container = %id, %status, "worker died: starting another one"),
                Err(error) => {
                    error!(container = %id, %error, "cannot start a worker: trying again")
                }
            }
            idle_deaths = if board.served().total() > before {
                0
            } else {
                idle_deaths + 1
            };
            match idle_deaths {
                0 | 1 => {}
                2..PATIENCE => tokio::time::sleep(PAUSE).await,
                _ => tokio::time::sleep(PAUSE * 25).await,
            }
        }
        self.running.set(self.running.get() - 1);
        let served = board.served();
        info!(
            container = %id,
            calls = served.total(),
            continued = served.continued,
            answered = served.answered,
            failed = served.failed,
            "container ended"
        );
    }

    async fn run_one(
        &self,
        id: &str,
        listener: &ListenerFd,
        board: &Board,
    ) -> io::Result<ExitStatus> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = std::process::Command::new("/proc/self/exe");
        // For ps: which container it serves. The id is the runtime's, so control characters may be in it.
        command.arg0(format!("subuidless: {}", id.escape_default()));
        command.arg("worker").args(&self.arguments);
        command
            .stdin(OwnedFd::from(theirs))
            .stdout(std::process::Stdio::null());
        let mut child = Command::from(command).spawn()?;
        let fds = [listener.as_fd().as_raw_fd(), board.as_fd().as_raw_fd()];
        if let Err(error) = ours.send_with_fd(b"+", &fds) {
            // The worker finds its end of the socket closed and says so.
            warn!(%error, "cannot hand the listener over");
        }
        drop(ours);
        child.wait().await
    }
}

/// Whether any process still runs under the listener's filter.
fn has_targets(listener: &ListenerFd) -> bool {
    let mut fds = [PollFd::new(listener.as_fd(), PollFlags::empty())];
    match poll(&mut fds, PollTimeout::ZERO) {
        Ok(_) => !fds[0]
            .revents()
            .is_some_and(|events| events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR)),
        Err(_) => true,
    }
}
