//! The daemon: accepts listeners on the control socket and keeps a worker for each. The only async
//! room.

mod announcements;
mod answer;
pub(crate) mod background;
mod groups;
pub(crate) mod guard;
#[cfg(test)]
mod hostile;
mod receive;
mod router;
mod socket;
pub(crate) mod store;
mod supervised;
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
use crate::wire::handover::HEARD;
use crate::wire::mode::{self, Setup};
use crate::wire::oci::ContainerProcessState;
use announcements::{Announcements, Claim, Refusal};
use receive::{Audience, ReceiveError, Received};
use socket::ControlSocket;
pub(crate) use socket::{abstract_name, is_neighbour};
use store::Keeper;

use crate::store::Places;
use workers::Workers;

/// What `subuidless serve` is asked to do.
#[derive(Debug)]
pub(crate) struct Options {
    /// Where to listen; `None`: `$XDG_RUNTIME_DIR/subuidless.sock`, or the socket that systemd
    /// passes.
    pub(crate) socket: Option<PathBuf>,
    /// Where the lasting side store lies; `None`: `$XDG_STATE_HOME/subuidless`.
    pub(crate) store: Option<PathBuf>,
    /// For the workers, which log as the daemon does.
    pub(crate) log: log::Settings,
    /// To end after so long a time without any container; `None`: never.
    pub(crate) idle: Option<Duration>,
    /// To end when the containers have ended that came.
    pub(crate) for_one: bool,
    /// To tell whoever has started this process that it listens.
    pub(crate) says_ready: bool,
    /// To end after a certain process and its containers, deaf to SIGTERM until then.
    pub(crate) until: Option<Until>,
}

/// How long a daemon is needed.
pub(crate) struct Until {
    /// The pidfd of the process.
    pub(crate) process: OwnedFd,
    /// Called when the process has ended; containers may still run then.
    pub(crate) ended: Box<dyn Fn()>,
}

impl std::fmt::Debug for Until {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("Until")
            .field("process", &self.process)
            .finish_non_exhaustive()
    }
}

/// Serves until SIGTERM or SIGINT. Running containers' workers go on.
pub(crate) fn run(options: Options) -> Result<(), Error> {
    block_on(serve(options))
}

/// Serves the one listener that standard input brings, until its last target has ended; `keep_id`:
/// only in user namespaces below our own.
pub(crate) fn supervise(options: Options, keep_id: bool) -> Result<(), Error> {
    block_on(serve_one(options, keep_id))
}

/// For so long a command is kept by its supervisor and worker alone: a guard takes as long to start
/// as a short command.
const UNGUARDED: Duration = Duration::from_millis(50);

fn block_on(service: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    sys::use_one_malloc_arena();
    check_kernel()?;
    // A container takes four fds, and the usual soft limit is 1024, kept low for programs that use
    // select(2).
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

/// A kernel that writes larger notifications than this program was built for would write past the
/// slots.
fn check_kernel() -> Result<(), Error> {
    let size = sys::notification_size().doing(
        "asking for the size of seccomp notifications (is CONFIG_SECCOMP_FILTER set, Linux ≥ 5.0?)",
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
        last: Cell::new(Instant::now()),
        left: Notify::new(),
        has_served: Cell::new(false),
    });
    let mut terminate = watch(SignalKind::terminate())?;
    let mut interrupt = watch(SignalKind::interrupt())?;
    let mut hangup = watch(SignalKind::hangup())?;
    let guarded = Rc::clone(&daemon.workers);
    // Later than whoever waits for us is told.
    tokio::task::spawn_local(async move { guarded.keep_guard().await });
    info!(socket = %socket.display(), "listening");
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    if options.says_ready {
        mode::say_ready();
    }
    let is_held = options.until.is_some();
    let mut needless = std::pin::pin!(daemon.outlive(options.until));
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
            _ = hangup.recv() => info!("SIGHUP: nothing to read anew, containers are left alone"),
            () = daemon.be_idle(options.idle, options.for_one) => {
                info!("no container is left: enough");
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

/// In a task of its own for as long as the daemon runs.
fn start_keeper(places: Places) -> Rc<Keeper> {
    let keeper = Rc::new(Keeper::new(places));
    let kept = Rc::clone(&keeper);
    tokio::task::spawn_local(async move { kept.keep().await });
    keeper
}

async fn serve_one(options: Options, keep_id: bool) -> Result<(), Error> {
    let (state, listener) = match listener_from_stdin().await? {
        Some(received) => received,
        // The command could not be run, and whoever called it has been told.
        None => return Ok(()),
    };
    let keeper = start_keeper(Places::prepare_quietly(options.store));
    let setup = Setup {
        log: options.log,
        recent: None,
        lasting: None,
        socket: None,
    };
    let workers = Rc::new(Workers::new(setup, Rc::clone(&keeper)));
    match socket::for_questions(&state.id) {
        Ok(socket) => {
            let workers = Rc::clone(&workers);
            tokio::task::spawn_local(async move { answer_all(&socket, &workers).await });
        }
        Err(error) => debug!(%error, "nobody can ask about this command"),
    }
    match keep_id {
        false => {
            let guarded = Rc::clone(&workers);
            tokio::task::spawn_local(async move {
                // Most commands have ended by then.
                tokio::time::sleep(UNGUARDED).await;
                guarded.keep_guard().await;
            });
            workers.supervise(state, listener, None).await;
        }
        true => route(&workers, &state.id, listener).await?,
    }
    keeper.stop().await;
    Ok(())
}

/// Answers questions, and hears nothing else.
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

/// The process at the other end, where it is known; `None` when it is not one of this user's, which
/// is logged.
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
    const WHAT: &str = "taking a listener from standard input";
    let connection = std::io::stdin().as_fd().try_clone_to_owned();
    let connection = std::os::unix::net::UnixStream::from(connection.doing(WHAT)?);
    connection.set_nonblocking(true).doing(WHAT)?;
    let connection = UnixStream::from_std(connection).doing(WHAT)?;
    match receive::receive(&connection, false).await {
        Ok(Received::Container(state, listener)) => Ok(Some((state, listener))),
        Err(ReceiveError::Nothing) => Ok(None),
        Ok(Received::Orphan(_) | Received::Announcement(_) | Received::Ask(_)) => {
            Err(Error::doing(WHAT, std::io::ErrorKind::InvalidData))
        }
        Err(error) => Err(Error::doing(WHAT, std::io::Error::other(error))),
    }
}

/// Keeps a worker for each user namespace that targets are in, until the last of them has ended.
async fn route(workers: &Rc<Workers>, id: &str, listener: ListenerFd) -> Result<(), Error> {
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
                served.spawn_local(async move { workers.supervise_fed(id, fd, newcomer.feed).await });
            }
        }
    }
    while served.join_next().await.is_some() {}
    Ok(())
}

/// Tries again and again what fails for want of a descriptor or of memory: somebody waits for it,
/// and it may be had in a moment.
async fn patiently<T>(mut attempt: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    const PAUSE: Duration = Duration::from_millis(50);
    loop {
        match attempt() {
            Err(error)
                if error
                    .raw_os_error()
                    .is_some_and(|raw| is_shortage(Errno::from_raw(raw))) =>
            {
                warn!(%error, "waiting for what is missing");
                tokio::time::sleep(PAUSE).await;
            }
            result => return result,
        }
    }
}

/// Waits in a thread of its own until `fd` has one of `events`, or hangs up.
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

/// What the connections share.
#[derive(Debug)]
struct Daemon {
    workers: Rc<Workers>,
    announcements: Announcements,
    audience: Audience,
    /// Connections whose container has not ended.
    open: Cell<usize>,
    /// When the last one came or went.
    last: Cell<Instant>,
    /// One has gone.
    left: Notify,
    /// Whether any of them brought a container.
    has_served: Cell<bool>,
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

    /// Waits until there has been nothing to do for `limit`, or nothing is left of what came;
    /// without both, for ever.
    async fn be_idle(&self, limit: Option<Duration>, for_one: bool) {
        loop {
            let mut patience = Duration::MAX;
            if self.open.get() == 0 {
                if for_one && self.has_served.get() {
                    return;
                }
                if let Some(limit) = limit {
                    patience = limit.saturating_sub(self.last.get().elapsed());
                }
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

    /// Waits for the end of the process, and of the containers that are left then.
    async fn outlive(&self, until: Option<Until>) {
        const LOOK: Duration = Duration::from_millis(5);
        let Some(until) = until else {
            return std::future::pending().await;
        };
        let process = until.process;
        let end = tokio::task::spawn_blocking(move || wait_for(&process, PollFlags::POLLIN));
        if !matches!(end.await, Ok(Ok(()))) {
            warn!("cannot wait for the process that this daemon is for");
        }
        (until.ended)();
        while self.open.get() > 0 {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// One connection, from the peer check to the end of its container. Errors end here, in one log
    /// line.
    async fn handle(&self, connection: UnixStream) {
        let Some(pid) = peer(&connection) else {
            return;
        };
        let claim = self.announcements.claim(pid);
        let is_runtime = claim.is_some();
        debug!(pid, claimed = is_runtime, "connection");
        let may_wait = claim.as_ref().is_some_and(Claim::may_wait);
        match self.audience.hear(&connection, may_wait).await {
            Ok(Received::Container(state, listener)) => {
                drop(connection);
                self.has_served.set(true);
                let said = self.announcements.take(claim, &state.id);
                self.workers.supervise(state, listener, said).await;
            }
            Ok(Received::Orphan(orphan)) => {
                self.has_served.set(true);
                self.workers.adopt(orphan, connection).await;
            }
            Ok(Received::Announcement(announcement)) => {
                match self.announcements.hear(announcement, pid) {
                    Ok(()) => confirm(connection).await,
                    Err(Refusal::Unknown) => warn!(pid, "refused: an announcement of nobody known"),
                    Err(Refusal::TooMany) => warn!(
                        pid,
                        "refused: an announcement, since too many containers are waited for already"
                    ),
                }
            }
            Ok(Received::Ask(ask)) => answer::answer(ask, connection, &self.workers).await,
            Err(error) => {
                // What was created may never be started.
                self.has_served.set(self.has_served.get() || is_runtime);
                warn!(%error, "refused: not a seccomp receiver message");
            }
        }
    }
}

async fn confirm(mut connection: UnixStream) {
    // Who does not wait for it does not want it.
    let _ = connection.write_all(HEARD).await;
}
