//! A worker's connection to its daemon: takes over the container, notices the daemon's exit, and
//! finds the next daemon.
//!
//! The daemon may be restarted while containers run. A worker without a daemon serves as before,
//! but no daemon would replace it if it died. So it searches for a new daemon on the same socket
//! and hands its container over.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
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
use crate::wire::handover::{FDS, Handover, LONGEST, ProcessUser, Service};
use crate::wire::message::Message;
use crate::wire::objects::Objects;

/// The time between two searches for a new daemon: at first, and later.
const FIRST_PERIOD: Duration = Duration::from_millis(50);
const SEARCH_PERIOD: Duration = Duration::from_secs(1);
/// How long "at first" is: a service manager restarts a daemon immediately.
const AT_FIRST: Duration = Duration::from_secs(5);

const WHAT: &str = "taking over from the daemon (a worker is started by `subuidless serve` only)";

/// What a daemon hands over to a worker.
#[derive(Debug)]
pub(super) struct TakenOver {
    pub(super) listener: ListenerFd,
    pub(super) board: Board,
    pub(super) locks: Locks,
    pub(super) identities: Table,
    pub(super) objects: Arc<Objects>,
    /// The intended user of the process that the runtime starts.
    pub(super) user: Option<ProcessUser>,
    pub(super) service: Service,
}

#[derive(Debug)]
pub(super) struct Link {
    /// `None` while there is no daemon.
    daemon: Option<UnixStream>,
    /// The container's name.
    pub(super) container: String,
    /// The daemon's encoded handover, to be sent to the next one.
    message: Vec<u8>,
    /// The container's shared memory as received. No lock is ever taken through this open file
    /// description: the daemon has it, too, so the lock would outlive this process.
    shared: OwnedFd,
    /// The time of the last search for a daemon.
    searched: Option<Instant>,
    /// The time when the last daemon exited.
    lost: Option<Instant>,
    /// The directory and name of the control socket. The directory is held open, because a path
    /// would lead into the container's root once this process has joined.
    socket: Option<(OwnedFd, OsString)>,
}

impl Link {
    /// Receives a container from the daemon on standard input. Returns `None` if the daemon has
    /// exited without one.
    pub(super) fn take_over(socket: Option<&Path>) -> Result<Option<(Self, TakenOver)>, Error> {
        let stdin = io::stdin().as_fd().try_clone_to_owned().doing(WHAT)?;
        let daemon = UnixStream::from(stdin);
        let Some((message, handover, received)) = receive(&daemon).doing(WHAT)? else {
            return Ok(None);
        };
        daemon.set_nonblocking(true).doing(WHAT)?;
        let cut_short = || Error::doing(WHAT, io::ErrorKind::UnexpectedEof);
        let mut received = received.into_iter();
        let (Some(listener), Some(board), Some(shared)) =
            (received.next(), received.next(), received.next())
        else {
            return Err(cut_short());
        };
        let mut listener = ListenerFd::new(listener).doing(WHAT)?;
        let facts = match handover.service.fast.is_on() {
            true => Some(received.next().ok_or_else(cut_short)?),
            false => None,
        };
        if let Some(feed) = received.next() {
            listener.receive_from(feed);
        }
        let taken_over = TakenOver {
            listener,
            board: Board::open(board, facts).doing(WHAT)?,
            locks: Locks::new(memfd::reopened(&shared).doing(WHAT)?),
            identities: Table::open(shared.as_fd()).doing(WHAT)?,
            objects: Arc::new(Objects::open(shared.as_fd()).doing(WHAT)?),
            user: handover.user,
            service: handover.service,
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
        Ok(Some((link, taken_over)))
    }

    /// Receives the daemon's pending orders, each with the pipe of a tracer. Never waits.
    pub(super) fn orders(&self) -> Vec<(Filter, OwnedFd)> {
        let Some(daemon) = &self.daemon else {
            return Vec::new();
        };
        let mut orders = Vec::new();
        let mut message = vec![0; 16 * 1024];
        // A read ends after the data that an fd came with (unix(7)): one order each.
        while let Ok((length, mut pipe)) = sys::receive(daemon, &mut message, 1)
            && length > 0
        {
            if let Ok(Message::Trace(filter)) = Message::parse(&message[..length]) {
                orders.extend(pipe.pop().map(|pipe| (filter, pipe)));
            }
        }
        orders
    }

    /// The connection, which hangs up when the daemon exits; `None` while there is no daemon.
    pub(super) fn daemon(&self) -> Option<BorrowedFd<'_>> {
        self.daemon.as_ref().map(UnixStream::as_fd)
    }

    /// Whether the daemon has exited.
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

    /// Closes the connection, because the daemon has exited.
    pub(super) fn lose(&mut self) {
        info!("the daemon has exited: serving without one");
        self.daemon = None;
        self.lost = Some(Instant::now());
    }

    /// The time between two searches for a daemon. Returns `None` if there is a daemon, or no known
    /// socket to search on.
    pub(super) fn search_period(&self) -> Option<Duration> {
        let is_searching = self.daemon.is_none() && self.socket.is_some();
        let is_new = self.lost.is_some_and(|lost| lost.elapsed() < AT_FIRST);
        is_searching.then_some(if is_new { FIRST_PERIOD } else { SEARCH_PERIOD })
    }

    /// Hands the container to the daemon that listens now, if there is one. Tries at most once in
    /// a [period](Self::search_period), however often it is called.
    pub(super) fn search(&mut self, listener: &ListenerFd, board: &Board) {
        let Some(period) = self.search_period() else {
            return;
        };
        let due = self.searched.is_none_or(|last| last.elapsed() >= period);
        let Some((directory, name)) = self.socket.as_ref().filter(|_| due) else {
            return;
        };
        self.searched = Some(Instant::now());
        let mut fds = vec![
            listener.as_fd().as_raw_fd(),
            board.as_fd().as_raw_fd(),
            self.shared.as_raw_fd(),
        ];
        fds.extend(board.facts().map(|facts| facts.as_raw_fd()));
        match hand_over(directory, name, &self.message, &fds) {
            Ok(daemon) => {
                info!("found a new daemon");
                self.daemon = Some(daemon);
            }
            Err(error) => debug!(%error, "no new daemon yet"),
        }
    }
}

type Received = (Vec<u8>, Handover, Vec<OwnedFd>);

/// Receives the daemon's message: its bytes, the decoded handover, and the file descriptors. A
/// message that cannot be decoded is an error: it contains the user of the container's process.
fn receive(daemon: &UnixStream) -> io::Result<Option<Received>> {
    let mut message = Vec::new();
    let mut received = Vec::new();
    loop {
        let mut chunk = vec![0; 64 * 1024];
        let (length, fds) = sys::receive(daemon, &mut chunk, FDS + 1)?;
        received.extend(fds);
        message.extend_from_slice(&chunk[..length]);
        // Only this byte can complete the message, but a string in it may contain it, too.
        if message.ends_with(b"}")
            && let Some(handover) = Handover::parse(&message)
        {
            message.shrink_to_fit();
            return Ok(Some((message, handover, received)));
        }
        if length == 0 && message.is_empty() {
            return Ok(None);
        }
        if length == 0 || message.len() > LONGEST {
            return Err(io::Error::other(format!(
                "the daemon's message of {} bytes is not one that this program understands",
                message.len()
            )));
        }
    }
}

/// Sends the container to the daemon that listens on the control socket. Fails if there is none of
/// this user.
fn hand_over(
    directory: &OwnedFd,
    name: &OsString,
    message: &[u8],
    fds: &[RawFd],
) -> io::Result<UnixStream> {
    // `self/fd/N`: the working directory is the host's procfs, whatever the root is. This path
    // also fits into sun_path, however long the directory's own path is.
    let directory = procfs::own_fd(directory.as_fd());
    let path = Path::new(std::ffi::OsStr::from_bytes(directory.as_c_str().to_bytes())).join(name);
    let daemon = sys::connect_unix(&path)?;
    // If other users can write to the directory, one of them may listen there: only this user may
    // get the file descriptors.
    if getsockopt(&daemon, PeerCredentials)?.uid() != Uid::effective().as_raw() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    // Blocking, with a time limit: the send buffer of a new connection has room for nearly every
    // message.
    daemon.set_nonblocking(false)?;
    daemon.set_write_timeout(Some(SEARCH_PERIOD))?;
    let sent = daemon.send_with_fd(message, fds)?;
    (&daemon).write_all(&message[sent..])?;
    daemon.set_nonblocking(true)?;
    Ok(daemon)
}

/// Opens the socket's directory; returns it and the socket's name in it.
fn hold(socket: &Path) -> Option<(OwnedFd, OsString)> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let directory: Result<OwnedFd, Errno> = open(socket.parent()?, flags, Mode::empty());
    Some((directory.ok()?, socket.file_name()?.to_owned()))
}
