//! The guard of a daemon: a process that does nothing but hold what the daemon holds of each
//! container.
//!
//! The kernel answers ENOSYS to all calls of a container, for good, once the last copy of its
//! listener is closed. Daemon and worker have one each, and where one of them ends the other one
//! sees to it: the daemon starts a worker, the worker looks for a daemon. Where both end, the guard
//! starts a worker, which serves as one that has lost its daemon. Who may start one at a time, and
//! who serves, is settled by locks on the container's board.

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

use crate::error::{Context, Error};
use crate::linux::lock::Claim;
use crate::linux::procfs;
use crate::linux::seccomp::ListenerFd;
use crate::linux::sys;
use crate::store::ended_by_damage;
use crate::wire::board::{Board, Role};
use crate::wire::handover::{Handover, LONGEST};
use crate::wire::mode::{Mode, Setup};

/// Between two looks whether another daemon has come, and whether a worker hangs in its death.
const LOOK: Duration = Duration::from_secs(1);
/// The same while a worker starts.
const SHORT_LOOK: Duration = Duration::from_millis(5);
/// For a worker to take over.
const PATIENCE: Duration = Duration::from_secs(5);
/// The listener, the board, the shared memory, the message.
const FDS: usize = 4;

/// Holds what comes from the daemon on standard input, until no container of it is left.
pub(crate) fn run(setup: &Setup) -> Result<(), Error> {
    const WHAT: &str = "guarding a daemon (a guard is started by `subuidless serve` only)";
    sys::use_one_malloc_arena();
    sys::ignore_termination();
    // EPERM: leads a group already, as when it was started by hand.
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

fn process_of(peer: UnixCredentials) -> Result<OwnedFd, Errno> {
    sys::process_pidfd(u32::try_from(peer.pid()).map_err(|_| Errno::ESRCH)?)
}

struct Guard<'a> {
    setup: &'a Setup,
    /// `None` once it has hung up.
    daemon: Option<UnixStream>,
    /// Tells when it has ended, and none of its locks is left; `None` afterwards.
    process: Option<OwnedFd>,
    kept: Vec<Kept>,
    /// Workers that this process has started, to be waited for.
    ending: Vec<Child>,
}

/// A container.
struct Kept {
    id: String,
    message: Vec<u8>,
    listener: ListenerFd,
    board: Board,
    shared: OwnedFd,
    /// Tells when the present worker ends.
    worker: Option<(u32, OwnedFd)>,
    starting: Option<Starting>,
    /// The last worker that this guard has started, once it serves.
    own: Option<Child>,
    /// Workers of its own that have ended as those do whose side store is damaged.
    damages: u32,
    failures: u32,
    next: Option<Instant>,
}

/// A worker that is about to take over.
struct Starting {
    child: Child,
    since: Instant,
    /// Nobody else starts one meanwhile.
    _manager: Claim,
}

impl Guard<'_> {
    /// Until there is something to look at.
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

    /// Takes what the daemon gives, and notices its end.
    fn listen(&mut self) {
        while let Some(daemon) = &self.daemon {
            match receive(daemon) {
                Ok(Some(kept)) => self.kept.push(kept),
                Ok(None) => {
                    if !self.kept.is_empty() {
                        info!(
                            "the daemon has ended: its guard starts a worker where one is missing"
                        );
                    }
                    self.daemon = None;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    warn!(%error, "a container is kept by nobody else than daemon and worker");
                }
            }
        }
    }

    /// Its locks are gone a moment later than its end of the connection.
    fn has_daemon_ended(&mut self) -> bool {
        let Some(process) = &self.process else {
            return true;
        };
        let mut fds = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
        let has_ended = poll(&mut fds, PollTimeout::ZERO) == Ok(1);
        if has_ended {
            self.process = None;
        }
        has_ended
    }

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
    /// Sees to it that there is a worker; `false`: another daemon does.
    fn attend(&mut self, setup: &Setup, ending: &mut Vec<Child>) -> bool {
        self.count_damages();
        if let Some(starting) = &mut self.starting {
            let ended = starting.child.try_wait();
            let has_ended = !matches!(ended, Ok(None));
            if let Ok(Some(status)) = ended {
                self.damages += u32::from(ended_by_damage(status));
            }
            let serves =
                self.board.is_taken(Role::Worker) && self.board.worker() == starting.child.id();
            if serves || has_ended || starting.since.elapsed() > PATIENCE {
                self.failures = if serves { 0 } else { self.failures + 1 };
                self.next = Some(Instant::now() + SHORT_LOOK * self.failures.pow(2).min(1000));
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

    fn count_damages(&mut self) {
        if let Some(own) = &mut self.own
            && let Ok(Some(status)) = own.try_wait()
        {
            self.damages += u32::from(ended_by_damage(status));
            self.own = None;
        }
    }

    fn has_worker(&mut self) -> bool {
        let pid = self.board.worker();
        if !self.board.is_taken(Role::Worker) || procfs::is_dying(pid) {
            self.worker = None;
            return false;
        }
        if self.worker.as_ref().is_none_or(|(known, _)| *known != pid) {
            self.worker = sys::process_pidfd(pid).ok().map(|pidfd| (pid, pidfd));
        }
        true
    }

    fn start(&mut self, setup: &Setup) {
        let started = self.manage().and_then(|manager| match manager {
            Some(manager) if !self.has_worker() => {
                warn!(container = %self.id, "worker and daemon have ended: starting a worker");
                let child = self.spawn(setup)?;
                Ok(Some(Starting {
                    child,
                    since: Instant::now(),
                    _manager: manager,
                }))
            }
            // Somebody else was quicker.
            _ => Ok(None),
        });
        match started {
            Ok(starting) => self.starting = starting,
            Err(error) => {
                warn!(container = %self.id, %error, "no worker: trying again");
                self.failures += 1;
                self.next = Some(Instant::now() + SHORT_LOOK * self.failures.pow(2).min(1000));
            }
        }
    }

    fn manage(&self) -> io::Result<Option<Claim>> {
        let claim = self.board.claim(Role::Manager)?;
        Ok(claim.take()?.then_some(claim))
    }

    fn spawn(&self, setup: &Setup) -> io::Result<Child> {
        /// The first may have ended while the files were being damaged.
        const ENOUGH: u32 = 2;
        let mut setup = setup.clone();
        if self.damages >= ENOUGH {
            warn!(
                container = %self.id,
                "workers end of a damaged side store, which only a daemon begins anew: going on \
                 without it until then"
            );
            (setup.recent, setup.lasting) = (None, None);
        }
        let (ours, theirs) = UnixStream::pair()?;
        let child = Mode::Worker(setup)
            .command(format!("subuidless: {}", self.id.escape_default()))
            .stdin(OwnedFd::from(theirs))
            .spawn()?;
        let fds = [
            self.listener.as_fd().as_raw_fd(),
            self.board.as_fd().as_raw_fd(),
            self.shared.as_raw_fd(),
        ];
        ours.set_write_timeout(Some(PATIENCE))?;
        let sent = ours.send_with_fd(&self.message, &fds)?;
        io::Write::write_all(&mut &ours, &self.message[sent..])?;
        // It finds the connection closed, and looks for another daemon.
        Ok(child)
    }

    fn give_up(&mut self, ending: &mut Vec<Child>) {
        ending.extend(self.starting.take().map(|starting| starting.child));
        ending.extend(self.own.take());
    }
}

/// What the daemon gives next; `None`: it has ended.
fn receive(daemon: &UnixStream) -> io::Result<Option<Kept>> {
    let received = sys::receive(daemon, &mut [0; 8], FDS)?;
    if received.length == 0 {
        return Ok(None);
    }
    let missing = |_| io::Error::other("it came without descriptors");
    let [listener, board, shared, message] =
        <[OwnedFd; FDS]>::try_from(received.files).map_err(missing)?;
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
        board: Board::open(board)?,
        shared,
        worker: None,
        starting: None,
        own: None,
        damages: 0,
        failures: 0,
        next: None,
    }))
}
