//! One listener of a container, as long as its worker is looked after.

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

/// The status of a container into which a further process is put.
pub(super) const EXEC: &str = "running";

/// What is handed to each worker of a container, and what is known of the present one.
#[derive(Debug)]
pub(super) struct Supervised {
    pub(super) handover: Handover,
    pub(super) listener: ListenerFd,
    pub(super) board: Board,
    pub(super) shared: Rc<OwnedFd>,
    /// Where the worker finds its notifications, if it does not receive by itself.
    pub(super) feed: Option<OwnedFd>,
    pub(super) worker: Cell<Option<u32>>,
    /// The present worker's.
    pub(super) link: RefCell<Option<UnixStream>>,
    /// Of a worker that somebody else has started when the present one had ended.
    pub(super) successor: RefCell<Option<tokio::net::UnixStream>>,
    /// Workers that died before their targets.
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

    /// What it is that has begun and will end.
    pub(super) fn kind(&self) -> &'static str {
        match self.handover.status.as_str() {
            _ if self.feed.is_some() => "user namespace",
            EXEC => "exec",
            _ => "container",
        }
    }

    /// Says something to the present worker, without waiting for it; one without a worker hears it
    /// later.
    pub(super) fn tell_worker(&self, message: &[u8], fd: &OwnedFd) -> io::Result<()> {
        match &*self.link.borrow() {
            Some(link) => link.send_with_fd(message, &[fd.as_raw_fd()]).map(drop),
            None => Ok(()),
        }
    }

    /// Tells a new worker of its self.
    pub(super) async fn hand_over(&self, link: &mut tokio::net::UnixStream) -> io::Result<()> {
        let message = self.handover.encode();
        let mut fds = vec![
            self.listener.as_fd().as_raw_fd(),
            self.board.as_fd().as_raw_fd(),
            self.shared.as_raw_fd(),
        ];
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
