//! One listener for processes of several user namespaces, as under `subuidless run --keep-id`.
//!
//! A worker can join one user namespace, and never leaves it. So a thread of the daemon receives,
//! leaves the calls of processes in our own user namespace to the kernel, and passes those of
//! others on to the worker of the namespace that they belong to: the one directly below ours. Two
//! more context switches a call, and no namespace has to be known in advance.

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

/// A user namespace that has been seen for the first time.
#[derive(Debug)]
pub(super) struct Newcomer {
    /// Where its worker finds its notifications.
    pub(super) feed: OwnedFd,
}

/// Starts to receive. Ends with the last target.
pub(super) fn start(listener: &Arc<ListenerFd>) -> io::Result<UnboundedReceiver<Newcomer>> {
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
                error!(%errno, "receiving notifications: calls are not answered any more");
                // Better ENOSYS for all than a call that hangs for ever.
                std::process::exit(1);
            }
        })?;
    Ok(newcomers)
}

/// Before what is missing is asked for again.
const PAUSE: Duration = Duration::from_millis(10);

/// Device and inode of a namespace.
type Identity = (u64, u64);

/// A notification on its way.
type Packet = [u64; NOTIFICATION_WORDS];

struct Router {
    listener: Arc<ListenerFd>,
    own: Identity,
    /// The namespaces directly below ours that have a worker.
    branches: HashMap<Identity, Branch>,
    announce: UnboundedSender<Newcomer>,
    /// Calls of namespaces for whose worker something is missing just now.
    postponed: Vec<Packet>,
}

struct Branch {
    /// To a thread that waits for the worker where that does not keep up: nobody else waits for it.
    feed: Sender<Packet>,
    /// Held open, so that no other namespace gets its number.
    _namespace: OwnedFd,
}

impl Router {
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
                warn!(pid = call.pid, %errno, "no worker for a user namespace: its calls wait for one");
                self.postponed.push(packet);
                return;
            }
            Err(errno) => debug!(pid = call.pid, %errno, "no worker for this target"),
        }
        // CONTINUE: in our own user namespace nothing is emulated, nor in one that is not ours to
        // enter. Or the target has ended meanwhile, and gets no reply (ENOENT).
        let _ = self.listener.reply(call.id, Ok(Reply::Continue));
    }

    /// Where the target's calls go; `None`: to the kernel.
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
        if !self.listener.is_waiting(call.id) {
            return Err(Errno::ESRCH);
        }
        if !is_mapped {
            // Nobody has an id in it yet: a worker would be nobody for good.
            return Ok(None);
        }
        loop {
            let parent = sys::parent_user_namespace(namespace.as_fd())?;
            if identity_from(fstat(&parent)?) == self.own {
                break;
            }
            namespace = parent;
        }
        let identity = identity_from(fstat(&namespace)?);
        if !self.branches.contains_key(&identity) {
            let branch = self.grow(namespace)?;
            self.branches.insert(identity, branch);
        }
        Ok(self.branches.get(&identity))
    }

    fn grow(&self, namespace: OwnedFd) -> Result<Branch, Errno> {
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
                        error!(%errno, "passing a notification on: its call hangs");
                        return;
                    }
                }
            })
            .map_err(|error| Errno::try_from(error).unwrap_or(Errno::EAGAIN))?;
        let newcomer = Newcomer { feed: theirs };
        // Nobody listens only when this process is about to end.
        self.announce.send(newcomer).map_err(|_| Errno::ESRCH)?;
        Ok(Branch {
            feed,
            _namespace: namespace,
        })
    }
}

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

fn identity_of(path: &str) -> Result<Identity, Errno> {
    stat(path).map(identity_from)
}

fn identity_from(stat: nix::sys::stat::FileStat) -> Identity {
    (stat.st_dev, stat.st_ino)
}
