//! A worker's link to its daemon: takes over from it, notices its end, and finds the next one.
//!
//! The daemon may be restarted while containers run. A worker without a daemon serves as before,
//! but nobody would replace it; so it looks for a new daemon on the same socket and hands its
//! container over, to be watched again.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::stat::Mode;
use nix::unistd::Uid;
use sendfd::SendWithFd;
use tracing::{debug, info};

use crate::error::{Context, Error};
use crate::identity::Table;
use crate::linux::lock::Locks;
use crate::linux::memfd;
use crate::linux::procfs;
use crate::linux::seccomp::ListenerFd;
use crate::linux::sys;
use crate::wire::ask::Filter;
use crate::wire::board::Board;
use crate::wire::handover::{FDS, Handover, LONGEST, ProcessUser};
use crate::wire::message::Message;

/// Between two searches for a new daemon, at first and later.
const FIRST_PERIOD: Duration = Duration::from_millis(50);
const SEARCH_PERIOD: Duration = Duration::from_secs(1);
/// How long the first time is: whoever starts daemons anew does so at once.
const AT_FIRST: Duration = Duration::from_secs(5);

const WHAT: &str = "taking over from the daemon (a worker is started by `subuidless serve` only)";

/// What a daemon hands over.
#[derive(Debug)]
pub(super) struct TakenOver {
    pub(super) listener: ListenerFd,
    pub(super) board: Board,
    pub(super) locks: Locks,
    pub(super) identities: Table,
    /// Whom the runtime's process is to be.
    pub(super) user: Option<ProcessUser>,
}

#[derive(Debug)]
pub(super) struct Link {
    /// `None` while there is no daemon.
    daemon: Option<UnixStream>,
    /// The container's name.
    pub(super) container: String,
    /// The daemon's own words, to be said to the next one.
    message: Vec<u8>,
    /// The container's shared memory as it came: nothing is ever locked through this open file
    /// description, which outlives us in the daemon.
    shared: OwnedFd,
    searched: Option<Instant>,
    /// When the last one ended.
    lost: Option<Instant>,
    /// Where the next one will listen; the directory is held open, since the container's root will
    /// be ours.
    socket: Option<(OwnedFd, OsString)>,
}

impl Link {
    /// Receives a container from the daemon on standard input.
    pub(super) fn take_over(socket: Option<&Path>) -> Result<(Self, TakenOver), Error> {
        let stdin = io::stdin().as_fd().try_clone_to_owned().doing(WHAT)?;
        let daemon = UnixStream::from(stdin);
        let (message, handover, received) = receive(&daemon).doing(WHAT)?;
        daemon.set_nonblocking(true).doing(WHAT)?;
        let mut received = received.into_iter();
        let (Some(listener), Some(board), Some(shared)) =
            (received.next(), received.next(), received.next())
        else {
            return Err(Error::doing(WHAT, io::ErrorKind::UnexpectedEof));
        };
        let mut listener = ListenerFd::new(listener).doing(WHAT)?;
        if let Some(feed) = received.next() {
            listener.receive_from(feed);
        }
        let taken_over = TakenOver {
            listener,
            board: Board::open(board).doing(WHAT)?,
            locks: Locks::new(memfd::reopened(&shared).doing(WHAT)?),
            identities: Table::open(shared.as_fd()).doing(WHAT)?,
            user: handover.user,
        };
        let link = Self {
            daemon: Some(daemon),
            container: handover.id,
            message,
            shared,
            searched: None,
            lost: None,
            socket: socket.and_then(hold),
        };
        Ok((link, taken_over))
    }

    /// What the daemon has said since the last time, without waiting for it: who wants to watch.
    pub(super) fn orders(&self) -> Vec<(Filter, OwnedFd)> {
        let Some(daemon) = &self.daemon else {
            return Vec::new();
        };
        let mut orders = Vec::new();
        let mut message = vec![0; 16 * 1024];
        // What comes with an fd is read apart from what comes behind it (unix(7)).
        while let Ok((length, mut pipe)) = sys::receive(daemon, &mut message, 1)
            && length > 0
        {
            if let Ok(Message::Trace(filter)) = Message::parse(&message[..length]) {
                orders.extend(pipe.pop().map(|pipe| (filter, pipe)));
            }
        }
        orders
    }

    /// Hangs up when the daemon ends.
    pub(super) fn daemon(&self) -> Option<BorrowedFd<'_>> {
        self.daemon.as_ref().map(UnixStream::as_fd)
    }

    /// Whether the daemon has ended.
    pub(super) fn has_ended(&self) -> bool {
        let Some(daemon) = &self.daemon else {
            return true;
        };
        let mut fds = [PollFd::new(daemon.as_fd(), PollFlags::empty())];
        let ends = PollFlags::POLLHUP | PollFlags::POLLERR;
        poll(&mut fds, PollTimeout::ZERO).is_ok()
            && fds[0]
                .revents()
                .is_some_and(|events| events.intersects(ends))
    }

    /// The daemon has ended.
    pub(super) fn lose(&mut self) {
        info!("the daemon has ended: serving without one");
        self.daemon = None;
        self.lost = Some(Instant::now());
    }

    /// How long it pays to wait before the next look for a daemon, if it pays to look at all.
    pub(super) fn search_period(&self) -> Option<Duration> {
        let is_searching = self.daemon.is_none() && self.socket.is_some();
        let is_new = self.lost.is_some_and(|lost| lost.elapsed() < AT_FIRST);
        is_searching.then_some(if is_new { FIRST_PERIOD } else { SEARCH_PERIOD })
    }

    /// Hands the container to the daemon that listens now, if there is one.
    ///
    /// Looks once in a period at the most, however often it is called.
    pub(super) fn search(&mut self, listener: &ListenerFd, board: &Board) {
        let Some(period) = self.search_period() else {
            return;
        };
        let due = self.searched.is_none_or(|last| last.elapsed() >= period);
        let Some((directory, name)) = self.socket.as_ref().filter(|_| due) else {
            return;
        };
        self.searched = Some(Instant::now());
        let fds = [
            listener.as_fd().as_raw_fd(),
            board.as_fd().as_raw_fd(),
            self.shared.as_raw_fd(),
        ];
        match hand_over(directory, name, &self.message, &fds) {
            Ok(daemon) => {
                info!("found a new daemon");
                self.daemon = Some(daemon);
            }
            Err(error) => debug!(%error, "no new daemon yet"),
        }
    }
}

/// The daemon's message, what it says and what came with it. One that is not understood is an
/// error: without it nobody could say whose the container's process is to be.
fn receive(daemon: &UnixStream) -> io::Result<(Vec<u8>, Handover, Vec<OwnedFd>)> {
    let mut message = Vec::new();
    let mut received = Vec::new();
    loop {
        let mut chunk = vec![0; 64 * 1024];
        let (length, fds) = sys::receive(daemon, &mut chunk, FDS + 1)?;
        received.extend(fds);
        message.extend_from_slice(&chunk[..length]);
        // JSON ends with this byte, and strings in it may have it, too.
        if message.ends_with(b"}")
            && let Some(handover) = Handover::parse(&message)
        {
            message.shrink_to_fit();
            return Ok((message, handover, received));
        }
        if length == 0 || message.len() > LONGEST {
            return Err(io::Error::other(format!(
                "the daemon's message of {} bytes is not one that this program understands",
                message.len()
            )));
        }
    }
}

fn hand_over(
    directory: &OwnedFd,
    name: &OsString,
    message: &[u8],
    fds: &[RawFd; FDS],
) -> io::Result<UnixStream> {
    // The working directory is the host's procfs, whatever the root is.
    let directory = procfs::own_fd(directory.as_fd());
    let path = Path::new(std::ffi::OsStr::from_bytes(directory.as_c_str().to_bytes())).join(name);
    let daemon = sys::connect_unix(&path)?;
    // In a directory that others may write to, it could be anybody: the fds are for our own user
    // only.
    if getsockopt(&daemon, PeerCredentials)?.uid() != Uid::effective().as_raw() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    // A new connection has room for nearly every message.
    daemon.set_nonblocking(false)?;
    daemon.set_write_timeout(Some(SEARCH_PERIOD))?;
    let sent = daemon.send_with_fd(message, fds)?;
    (&daemon).write_all(&message[sent..])?;
    daemon.set_nonblocking(true)?;
    Ok(daemon)
}

/// The socket's directory, held open, and its name in there.
fn hold(socket: &Path) -> Option<(OwnedFd, OsString)> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let directory: Result<OwnedFd, Errno> = open(socket.parent()?, flags, Mode::empty());
    Some((directory.ok()?, socket.file_name()?.to_owned()))
}
