//! One connection to what it brings: a [`ContainerProcessState`] with its [`ListenerFd`], a worker that lost its daemon, an
//! announcement of the runtime front, or a question.
//!
//! A runtime sends one message with SCM_RIGHTS and closes. The peer is trusted no further than its uid: whatever comes
//! instead ends in an error, with every fd closed.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{MsgFlags, recv};
use sendfd::RecvWithFd;
use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::ask::Ask;
use crate::board::Board;
use crate::handover::{Announcement, FDS, Handover};
use crate::oci::{self, ContainerProcessState, ProtocolError};
use crate::seccomp::ListenerFd;
use crate::sys;

/// Annotations easily pass 4 KiB; nobody needs more than this.
const MAX_PAYLOAD: usize = 1 << 20;
/// The same for a question.
const MAX_ASK: usize = 16 * 1024;
/// SCM_MAX_FD: no message carries more, so nothing is cut off.
const MAX_FDS: usize = 253;
/// From the connection to the end of the message.
const PATIENCE: Duration = Duration::from_secs(10);
/// For something to follow one blank byte.
const BLANK_PATIENCE: Duration = Duration::from_millis(100);

/// Why a connection brought no listener.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReceiveError {
    #[error("the peer did not finish its message within {} seconds; {bytes} bytes came", PATIENCE.as_secs())]
    TimedOut { bytes: usize },
    #[error(
        "the peer closed without a word: a runtime does so when it fails before it loads the filter"
    )]
    Nothing,
    #[error("the message is longer than {MAX_PAYLOAD} bytes")]
    TooLong,
    #[error("no file descriptor came with the message")]
    NoFd,
    #[error("more than {MAX_FDS} file descriptors came")]
    TooManyFds,
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    #[error("its seccompFd is not a seccomp listener: {}", .0.desc())]
    NoListener(Errno),
    #[error("its second file descriptor is not the board of a worker: {}", .0.desc())]
    NoBoard(Errno),
    #[error("reading the message: {0}")]
    Io(#[from] io::Error),
}

/// What a connection brings.
#[derive(Debug)]
pub(super) enum Received {
    /// From a runtime.
    Container(ContainerProcessState, ListenerFd),
    /// From a worker whose daemon has ended.
    Orphan(Orphan),
    /// From the runtime front, whose runtime comes next.
    Announcement(Announcement),
    /// From one of our own commands.
    Ask(Ask),
}

/// A container that has a worker but no daemon.
#[derive(Debug)]
pub(super) struct Orphan {
    pub(super) handover: Handover,
    pub(super) listener: ListenerFd,
    pub(super) board: Board,
    pub(super) shared: OwnedFd,
}

/// `announced`: it is known whose container this is, and it may have been created to be started some day. crun connects when it
/// creates one, and where noNewPrivileges is true it loads the filter when it starts it.
pub(super) async fn receive(
    connection: &UnixStream,
    announced: bool,
) -> Result<Received, ReceiveError> {
    if announced {
        wait_for_bytes(connection).await?;
    }
    let mut message = Message::default();
    let said = tokio::time::timeout(PATIENCE, read_message(connection, &mut message))
        .await
        .map_err(|_| ReceiveError::TimedOut {
            bytes: message.payload.len(),
        })??;
    let listener = |fd| ListenerFd::new(fd).map_err(ReceiveError::NoListener);
    match said {
        Said::Container(state) => {
            let fd = message.fds.swap_remove(state.listener);
            Ok(Received::Container(state, listener(fd)?))
        }
        Said::Ask(ask) => Ok(Received::Ask(ask)),
        Said::Orphan(handover) => {
            let fds: [OwnedFd; FDS] = message.fds.try_into().map_err(|_| ReceiveError::NoFd)?;
            let [fd, board, shared] = fds;
            Ok(Received::Orphan(Orphan {
                handover,
                listener: listener(fd)?,
                board: Board::open(board).map_err(ReceiveError::NoBoard)?,
                shared,
            }))
        }
        Said::Announcement(announcement) => Ok(Received::Announcement(announcement)),
    }
}

/// Until there is something to read, or the peer has closed.
async fn wait_for_bytes(connection: &UnixStream) -> io::Result<()> {
    loop {
        connection.readable().await?;
        let look = || {
            let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
            Ok(recv(connection.as_raw_fd(), &mut [0], flags)?)
        };
        // The first readiness of a connection means nothing.
        match connection.try_io(Interest::READABLE, look) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result.map(drop),
        }
    }
}

/// What a complete message says.
enum Said {
    Container(ContainerProcessState),
    Orphan(Handover),
    Announcement(Announcement),
    Ask(Ask),
}

/// What has come so far.
#[derive(Debug, Default)]
struct Message {
    payload: Vec<u8>,
    fds: Vec<OwnedFd>,
}

/// Reads until the message is complete.
///
/// That may be before the peer closes: crun's init holds its end open while its own first calls under the filter already
/// wait for the answers that this message makes possible.
async fn read_message(
    connection: &UnixStream,
    message: &mut Message,
) -> Result<Said, ReceiveError> {
    loop {
        let open = if message.is_blank() {
            // Either all that crun before 0.19 sends, or the white space before somebody's JSON.
            let more = tokio::time::timeout(BLANK_PATIENCE, read_some(connection, message)).await;
            more.unwrap_or(Ok(false))?
        } else {
            read_some(connection, message).await?
        };
        if !open || message.may_be_complete() {
            if let Some(handover) = Handover::parse(&message.payload) {
                return Ok(Said::Orphan(handover));
            }
            if let Some(announcement) = Announcement::parse(&message.payload) {
                return Ok(Said::Announcement(announcement));
            }
            if let Some(ask) = message.ask() {
                return Ok(Said::Ask(ask));
            }
            match oci::parse(&message.payload, message.fds.len()) {
                Err(_) if message.payload.is_empty() && message.fds.is_empty() => {
                    return Err(ReceiveError::Nothing);
                }
                Err(ProtocolError::FdCount { received: 0, .. }) => return Err(ReceiveError::NoFd),
                Err(_) if message.fds.is_empty() && !open => return Err(ReceiveError::NoFd),
                Err(ProtocolError::Json(error)) if open && error.is_eof() => {}
                Ok(_) if open && message.is_blank() => {}
                result => return Ok(Said::Container(result?)),
            }
        }
    }
}

impl Message {
    fn is_blank(&self) -> bool {
        self.payload.len() == 1 && !self.fds.is_empty() && self.may_be_complete()
    }

    /// A question has no fds with it.
    fn ask(&self) -> Option<Ask> {
        let may_be = self.fds.is_empty() && self.payload.len() <= MAX_ASK;
        may_be.then(|| Ask::parse(&self.payload)).flatten()
    }

    /// Spares a parse of what cannot be the end of an object.
    fn may_be_complete(&self) -> bool {
        let last = self.payload.last();
        last.is_some_and(|last| matches!(last, b'}' | 0) || last.is_ascii_whitespace())
    }
}

/// Reads what there is; `false` when the peer has closed.
async fn read_some(connection: &UnixStream, message: &mut Message) -> Result<bool, ReceiveError> {
    let mut chunk = [0; 8 * 1024];
    let mut numbers: [RawFd; MAX_FDS] = [-1; MAX_FDS];
    loop {
        connection.readable().await?;
        let (length, count) = match connection.recv_with_fd(&mut chunk, &mut numbers) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            result => result?,
        };
        // No program is started between these two lines, so close-on-exec comes in time.
        let received = sys::adopt_received_fds(&numbers[..count]);
        for fd in &received {
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(io::Error::from)?;
        }
        message.fds.extend(received);
        message.payload.extend_from_slice(&chunk[..length]);
        if message.fds.len() > MAX_FDS {
            return Err(ReceiveError::TooManyFds);
        }
        if message.payload.len() > MAX_PAYLOAD {
            return Err(ReceiveError::TooLong);
        }
        return Ok(length > 0);
    }
}
