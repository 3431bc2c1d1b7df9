//! The files that this worker is creating. Until its owner is stored, a new file looks like root's:
//! a thread that sees such a file waits a moment, and reads its owner again.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The longest wait: a creation may hang in a file system that does not answer.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct Creations {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    begun: u64,
    running: BTreeSet<u64>,
}

/// A creation, which ends when this is dropped: once the owner is stored, or if that fails.
#[derive(Debug)]
pub(crate) struct Creation<'a> {
    all: &'a Creations,
    number: u64,
}

impl Creations {
    /// Begins a creation. The file must not exist yet, and the caller must not ask for the mode of
    /// another file until the creation has ended: it would wait for itself.
    pub(crate) fn begin(&self) -> Creation<'_> {
        let mut state = self.lock();
        state.begun += 1;
        let number = state.begun;
        state.running.insert(number);
        Creation { all: self, number }
    }

    /// The number of the creation that was begun last, of those that have not ended.
    pub(super) fn latest(&self) -> Option<u64> {
        self.lock().running.last().copied()
    }

    /// Waits until all creations up to `latest` have ended.
    pub(super) fn wait(&self, latest: u64) {
        let is_running = |state: &mut State| state.running.first().is_some_and(|it| *it <= latest);
        let waited = self
            .ended
            .wait_timeout_while(self.lock(), PATIENCE, is_running);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Nothing panics while it is locked.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Creation<'_> {
    fn drop(&mut self) {
        self.all.lock().running.remove(&self.number);
        self.all.ended.notify_all();
    }
}
