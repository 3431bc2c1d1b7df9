//! Routes the calls of one listener to the workers of several user namespaces, for `subuidless run
//! --keep-id`.
//!
//! A worker can join one user namespace, and cannot leave it. So a thread of the supervisor
//! receives the notifications. It continues calls of processes in its own user namespace. Others
//! go to the worker of the namespace directly below its own, in or below which the process is. That
//! costs two more context switches per call, but no namespace has to be known in advance.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::stat::{Mode, fstat, stat};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::{debug, error, warn};

use crate::error::is_shortage;
use crate::linux::seccomp::{ListenerFd, Notification, ReceiveError, Reply, Slot, clear};
use crate::linux::sys::{self, NOTIFICATION_WORDS};
use crate::linux::userns::IdMaps;

/// A user namespace with targets, for which a worker is to be started.
#[derive(Debug)]
pub(super) struct Namespace {
    pub(super) identity: Identity,
    /// The socket from which the worker reads notifications; `None`: it receives them itself.
    pub(super) feed: Option<OwnedFd>,
}

/// Starts the router's thread, which runs until the last target has exited. Returns the namespaces
/// that need a worker.
pub(super) fn start(listener: &Arc<ListenerFd>) -> io::Result<UnboundedReceiver<Namespace>> {
    let (announce, newcomers) = unbounded_channel();
    let mut router = Router {
        listener: Arc::clone(listener),
        own: identity_of("/proc/self/ns/user")?,
        branches: HashMap::new(),
        announce,
        postponed: Vec::new(),
    };
    std::thread::Builder::new()
        .name("router".to_owned())
        .spawn(move || {
            if let Err(errno) = router.receive_all() {
                error!(%errno, "cannot receive notifications: all calls fail from now on");
                // Closes the listener: calls that fail with ENOSYS are better than calls that hang
                // forever.
                std::process::exit(1);
            }
        })?;
    Ok(newcomers)
}

/// The time between two attempts while file descriptors or memory are short.
const PAUSE: Duration = Duration::from_millis(10);

/// Device and inode number of a namespace.
pub(super) type Identity = (u64, u64);

/// The words of a notification.
type Packet = [u64; NOTIFICATION_WORDS];

struct Router {
    listener: Arc<ListenerFd>,
    /// The supervisor's user namespace.
    own: Identity,
    /// The namespaces directly below `own` that have a worker.
    branches: HashMap<Identity, Branch>,
    announce: UnboundedSender<Namespace>,
    /// Calls of namespaces whose worker cannot be started at the moment.
    postponed: Vec<Packet>,
}

/// A user namespace directly below the router's own, with its worker.
struct Branch {
    /// Leads to a thread that writes to the worker's socket: only that thread blocks if the worker
    /// is slow.
    feed: Sender<Packet>,
    /// Held open so that its inode number is not reused.
    _namespace: OwnedFd,
}

impl Router {
    /// Receives and routes notifications until the last target has exited.
    fn receive_all(&mut self) -> Result<(), Errno> {
        let slot: Slot = [const { AtomicU64::new(0) }; NOTIFICATION_WORDS];
        loop {
            for packet in std::mem::take(&mut self.postponed) {
                self.route(packet);
            }
            if !self.postponed.is_empty() && self.listener.events_within(PAUSE).is_empty() {
                continue;
            }
            clear(&slot);
            match self.listener.receive(&slot) {
                Ok(_) => self.route(slot.each_ref().map(|word| word.load(Ordering::Relaxed))),
                Err(ReceiveError::Again) => {}
                Err(ReceiveError::NoTargets) => return Ok(()),
                Err(ReceiveError::Failed(errno)) if is_shortage(errno) => {
                    std::thread::sleep(PAUSE);
                }
                Err(ReceiveError::Failed(errno)) => return Err(errno),
            }
        }
    }

    /// Passes a notification on to its worker, continues the call, or postpones it.
    fn route(&mut self, packet: Packet) {
        let call = Notification::read(&packet.map(AtomicU64::new));
        let passed_on = match self.branch(&call) {
            Ok(Some(branch)) => branch.feed.send(packet).map_err(|_| Errno::ESRCH),
            Ok(None) => Err(Errno::ENOENT),
            Err(errno) => Err(errno),
        };
        match passed_on {
            Ok(()) => return,
            Err(errno) if is_shortage(errno) && self.listener.is_waiting(call.id) => {
                warn!(
                    pid = call.pid, %errno,
                    "cannot start a worker for a user namespace: its calls wait for one"
                );
                self.postponed.push(packet);
                return;
            }
            Err(errno) => debug!(pid = call.pid, %errno, "no worker for this target"),
        }
        // CONTINUE: nothing is emulated in the router's own user namespace, nor in one that a
        // worker may not enter. If the target has exited, the reply fails with ENOENT.
        let _ = self.listener.reply(call.id, Ok(Reply::Continue));
    }

    /// Returns the branch of the target, which is created if necessary; `None` if its calls are
    /// left to the kernel.
    fn branch(&mut self, call: &Notification) -> Result<Option<&Branch>, Errno> {
        let path = format!("/proc/{}/ns/user", call.pid);
        let identity = identity_of(path.as_str())?;
        if identity == self.own {
            return Ok(None);
        }
        if self.branches.contains_key(&identity) {
            return Ok(self.branches.get(&identity));
        }
        let mut namespace = open(
            path.as_str(),
            OFlag::O_RDONLY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )?;
        let is_mapped = IdMaps::of(format_args!("/proc/{}", call.pid))?.are_written();
        // Still pending, so the pid was not reused before its files were opened
        // (seccomp_unotify(2)).
        if !self.listener.is_waiting(call.id) {
            return Err(Errno::ESRCH);
        }
        if !is_mapped {
            // No ids are mapped yet: a worker that joined now would have the overflow id forever.
            return Ok(None);
        }
        // Up to the ancestor directly below the own namespace. EPERM if there is none
        // (ioctl_ns(2)): a worker could not enter such a namespace.
        loop {
            let parent = sys::parent_namespace(namespace.as_fd())?;
            if identity_from(fstat(&parent)?) == self.own {
                break;
            }
            namespace = parent;
        }
        let identity = identity_from(fstat(&namespace)?);
        if !self.branches.contains_key(&identity) {
            let branch = self.grow(namespace, identity)?;
            self.branches.insert(identity, branch);
        }
        Ok(self.branches.get(&identity))
    }

    /// Creates the feed for a namespace, and asks for its worker.
    fn grow(&self, namespace: OwnedFd, identity: Identity) -> Result<Branch, Errno> {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        let (feed, packets) = channel::<Packet>();
        std::thread::Builder::new()
            .name("feed".to_owned())
            .spawn(move || {
                for packet in packets {
                    if let Err(errno) = pass_on(&ours, packet) {
                        error!(%errno, "cannot pass on a notification: its call hangs");
                        return;
                    }
                }
            })
            .map_err(|error| Errno::try_from(error).unwrap_or(Errno::EAGAIN))?;
        let newcomer = Namespace {
            identity,
            feed: Some(theirs),
        };
        // Fails only while this process exits.
        self.announce.send(newcomer).map_err(|_| Errno::ESRCH)?;
        Ok(Branch {
            feed,
            _namespace: namespace,
        })
    }
}

/// Writes a notification to a worker's socket.
fn pass_on(feed: &OwnedFd, packet: Packet) -> Result<(), Errno> {
    let words = packet.map(AtomicU64::new);
    loop {
        match sys::write_words(feed.as_fd(), &words) {
            Err(Errno::EINTR) => {}
            Err(errno) if is_shortage(errno) => std::thread::sleep(PAUSE),
            result => return result,
        }
    }
}

pub(super) fn identity_of(path: &str) -> Result<Identity, Errno> {
    stat(path).map(identity_from)
}

fn identity_from(stat: nix::sys::stat::FileStat) -> Identity {
    (stat.st_dev, stat.st_ino)
}
