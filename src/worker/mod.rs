//! The worker: serves the calls of one seccomp listener.
//!
//! A process of its own, because setns(CLONE_NEWUSER) needs a single-threaded caller, and so that a
//! hang or crash affects one container only. The daemon starts it with a socket as standard input,
//! which brings the listener, the [board](crate::wire::board) and the memory that the container's
//! workers share. Once it has joined a container, all paths lead into that container's files: from
//! then on it never executes a program, loads a library, uses NSS or reads configuration.

mod join;
mod link;
mod pool;
mod serve;
mod trace;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::Uid;
use tracing::{debug, warn};

use crate::credentials::{Credentials, EmulatedGid, EmulatedUid, Id};
use crate::error::{Context, Error, is_shortage};
use crate::identity::Identities;
use crate::linux::lock::Claim;
use crate::linux::procfs;
use crate::linux::seccomp::{Notification, ReceiveError};
use crate::linux::sys;
use crate::owner::{FileOwners, Notes};
use crate::store::{end_where_damaged, open_side_store};
use crate::syscalls::Dispatch;
use crate::target::{Container, ThreadState, View};
use crate::wire::board::{Board, Role};
use crate::wire::facts::Facts;
use crate::wire::handover::ProcessUser;
use crate::wire::mode::Setup;
use join::{Join, join};
use link::{Link, TakenOver};
use serve::Server;
use trace::Tracers;

/// The time before the next attempt when this process or the machine lacks a resource.
const PAUSE: Duration = Duration::from_millis(10);

/// Serves until the last target has exited.
pub(crate) fn run(setup: &Setup) -> Result<(), Error> {
    sys::use_one_malloc_arena();
    isolate()?;
    // Before the container comes: the first worker of a command has time then.
    end_where_damaged();
    let side = open_side_store(setup.recent.as_deref(), setup.lasting.as_deref());
    let dispatch = Dispatch::get();
    let Some((mut link, taken_over)) = Link::take_over(setup.socket.as_deref())? else {
        return Ok(());
    };
    let TakenOver {
        listener,
        board,
        mut locks,
        identities,
        objects,
        user,
        service,
    } = taken_over;
    let Some(charge) = take_charge(&board, &link)? else {
        return Ok(());
    };
    listener.enable_sync_wake_up();
    let host_procfs = enter_procfs()?;
    if let Some(recent) = &setup.recent {
        locks.share_files(recent);
    }
    // Preliminary: joining tells which ids the host user has in the container.
    let groups = identities.initial_groups();
    let initial = Credentials::initial(EmulatedUid::ROOT, EmulatedGid::ROOT, groups);
    let identities = Identities::new(identities, initial);
    let facts = board.facts().map(Facts::open).transpose();
    let facts = facts.doing("mapping the page of facts")?;
    let mut owners = FileOwners::of_container(side, Arc::clone(&objects));
    if service.notes {
        owners.notes = Some(Notes::open(&link.container)?);
    }
    let mut container = Container::new(host_procfs, owners, objects, identities, facts, locks);
    container.service = service;
    if let Some(user) = user {
        let user = credentials(&user).ok_or_else(|| Error::Io {
            what: "setting the user of the container's process",
            source: std::io::Error::other(format!("{user:?} contains the id -1")),
        })?;
        container.expect_user(user, board.user_steps());
    }
    let tracers = Tracers::new(&link.container);
    let mut server = Server::new(dispatch, listener, board, container, tracers);
    let Some(start) = until_joined(&mut server, &mut link)? else {
        return Ok(());
    };
    charge.take_later();
    let server = Arc::new(server);
    let done = pool::run(Arc::clone(&server), start, link);
    // Those of processes that have made no call since.
    let container = &server.container;
    container.expected.own(&container.owners, 0);
    if let Some(notes) = &container.owners.notes {
        // A failure is in the log.
        let _ = notes.write();
    }
    done
}

/// The exclusive right to serve the container.
enum Charge {
    Taken(Claim),
    /// The previous worker was killed, but hangs in a system call and still holds the lock.
    Missing(Claim),
}

impl Charge {
    /// Takes a missing lock as soon as its holder is gone. The caller must have joined its
    /// namespaces: setns(CLONE_NEWUSER) fails if there is another thread.
    fn take_later(self) {
        const PAUSE: Duration = Duration::from_secs(1);
        let hold = |claim| std::mem::forget::<Claim>(claim);
        let claim = match self {
            Self::Taken(claim) => return hold(claim),
            Self::Missing(claim) => claim,
        };
        let wait = move || {
            while !matches!(claim.take(), Ok(true)) {
                std::thread::sleep(PAUSE);
            }
            hold(claim);
        };
        if std::thread::Builder::new().spawn(wait).is_err() {
            debug!("no thread to wait for a lock");
        }
    }
}

/// Makes sure that no other worker serves the container. Returns `None` if another one does and the
/// daemon of this one has exited: then this worker is not needed.
fn take_charge(board: &Board, link: &Link) -> Result<Option<Charge>, Error> {
    const ATTEMPTS: u32 = 200;
    const WHAT: &str = "taking charge of the container";
    let claim = board.claim(Role::Worker).doing(WHAT)?;
    let own = std::process::id();
    for _ in 0..ATTEMPTS {
        if claim.take().doing(WHAT)? {
            board.set_worker(own);
            return Ok(Some(Charge::Taken(claim)));
        }
        // A killed worker holds the lock until its last thread is gone, which a hanging call (FUSE)
        // may prevent forever. But it answers no more calls.
        if procfs::is_dying(board.worker()) {
            board.set_worker(own);
            return Ok(Some(Charge::Missing(claim)));
        }
        if link.has_ended() {
            return Ok(None);
        }
        std::thread::sleep(PAUSE);
    }
    Err(Error::doing(WHAT, Errno::EBUSY))
}

/// Returns `None` if an id is −1.
fn credentials(user: &ProcessUser) -> Option<Credentials> {
    let gids = user.additional_gids.iter();
    let gids = gids.map(|gid| EmulatedGid::new(*gid));
    Some(Credentials::initial(
        EmulatedUid::new(user.uid)?,
        EmulatedGid::new(user.gid)?,
        gids.collect::<Option<_>>()?,
    ))
}

/// Leaves the daemon's session, so that a Ctrl-C there does not end containers, and forbids
/// ptrace(2) of this process.
fn isolate() -> Result<(), Error> {
    // EPERM: already the leader of a process group, for instance when started by hand.
    let _ = nix::unistd::setsid();
    sys::ignore_termination();
    nix::sys::prctl::set_dumpable(false).doing("prctl(PR_SET_DUMPABLE)")?;
    nix::sys::prctl::set_no_new_privs().doing("prctl(PR_SET_NO_NEW_PRIVS)")
}

/// Changes the working directory to the host's procfs, in which the pids of notifications name
/// their targets (see `crate::linux::procfs`).
fn enter_procfs() -> Result<OwnedFd, Error> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let procfs = open(c"/proc", flags, Mode::empty())
        .and_then(|procfs| nix::unistd::fchdir(&procfs).map(|()| procfs));
    procfs.doing("opening /proc")
}

/// Serves in one thread, one call after the other, until a target's container can be joined.
///
/// Returns the slot of the call that is still to be answered, and the view that was joined; `None`
/// when all targets have exited.
fn until_joined(server: &mut Server, link: &mut Link) -> Result<Option<Start>, Error> {
    let mut left_over: Vec<usize> = server
        .board
        .used_slots()
        .filter(|slot| server.is_in_flight(*slot))
        .collect();
    if !left_over.is_empty() {
        debug!(
            calls = left_over.len(),
            "answering calls that a dead worker left"
        );
    }
    server.board.use_slot(0);
    let mut thread = ThreadState::default();
    let rules_one_id = join::rules_one_id();
    loop {
        let slot = match left_over.first() {
            Some(slot) => *slot,
            None if wait_for_call(server, link)? => match server.receive(0) {
                Ok(_) => 0,
                Err(ReceiveError::Again) => continue,
                Err(ReceiveError::NoTargets) => return Ok(None),
                Err(ReceiveError::Failed(errno)) if is_shortage(errno) => {
                    std::thread::sleep(PAUSE);
                    continue;
                }
                Err(ReceiveError::Failed(errno)) => return Err(Error::doing(RECEIVING, errno)),
            },
            None => return Ok(None),
        };
        server.take_orders(link);
        let notification = Notification::read(server.board.slot(slot));
        match join(server, &notification) {
            Join::Done(view) => {
                debug!(pid = notification.pid, "joined the container");
                server.container.give_terminal(notification.pid);
                return Ok(Some(Start {
                    slot,
                    left_over,
                    view,
                }));
            }
            // The real root's containers may have several mapped ids, which setuid(2) and the like
            // really change.
            Join::NotYet => {
                let emulates = !Uid::effective().is_root() || rules_one_id;
                server.serve_unjoined(slot, &notification, &mut thread, emulates);
            }
            Join::Never => server.serve_unjoined(slot, &notification, &mut thread, false),
            Join::Short(errno) => {
                warn!(%errno, "cannot join the container at the moment: its calls wait");
                if left_over.first() != Some(&slot) {
                    left_over.insert(0, slot);
                }
                std::thread::sleep(PAUSE);
                continue;
            }
            // This process may be in some of the namespaces only: the next worker starts afresh.
            Join::Failed(errno) => {
                return Err(Error::doing("joining the container", errno));
            }
        }
        left_over.retain(|other| *other != slot);
    }
}

/// The state in which the service threads begin.
#[derive(Debug)]
struct Start {
    /// The call that made the worker join.
    slot: usize,
    /// Calls that a dead worker left; may include `slot`.
    left_over: Vec<usize>,
    view: View,
}

/// Waits for a call. Returns `false` when the last target has exited: before Linux 6.11 only
/// POLLHUP tells, while RECV keeps waiting.
///
/// Also searches for a new daemon if the daemon exits meanwhile.
fn wait_for_call(server: &Server, link: &mut Link) -> Result<bool, Error> {
    loop {
        let timeout = timeout(link.search_period());
        // The calls of a fed worker come from the feed; only the listener tells when its targets
        // have exited.
        let mut fds = vec![
            PollFd::new(server.listener.queue(), PollFlags::POLLIN),
            PollFd::new(server.listener.as_fd(), PollFlags::empty()),
        ];
        fds.extend(
            link.daemon()
                .map(|daemon| PollFd::new(daemon, PollFlags::empty())),
        );
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) if is_shortage(errno) => std::thread::sleep(PAUSE),
            Err(errno) => return Err(Error::doing(RECEIVING, errno)),
        }
        let events = |index: usize| fds.get(index).and_then(PollFd::revents);
        if events(0).is_some_and(|queue| queue.contains(PollFlags::POLLIN)) {
            return Ok(true);
        }
        let ends = PollFlags::POLLHUP | PollFlags::POLLERR;
        let has_ended = |index| events(index).is_some_and(|events| events.intersects(ends));
        if has_ended(0) || has_ended(1) {
            return Ok(false);
        }
        if has_ended(2) && server.listener.is_fed() {
            // The daemon received the notifications: no more will come.
            return Ok(false);
        }
        if has_ended(2) {
            link.lose();
        }
        link.search(&server.listener, &server.board);
    }
}

/// The timeout for poll(2); `None` waits forever.
fn timeout(period: Option<Duration>) -> PollTimeout {
    period.map_or(PollTimeout::NONE, |period| {
        PollTimeout::try_from(period).unwrap_or(PollTimeout::MAX)
    })
}

const RECEIVING: &str = "receiving a seccomp notification";
