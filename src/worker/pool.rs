//! The service threads of a worker.
//!
//! Each notification wakes all threads that wait in RECV (Linux 6.6, recv_wait_event). So one
//! thread waits there, the *receiver*. While there is work, the main thread checks on it every few
//! milliseconds; otherwise it sleeps. When calls keep waiting, it starts a helper, which exits once
//! it finds nothing pending. When the receiver is stuck in a call (FUSE, a slow disk), another
//! thread takes over its role. The main thread also ends the worker when the last target has
//! exited.
//!
//! The loop blocks in RECV instead of using tokio. Measured on the built product in one run (Linux
//! 6.18, 2 cores, least of four rounds of 8,000 calls): statx of an absolute path takes 10.4 µs
//! this way and 13.1 µs with tokio's `AsyncFd`, fstat of an fd 10.9 and 14.7 µs; a supervisor that
//! does nothing takes 6.7 and 5.2 µs. RECV has no non-blocking form and tokio's epoll is
//! edge-triggered, so each call costs an additional epoll_wait and poll(2): 25 to 35 %, where 10 %
//! was the limit.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::resource::{Resource, getrlimit};
use tracing::{debug, error};

use super::link::Link;
use super::serve::Server;
use super::{PAUSE, Start, timeout};
use crate::error::{Context, Error, is_shortage, reason};
use crate::linux::seccomp::ReceiveError;
use crate::log;
use crate::target::{ThreadState, View};
use crate::wire::board::SLOTS;

/// The time between two checks of the threads, in milliseconds.
const PERIOD: u16 = 4;
/// After this many checks without any call the main thread goes to sleep.
const IDLE_LOOKS: u32 = 8;
/// The number of calls between two checks for which the receiver tests whether they had to wait
/// while it served another one.
const SAMPLES: u32 = 16;
/// If this many of the samples had to wait, the main thread starts a helper.
const PRESSED_SAMPLES: u32 = 8;
/// The highest patience of a helper, which starts with half of it. It rises by one with each call
/// that had to wait and falls by two with each other call; at zero the helper exits.
const PATIENCE: u32 = 32;
/// The stack size of a service thread, in bytes. Handlers have no large locals; LMDB needs some
/// tens of KiB.
const STACK: usize = 256 * 1024;
/// The most file descriptors that a thread has open while it serves a call.
const FDS_PER_CALL: u64 = 4;
/// The number of file descriptors reserved for everything else: the container, tracers.
const OTHER_FDS: u64 = 256;

/// Starts the service threads and watches them until the last target has exited.
pub(super) fn run(server: Arc<Server>, start: Start, link: Link) -> Result<(), Error> {
    let mut left_over = start.left_over;
    left_over.retain(|slot| *slot != start.slot);
    // `watch` pops from the end: the thread of this slot starts first, and becomes the receiver.
    left_over.push(start.slot);
    let pool = Arc::new(Pool::new(server, start.view, &left_over).doing(WHAT)?);
    pool.receiver.store(start.slot, Ordering::Relaxed);
    pool.watch(left_over, link)
}

const WHAT: &str = "preparing the service threads";

/// The service threads of a worker.
struct Pool {
    server: Arc<Server>,
    view: View,
    /// The slot of the receiver's thread.
    receiver: AtomicUsize,
    /// A growing number for each slot, which is odd while its thread handles a call.
    progress: Progress,
    free_slots: Mutex<FreeSlots>,
    /// The number of samples still to be taken before the next check.
    samples_left: AtomicU32,
    /// The number of sampled calls that had to wait.
    samples_waited: AtomicU32,
    spawn_failure_reported: AtomicBool,
    /// Whether the main thread sleeps until something wakes it.
    watch_sleeps: AtomicBool,
    wake_watch: EventFd,
    /// A service thread failed: this process ends, and the daemon starts another worker.
    broken: AtomicBool,
}

/// A number for each slot, in pieces that are allocated on first use.
struct Progress([OnceLock<Box<[AtomicU64; Self::PIECE]>>; SLOTS / Progress::PIECE]);

impl Progress {
    const PIECE: usize = 64;

    fn new() -> Self {
        Self([const { OnceLock::new() }; SLOTS / Self::PIECE])
    }

    fn of(&self, slot: usize) -> &AtomicU64 {
        let piece = self.0[slot / Self::PIECE]
            .get_or_init(|| Box::new([const { AtomicU64::new(0) }; Self::PIECE]));
        &piece[slot % Self::PIECE]
    }
}

/// Slots without a thread. Lower ones are taken first: a slot that was never used takes no memory.
#[derive(Debug)]
struct FreeSlots {
    returned: Vec<usize>,
    /// The first slot that neither this worker nor an earlier one has used; nor the ones after it.
    fresh: usize,
    /// The number of slots that may be used.
    most: usize,
}

impl FreeSlots {
    fn new(taken: &[usize], most: usize) -> Self {
        let fresh = taken.iter().max().map_or(0, |highest| highest + 1);
        let returned = (0..fresh).rev();
        Self {
            returned: returned.filter(|slot| !taken.contains(slot)).collect(),
            fresh,
            most,
        }
    }

    fn take(&mut self) -> Option<usize> {
        self.returned.pop().or_else(|| {
            let slot = self.fresh;
            self.fresh = (slot + 1).min(self.most);
            (slot < self.most).then_some(slot)
        })
    }
}

/// The number of calls that may be served at the same time: limited by the slots, and by file
/// descriptors, of which no handler may run out.
fn most_at_once() -> usize {
    let fds = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    let calls = fds.saturating_sub(OTHER_FDS) / FDS_PER_CALL;
    usize::try_from(calls).map_or(SLOTS, |calls| calls.clamp(16, SLOTS))
}

impl Pool {
    /// The slots in `taken` hold calls of a dead worker, or the one that made this worker join.
    fn new(server: Arc<Server>, view: View, taken: &[usize]) -> Result<Self, Errno> {
        Ok(Self {
            server,
            view,
            receiver: AtomicUsize::new(0),
            progress: Progress::new(),
            free_slots: Mutex::new(FreeSlots::new(taken, most_at_once())),
            samples_left: AtomicU32::new(0),
            samples_waited: AtomicU32::new(0),
            spawn_failure_reported: AtomicBool::new(false),
            watch_sleeps: AtomicBool::new(false),
            wake_watch: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            broken: AtomicBool::new(false),
        })
    }

    fn free_slots(&self) -> std::sync::MutexGuard<'_, FreeSlots> {
        self.free_slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn progress(&self, slot: usize) -> u64 {
        self.progress.of(slot).load(Ordering::Relaxed)
    }

    /// Called by the slot's own thread only, so load and store need not be one atomic operation.
    fn advance(&self, slot: usize) {
        let progress = self.progress(slot);
        self.progress
            .of(slot)
            .store(progress + 1, Ordering::Relaxed);
    }

    /// Wakes the main thread if it sleeps.
    fn wake_watch(&self) {
        // Pairs with the fence in `watch`: the caller has advanced its progress before.
        fence(Ordering::SeqCst);
        if self.watch_sleeps.load(Ordering::Relaxed)
            && self.watch_sleeps.swap(false, Ordering::Relaxed)
        {
            // EAGAIN only if the counter would exceed 2^64 − 2.
            let _ = self.wake_watch.write(1);
        }
    }

    /// The body of a service thread. `take_up`: the slot contains a call to be answered first.
    fn serve(&self, slot: usize, take_up: bool) -> Result<(), Errno> {
        // The thread needs a root directory of its own (see `crate::target::View`).
        while let Err(errno) = unshare(CloneFlags::CLONE_FS) {
            if !is_shortage(errno) {
                return Err(errno);
            }
            thread::sleep(PAUSE);
        }
        self.server.board.use_slot(slot);
        let mut thread = ThreadState::new(self.view);
        if take_up {
            self.advance(slot);
            self.server.serve_again(slot, &mut thread);
            self.advance(slot);
        }
        let mut last_pid = 0;
        // Changes only while this thread is not the receiver. A receiver that is replaced becomes a
        // helper.
        let mut patience = PATIENCE / 2;
        while patience > 0 {
            let is_receiver = self.receiver.load(Ordering::Relaxed) == slot;
            let left = self.samples_left.load(Ordering::Relaxed);
            let looks = !is_receiver || left > 0;
            let pending = looks && self.server.listener.has_pending();
            let call = match self.server.receive(slot) {
                Ok(call) => call,
                Err(ReceiveError::Again) => continue,
                Err(ReceiveError::NoTargets) => return Ok(()),
                Err(ReceiveError::Failed(errno)) if is_shortage(errno) => {
                    thread::sleep(PAUSE);
                    continue;
                }
                Err(ReceiveError::Failed(errno)) => return Err(errno),
            };
            self.advance(slot);
            self.wake_watch();
            // The target that this thread has just answered may have called again before
            // `has_pending`. A call of any other target was waiting.
            let has_waited = pending && call.pid != last_pid;
            last_pid = call.pid;
            if is_receiver {
                if looks {
                    self.samples_left.store(left - 1, Ordering::Relaxed);
                    self.samples_waited
                        .fetch_add(u32::from(has_waited), Ordering::Relaxed);
                }
            } else if has_waited {
                patience = PATIENCE.min(patience + 1);
            } else {
                patience = patience.saturating_sub(2);
            }
            self.server.serve(slot, &call, &mut thread);
            self.advance(slot);
        }
        Ok(())
    }

    /// The main thread's loop, until the last target has exited.
    fn watch(self: &Arc<Self>, mut left_over: Vec<usize>, mut link: Link) -> Result<(), Error> {
        let mut last = Snapshot::default();
        loop {
            // Each call that a dead worker left gets a thread of its own, because any of them may
            // be the one that is stuck. If no thread can be started, the next round tries again.
            if let Some(slot) = left_over.pop()
                && !self.start(slot, true)
            {
                left_over.push(slot);
            }
            let asleep = last.idle >= IDLE_LOOKS && left_over.is_empty();
            self.watch_sleeps.store(asleep, Ordering::SeqCst);
            // This thread sets `watch_sleeps` and then reads the progress; a service thread
            // advances its progress and then reads `watch_sleeps`. With a fence between the two in
            // both, at least one sees the other's change: no wake-up is lost.
            fence(Ordering::SeqCst);
            let timeout = match asleep && self.progress_now() == last.progress {
                true => {
                    let owes = log::owes().then_some(log::PERIOD);
                    timeout(link.search_period().or(owes))
                }
                false => PollTimeout::from(PERIOD),
            };
            log::say_what_is_due(Instant::now());
            let ended = self.sleep(timeout, link.daemon()).doing(WHAT)?;
            if ended.targets {
                return Ok(());
            }
            if ended.says_something {
                self.server.take_orders(&link);
            }
            if ended.daemon && self.server.listener.is_fed() {
                // The daemon received the notifications: no more will come. Once this process has
                // closed the listener, waiting calls fail instead of waiting forever.
                return Ok(());
            }
            if ended.daemon {
                link.lose();
            }
            link.search(&self.server.listener, &self.server.board);
            if self.broken.load(Ordering::Relaxed) {
                return Err(Error::doing(super::RECEIVING, Errno::EIO));
            }
            self.check_threads(&mut last);
        }
    }

    fn progress_now(&self) -> Vec<u64> {
        let used = self.free_slots().fresh;
        (0..used).map(|slot| self.progress(slot)).collect()
    }

    /// Sleeps for `timeout`, or until a target, the daemon, a tracer or a service thread ends, or
    /// work begins.
    ///
    /// Asks for no events of the listener, so that a hang-up wakes this thread, but notifications
    /// do not. The exception is a long sleep while the receiver handles a call: no other thread
    /// waits for notifications then.
    fn sleep(&self, timeout: PollTimeout, daemon: Option<BorrowedFd>) -> Result<Ended, Errno> {
        /// The index of the first tracer in `fds`: after the listener, the wake-up and the queue.
        /// The daemon is the last one.
        const FIRST_TRACER: usize = 3;
        let is_busy = self.progress(self.receiver.load(Ordering::Relaxed)) % 2 == 1;
        let events = match is_busy && timeout != PollTimeout::from(PERIOD) {
            true => PollFlags::POLLIN,
            false => PollFlags::empty(),
        };
        let mut fds = vec![
            PollFd::new(self.server.listener.as_fd(), PollFlags::empty()),
            PollFd::new(self.wake_watch.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.server.listener.queue(), events),
        ];
        let tracers = self.server.tracers.all();
        fds.extend(
            tracers
                .iter()
                .map(|tracer| PollFd::new(tracer.as_fd(), PollFlags::empty())),
        );
        fds.extend(daemon.map(|daemon| PollFd::new(daemon, PollFlags::POLLIN)));
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) if is_shortage(errno) => thread::sleep(PAUSE),
            Err(errno) => return Err(errno),
        }
        if fds[1].any() == Some(true) {
            // Resets the counter to zero (eventfd(2)).
            let _ = self.wake_watch.read();
        }
        let has = |index: usize, wanted: PollFlags| {
            let fd: Option<&PollFd> = fds.get(index);
            fd.and_then(PollFd::revents)
                .is_some_and(|events| events.intersects(wanted))
        };
        let gone = PollFlags::POLLHUP | PollFlags::POLLERR;
        let daemon = FIRST_TRACER + tracers.len();
        let ended = Ended {
            targets: has(0, gone),
            daemon: has(daemon, gone),
            says_something: has(daemon, PollFlags::POLLIN),
        };
        for (index, tracer) in tracers.iter().enumerate() {
            if has(FIRST_TRACER + index, gone) {
                self.server.tracers.remove(tracer);
            }
        }
        Ok(ended)
    }

    /// Checks whether the threads keep up with the calls, and starts another one if not.
    fn check_threads(self: &Arc<Self>, before: &mut Snapshot) {
        let progress = self.progress_now();
        let is_busy = |slot: usize| progress[slot] % 2 == 1;
        before.progress.resize(progress.len(), 0);
        // In the same call since the last check.
        let is_stuck = |slot: usize| is_busy(slot) && progress[slot] == before.progress[slot];
        let active = (0..progress.len())
            .filter(|slot| progress[*slot] != before.progress[*slot])
            .count();
        before.idle = if active == 0 { before.idle + 1 } else { 0 };
        let pressed = self.samples_waited.swap(0, Ordering::Relaxed) >= PRESSED_SAMPLES;
        self.samples_left.store(SAMPLES, Ordering::Relaxed);
        if is_stuck(self.receiver.load(Ordering::Relaxed)) && self.server.listener.has_pending() {
            debug!("the receiver is stuck in a call: another thread takes over");
            self.start_another(true);
            // Where many calls hang, the next ones probably will, too, and one replaced receiver
            // in each period would be too slow for the calls behind them.
            let stuck = (0..progress.len()).filter(|slot| is_stuck(*slot)).count();
            for _ in 0..stuck / 16 {
                self.start_another(false);
            }
        } else if pressed && active < cores() {
            // More active threads than cores would only compete.
            debug!("calls have to wait: starting a helper thread");
            self.start_another(false);
        }
        before.progress = progress;
    }

    /// Starts a thread in a free slot, if there is one, as the new receiver or as a helper.
    fn start_another(self: &Arc<Self>, receiver: bool) {
        let Some(slot) = self.free_slots().take() else {
            return;
        };
        let previous = self.receiver.load(Ordering::Relaxed);
        if receiver {
            // Before the thread starts, so that it knows its role with its first call.
            self.receiver.store(slot, Ordering::Relaxed);
        }
        if !self.start(slot, false) {
            self.receiver.store(previous, Ordering::Relaxed);
            self.free_slots().returned.push(slot);
        }
    }

    /// Starts the thread of `slot`; `take_up`: the slot contains a call to be answered first.
    /// Returns `false` if no thread could be started.
    fn start(self: &Arc<Self>, slot: usize, take_up: bool) -> bool {
        let pool = Arc::clone(self);
        let body = move || {
            if let Err(errno) = pool.serve(slot, take_up) {
                error!(%errno, "a service thread failed");
                pool.broken.store(true, Ordering::Relaxed);
                let _ = pool.wake_watch.write(1);
            }
            pool.free_slots().returned.push(slot);
        };
        let started = thread::Builder::new()
            .name(format!("serve {slot}"))
            .stack_size(STACK)
            .spawn(body);
        let Err(error) = started else {
            return true;
        };
        if !self.spawn_failure_reported.swap(true, Ordering::Relaxed) {
            let reason = reason(&error);
            error!(
                reason,
                "cannot start a service thread: calls may have to wait"
            );
        }
        false
    }
}

/// What has happened during a sleep of the main thread.
#[derive(Debug)]
struct Ended {
    /// The last target has exited.
    targets: bool,
    /// The daemon has exited.
    daemon: bool,
    /// The daemon has sent something.
    says_something: bool,
}

/// The result of the last check.
#[derive(Debug, Default)]
struct Snapshot {
    progress: Vec<u64>,
    /// The number of checks in a row without any call.
    idle: u32,
}

fn cores() -> usize {
    thread::available_parallelism()
        .map_or(2, usize::from)
        .max(2)
}
