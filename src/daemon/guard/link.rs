//! The daemon's end of its guard (see `super`): a process that has all that the daemon has
//! of each container.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use sendfd::SendWithFd;
use tokio::process::{Child, Command};
use tracing::warn;

use crate::daemon::supervised::Supervised;
use crate::linux::memfd;
use crate::wire::mode::Mode;

#[derive(Debug, Default)]
pub(in crate::daemon) struct Guard {
    /// `None` while no guard runs.
    link: RefCell<Option<UnixStream>>,
}

impl Guard {
    /// Gives the guard what it takes to start a worker for the container.
    pub(in crate::daemon) fn keep(&self, container: &Supervised) {
        // What is received by somebody else is lost with him.
        if container.feed.is_some() {
            return;
        }
        let Some(link) = &*self.link.borrow() else {
            return;
        };
        if let Err(error) = send(link, container) {
            warn!(
                container = %container.handover.id, %error,
                "cannot hand a container to the guard: it will not survive the loss of both daemon \
                 and worker"
            );
        }
    }

    /// Starts a guard, and gives it what there is.
    pub(in crate::daemon) fn start(
        &self,
        guard: &Mode,
        containers: &[Rc<Supervised>],
    ) -> io::Result<Child> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        let mut command = guard.command(format!("subuidless guard of {}", std::process::id()));
        command.current_dir("/").stdin(theirs);
        let child = Command::from(command).spawn()?;
        let ours = UnixStream::from(ours);
        ours.set_nonblocking(true)?;
        self.link.replace(Some(ours));
        for container in containers {
            self.keep(container);
        }
        Ok(child)
    }

    /// The guard has ended.
    pub(in crate::daemon) fn lose(&self) {
        self.link.replace(None);
    }
}

fn send(link: &UnixStream, container: &Supervised) -> io::Result<()> {
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
