//! Runs one worker process for each listener: starts it, waits for it, and starts another one if it
//! dies before its targets.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitStatus;
use std::rc::{Rc, Weak};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::sys::stat::fstat;
use tracing::{debug, error, info, warn};

use super::bundle::{self, Noted};
use super::child::WorkerProcess;
use super::guard::link::GuardLink;
use super::keeper::Keeper;
use super::patiently;
use super::receive::Orphan;
use super::router::Namespace;
use super::supervised::{EXEC, Supervised};
use super::tables::SharedTable;
use super::tracers::Tracers;
use crate::credentials::EmulatedGid;
use crate::identity::Table;
use crate::linux::lock::Claim;
use crate::linux::procfs;
use crate::linux::seccomp::ListenerFd;
use crate::syscalls::fingerprint;
use crate::wire::board::{Board, Role};
use crate::wire::handover::{Announcement, Handover, NextUser, Service};
use crate::wire::mode::{Mode, Setup};
use crate::wire::oci::{ContainerProcessState, UNKNOWN};

/// The time between two attempts to start a worker for one container, except before the second one.
const PAUSE: Duration = Duration::from_millis(200);
/// The time between two checks for a killed worker that cannot exit.
const LOOK: Duration = Duration::from_secs(2);
/// The number of deaths in a row without an answered call after which attempts become rarer.
const PATIENCE: u32 = 10;

#[derive(Debug)]
pub(super) struct Workers {
    /// The setup of all workers, without the side store.
    setup: Setup,
    keeper: Rc<Keeper>,
    containers: RefCell<Vec<Rc<Supervised>>>,
    pub(super) tracers: Tracers,
    pub(super) guard: GuardLink,
    shared: RefCell<Vec<Shared>>,
    /// A worker for the next container, started before.
    first: RefCell<Option<(WorkerProcess, UnixStream)>>,
    /// To be called once a worker has the first container.
    tell_shared: Cell<Option<fn()>>,
}

/// The memory that all workers of a container share: its table, and the locks on that file.
#[derive(Debug)]
struct Shared {
    id: String,
    /// Distinguishes containers with the same id, of two runtimes or in two state directories.
    bundle: String,
    memory: Weak<OwnedFd>,
}

/// Where a listener's targets are.
enum Origin {
    /// In a container whose processes start with these groups.
    Container(Vec<EmulatedGid>),
    /// In a user namespace in which those of other listeners may be, too.
    Namespace(Namespace),
}

impl Workers {
    pub(super) fn new(setup: Setup, keeper: Rc<Keeper>) -> Self {
        Self {
            setup,
            keeper,
            containers: RefCell::default(),
            tracers: Tracers::default(),
            guard: GuardLink::default(),
            shared: RefCell::default(),
            first: RefCell::default(),
            tell_shared: Cell::default(),
        }
    }

    /// Calls `shared` once a worker has the first container.
    pub(super) fn when_shared(&self, shared: fn()) {
        self.tell_shared.set(Some(shared));
    }

    /// Uses `first` for the next container.
    pub(super) fn start_with(&self, first: Option<(WorkerProcess, UnixStream)>) {
        self.first.replace(first);
    }

    /// The setup for a worker, or a guard, that is started now.
    pub(super) fn setup(&self) -> Setup {
        let places = self.keeper.places_for_worker();
        Setup {
            recent: places.recent,
            lasting: places.lasting,
            ..self.setup.clone()
        }
    }

    /// Keeps a guard running. Never returns.
    pub(super) async fn keep_guard(&self) {
        const PAUSE: Duration = Duration::from_millis(50);
        let mut says = true;
        loop {
            let started = self
                .guard
                .start(&Mode::Guard(self.setup()), &self.containers());
            match started {
                Ok(mut guard) => {
                    says = true;
                    let ended = guard.wait().await;
                    debug!(?ended, "the guard has exited");
                }
                // Once, for as long as it lasts.
                Err(error) if std::mem::take(&mut says) => warn!(
                    %error,
                    "cannot start a guard: containers will not survive the loss of both daemon and \
                     worker"
                ),
                Err(_) => {}
            }
            self.guard.lose();
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The containers that are served now.
    pub(super) fn containers(&self) -> Vec<Rc<Supervised>> {
        self.containers.borrow().clone()
    }

    /// The memory that the workers of a container share: for an exec that of its container, for a
    /// new container a new table.
    fn shared(&self, handover: &Handover, groups: &[EmulatedGid]) -> Result<Rc<OwnedFd>, Errno> {
        let known = match handover.status == EXEC {
            true => self.known(handover),
            // A new container.
            false => None,
        };
        match known {
            Some(known) => Ok(known),
            None => Ok(self.share(handover, Table::create(groups.to_vec())?)),
        }
    }

    /// The memory of the container that an exec belongs to. Returns `None` if there is no such
    /// container, or more than one.
    fn known(&self, handover: &Handover) -> Option<Rc<OwnedFd>> {
        let Handover { id, bundle, .. } = handover;
        let shared = self.shared.borrow();
        let of_id = shared.iter().filter(|shared| shared.id == *id);
        // crun sends "." as the bundle of an exec.
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
                    "several containers have this name: the new process does not see the emulated \
                     ids of the others in its container"
                );
                None
            }
        }
    }

    /// Registers `memory` for later workers of the container.
    fn share(&self, handover: &Handover, memory: OwnedFd) -> Rc<OwnedFd> {
        let mut shared = self.shared.borrow_mut();
        shared.retain(|shared| shared.memory.strong_count() > 0);
        let memory = Rc::new(memory);
        // Containers whose id is unknown are not the same container.
        if handover.id != UNKNOWN {
            shared.push(Shared {
                id: handover.id.clone(),
                bundle: handover.bundle.clone(),
                memory: Rc::downgrade(&memory),
            });
        }
        memory
    }

    /// Runs a worker for `listener` until its last target has exited. `service`: for a command.
    pub(super) async fn serve(
        &self,
        state: ContainerProcessState,
        listener: ListenerFd,
        said: Option<Announcement>,
        service: Option<Service>,
    ) {
        let ContainerProcessState {
            id,
            status,
            mut bundle,
            ..
        } = state;
        let service = service.or(said.as_ref().map(|said| said.service));
        let (next, where_it_is) = said.map(|said| (said.next, said.bundle)).unzip();
        if let Some(known) = where_it_is.flatten().filter(|_| status == EXEC) {
            bundle = known;
        }
        match status.as_str() {
            EXEC => info!(container = %id, %bundle, "exec"),
            _ => info!(container = %id, %status, %bundle, "container"),
        }
        let noted = match next {
            // An announced user has the announced groups.
            Some(_) => Noted::default(),
            None => bundle::read(&status, &bundle).await,
        };
        let user = match next {
            None | Some(NextUser::AsIs) => None,
            Some(NextUser::User(user)) => Some(user),
        };
        let mut handover = Handover {
            id,
            status,
            bundle,
            user,
            service: service.unwrap_or(noted.service),
        };
        if handover.status == EXEC {
            let of_container = self.service_of(&handover);
            handover.service.permissions = of_container.permissions;
            if service.is_none() {
                handover.service = of_container;
            }
        }
        self.start(handover, listener, Origin::Container(noted.groups))
            .await;
    }

    /// How the container is served that an exec belongs to.
    fn service_of(&self, exec: &Handover) -> Service {
        let containers = self.containers.borrow();
        let mut of_id = containers
            .iter()
            .map(|other| &other.handover)
            .filter(|other| other.id == exec.id);
        let any_on = of_id.clone().find(|other| other.service.fast.is_on());
        any_on
            .or(of_id.next())
            .map_or_else(Service::default, |it| it.service)
    }

    /// As [`Workers::serve`], for a user namespace.
    pub(super) async fn serve_namespace(
        &self,
        id: String,
        listener: ListenerFd,
        namespace: Namespace,
        service: Service,
    ) {
        info!(container = %id, "user namespace");
        let handover = Handover {
            id,
            // Its processes join what exists, like those of an exec.
            status: EXEC.to_owned(),
            bundle: String::new(),
            user: None,
            service,
        };
        self.start(handover, listener, Origin::Namespace(namespace))
            .await;
    }

    async fn start(&self, handover: Handover, listener: ListenerFd, origin: Origin) {
        let memory = patiently(|| {
            if !listener.has_targets() {
                return Err(Errno::ESRCH.into());
            }
            let board = Board::create(handover.service.fast.is_on())?;
            let shared = match &origin {
                Origin::Container(groups) => (self.shared(&handover, groups)?, None),
                Origin::Namespace(namespace) => {
                    let table = SharedTable::of(namespace.identity)?;
                    (Rc::clone(&table.memory), Some(table))
                }
            };
            Ok((board, shared))
        });
        match memory.await {
            Ok((board, (shared, _table))) => {
                let mut feed = None;
                if let Origin::Namespace(namespace) = origin {
                    // What its processes did before they entered the namespace is unknown.
                    board.set_views_differ();
                    feed = namespace.feed;
                }
                board.begin(fingerprint(), SystemTime::now());
                let mut container = Supervised::new(handover, listener, board, shared);
                container.feed = feed;
                self.keep(container, None).await;
            }
            Err(error) => error!(
                container = %handover.id, %error,
                "cannot create the memory that workers share: the container's calls will fail"
            ),
        }
    }

    /// Takes over the worker of an earlier daemon. `link` hangs up when the worker exits.
    pub(super) async fn adopt(&self, orphan: Orphan, link: tokio::net::UnixStream) {
        let Handover {
            id, status, bundle, ..
        } = &orphan.handover;
        info!(container = %id, %status, %bundle, "container of an earlier daemon");
        if let Some(known) = self.of_board(&orphan.board) {
            // The container was handed over before, by a worker that has died since. Two tasks for
            // one container would each start a worker.
            known.successor.replace(Some(link));
            return;
        }
        // The worker's own table, even if another one is known for this id by now: the cookies of
        // its processes refer to this one.
        let shared = self.share(&orphan.handover, orphan.shared);
        let container = Supervised::new(orphan.handover, orphan.listener, orphan.board, shared);
        self.keep(container, Some(link)).await;
    }

    /// The supervised listener with this board, if there is one.
    fn of_board(&self, board: &Board) -> Option<Rc<Supervised>> {
        let inode = |board: &Board| fstat(board).map(|found| found.st_ino).ok();
        let wanted = inode(board)?;
        let containers = self.containers.borrow();
        let mut same = containers
            .iter()
            .filter(|other| inode(&other.board) == Some(wanted));
        same.next().map(Rc::clone)
    }

    /// Runs workers until the last target has exited. Holds the listener: without a worker, calls
    /// wait for the next one instead of failing with ENOSYS.
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
            // Before the next start: the store may have to be repaired first.
            if let Ok(status) = ended {
                self.keeper.worker_ended(status, idle_deaths).await;
            }
            match ended {
                Ok(status) => warn!(container = %id, %status, "worker died: starting another one"),
                Err(error) => {
                    error!(container = %id, %error, "cannot run a worker: starting another one");
                }
            }
            idle_deaths = if board.served().total() > before {
                0
            } else {
                idle_deaths + 1
            };
            match idle_deaths {
                // At once: calls are waiting.
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

    /// Sets the connection to the container's present worker.
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

    /// Starts a worker, and waits for its exit.
    async fn run_one(&self, container: &Supervised) -> io::Result<ExitStatus> {
        let (mut child, ours) = match self.first.take() {
            Some(first) => first,
            None => WorkerProcess::execute(self.setup(), &container.handover.id)?,
        };
        ours.set_nonblocking(true)?;
        container.worker.set(child.pid());
        let mut ours = tokio::net::UnixStream::from_std(ours)?;
        // A worker that does not read delays only its own container; one that has died is noticed
        // by wait().
        tokio::select! {
            handed = container.hand_over(&mut ours) => match handed {
                Ok(()) => {
                    if let Some(shared) = self.tell_shared.take() {
                        shared();
                    }
                }
                // The worker finds its socket closed and logs that.
                Err(error) => warn!(
                    container = %container.handover.id, %error, "cannot hand the container over"
                ),
            },
            ended = child.wait() => return ended,
        }
        // Kept open: a hang-up tells the worker that the daemon has exited.
        self.connect(container, ours.into_std().map(Into::into));
        or_give_up(child.pid(), child.wait()).await
    }
}

/// Takes the role of starting workers. Waits for the guard of an earlier daemon, which may be
/// starting one.
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

/// Waits for the exit of a worker that is not a child of this process.
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

/// The pid of the process at the other end, if it is in this pid namespace.
fn peer_pid(link: &tokio::net::UnixStream) -> Option<u32> {
    let pid = link.peer_cred().ok()?.pid()?;
    u32::try_from(pid).ok()
}

/// Waits for `end`, the exit of the worker `pid`. Fails once it is certain that the worker was
/// killed but cannot exit.
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
        // Once is not enough: the worker may exit a moment later.
        looks_dying = if pid.is_some_and(procfs::is_dying) {
            looks_dying + 1
        } else {
            0
        };
        if looks_dying == 2 {
            return Err(io::Error::other(
                "killed, but one of its threads hangs in the kernel and cannot exit (FUSE, NFS)",
            ));
        }
    }
}
