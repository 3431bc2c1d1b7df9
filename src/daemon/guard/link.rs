//! The daemon's end of its guard (see `crate::daemon::guard`): a process that has all that the daemon has
//! of each container.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use sendfd::SendWithFd;
use tokio::process::{Child, Command};
use tracing::{debug, warn};

use crate::daemon::workers::{Container, Workers};
use crate::linux::memfd;
use crate::wire::mode::Mode;

/// Between two attempts to have a guard.
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
pub(in crate::daemon) struct Guard {
    /// `None` while there is none.
    link: RefCell<Option<UnixStream>>,
}

impl Guard {
    /// Gives the guard what it takes to start a worker for the container.
    pub(in crate::daemon) fn keep(&self, container: &Container) {
        // What is received by somebody else is lost with him.
        if container.feed.is_some() {
            return;
        }
        let Some(link) = &*self.link.borrow() else {
            return;
        };
        if let Err(error) = send(link, container) {
            warn!(container = %container.handover.id, %error, "nobody else keeps this container");
        }
    }

    fn start(&self, guard: &Mode) -> io::Result<Child> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        let mut command = guard.command(format!("subuidless guard of {}", std::process::id()));
        command.current_dir("/").stdin(theirs);
        let child = Command::from(command).spawn()?;
        let ours = UnixStream::from(ours);
        ours.set_nonblocking(true)?;
        self.link.replace(Some(ours));
        Ok(child)
    }
}

/// Starts a guard, and another one whenever it has ended.
pub(in crate::daemon) fn start(workers: Rc<Workers>) {
    let mut started = start_one(&workers);
    tokio::task::spawn_local(async move {
        loop {
            match started {
                Ok(mut guard) => {
                    let ended = guard.wait().await;
                    debug!(?ended, "the guard has ended");
                }
                Err(error) => warn!(%error, "no guard: nobody else keeps the containers"),
            }
            workers.guard.link.replace(None);
            tokio::time::sleep(PAUSE).await;
            started = start_one(&workers);
        }
    });
}

/// And gives it what there is.
fn start_one(workers: &Workers) -> io::Result<Child> {
    let guard = workers.guard.start(&Mode::Guard(workers.setup()))?;
    for container in workers.containers() {
        workers.guard.keep(&container);
    }
    Ok(guard)
}

fn send(link: &UnixStream, container: &Container) -> io::Result<()> {
    // In a file: a packet has bounds.
    let bytes = container.handover.encode();
    let message = memfd::with_contents(c"subuidless-handover", &bytes)?;
    let fds = [
        container.listener.as_fd().as_raw_fd(),
        container.board.as_fd().as_raw_fd(),
        container.shared.as_raw_fd(),
        message.as_raw_fd(),
    ];
    link.send_with_fd(b"k", &fds).map(drop)
}
