//! The daemon's side of the guard (see `super`): starts the guard, and sends it a copy of all that
//! the daemon holds of each container.

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

/// The guard of this daemon.
#[derive(Debug, Default)]
pub(in crate::daemon) struct GuardLink {
    /// `None` while no guard runs.
    link: RefCell<Option<UnixStream>>,
}

impl GuardLink {
    /// Sends the guard what it needs to start a worker for the container.
    pub(in crate::daemon) fn keep(&self, container: &Supervised) {
        // The router, a thread of the daemon, receives its notifications: they are lost with it.
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

    /// Starts a guard and sends it all containers.
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

    /// Closes the connection to a guard that has exited.
    pub(in crate::daemon) fn lose(&self) {
        self.link.replace(None);
    }
}

/// Sends one packet with the file descriptors of a container, and the handover in a memfd.
fn send(link: &UnixStream, container: &Supervised) -> io::Result<()> {
    // In a memfd: the size of a packet is limited.
    let bytes = container.handover.encode();
    let message = memfd::with_contents(c"subuidless-handover", &bytes)?;
    let mut fds = vec![
        container.listener.as_fd().as_raw_fd(),
        container.board.as_fd().as_raw_fd(),
        container.shared.as_raw_fd(),
        message.as_raw_fd(),
    ];
    fds.extend(container.board.facts().map(|facts| facts.as_raw_fd()));
    link.send_with_fd(b"k", &fds).map(drop)
}
