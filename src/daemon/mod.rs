//! The daemon: accepts listeners on the control socket and keeps a worker running for each of them.
//!
//! `socket` binds, `receive` reads one message of a connection, `workers` starts and awaits
//! workers. `guard` is a process that takes over when the daemon dies. No code here enters a
//! container or answers a call. The only async room: tokio, on one thread.

mod announcements;
mod answer;
pub(crate) mod background;
mod bundle;
mod child;
pub(crate) mod guard;
#[cfg(test)]
mod hostile;
mod keeper;
mod receive;
mod router;
mod socket;
mod supervised;
mod tables;
mod tracers;
mod workers;

use std::cell::Cell;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Uid;
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::LocalSet;
use tracing::{debug, info, warn};

use crate::error::{Context, Error, is_shortage};
use crate::linux::limits::{self, Loss};
use crate::linux::seccomp::ListenerFd;
use crate::linux::sys;
use crate::log;
use crate::store::Places;
use crate::wire::ask::What;
use crate::wire::fast::FastPath;
use crate::wire::handover::{HEARD, Origin, Service};
use crate::wire::mode::{self, Setup};
use crate::wire::oci::ContainerProcessState;
use crate::wire::permissions::Permissions;
use announcements::{Announcements, ClaimedAnnouncement, Refusal};
pub(crate) use child::FirstWorker;
use keeper::Keeper;
use receive::{Audience, MessageError, Received};
use router::Namespace;
use socket::ControlSocket;
pub(crate) use socket::{abstract_name, is_neighbour};
use workers::Workers;

/// The options of `subuidless serve`, and those of a supervisor.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// The path to listen on; by default `$XDG_RUNTIME_DIR/subuidless.sock`, or the socket that
    /// systemd passes.
    pub(crate) socket: Option<PathBuf>,
    /// The directory of the lasting side store; by default `$XDG_STATE_HOME/subuidless`.
    pub(crate) store: Option<PathBuf>,
    /// Log settings for workers, the same as the daemon's.
    pub(crate) log: log::Settings,
    /// Exit after this time without a container; `None`: never.
    pub(crate) idle: Option<Duration>,
    /// Exit once the first container, and all that came meanwhile, have ended.
    pub(crate) for_one: bool,
    /// Tell the process that started this one when the socket listens.
    pub(crate) says_ready: bool,
    /// Exit after a certain process and its containers; ignore SIGTERM and SIGINT until then.
    pub(crate) until: Option<Until>,
}

/// The process that a daemon serves.
pub(crate) struct Until {
    /// The pidfd of the process.
    pub(crate) process: Arc<OwnedFd>,
    /// Called when the listener of its container has come, before any program runs there.
    pub(crate) began: Box<dyn Fn()>,
    /// Called when the process has exited; containers may still run then.
    pub(crate) ended: Box<dyn Fn()>,
}

impl std::fmt::Debug for Until {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("Until")
            .field("process", &self.process)
            .finish_non_exhaustive()
    }
}

/// Serves until SIGTERM or SIGINT. Workers of running containers go on.
pub(crate) fn run(options: Options) -> Result<(), Error> {
    block_on(serve(options))
}

/// Serves the one listener that standard input brings, until its last target has ended.
pub(crate) fn serve_command(
    options: Options,
    service: Service,
    first: Option<FirstWorker>,
) -> Result<(), Error> {
    block_on(serve_one(options, Targets::Command { service }, first))
}

/// The same, for a command in a user namespace that other commands may enter, too. `pid`: of the
/// process that sends the listener.
pub(crate) fn serve_engine(
    options: Options,
    permissions: Permissions,
    pid: u32,
    first: Option<FirstWorker>,
) -> Result<(), Error> {
    block_on(serve_one(
        options,
        Targets::Engine { permissions, pid },
        first,
    ))
}

/// The same, but only in the user namespaces that the targets create (`--keep-id`).
pub(crate) fn serve_namespaces(options: Options, permissions: Permissions) -> Result<(), Error> {
    block_on(serve_one(
        options,
        Targets::Namespaces { permissions },
        None,
    ))
}

/// The processes whose calls [`serve_one`] answers.
#[derive(Debug, Clone, Copy)]
enum Targets {
    /// All below the filter.
    Command { service: Service },
    /// The same, in a user namespace that is not theirs alone: that of this process.
    Engine { permissions: Permissions, pid: u32 },
    /// Those in user namespaces that the others create.
    Namespaces { permissions: Permissions },
}

/// The age of a command at which its guard is started: starting one takes as long as a short
/// command.
const UNGUARDED: Duration = Duration::from_millis(50);

fn block_on(service: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    sys::use_one_malloc_arena();
    check_kernel()?;
    // A container takes four file descriptors, and the usual soft limit is 1024, which is that low
    // only for programs that use select(2).
    limits::raise();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .doing("starting the async runtime")?;
    let tasks = LocalSet::new();
    tasks.spawn_local(async {
        loop {
            tokio::time::sleep(log::PERIOD).await;
            log::say_what_is_due(Instant::now());
        }
    });
    tasks.block_on(&runtime, service)
}

/// Refuses a kernel whose notifications are larger than the slots that they are received into.
fn check_kernel() -> Result<(), Error> {
    let size = sys::notification_size().doing(
        "getting the size of seccomp notifications (Linux 5.0 or newer, with \
         CONFIG_SECCOMP_FILTER?)",
    )?;
    if usize::from(size) > sys::NOTIFICATION_WORDS * 8 {
        return Err(Error::NotificationSize { size });
    }
    Ok(())
}

async fn serve(options: Options) -> Result<(), Error> {
    limits::require(&[Loss::All], &mut |words| warn!("{words}"))?;
    let socket = ControlSocket::open(options.socket)?;
    let keeper = start_keeper(Places::prepare(options.store));
    let setup = Setup {
        log: options.log,
        recent: None,
        lasting: None,
        socket: Some(socket.path().to_owned()),
    };
    let workers = Rc::new(Workers::new(setup, Rc::clone(&keeper)));
    let daemon = Rc::new(Daemon {
        workers,
        announcements: Announcements::default(),
        audience: Audience::default(),
        open: Cell::new(0),
        traces: Cell::new(0),
        last: Cell::new(Instant::now()),
        left: Notify::new(),
        has_served: Cell::new(false),
        until: options.until.map(Rc::new),
    });
    let mut terminate = watch(SignalKind::terminate())?;
    let mut interrupt = watch(SignalKind::interrupt())?;
    let mut hangup = watch(SignalKind::hangup())?;
    let guarded = Rc::clone(&daemon.workers);
    // The task runs at the first await, after say_ready(): starting the guard must not delay that.
    tokio::task::spawn_local(async move { guarded.keep_guard().await });
    info!(socket = %socket.display(), "listening");
    // Fails without systemd.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    if options.says_ready {
        mode::say_ready();
        daemon.workers.when_shared(mode::say_shared);
    }
    let is_held = daemon.until.is_some();
    let mut needless = std::pin::pin!(daemon.outlive());
    loop {
        tokio::select! {
            connection = socket.accept() => match connection {
                Ok(connection) => {
                    let daemon = Rc::clone(&daemon);
                    daemon.enter();
                    tokio::task::spawn_local(async move {
                        daemon.handle(connection).await;
                        daemon.leave();
                    });
                }
                Err(error) => {
                    warn!(%error, "cannot accept a connection: trying again");
                    daemon.audience.send_one_away();
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            _ = hangup.recv() => info!("SIGHUP is ignored: there is no configuration to reload"),
            () = daemon.be_idle(options.idle, options.for_one) => {
                info!("exiting: no container is left");
                break;
            }
            _ = &mut needless => break,
            _ = terminate.recv(), if !is_held => break,
            _ = interrupt.recv(), if !is_held => break,
        }
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    info!(
        workers = daemon.workers.containers().len(),
        "stopping: workers of running containers go on"
    );
    keeper.stop().await;
    Ok(())
}

/// Starts the task that looks after the side store while the daemon runs.
fn start_keeper(places: Places) -> Rc<Keeper> {
    let keeper = Rc::new(Keeper::new(places));
    let kept = Rc::clone(&keeper);
    tokio::task::spawn_local(async move { kept.keep().await });
    keeper
}

async fn serve_one(
    options: Options,
    targets: Targets,
    first: Option<FirstWorker>,
) -> Result<(), Error> {
    let (state, listener) = match listener_from_stdin().await? {
        Some(received) => received,
        // The command could not be executed, and has reported that itself.
        None => return Ok(()),
    };
    let (places, process) = match first {
        Some(FirstWorker { places, process }) => (places, process),
        None => (Places::prepare_quietly(options.store), None),
    };
    let keeper = start_keeper(places);
    let setup = Setup {
        log: options.log,
        recent: None,
        lasting: None,
        socket: None,
    };
    let workers = Rc::new(Workers::new(setup, Rc::clone(&keeper)));
    workers.start_with(process);
    match socket::for_questions(&state.id) {
        Ok(socket) => {
            let workers = Rc::clone(&workers);
            tokio::task::spawn_local(async move { answer_all(&socket, &workers).await });
        }
        Err(error) => debug!(%error, "status and trace cannot reach this supervisor"),
    }
    if !matches!(targets, Targets::Namespaces { .. }) {
        let guarded = Rc::clone(&workers);
        tokio::task::spawn_local(async move {
            // Most commands have exited by then.
            tokio::time::sleep(UNGUARDED).await;
            guarded.keep_guard().await;
        });
    }
    match targets {
        Targets::Command { service } => {
            workers.serve(state, listener, None, Some(service)).await;
        }
        Targets::Engine { permissions, pid } => {
            // The process waits in its execve(2), unless it was killed.
            let namespace = router::identity_of(&format!("/proc/{pid}/ns/user"));
            let namespace = namespace.doing("looking at the user namespace of the command")?;
            let namespace = Namespace {
                identity: namespace,
                feed: None,
            };
            let service = Service {
                fast: FastPath::Engine,
                origin: Origin::Runtime,
                permissions,
                ..Service::default()
            };
            workers
                .serve_namespace(state.id, listener, namespace, service)
                .await;
        }
        Targets::Namespaces { permissions } => {
            route(&workers, &state.id, listener, permissions).await?;
        }
    }
    keeper.stop().await;
    Ok(())
}

/// Answers `status` and `trace`; ignores all other messages.
async fn answer_all(socket: &UnixListener, workers: &Rc<Workers>) {
    while let Ok((connection, _)) = socket.accept().await {
        let workers = Rc::clone(workers);
        tokio::task::spawn_local(async move {
            let Some(Some(pid)) = peer(&connection) else {
                return;
            };
            if !socket::is_neighbour(connection.as_fd(), pid) {
                warn!(pid, "refused: a question from another user namespace");
                return;
            }
            if let Ok(Received::Ask(ask)) = receive::receive(&connection, false).await {
                answer::answer(ask, connection, &workers).await;
            }
        });
    }
}

/// The pid of the peer, if it is known. Returns `None`, and logs it, if the peer is not of this
/// user.
fn peer(connection: &UnixStream) -> Option<Option<u32>> {
    match connection.peer_cred() {
        Ok(peer) if peer.uid() == Uid::effective().as_raw() => {
            Some(peer.pid().and_then(|pid| u32::try_from(pid).ok()))
        }
        Ok(peer) => {
            warn!(
                uid = peer.uid(),
                pid = peer.pid(),
                "refused: a peer of another user"
            );
            None
        }
        Err(error) => {
            warn!(%error, "refused: a peer without credentials");
            None
        }
    }
}

async fn listener_from_stdin() -> Result<Option<(ContainerProcessState, ListenerFd)>, Error> {
    const WHAT: &str = "receiving a listener from standard input";
    let connection = std::io::stdin().as_fd().try_clone_to_owned();
    let connection = std::os::unix::net::UnixStream::from(connection.doing(WHAT)?);
    connection.set_nonblocking(true).doing(WHAT)?;
    let connection = UnixStream::from_std(connection).doing(WHAT)?;
    match receive::receive(&connection, false).await {
        Ok(Received::Container(state, listener)) => Ok(Some((state, listener))),
        Err(MessageError::Nothing) => Ok(None),
        Ok(Received::Orphan(_) | Received::Announcement(_) | Received::Ask(_)) => {
            Err(Error::doing(WHAT, std::io::ErrorKind::InvalidData))
        }
        Err(error) => Err(Error::doing(WHAT, std::io::Error::other(error))),
    }
}

/// Runs a worker for each user namespace with targets, until the last target has exited.
async fn route(
    workers: &Rc<Workers>,
    id: &str,
    listener: ListenerFd,
    permissions: Permissions,
) -> Result<(), Error> {
    const WHAT: &str = "serving several user namespaces";
    let listener = Arc::new(listener);
    let mut newcomers = router::start(&listener).doing(WHAT)?;
    let ends = Arc::clone(&listener);
    let mut end = tokio::task::spawn_blocking(move || wait_for(&*ends, PollFlags::empty()));
    let mut served = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            result = &mut end => {
                result.doing(WHAT)?.doing(WHAT)?;
                break;
            }
            Some(newcomer) = newcomers.recv() => {
                let fd = patiently(|| listener.as_fd().try_clone_to_owned()).await.doing(WHAT)?;
                let fd = ListenerFd::new(fd).doing(WHAT)?;
                let id = format!("{id}.{}", served.len());
                let workers = Rc::clone(workers);
                served.spawn_local(async move {
                    let service = Service {
                        fast: FastPath::KeepId,
                        origin: Origin::Runtime,
                        permissions,
                        ..Service::default()
                    };
                    workers.serve_namespace(id, fd, newcomer, service).await;
                });
            }
        }
    }
    while served.join_next().await.is_some() {}
    Ok(())
}

/// Retries `attempt` while it fails for lack of file descriptors or memory: containers wait for it,
/// and the shortage may end soon.
async fn patiently<T>(mut attempt: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    const PAUSE: Duration = Duration::from_millis(50);
    loop {
        match attempt() {
            Err(error)
                if error
                    .raw_os_error()
                    .is_some_and(|raw| is_shortage(Errno::from_raw(raw))) =>
            {
                warn!(%error, "waiting for file descriptors or memory");
                tokio::time::sleep(PAUSE).await;
            }
            result => return result,
        }
    }
}

/// Blocks until `fd` has one of `events`, or hangs up.
fn wait_for(fd: &impl AsFd, events: PollFlags) -> nix::Result<()> {
    loop {
        match poll(&mut [PollFd::new(fd.as_fd(), events)], PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            result => return result.map(drop),
        }
    }
}

fn watch(kind: SignalKind) -> Result<tokio::signal::unix::Signal, Error> {
    signal(kind).doing("watching for signals")
}

/// The state that connections share.
#[derive(Debug)]
struct Daemon {
    workers: Rc<Workers>,
    announcements: Announcements,
    audience: Audience,
    /// The number of connections that are handled, including those whose container runs.
    open: Cell<usize>,
    /// How many of them are those of tracers, which go on until this daemon ends.
    traces: Cell<usize>,
    /// The time at which `open` last changed.
    last: Cell<Instant>,
    /// Notified when `open` decreases.
    left: Notify,
    /// Whether a container was received.
    has_served: Cell<bool>,
    /// Of the supervisor of one command or container.
    until: Option<Rc<Until>>,
}

impl Daemon {
    fn enter(&self) {
        self.open.set(self.open.get() + 1);
        self.last.set(Instant::now());
    }

    fn leave(&self) {
        self.open.set(self.open.get() - 1);
        self.last.set(Instant::now());
        self.left.notify_one();
    }

    /// Whether a container runs, or somebody waits for an answer.
    fn is_needed(&self) -> bool {
        self.open.get() > self.traces.get()
    }

    /// Waits until there was no connection for `limit`, or with `for_one` until all containers have
    /// ended. With neither, waits for ever.
    async fn be_idle(&self, limit: Option<Duration>, for_one: bool) {
        loop {
            let mut patience = Duration::MAX;
            if for_one && self.has_served.get() && !self.is_needed() {
                return;
            }
            if let Some(limit) = limit
                && self.open.get() == 0
            {
                patience = limit.saturating_sub(self.last.get().elapsed());
            }
            if patience.is_zero() {
                return;
            }
            tokio::select! {
                () = self.left.notified() => {}
                () = tokio::time::sleep(patience) => {}
            }
        }
    }

    /// Waits until the process has exited, and its containers have ended.
    async fn outlive(&self) {
        const LOOK: Duration = Duration::from_millis(5);
        let Some(until) = &self.until else {
            return std::future::pending().await;
        };
        let watched = Arc::clone(&until.process);
        let end = tokio::task::spawn_blocking(move || wait_for(&watched, PollFlags::POLLIN));
        if !matches!(end.await, Ok(Ok(()))) {
            warn!("cannot wait for the process that this daemon serves");
        }
        (until.ended)();
        while self.is_needed() {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Handles one connection, from the peer check to the end of its container. Logs errors.
    async fn handle(&self, connection: UnixStream) {
        let Some(pid) = peer(&connection) else {
            return;
        };
        let claim = self.announcements.claim(pid);
        let is_runtime = claim.is_some();
        debug!(pid, claimed = is_runtime, "connection");
        let may_wait = claim.as_ref().is_some_and(ClaimedAnnouncement::may_wait);
        match self.audience.hear(&connection, may_wait).await {
            Ok(Received::Container(state, listener)) => {
                drop(connection);
                self.has_served.set(true);
                if let Some(until) = &self.until {
                    (until.began)();
                }
                let said = self.announcements.take(claim, &state.id);
                self.workers.serve(state, listener, said, None).await;
            }
            Ok(Received::Orphan(orphan)) => {
                self.has_served.set(true);
                self.workers.adopt(orphan, connection).await;
            }
            Ok(Received::Announcement(announcement)) => {
                match self.announcements.hear(announcement, pid) {
                    Ok(()) => confirm(connection).await,
                    Err(Refusal::Unknown) => {
                        warn!(pid, "refused: an announcement of an unknown process");
                    }
                    Err(Refusal::TooMany) => warn!(
                        pid,
                        "refused: an announcement, since too many others wait for their container"
                    ),
                }
            }
            Ok(Received::Ask(ask)) => {
                let is_trace = usize::from(matches!(ask, What::Trace { .. }));
                self.traces.set(self.traces.get() + is_trace);
                answer::answer(ask, connection, &self.workers).await;
                self.traces.set(self.traces.get() - is_trace);
            }
            Err(error) => {
                // A created container may never be started: then, too, `for_one` must end.
                self.has_served.set(self.has_served.get() || is_runtime);
                if self.until.is_some() && matches!(error, MessageError::Nothing) {
                    // `run`, or its runtime, has failed, and says so itself.
                    info!(%error, "no container");
                    return;
                }
                warn!(%error, "refused: no usable message");
            }
        }
    }
}

async fn confirm(mut connection: UnixStream) {
    // A front that no longer reads has given up.
    let _ = connection.write_all(HEARD).await;
}
