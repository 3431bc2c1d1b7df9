//! The guard: a process that holds a copy of all that the daemon holds of each container, and takes
//! over when the daemon dies.
//!
//! Once the last copy of a listener is closed, the kernel answers ENOSYS to all calls of its
//! container, for good. Daemon and worker have one copy each. If one of them dies, the other acts:
//! the daemon starts a worker, the worker connects to the next daemon. If both die, the guard
//! starts a worker, which behaves like one that has lost its daemon. Locks on the board determine
//! which process starts workers, and which one serves.

pub(in crate::daemon) mod link;

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{UnixCredentials, getsockopt};
use sendfd::SendWithFd;
use tracing::{debug, info, warn};

use crate::daemon::child::title;
use crate::error::{Context, Error};
use crate::linux::lock::Claim;
use crate::linux::procfs;
use crate::linux::seccomp::ListenerFd;
use crate::linux::sys;
use crate::store::ended_by_damage;
use crate::wire::board::{Board, Role};
use crate::wire::handover::{Handover, LONGEST};
use crate::wire::mode::{Mode, Setup};

/// The time between two checks for another daemon, and for a killed worker that cannot exit.
const LOOK: Duration = Duration::from_secs(1);
/// The same while a worker starts.
const SHORT_LOOK: Duration = Duration::from_millis(5);
/// The time limit for a worker to take over.
const PATIENCE: Duration = Duration::from_secs(5);
/// The number of file descriptors of a packet: the listener, the board, the table, the handover. A
/// fifth one is the page of facts of a container with the fast path.
const FDS: usize = 4;

/// Holds the containers that the daemon sends on standard input, until none of them is left.
pub(crate) fn run(setup: &Setup) -> Result<(), Error> {
    const WHAT: &str = "guarding a daemon (a guard is started by `subuidless serve` only)";
    sys::use_one_malloc_arena();
    sys::ignore_termination();
    // EPERM: already the leader of a process group, for instance when started by hand.
    let _ = nix::unistd::setsid();
    let link = io::stdin().as_fd().try_clone_to_owned().doing(WHAT)?;
    let link = UnixStream::from(link);
    link.set_nonblocking(true).doing(WHAT)?;
    let process = sys::peer_pidfd(link.as_fd())
        .or_else(|_| getsockopt(&link, PeerCredentials).and_then(process_of))
        .ok();
    let mut guard = Guard {
        setup,
        daemon: Some(link),
        process,
        kept: Vec::new(),
        ending: Vec::new(),
    };
    loop {
        guard.wait();
        guard.listen();
        guard.attend();
        if guard.daemon.is_none() && guard.kept.is_empty() {
            return Ok(());
        }
    }
}

/// A pidfd of the peer, for kernels without SO_PEERPIDFD (before Linux 6.5).
fn process_of(peer: UnixCredentials) -> Result<OwnedFd, Errno> {
    sys::process_pidfd(u32::try_from(peer.pid()).map_err(|_| Errno::ESRCH)?)
}

/// The state of the guard's process.
struct Guard<'a> {
    setup: &'a Setup,
    /// The connection to the daemon; `None` once it has hung up.
    daemon: Option<UnixStream>,
    /// The daemon's pidfd; `None` once it has exited, and so released its locks.
    process: Option<OwnedFd>,
    kept: Vec<Kept>,
    /// Workers started by this process, to be reaped.
    ending: Vec<Child>,
}

/// A container that the guard holds.
struct Kept {
    id: String,
    /// The encoded handover.
    message: Vec<u8>,
    listener: ListenerFd,
    board: Board,
    shared: OwnedFd,
    /// The pid and pidfd of the present worker.
    worker: Option<(u32, OwnedFd)>,
    starting: Option<Starting>,
    /// The last worker that this guard has started and that served.
    own: Option<Child>,
    /// The number of own workers that died as if the side store were damaged.
    damages: u32,
    /// The number of failed starts in a row.
    failures: u32,
    /// The earliest time of the next start.
    next: Option<Instant>,
}

/// A worker that is about to take over.
struct Starting {
    child: Child,
    since: Instant,
    /// Held so that no other process starts a worker meanwhile.
    _manager: Claim,
}

impl Guard<'_> {
    /// Waits for an event, or for the next check.
    ///
    /// While there is a daemon, only listeners (hang-up) and the daemon's connection matter.
    /// Without one, the exits of the daemon and of workers are events; that another daemon has
    /// taken over, or that a killed worker cannot exit, only a check shows.
    fn wait(&self) {
        let is_missing = self.kept.iter().any(|kept| kept.worker.is_none());
        let timeout = match &self.daemon {
            Some(_) => None,
            None if is_missing && self.process.is_none() => Some(SHORT_LOOK),
            None => Some(LOOK),
        };
        let mut fds: Vec<PollFd> = self
            .kept
            .iter()
            .map(|kept| PollFd::new(kept.listener.as_fd(), PollFlags::empty()))
            .collect();
        match &self.daemon {
            Some(daemon) => fds.push(PollFd::new(daemon.as_fd(), PollFlags::POLLIN)),
            None => {
                let process = self.process.iter();
                fds.extend(process.map(|pidfd| PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)));
                let workers = self.kept.iter().filter_map(|kept| kept.worker.as_ref());
                fds.extend(workers.map(|(_, pidfd)| PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)));
            }
        }
        let timeout = timeout.map_or(PollTimeout::NONE, |timeout| {
            PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX)
        });
        if poll(&mut fds, timeout).is_err() {
            std::thread::sleep(SHORT_LOOK);
        }
    }

    /// Receives containers from the daemon, and notices when it hangs up.
    fn listen(&mut self) {
        while let Some(daemon) = &self.daemon {
            match receive(daemon) {
                Ok(Some(kept)) => self.kept.push(kept),
                Ok(None) => {
                    if !self.kept.is_empty() {
                        info!("the daemon has exited: its guard starts missing workers");
                    }
                    self.daemon = None;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    warn!(
                        %error,
                        "cannot receive a container: it will not survive the loss of both daemon \
                         and worker"
                    );
                }
            }
        }
    }

    /// Whether the daemon has exited. Its locks are released slightly later than its end of the
    /// connection is closed.
    fn has_daemon_ended(&mut self) -> bool {
        let Some(process) = &self.process else {
            return true;
        };
        let has_ended = sys::has_ended(process.as_fd());
        if has_ended {
            self.process = None;
        }
        has_ended
    }

    /// Drops containers that have ended, and attends to the others if the daemon has exited.
    fn attend(&mut self) {
        self.ending
            .retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        let is_orphaned = self.daemon.is_none() && self.has_daemon_ended();
        let (setup, ending) = (self.setup, &mut self.ending);
        self.kept.retain_mut(|kept| {
            if !kept.listener.has_targets() {
                kept.give_up(ending);
                return false;
            }
            !is_orphaned || kept.attend(setup, ending)
        });
    }
}

impl Kept {
    /// Makes sure that there is a worker. Returns `false` if another daemon has taken over.
    fn attend(&mut self, setup: &Setup, ending: &mut Vec<Child>) -> bool {
        self.count_damages();
        if let Some(starting) = &mut self.starting {
            let ended = starting.child.try_wait();
            let has_ended = !matches!(ended, Ok(None));
            if let Ok(Some(status)) = ended {
                self.damages += u32::from(ended_by_damage(status));
            }
            // The role may still be that of another worker: the pid on the board tells.
            // A worker that is slow or stuck is given up, not killed: the Worker role decides which
            // one serves, and the others exit.
            let serves =
                self.board.is_taken(Role::Worker) && self.board.worker() == starting.child.id();
            if serves || has_ended || starting.since.elapsed() > PATIENCE {
                // The next start waits longer after each failure, for at most 5 seconds.
                self.failures = if serves { 0 } else { self.failures + 1 };
                self.next =
                    Some(Instant::now() + SHORT_LOOK * self.failures.saturating_pow(2).min(1000));
                match self.starting.take() {
                    Some(starting) if serves => ending.extend(self.own.replace(starting.child)),
                    other => ending.extend(other.map(|starting| starting.child)),
                }
                self.has_worker();
            }
            return true;
        }
        if self.board.is_taken(Role::Manager) {
            return false;
        }
        if !self.has_worker() && self.next.is_none_or(|next| Instant::now() >= next) {
            self.start(setup);
        }
        true
    }

    /// Reaps the own worker if it has died, and counts it if a damaged side store may be the cause.
    fn count_damages(&mut self) {
        if let Some(own) = &mut self.own
            && let Ok(Some(status)) = own.try_wait()
        {
            self.damages += u32::from(ended_by_damage(status));
            self.own = None;
        }
    }

    /// Whether a worker serves the container. Updates [`Kept::worker`].
    fn has_worker(&mut self) -> bool {
        let pid = self.board.worker();
        // A killed worker keeps the role while one of its threads hangs in the kernel.
        if !self.board.is_taken(Role::Worker) || procfs::is_dying(pid) {
            self.worker = None;
            return false;
        }
        if self.worker.as_ref().is_none_or(|(known, _)| *known != pid) {
            self.worker = sys::process_pidfd(pid).ok().map(|pidfd| (pid, pidfd));
        }
        true
    }

    /// Starts a worker, unless another process has the manager's role or a worker serves.
    fn start(&mut self, setup: &Setup) {
        let started = self.manage().and_then(|manager| match manager {
            Some(manager) if !self.has_worker() => {
                warn!(container = %self.id, "worker and daemon have died: starting a worker");
                let child = self.spawn(setup)?;
                Ok(Some(Starting {
                    child,
                    since: Instant::now(),
                    _manager: manager,
                }))
            }
            // Another process has the role, or there is a worker by now.
            _ => Ok(None),
        });
        match started {
            Ok(starting) => self.starting = starting,
            Err(error) => {
                warn!(container = %self.id, %error, "cannot start a worker: trying again");
                self.failures += 1;
                self.next =
                    Some(Instant::now() + SHORT_LOOK * self.failures.saturating_pow(2).min(1000));
            }
        }
    }

    /// Takes the manager's role. Returns `None` if another process has it.
    fn manage(&self) -> io::Result<Option<Claim>> {
        let claim = self.board.claim(Role::Manager)?;
        Ok(claim.take()?.then_some(claim))
    }

    /// Starts a worker and hands the container over to it.
    fn spawn(&self, setup: &Setup) -> io::Result<Child> {
        /// The first one may have died while the files were being damaged.
        const ENOUGH: u32 = 2;
        let mut setup = setup.clone();
        if self.damages >= ENOUGH {
            warn!(
                container = %self.id,
                "workers die of a damaged side store, which only a daemon can replace: going on \
                 without it until then"
            );
            (setup.recent, setup.lasting) = (None, None);
        }
        let (ours, theirs) = UnixStream::pair()?;
        let child = Mode::Worker(setup)
            .command(title(&self.id))
            .stdin(OwnedFd::from(theirs))
            .spawn()?;
        let mut fds = vec![
            self.listener.as_fd().as_raw_fd(),
            self.board.as_fd().as_raw_fd(),
            self.shared.as_raw_fd(),
        ];
        fds.extend(self.board.facts().map(|facts| facts.as_raw_fd()));
        ours.set_write_timeout(Some(PATIENCE))?;
        let sent = ours.send_with_fd(&self.message, &fds)?;
        io::Write::write_all(&mut &ours, &self.message[sent..])?;
        // `ours` is closed here: the worker sees a daemon that has exited, and searches for
        // another.
        Ok(child)
    }

    /// Leaves the container's workers to `ending`, because its last target has exited.
    fn give_up(&mut self, ending: &mut Vec<Child>) {
        ending.extend(self.starting.take().map(|starting| starting.child));
        ending.extend(self.own.take());
    }
}

/// Receives the next container. Returns `None` if the daemon has hung up.
fn receive(daemon: &UnixStream) -> io::Result<Option<Kept>> {
    let (length, mut files) = sys::receive(daemon, &mut [0; 8], FDS + 1)?;
    if length == 0 {
        return Ok(None);
    }
    let missing = |_| io::Error::other("it came without file descriptors");
    let facts = files.split_off(FDS.min(files.len())).pop();
    let [listener, board, shared, message] = <[OwnedFd; FDS]>::try_from(files).map_err(missing)?;
    let mut bytes = Vec::new();
    let mut message = File::from(message);
    message.rewind()?;
    let most = u64::try_from(LONGEST).unwrap_or(u64::MAX);
    message.take(most).read_to_end(&mut bytes)?;
    let handover = Handover::parse(&bytes).ok_or(io::ErrorKind::InvalidData)?;
    debug!(container = %handover.id, "kept");
    Ok(Some(Kept {
        id: handover.id,
        message: bytes,
        listener: ListenerFd::new(listener)?,
        board: Board::open(board, facts)?,
        shared,
        worker: None,
        starting: None,
        own: None,
        damages: 0,
        failures: 0,
        next: None,
    }))
}
