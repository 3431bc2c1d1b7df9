//! A time limit for waiting for the side store's locks.
//!
//! The locks are in a file that every program with access to the store can write, so that one may
//! look held forever. Transactions of the recent store take microseconds. A thread that waits for
//! 20 seconds ends its process by SIGALRM, after which the daemon checks the store.

use std::cell::RefCell;

use nix::sys::signal::{SigEvent, SigevNotify, Signal};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;

const SECONDS: i64 = 20;

/// A thread's timer, and whether it runs.
struct Watch {
    timer: Timer,
    runs: bool,
}

thread_local! {
    static WATCH: RefCell<Option<Watch>> = const { RefCell::new(None) };
}

/// Limits the time of this thread while it exists. A nested one does nothing.
#[derive(Debug)]
pub(super) struct Patience {
    is_outer: bool,
}

impl Patience {
    /// Starts the time limit, unless it runs already.
    pub(super) fn begin() -> Self {
        let is_outer = WATCH.with_borrow_mut(|watch| {
            if watch.is_none() {
                *watch = Watch::new();
            }
            watch
                .as_mut()
                .is_some_and(|watch| !watch.runs && watch.set(SECONDS))
        });
        Self { is_outer }
    }
}

impl Drop for Patience {
    fn drop(&mut self) {
        if self.is_outer {
            WATCH.with_borrow_mut(|watch| watch.as_mut().is_some_and(|watch| watch.set(0)));
        }
    }
}

impl Watch {
    /// Returns `None` if no timer can be created; then there is no time limit.
    fn new() -> Option<Self> {
        let signal = SigevNotify::SigevSignal {
            signal: Signal::SIGALRM,
            si_value: 0,
        };
        let timer = Timer::new(ClockId::CLOCK_MONOTONIC, SigEvent::new(signal)).ok()?;
        Some(Self { timer, runs: false })
    }

    /// Starts the timer; 0 stops it. Returns whether that succeeded.
    fn set(&mut self, seconds: i64) -> bool {
        let time = Expiration::OneShot(TimeSpec::new(seconds, 0));
        let is_set = self.timer.set(time, TimerSetTimeFlags::empty()).is_ok();
        self.runs = is_set && seconds > 0;
        is_set
    }
}
