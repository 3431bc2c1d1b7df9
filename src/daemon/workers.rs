//! One worker process for each listener: spawn, wait, start another one if it dies before its
//! targets.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitStatus;
use std::rc::{Rc, Weak};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::sys::stat::fstat;
use tokio::process::Command;
use tracing::{debug, error, info, warn};

use super::groups;
use super::guard::link::Guard;
use super::patiently;
use super::receive::Orphan;
use super::store::Keeper;
use super::supervised::{EXEC, Supervised};
use super::tracers::Tracers;
use crate::credentials::EmulatedGid;
use crate::identity::Table;
use crate::linux::lock::Claim;
use crate::linux::procfs;
use crate::linux::seccomp::ListenerFd;
use crate::syscalls::fingerprint;
use crate::wire::board::{Board, Role};
use crate::wire::handover::{Announcement, Handover, NextUser};
use crate::wire::mode::{Mode, Setup};
use crate::wire::oci::{ContainerProcessState, UNKNOWN};

/// Between two attempts to start a worker for the same container, the first one excepted.
const PAUSE: Duration = Duration::from_millis(200);
/// Between two looks whether a worker can still be waited for.
const LOOK: Duration = Duration::from_secs(2);
/// Deaths in a row without a served call before the attempts become rarer.
const PATIENCE: u32 = 10;

#[derive(Debug)]
pub(super) struct Workers {
    /// Of all workers, but for the store.
    setup: Setup,
    keeper: Rc<Keeper>,
    containers: RefCell<Vec<Rc<Supervised>>>,
    pub(super) tracers: Tracers,
    pub(super) guard: Guard,
    shared: RefCell<Vec<Shared>>,
}

/// The memory that all workers of a container share, as long as one of them lives: its table of
/// identities, and what they lock.
#[derive(Debug)]
struct Shared {
    /// Two runtimes, or two that keep their state in different places, may use one name.
    id: String,
    bundle: String,
    memory: Weak<OwnedFd>,
}

impl Workers {
    pub(super) fn new(setup: Setup, keeper: Rc<Keeper>) -> Self {
        Self {
            setup,
            keeper,
            containers: RefCell::default(),
            tracers: Tracers::default(),
            guard: Guard::default(),
            shared: RefCell::default(),
        }
    }

    /// What a worker, or a guard, that starts now is told.
    pub(super) fn setup(&self) -> Setup {
        let places = self.keeper.places_for_worker();
        Setup {
            recent: places.recent,
            lasting: places.lasting,
            ..self.setup.clone()
        }
    }

    /// Keeps a guard running.
    pub(super) async fn keep_guard(&self) {
        const PAUSE: Duration = Duration::from_millis(50);
        loop {
            let started = self
                .guard
                .start(&Mode::Guard(self.setup()), &self.containers());
            match started {
                Ok(mut guard) => {
                    let ended = guard.wait().await;
                    debug!(?ended, "the guard has ended");
                }
                Err(error) => warn!(%error, "no guard: nobody else keeps the containers"),
            }
            self.guard.lose();
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Those that are looked after now.
    pub(super) fn containers(&self) -> Vec<Rc<Supervised>> {
        self.containers.borrow().clone()
    }

    /// The memory that the workers of a container share: that of the container into which a process
    /// is put, or new one.
    fn shared(&self, handover: &Handover, groups: &[EmulatedGid]) -> Result<Rc<OwnedFd>, Errno> {
        let known = match handover.status == EXEC {
            true => self.known(handover),
            // Nobody is in it yet.
            false => None,
        };
        match known {
            Some(known) => Ok(known),
            None => Ok(self.share(handover, Table::create(groups.to_vec())?)),
        }
    }

    /// That of the one container which is meant, where it is certain which.
    fn known(&self, handover: &Handover) -> Option<Rc<OwnedFd>> {
        let Handover { id, bundle, .. } = handover;
        let shared = self.shared.borrow();
        let of_id = shared.iter().filter(|shared| shared.id == *id);
        // crun does not say where the container's bundle is.
        let is_meant = |shared: &&Shared| !bundle.starts_with('/') || shared.bundle == *bundle;
        let found = of_id.filter(is_meant);
        let mut found: Vec<_> = found.filter_map(|shared| shared.memory.upgrade()).collect();
        let inode = |memory: &Rc<OwnedFd>| fstat(memory).map_or(0, |memory| memory.st_ino);
        found.sort_by_key(inode);
        found.dedup_by_key(|memory| inode(memory));
        match &found[..] {
            [] => None,
            [one] => Some(Rc::clone(one)),
            _ => {
                warn!(
                    container = %id,
                    "several containers have this name: a process that is put into one knows nothing of the ids of those in it"
                );
                None
            }
        }
    }

    /// Lets later workers of the container share `memory`.
    fn share(&self, handover: &Handover, memory: OwnedFd) -> Rc<OwnedFd> {
        let mut shared = self.shared.borrow_mut();
        shared.retain(|shared| shared.memory.strong_count() > 0);
        let memory = Rc::new(memory);
        // Containers without a name are not one container.
        if handover.id != UNKNOWN {
            shared.push(Shared {
                id: handover.id.clone(),
                bundle: handover.bundle.clone(),
                memory: Rc::downgrade(&memory),
            });
        }
        memory
    }

    /// Keeps a worker for `listener` until its last target has ended.
    pub(super) async fn supervise(
        &self,
        state: ContainerProcessState,
        listener: ListenerFd,
        said: Option<Announcement>,
    ) {
        let ContainerProcessState {
            id,
            status,
            mut bundle,
            ..
        } = state;
        let (next, where_it_is) = said.map(|said| (said.next, said.bundle)).unzip();
        if let Some(known) = where_it_is.flatten().filter(|_| status == EXEC) {
            bundle = known;
        }
        match status.as_str() {
            EXEC => info!(container = %id, %bundle, "exec"),
            _ => info!(container = %id, %status, %bundle, "container"),
        }
        let groups = match next {
            // Whom it announces has the groups that it announces.
            Some(_) => Vec::new(),
            None => groups::additional(&status, &bundle).await,
        };
        let user = match next {
            None | Some(NextUser::AsIs) => None,
            Some(NextUser::User(user)) => Some(user),
        };
        let handover = Handover::new(id, status, bundle, user);
        self.start(handover, listener, groups, None).await;
    }

    /// The same for a worker whose notifications come from `feed`.
    pub(super) async fn supervise_fed(&self, id: String, listener: ListenerFd, feed: OwnedFd) {
        info!(container = %id, "user namespace");
        let handover = Handover::new(id, EXEC.to_owned(), String::new(), None);
        self.start(handover, listener, Vec::new(), Some(feed)).await;
    }

    async fn start(
        &self,
        handover: Handover,
        listener: ListenerFd,
        groups: Vec<EmulatedGid>,
        feed: Option<OwnedFd>,
    ) {
        let memory = patiently(|| {
            if !listener.has_targets() {
                return Err(Errno::ESRCH.into());
            }
            let board = Board::create()?;
            Ok((board, self.shared(&handover, &groups)?))
        });
        match memory.await {
            Ok((board, shared)) => {
                if feed.is_some() {
                    // What its processes did before they came into the namespace was seen by
                    // nobody.
                    board.set_views_differ();
                }
                board.begin(fingerprint(), SystemTime::now());
                let mut container = Supervised::new(handover, listener, board, shared);
                container.feed = feed;
                self.keep(container, None).await;
            }
            Err(error) => error!(
                container = %handover.id, %error,
                "no memory to share with a worker: the container's calls will fail"
            ),
        }
    }

    /// Takes over a worker that an earlier daemon left; `link` closes at its end.
    pub(super) async fn adopt(&self, orphan: Orphan, link: tokio::net::UnixStream) {
        let Handover {
            id, status, bundle, ..
        } = &orphan.handover;
        info!(container = %id, %status, %bundle, "container of an earlier daemon");
        if let Some(known) = self.of_board(&orphan.board) {
            // A worker of it that has ended meanwhile was quicker. Two who look after one container
            // would each want a worker.
            known.successor.replace(Some(link));
            return;
        }
        // Its own, whatever is known under this name by now: processes carry numbers of its table.
        let shared = self.share(&orphan.handover, orphan.shared);
        let container = Supervised::new(orphan.handover, orphan.listener, orphan.board, shared);
        self.keep(container, Some(link)).await;
    }

    fn of_board(&self, board: &Board) -> Option<Rc<Supervised>> {
        let inode = |board: &Board| fstat(board).map(|found| found.st_ino).ok();
        let wanted = inode(board)?;
        let containers = self.containers.borrow();
        let mut same = containers
            .iter()
            .filter(|other| inode(&other.board) == Some(wanted));
        same.next().map(Rc::clone)
    }

    /// The listener is held here, too: without a worker, calls wait for the next one instead of
    /// failing with ENOSYS.
    async fn keep(&self, container: Supervised, mut adopted: Option<tokio::net::UnixStream>) {
        let container = Rc::new(container);
        let Supervised {
            handover: Handover { id, .. },
            listener,
            board,
            ..
        } = &*container;
        self.containers.borrow_mut().push(Rc::clone(&container));
        let _manager = manage(&container).await;
        self.guard.keep(&container);
        let mut idle_deaths = 0;
        loop {
            let before = board.served().total();
            let ended = match adopted.take().or_else(|| container.successor.take()) {
                Some(link) => {
                    container.worker.set(peer_pid(&link));
                    self.connect(&container, link.as_fd().try_clone_to_owned());
                    wait_for_hang_up(&link).await
                }
                None => self.run_one(&container).await,
            };
            container.worker.set(None);
            container.link.replace(None);
            if !listener.has_targets() {
                break;
            }
            container.deaths.set(container.deaths.get() + 1);
            if let Ok(status) = ended {
                self.keeper.worker_ended(status, idle_deaths).await;
            }
            match ended {
                Ok(status) => warn!(container = %id, %status, "worker died: starting another one"),
                Err(error) => error!(container = %id, %error, "no worker: starting another one"),
            }
            idle_deaths = if board.served().total() > before {
                0
            } else {
                idle_deaths + 1
            };
            match idle_deaths {
                0 | 1 => {}
                2..PATIENCE => tokio::time::sleep(PAUSE).await,
                _ => tokio::time::sleep(PAUSE * 25).await,
            }
        }
        self.containers
            .borrow_mut()
            .retain(|other| !Rc::ptr_eq(other, &container));
        let served = board.served();
        info!(
            container = %id,
            calls = served.total(),
            continued = served.continued,
            answered = served.answered,
            failed = served.failed,
            "{} ended",
            container.kind()
        );
    }

    /// From now on `link` leads to the container's worker.
    fn connect(&self, container: &Supervised, link: io::Result<OwnedFd>) {
        let link = link.and_then(|link| {
            let link = UnixStream::from(link);
            link.set_nonblocking(true)?;
            Ok(link)
        });
        match link {
            Ok(link) => {
                container.link.replace(Some(link));
                self.tracers.watch(container);
            }
            Err(error) => warn!(container = %container.handover.id, %error, "cannot be traced"),
        }
    }

    async fn run_one(&self, container: &Supervised) -> io::Result<ExitStatus> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        // The id is the runtime's, so control characters may be in it.
        let title = format!("subuidless: {}", container.handover.id.escape_default());
        let mut command = Mode::Worker(self.setup()).command(title);
        command.stdin(OwnedFd::from(theirs));
        let mut child = Command::from(command).spawn()?;
        container.worker.set(child.id());
        let mut ours = tokio::net::UnixStream::from_std(ours)?;
        // A worker that does not read holds up nobody but itself; one that has died is noticed
        // below.
        tokio::select! {
            handed = container.hand_over(&mut ours) => if let Err(error) = handed {
                // The worker finds its end of the socket closed and says so.
                warn!(container = %container.handover.id, %error, "cannot hand the container over");
            },
            ended = child.wait() => return ended,
        }
        // It stays open: its end tells the worker that the daemon has ended.
        self.connect(container, ours.into_std().map(Into::into));
        or_give_up(child.id(), child.wait()).await
    }
}

/// Becomes the one who sees to the container's worker: until then a guard of an earlier daemon may
/// be starting one.
async fn manage(container: &Supervised) -> Option<Claim> {
    const PAUSE: Duration = Duration::from_millis(10);
    const ATTEMPTS: u32 = 1000;
    let failed = |errno| warn!(container = %container.handover.id, %errno, "cannot take a lock");
    let claim = container
        .board
        .claim(Role::Manager)
        .inspect_err(|errno| failed(*errno))
        .ok()?;
    for _ in 0..ATTEMPTS {
        match claim.take() {
            Ok(true) => return Some(claim),
            Ok(false) => tokio::time::sleep(PAUSE).await,
            Err(errno) => {
                failed(errno);
                break;
            }
        }
    }
    None
}

/// Waits for the end of a worker that is no child of this process.
async fn wait_for_hang_up(link: &tokio::net::UnixStream) -> io::Result<ExitStatus> {
    or_give_up(peer_pid(link), async {
        loop {
            link.readable().await?;
            match link.try_read(&mut [0; 64]) {
                Ok(0) => return Ok(ExitStatus::default()),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
    })
    .await
}

fn peer_pid(link: &tokio::net::UnixStream) -> Option<u32> {
    let pid = link.peer_cred().ok()?.pid()?;
    u32::try_from(pid).ok()
}

/// Waits for `end`, the end of the worker `pid`, or for the certainty that it cannot be waited for.
async fn or_give_up(
    pid: Option<u32>,
    end: impl Future<Output = io::Result<ExitStatus>>,
) -> io::Result<ExitStatus> {
    let mut end = std::pin::pin!(end);
    let mut looks_dying = 0;
    loop {
        tokio::select! {
            status = &mut end => return status,
            () = tokio::time::sleep(LOOK) => {}
        }
        // Once may be the moment before its end is told.
        looks_dying = if pid.is_some_and(procfs::is_dying) {
            looks_dying + 1
        } else {
            0
        };
        if looks_dying == 2 {
            return Err(io::Error::other(
                "killed, but a thread of it waits in the kernel and cannot end (FUSE, NFS)",
            ));
        }
    }
}
