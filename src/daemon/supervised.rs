//! One listener of a container, and the state of its worker.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use sendfd::SendWithFd;
use tokio::io::AsyncWriteExt;

use crate::linux::seccomp::ListenerFd;
use crate::wire::board::Board;
use crate::wire::handover::Handover;

/// The status of a container when a runtime starts a further process in it (exec).
pub(super) const EXEC: &str = "running";

/// A listener: what each of its workers gets, and the state of the present one.
#[derive(Debug)]
pub(super) struct Supervised {
    pub(super) handover: Handover,
    pub(super) listener: ListenerFd,
    pub(super) board: Board,
    pub(super) shared: Rc<OwnedFd>,
    /// The socket with the worker's notifications, if the router receives them.
    pub(super) feed: Option<OwnedFd>,
    /// The pid of the present worker.
    pub(super) worker: Cell<Option<u32>>,
    /// The connection to the present worker.
    pub(super) link: RefCell<Option<UnixStream>>,
    /// The connection to a worker that another process started after the present one had died.
    pub(super) successor: RefCell<Option<tokio::net::UnixStream>>,
    /// The number of workers that died before their targets.
    pub(super) deaths: Cell<u32>,
}

impl Supervised {
    pub(super) fn new(
        handover: Handover,
        listener: ListenerFd,
        board: Board,
        shared: Rc<OwnedFd>,
    ) -> Self {
        Self {
            handover,
            listener,
            board,
            shared,
            feed: None,
            worker: Cell::new(None),
            link: RefCell::default(),
            successor: RefCell::default(),
            deaths: Cell::new(0),
        }
    }

    /// The name of the kind of container, for the log.
    pub(super) fn kind(&self) -> &'static str {
        match self.handover.status.as_str() {
            _ if self.feed.is_some() => "user namespace",
            EXEC => "exec",
            _ => "container",
        }
    }

    /// Sends a message to the present worker, without blocking. Without a worker, does nothing: the
    /// next one gets it from `Tracers::watch`.
    pub(super) fn tell_worker(&self, message: &[u8], fd: &OwnedFd) -> io::Result<()> {
        match &*self.link.borrow() {
            Some(link) => link.send_with_fd(message, &[fd.as_raw_fd()]).map(drop),
            None => Ok(()),
        }
    }

    /// Hands the container over to a new worker.
    pub(super) async fn hand_over(&self, link: &mut tokio::net::UnixStream) -> io::Result<()> {
        let message = self.handover.encode();
        let mut fds = vec![
            self.listener.as_fd().as_raw_fd(),
            self.board.as_fd().as_raw_fd(),
            self.shared.as_raw_fd(),
        ];
        fds.extend(self.board.facts().map(|facts| facts.as_raw_fd()));
        fds.extend(self.feed.as_ref().map(OwnedFd::as_raw_fd));
        let sent = loop {
            link.writable().await?;
            match link.send_with_fd(&message, &fds) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => break result?,
            }
        };
        link.write_all(&message[sent..]).await
    }
}
