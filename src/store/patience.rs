//! An end to waiting for the locks of the side store.
//!
//! They lie in a file that whoever has the store mounted may write: what is written there can look
//! like a lock that is held, by somebody who will never give it back. Transactions of the recent
//! store take microseconds, so who waits for so long ends by SIGALRM, and the next worker has the
//! store looked after.

use std::cell::RefCell;

use nix::sys::signal::{SigEvent, SigevNotify, Signal};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;

const SECONDS: i64 = 20;

/// A thread's, and whether it runs.
struct Watch {
    timer: Timer,
    runs: bool,
}

thread_local! {
    static WATCH: RefCell<Option<Watch>> = const { RefCell::new(None) };
}

/// Within the life of this value, waiting has an end. One in another one does nothing.
#[derive(Debug)]
pub(super) struct Patience {
    is_outer: bool,
}

impl Patience {
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
    /// Where there can be no timer, waiting has no end.
    fn new() -> Option<Self> {
        let signal = SigevNotify::SigevSignal {
            signal: Signal::SIGALRM,
            si_value: 0,
        };
        let timer = Timer::new(ClockId::CLOCK_MONOTONIC, SigEvent::new(signal)).ok()?;
        Some(Self { timer, runs: false })
    }

    /// Lets it run for so long; 0: stops it.
    fn set(&mut self, seconds: i64) -> bool {
        let time = Expiration::OneShot(TimeSpec::new(seconds, 0));
        let is_set = self.timer.set(time, TimerSetTimeFlags::empty()).is_ok();
        self.runs = is_set && seconds > 0;
        is_set
    }
}
