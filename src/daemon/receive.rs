//! Receives the one message of a connection: a [`ContainerProcessState`] with its [`ListenerFd`],
//! the handover of a worker that lost its daemon, an announcement of the front, or a question.
//!
//! A runtime sends one message with SCM_RIGHTS and closes. Apart from its uid the peer is not
//! trusted: any other message ends in an error, with every file descriptor closed.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::Notify;

use super::patiently;
use crate::linux::seccomp::ListenerFd;
use crate::linux::sys;
use crate::wire::ask::What;
use crate::wire::board::Board;
use crate::wire::handover::{Announcement, FDS, Handover};
use crate::wire::message::{Message as Ours, NotUnderstood};
use crate::wire::oci::{self, ContainerProcessState, ProtocolError};

/// The maximum length of a message, in bytes. Annotations easily exceed 4 KiB.
const MAX_PAYLOAD: usize = 1 << 20;
/// The maximum length of a question, in bytes.
const MAX_ASK: usize = 16 * 1024;
/// The maximum number of file descriptors. Runtimes send one; the specification allows more.
const MAX_FDS: usize = 16;
/// The time limit from the connection to the end of the message.
const PATIENCE: Duration = Duration::from_secs(10);

/// The reason why a connection brought no usable message.
#[derive(Debug, thiserror::Error)]
pub(super) enum MessageError {
    #[error(
        "the peer did not finish its message within {} seconds; {bytes} bytes came",
        PATIENCE.as_secs()
    )]
    TimedOut { bytes: usize },
    #[error(
        "the peer closed without a message: a runtime does so if it fails before it loads the \
         filter"
    )]
    Nothing,
    #[error("the message is longer than {MAX_PAYLOAD} bytes")]
    TooLong,
    #[error("the message came without file descriptors")]
    NoFd,
    #[error("more than {MAX_FDS} file descriptors came with the message")]
    TooManyFds,
    #[error("the message is of another version of this program")]
    OtherVersion,
    #[error(
        "too many peers were connected at once, and this one had sent no message for the longest \
         time"
    )]
    Crowded,
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    #[error("its seccompFd is not a seccomp listener: {}", .0.desc())]
    NoListener(Errno),
    #[error("its second file descriptor is not the board of a worker: {}", .0.desc())]
    NoBoard(Errno),
    #[error("reading the message: {0}")]
    Io(#[from] io::Error),
}

/// The message of a connection.
#[derive(Debug)]
pub(super) enum Received {
    /// From a runtime.
    Container(ContainerProcessState, ListenerFd),
    /// From a worker whose daemon has exited.
    Orphan(Orphan),
    /// From the front, whose runtime connects next.
    Announcement(Announcement),
    /// From `status` or `trace`.
    Ask(What),
}

/// A container that has a worker but no daemon.
#[derive(Debug)]
pub(super) struct Orphan {
    pub(super) handover: Handover,
    pub(super) listener: ListenerFd,
    pub(super) board: Board,
    pub(super) shared: OwnedFd,
}

/// Receives the message of a connection.
///
/// `announced` means that the front has announced a container of this peer: then there is no time
/// limit for the first byte. crun connects when it creates a container, but with noNewPrivileges
/// loads the filter only when it starts it, which may be days later.
pub(super) async fn receive(
    connection: &UnixStream,
    announced: bool,
) -> Result<Received, MessageError> {
    if announced {
        wait_for_bytes(connection).await?;
    }
    let mut message = Message::default();
    // Before the time limit starts: a shortage of this process is not the peer's fault.
    make_room().await?;
    let said = tokio::time::timeout(PATIENCE, read_message(connection, &mut message))
        .await
        .map_err(|_| MessageError::TimedOut {
            bytes: message.payload.len(),
        })??;
    let listener = |fd| ListenerFd::new(fd).map_err(MessageError::NoListener);
    let handover = match said {
        FirstMessage::Container(state) => {
            let fd = message.fds.swap_remove(state.listener);
            return Ok(Received::Container(state, listener(fd)?));
        }
        FirstMessage::Ours(Ours::Handover(handover)) => handover,
        FirstMessage::Ours(Ours::Announcement(announcement)) => {
            return Ok(Received::Announcement(announcement));
        }
        FirstMessage::Ours(Ours::Ask(ask)) => return Ok(Received::Ask(ask)),
        // For workers only.
        FirstMessage::Ours(Ours::Trace(_)) => return Err(MessageError::OtherVersion),
    };
    let facts = match handover.service.fast.is_on() {
        true => Some(message.fds.pop().ok_or(MessageError::NoFd)?),
        false => None,
    };
    let fds: [OwnedFd; FDS] = message.fds.try_into().map_err(|_| MessageError::NoFd)?;
    let [fd, board, shared] = fds;
    Ok(Received::Orphan(Orphan {
        handover,
        listener: listener(fd)?,
        board: Board::open(board, facts).map_err(MessageError::NoBoard)?,
        shared,
    }))
}

/// Waits until there is something to read, or the peer has closed.
async fn wait_for_bytes(connection: &UnixStream) -> io::Result<()> {
    loop {
        connection.readable().await?;
        let peek = || {
            let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
            Ok(recv(connection.as_raw_fd(), &mut [0], flags)?)
        };
        // readable() may return although there is nothing to read.
        match connection.try_io(Interest::READABLE, peek) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result.map(drop),
        }
    }
}

/// A complete message.
enum FirstMessage {
    Container(ContainerProcessState),
    Ours(Ours),
}

/// The part of a message that was received so far.
#[derive(Debug, Default)]
struct Message {
    payload: Vec<u8>,
    fds: Vec<OwnedFd>,
    scan: Scan,
}

/// Reads until the message is complete.
///
/// It must not wait for the peer to close: crun's init keeps its end open while its first calls
/// under the filter wait for a worker, which this message starts. The message is parsed only once,
/// so a peer that sends single bytes costs no more than others.
async fn read_message(
    connection: &UnixStream,
    message: &mut Message,
) -> Result<FirstMessage, MessageError> {
    loop {
        let open = read_some(connection, message).await?;
        if !open || message.scan.is_over() {
            return message.said();
        }
    }
}

impl Message {
    /// Decodes the message.
    fn said(&self) -> Result<FirstMessage, MessageError> {
        let Self { payload, fds, .. } = self;
        if payload.is_empty() && fds.is_empty() {
            return Err(MessageError::Nothing);
        }
        match Ours::parse(payload) {
            // A question comes without file descriptors.
            Ok(Ours::Ask(_)) if !fds.is_empty() || payload.len() > MAX_ASK => {}
            Ok(message) => return Ok(FirstMessage::Ours(message)),
            Err(NotUnderstood::OtherVersion) => return Err(MessageError::OtherVersion),
            Err(NotUnderstood::Foreign) => {}
        }
        match oci::parse(payload, fds.len()) {
            // Whatever else is wrong: a message without a listener is of no use.
            Err(_) if fds.is_empty() => Err(MessageError::NoFd),
            result => Ok(FirstMessage::Container(result?)),
        }
    }
}

/// Finds the end of a JSON object, byte by byte.
#[derive(Debug, Default)]
struct Scan {
    depth: usize,
    is_in_string: bool,
    is_escaped: bool,
    is_over: bool,
}

impl Scan {
    fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.is_over {
                return;
            }
            self.step(byte);
        }
    }

    fn step(&mut self, byte: u8) {
        if self.is_in_string {
            self.is_in_string = self.is_escaped || byte != b'"';
            self.is_escaped = !self.is_escaped && byte == b'\\';
            return;
        }
        match byte {
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            b'"' => self.is_in_string = true,
            _ => {}
        }
        // Text that does not start as an object is not a message, so there is no need to read on.
        self.is_over = self.depth == 0 && !is_space(byte);
    }

    /// Whether the message is complete, or cannot become a valid one.
    fn is_over(&self) -> bool {
        self.is_over
    }
}

fn is_space(byte: u8) -> bool {
    byte == 0 || byte.is_ascii_whitespace()
}

/// Waits until this process could open as many file descriptors as a message may bring: the kernel
/// closes those that exceed RLIMIT_NOFILE.
async fn make_room() -> io::Result<()> {
    let room = || {
        let duplicate = |_| io::stdin().as_fd().try_clone_to_owned();
        (0..=MAX_FDS).map(duplicate).collect::<io::Result<Vec<_>>>()
    };
    patiently(room).await.map(drop)
}

/// Reads once. Returns `false` if the peer has closed.
async fn read_some(connection: &UnixStream, message: &mut Message) -> Result<bool, MessageError> {
    let mut chunk = [0; 8 * 1024];
    loop {
        connection.readable().await?;
        make_room().await?;
        let receive = || Ok(sys::receive(connection, &mut chunk, MAX_FDS + 1)?);
        let (length, files) = match connection.try_io(Interest::READABLE, receive) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            result => result?,
        };
        message.fds.extend(files);
        message.scan.feed(&chunk[..length]);
        message.payload.extend_from_slice(&chunk[..length]);
        if message.fds.len() > MAX_FDS {
            return Err(MessageError::TooManyFds);
        }
        if message.payload.len() > MAX_PAYLOAD {
            return Err(MessageError::TooLong);
        }
        return Ok(length > 0);
    }
}

/// The connections whose message has not been received yet.
#[derive(Debug, Default)]
pub(super) struct Audience(RefCell<VecDeque<Rc<Notify>>>);

impl Audience {
    /// The maximum number of such connections.
    const MOST: usize = 256;

    /// As [`receive`], but gives up the oldest connection if there are too many.
    pub(super) async fn hear(
        &self,
        connection: &UnixStream,
        announced: bool,
    ) -> Result<Received, MessageError> {
        if announced {
            return receive(connection, true).await;
        }
        if self.0.borrow().len() >= Self::MOST {
            self.send_one_away();
        }
        let leave = Rc::new(Notify::new());
        self.0.borrow_mut().push_back(Rc::clone(&leave));
        let heard = tokio::select! {
            received = receive(connection, false) => received,
            () = leave.notified() => Err(MessageError::Crowded),
        };
        self.0
            .borrow_mut()
            .retain(|other| !Rc::ptr_eq(other, &leave));
        heard
    }

    /// Gives up the oldest connection: an honest peer sends its message at once.
    pub(super) fn send_one_away(&self) {
        if let Some(first) = self.0.borrow_mut().pop_front() {
            first.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of bytes of `text` after which the message is over.
    fn over_after(text: &str) -> Option<usize> {
        let mut scan = Scan::default();
        (0..text.len()).find_map(|at| {
            scan.feed(&text.as_bytes()[at..=at]);
            scan.is_over().then_some(at + 1)
        })
    }

    #[test]
    fn the_end_of_an_object_is_found_whatever_is_in_it() {
        let whole = r#" {"a": "}\\\"}", "b": [{}, "]"], "c\\": {"d": "\u007d"}}"#;
        assert_eq!(over_after(&format!("{whole} x")), Some(whole.len()));
        for end in 0..whole.len() {
            assert_eq!(over_after(&whole[..end]), None);
        }
    }

    #[test]
    fn what_is_no_object_is_over_with_its_first_byte() {
        for text in ["GET /", "\"x\"", "}", "1"] {
            assert!(over_after(text).is_some_and(|length| length <= 2), "{text}");
        }
        assert_eq!(over_after(" \n\0\t"), None);
    }
}
