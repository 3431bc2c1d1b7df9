//! The service threads of a worker.
//!
//! Parking several threads in RECV is the wrong way: each notification wakes them all. So one *sticky* thread receives, and
//! the main thread watches it every few milliseconds while there is work, asleep otherwise: when calls keep waiting, it
//! starts a helper, which leaves again once it finds nothing pending; when the sticky thread is stuck in a call (FUSE,
//! a slow disk), another one takes over its role. The main thread also ends the worker when the last target has ended.
//!
//! The loop blocks in RECV; tokio does not drive it. Measured on the built product in one run (Linux 6.18, 2 cores, least of
//! four rounds of 8,000 calls): statx of an absolute path 10.4 µs so and 13.1 µs with tokio's `AsyncFd`, fstat of an fd 10.9
//! and 14.7 µs, where a supervisor that does nothing takes 6.7 and 5.2 µs. RECV has no non-blocking form and tokio's epoll
//! is edge-triggered, so each call pays for an epoll_wait and a poll(2) more: 25 to 35 %, where 10 % would have been fine.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::eventfd::{EfdFlags, EventFd};
use tracing::{debug, error};

use super::First;
use super::link::{Link, SEARCH_PERIOD};
use super::serve::Server;
use crate::board::SLOTS;
use crate::error::Error;
use crate::seccomp::ReceiveError;
use crate::target::{ThreadState, View};

/// Between two looks at the threads, in milliseconds.
const PERIOD: u16 = 4;
/// Looks without any call after which the watch goes to sleep.
const IDLE_LOOKS: u32 = 8;
/// For how many calls between two looks the receiving thread checks whether they were waiting while it served another one.
const SAMPLES: u32 = 16;
/// So many that were call for a helper.
const PRESSED_SAMPLES: u32 = 8;
/// How well disposed a new helper is to stay, and the most it can become.
const PATIENCE: u32 = 32;
/// Handlers keep nothing large on the stack; LMDB needs some tens of KiB.
const STACK: usize = 256 * 1024;

/// Starts service and watches over it until the last target has ended.
pub(super) fn run(server: Arc<Server>, first: First, link: Link) -> Result<(), Error> {
    let pool = Arc::new(Pool::new(server, first.view).map_err(failed)?);
    let watch = Arc::clone(&pool);
    let mut slots = first.left_over;
    if !slots.contains(&first.slot) {
        slots.push(first.slot);
    }
    pool.sticky.store(first.slot, Ordering::Relaxed);
    pool.take_slots(&slots);
    let others = slots
        .into_iter()
        .filter(|slot| *slot != first.slot)
        .collect();
    start(&pool, first.slot, true).map_err(failed_to_spawn)?;
    watch.watch(others, link)
}

fn failed(errno: Errno) -> Error {
    Error::System {
        what: "preparing the service threads",
        errno,
    }
}

fn failed_to_spawn(source: std::io::Error) -> Error {
    Error::Io {
        what: "starting a service thread",
        source,
    }
}

struct Pool {
    server: Arc<Server>,
    view: View,
    /// The slot of the thread that receives whatever comes.
    sticky: AtomicUsize,
    /// For each slot a number that is odd while its thread handles a call, and grows.
    beats: Vec<AtomicU64>,
    free_slots: Mutex<Vec<usize>>,
    /// Samples that are still to be taken, and calls among them that had to wait.
    samples_left: AtomicU32,
    samples_waited: AtomicU32,
    spawn_failure_reported: AtomicBool,
    watch_sleeps: AtomicBool,
    wake_watch: EventFd,
    /// Receiving failed for good: the daemon starts another worker.
    broken: AtomicBool,
}

impl Pool {
    fn new(server: Arc<Server>, view: View) -> Result<Self, Errno> {
        Ok(Self {
            server,
            view,
            sticky: AtomicUsize::new(0),
            beats: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            free_slots: Mutex::new((0..SLOTS).rev().collect()),
            samples_left: AtomicU32::new(0),
            samples_waited: AtomicU32::new(0),
            spawn_failure_reported: AtomicBool::new(false),
            watch_sleeps: AtomicBool::new(false),
            wake_watch: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            broken: AtomicBool::new(false),
        })
    }

    fn free_slots(&self) -> std::sync::MutexGuard<'_, Vec<usize>> {
        self.free_slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn take_slots(&self, slots: &[usize]) {
        self.free_slots().retain(|slot| !slots.contains(slot));
    }

    fn beat(&self, slot: usize) -> u64 {
        self.beats[slot].load(Ordering::Relaxed)
    }

    /// Only the slot's own thread writes here.
    fn advance(&self, slot: usize) {
        let beat = self.beat(slot);
        self.beats[slot].store(beat + 1, Ordering::Relaxed);
    }

    fn wake_watch(&self) {
        fence(Ordering::SeqCst);
        if self.watch_sleeps.load(Ordering::Relaxed)
            && self.watch_sleeps.swap(false, Ordering::Relaxed)
        {
            // Full only if it has been woken 2^64 times.
            let _ = self.wake_watch.write(1);
        }
    }

    /// The life of a service thread.
    fn serve(&self, slot: usize, take_up: bool) -> Result<(), Errno> {
        // A root directory and a working directory of its own.
        unshare(CloneFlags::CLONE_FS)?;
        let mut thread = ThreadState::new(self.view);
        if take_up {
            self.advance(slot);
            self.server.serve_again(slot, &mut thread);
            self.advance(slot);
        }
        let mut last_pid = 0;
        let mut patience = PATIENCE / 2;
        while patience > 0 {
            let is_sticky = self.sticky.load(Ordering::Relaxed) == slot;
            let left = self.samples_left.load(Ordering::Relaxed);
            let looks = !is_sticky || left > 0;
            let pending = looks && self.server.listener.has_pending();
            let call = match self.server.receive(slot) {
                Ok(call) => call,
                Err(ReceiveError::Again) => continue,
                Err(ReceiveError::NoTargets) => return Ok(()),
                Err(ReceiveError::Failed(errno)) => return Err(errno),
            };
            self.advance(slot);
            self.wake_watch();
            // The target just answered may have run and called again before we got here; any other one has waited.
            let has_waited = pending && call.pid != last_pid;
            last_pid = call.pid;
            if is_sticky {
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

    /// The main thread's loop.
    fn watch(self: &Arc<Self>, mut left_over: Vec<usize>, mut link: Link) -> Result<(), Error> {
        let mut look = Look::default();
        loop {
            // Calls of a dead worker's other threads, each in a thread of its own: one of them may be stuck.
            if let Some(slot) = left_over.pop() {
                start(self, slot, true).map_err(failed_to_spawn)?;
            }
            let asleep = look.idle >= IDLE_LOOKS && left_over.is_empty();
            self.watch_sleeps.store(asleep, Ordering::SeqCst);
            // Against the service threads' order: first the beat, then a look whether the watch sleeps.
            fence(Ordering::SeqCst);
            let timeout = match asleep && self.beats_now() == look.beats {
                true if link.is_searching() => {
                    PollTimeout::try_from(SEARCH_PERIOD).unwrap_or(PollTimeout::NONE)
                }
                true => PollTimeout::NONE,
                false => PollTimeout::from(PERIOD),
            };
            let ended = self.sleep(timeout, link.daemon()).map_err(failed)?;
            if ended.targets {
                return Ok(());
            }
            if ended.says_something {
                self.server.take_orders(&link);
            }
            if ended.daemon && self.server.listener.is_fed() {
                // It was the one who received. Without us the calls that wait fail instead of waiting for ever.
                return Ok(());
            }
            if ended.daemon {
                link.lose();
            }
            link.search(&self.server);
            if self.broken.load(Ordering::Relaxed) {
                return Err(super::receiving_failed(Errno::EIO));
            }
            self.look(&mut look);
        }
    }

    fn beats_now(&self) -> Vec<u64> {
        self.beats
            .iter()
            .map(|beat| beat.load(Ordering::Relaxed))
            .collect()
    }

    /// Sleeps for `timeout`, or until a target, the daemon or the service ends, or work begins.
    ///
    /// Asks for no events of the listener, so that notifications do not wake it, only the hang-up; unless the receiving
    /// thread is in a call: then nobody else hears them.
    fn sleep(&self, timeout: PollTimeout, daemon: Option<BorrowedFd>) -> Result<Ended, Errno> {
        /// Among what is waited for, behind the listener, the wake-up and the queue; the daemon comes last.
        const FIRST_TRACER: usize = 3;
        let is_busy = self.beat(self.sticky.load(Ordering::Relaxed)) % 2 == 1;
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
            Err(errno) => return Err(errno),
        }
        if fds[1].any() == Some(true) {
            // Counted down to zero; EAGAIN when another wake-up did it.
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

    /// Looks whether the threads cope, and starts one if they do not.
    fn look(self: &Arc<Self>, before: &mut Look) {
        let beats = self.beats_now();
        let is_busy = |slot: usize| beats[slot] % 2 == 1;
        before.beats.resize(beats.len(), 0);
        let is_stuck = |slot: usize| is_busy(slot) && beats[slot] == before.beats[slot];
        let active = (0..beats.len())
            .filter(|slot| beats[*slot] != before.beats[*slot])
            .count();
        before.idle = if active == 0 { before.idle + 1 } else { 0 };
        let pressed = self.samples_waited.swap(0, Ordering::Relaxed) >= PRESSED_SAMPLES;
        self.samples_left.store(SAMPLES, Ordering::Relaxed);
        if is_stuck(self.sticky.load(Ordering::Relaxed)) && self.server.listener.has_pending() {
            debug!("the receiving thread is stuck in a call: another one takes over");
            self.start_another(true);
        } else if pressed && active < cores() {
            debug!("calls are waiting: one more thread helps");
            self.start_another(false);
        }
        before.beats = beats;
    }

    fn start_another(self: &Arc<Self>, sticky: bool) {
        let Some(slot) = self.free_slots().pop() else {
            return;
        };
        let previous = self.sticky.load(Ordering::Relaxed);
        if sticky {
            self.sticky.store(slot, Ordering::Relaxed);
        }
        if let Err(error) = start(self, slot, false) {
            if !self.spawn_failure_reported.swap(true, Ordering::Relaxed) {
                error!(%error, "cannot start a service thread: calls may have to wait");
            }
            self.sticky.store(previous, Ordering::Relaxed);
            self.free_slots().push(slot);
        }
    }
}

/// Who has hung up.
#[derive(Debug)]
struct Ended {
    targets: bool,
    daemon: bool,
    /// It has not, but the daemon has something to say.
    says_something: bool,
}

/// What the last look saw.
#[derive(Debug, Default)]
struct Look {
    beats: Vec<u64>,
    idle: u32,
}

/// Starts the thread of `slot`; `take_up`: there is a call in the slot already.
fn start(pool: &Arc<Pool>, slot: usize, take_up: bool) -> std::io::Result<()> {
    let pool = Arc::clone(pool);
    let body = move || {
        if let Err(errno) = pool.serve(slot, take_up) {
            error!(%errno, "a service thread failed");
            pool.broken.store(true, Ordering::Relaxed);
            let _ = pool.wake_watch.write(1);
        }
        pool.free_slots().push(slot);
    };
    thread::Builder::new()
        .name(format!("serve {slot}"))
        .stack_size(STACK)
        .spawn(body)
        .map(drop)
}

fn cores() -> usize {
    thread::available_parallelism()
        .map_or(2, usize::from)
        .max(2)
}
