//! The board: memory that a worker shares with the daemon, with calls in flight and counters.
//!
//! The worker receives each notification directly into a slot of the board, and clears the slot
//! after the reply. When a worker is killed, its successor finds the unanswered calls in the slots.
//! The daemon reads the counters when the container ends, and for `status`. Both map one sealed
//! memfd, so neither can make the other fault by truncating it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;

use crate::linux::lock::{self, Claim};
use crate::linux::memfd;
use crate::linux::seccomp::{Slot, clear};
use crate::linux::sys::{NOTIFICATION_WORDS, SharedWords};
use crate::wire::ask::Namespaces;
use crate::wire::facts::Facts;
use crate::wire::tally::{self, Count, Outcome, Served};

/// The number of calls that can be served at the same time, including those that hang in FUSE;
/// further ones wait in the kernel. Unused slots take no memory.
pub(crate) const SLOTS: usize = 4096;

/// Words of a slot: the notification, the number of attempts, the journal; padded to cache lines.
const SLOT_WORDS: usize = 16;
const ATTEMPTS: usize = NOTIFICATION_WORDS;
const STEP: usize = ATTEMPTS + 1;
const STEP_VALUE: usize = ATTEMPTS + 2;
const STEP_VALUES: usize = SLOT_WORDS - STEP_VALUE;
const HEADER_WORDS: usize = 16;
const TALLY: usize = HEADER_WORDS + SLOTS * SLOT_WORDS;
const WORDS: usize = TALLY + tally::WORDS;

const VIEWS_DIFFER: usize = 0;
const USER_STEPS: usize = 1;
const TABLE: usize = 2;
const SINCE: usize = 3;
/// Inode numbers of the pid, mount and user namespace.
const NAMESPACES: usize = 4;
/// The number of slots, from the first one on, that have ever been used.
const USED: usize = 7;
/// The pid of the worker.
const WORKER: usize = 8;

/// A role that one process at a time has for a container, as long as it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Answers calls.
    Worker = 0,
    /// Starts a worker when there is none: the daemon or the guard.
    Manager = 1,
}

/// The progress of a call that must not be done twice.
///
/// A change that cannot be repeated is noted before it is made. A worker that continues the call of
/// a dead one finds the note, and completes the change instead of starting again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Journal<'a>(&'a [AtomicU64]);

/// A note of a [`Journal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// A file is about to be created; there was none of this name.
    Creating(Creation),
    /// The target is about to get this record, and its call returns this value.
    Assigning { record: u16, value: u32 },
    /// The call passed its checks of the old state, and is about to change it.
    Changing,
}

/// The file being created. The next worker cannot rely on the call's arguments: the target's memory
/// may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Creation {
    /// Device and inode number of the directory.
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// A hash of the file's name.
    pub(crate) name: u64,
    /// A time not after the file's birth, in nanoseconds of Unix time.
    pub(crate) since: u64,
}

impl Journal<'_> {
    const CREATING: u64 = 1;
    const ASSIGNING: u64 = 2;
    const CHANGING: u64 = 3;

    pub(crate) fn note(self, step: Step) {
        let (kind, values) = match step {
            Step::Creating(of) => (Self::CREATING, [of.device, of.inode, of.name, of.since]),
            Step::Changing => (Self::CHANGING, [0; STEP_VALUES]),
            Step::Assigning { record, value } => {
                (Self::ASSIGNING, [record.into(), value.into(), 0, 0])
            }
        };
        for (word, value) in self.0[STEP_VALUE..].iter().zip(values) {
            word.store(value, Ordering::Relaxed);
        }
        // Release: a process can be killed at any instruction, and the note must be complete once
        // its kind is visible.
        self.0[STEP].store(kind, Ordering::Release);
    }

    pub(crate) fn noted(self) -> Option<Step> {
        let kind = self.0[STEP].load(Ordering::Acquire);
        let [first, second, third, fourth]: [u64; STEP_VALUES] =
            std::array::from_fn(|index| self.0[STEP_VALUE + index].load(Ordering::Relaxed));
        match kind {
            Self::CREATING => Some(Step::Creating(Creation {
                device: first,
                inode: second,
                name: third,
                since: fourth,
            })),
            Self::CHANGING => Some(Step::Changing),
            Self::ASSIGNING => Some(Step::Assigning {
                record: u16::try_from(first).ok()?,
                value: u32::try_from(second).ok()?,
            }),
            _ => None,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Board {
    memfd: OwnedFd,
    memory: SharedWords,
    /// The memory of the page of facts (see [`super::facts`]), if the container has the fast path.
    facts: Option<OwnedFd>,
}

impl Board {
    /// Creates a board; all words are zero. With `is_fast` it has a page of facts.
    pub(crate) fn create(is_fast: bool) -> Result<Self, Errno> {
        let facts = is_fast.then(Facts::create).transpose()?;
        Self::open(memfd::sealed(c"subuidless-board", WORDS)?, facts)
    }

    /// Maps a memfd from [`Board::create`]. Fails with EINVAL for others.
    pub(crate) fn open(memfd: OwnedFd, facts: Option<OwnedFd>) -> Result<Self, Errno> {
        let memory = SharedWords::map(memfd.as_fd(), WORDS)?;
        Ok(Self {
            memfd,
            memory,
            facts,
        })
    }

    /// The memory of the page of facts, if there is one.
    pub(crate) fn facts(&self) -> Option<BorrowedFd<'_>> {
        self.facts.as_ref().map(OwnedFd::as_fd)
    }

    /// A lock with which to take a role. Must be called while /proc is the host's.
    pub(crate) fn claim(&self, role: Role) -> Result<Claim, Errno> {
        memfd::reopened(self).map(|own| Claim::new(own, role as usize))
    }

    /// Whether a process has the role. Returns `true` if that cannot be determined.
    pub(crate) fn is_taken(&self, role: Role) -> bool {
        lock::is_taken(self.memfd.as_fd(), role as usize).unwrap_or(true)
    }

    /// The pid of the last worker; 0 if there was none.
    pub(crate) fn worker(&self) -> u32 {
        let word = self.memory.words()[WORKER].load(Ordering::Relaxed);
        u32::try_from(word).unwrap_or_default()
    }

    pub(crate) fn set_worker(&self, pid: u32) {
        self.memory.words()[WORKER].store(pid.into(), Ordering::Relaxed);
    }

    fn slot_words(&self, index: usize) -> &[AtomicU64] {
        let start = HEADER_WORDS + index * SLOT_WORDS;
        &self.memory.words()[start..start + SLOT_WORDS]
    }

    /// The memory that a service thread receives into.
    pub(crate) fn slot(&self, index: usize) -> &Slot {
        self.slot_words(index)
            .first_chunk()
            .unwrap_or_else(|| unreachable!("a slot is longer than a notification"))
    }

    /// Must be called before receiving into `slot`: a successor does not check higher ones.
    pub(crate) fn use_slot(&self, slot: usize) {
        let used = u64::try_from(slot + 1).unwrap_or(u64::MAX);
        self.memory.words()[USED].fetch_max(used, Ordering::Relaxed);
    }

    /// The slots that may hold calls.
    pub(crate) fn used_slots(&self) -> std::ops::Range<usize> {
        let used = self.memory.words()[USED].load(Ordering::Relaxed);
        0..usize::try_from(used).map_or(SLOTS, |used| used.min(SLOTS))
    }

    /// Counts an attempt at the call in `slot`. Returns the number of attempts so far, including
    /// those of earlier workers.
    pub(crate) fn attempt(&self, slot: usize) -> u64 {
        self.slot_words(slot)[ATTEMPTS].fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The journal of the call in `slot`.
    pub(crate) fn journal(&self, slot: usize) -> Journal<'_> {
        Journal(self.slot_words(slot))
    }

    /// Clears `slot` after its call was answered.
    pub(crate) fn finish(&self, slot: usize) {
        // The note first: otherwise a successor could take it for one about the next call.
        self.slot_words(slot)[STEP].store(0, Ordering::Release);
        clear(self.slot(slot));
        self.slot_words(slot)[ATTEMPTS].store(0, Ordering::Relaxed);
    }

    /// Whether a target may have another root directory than the others. Survives the worker.
    pub(crate) fn views_differ(&self) -> bool {
        self.memory.words()[VIEWS_DIFFER].load(Ordering::Relaxed) != 0
    }

    pub(crate) fn set_views_differ(&self) {
        self.memory.words()[VIEWS_DIFFER].store(1, Ordering::Relaxed);
    }

    /// The steps already done to make the runtime's process the announced user. Survives the
    /// worker.
    pub(crate) fn user_steps(&self) -> u64 {
        self.memory.words()[USER_STEPS].load(Ordering::Relaxed)
    }

    pub(crate) fn set_user_steps(&self, steps: u64) {
        self.memory.words()[USER_STEPS].store(steps, Ordering::Relaxed);
    }

    /// Counts a call; `row` is its index in the syscall table.
    pub(crate) fn count(&self, row: Option<usize>, outcome: Outcome, elapsed: Duration) {
        tally::count(self.tally(), row, outcome, elapsed);
    }

    /// The counters of each row (see [`tally::ROWS`]), including calls of dead workers.
    pub(crate) fn counts(&self) -> impl Iterator<Item = Count> {
        tally::counts(self.tally())
    }

    /// The counts of all calls so far.
    pub(crate) fn served(&self) -> Served {
        let mut sum = Count::default();
        self.counts().for_each(|count| sum.add(&count));
        sum.served
    }

    fn tally(&self) -> &[AtomicU64] {
        &self.memory.words()[TALLY..]
    }

    /// Stores the values that do not change: the fingerprint of the syscall table, and the time of
    /// the listener's arrival.
    pub(crate) fn begin(&self, table: u64, since: SystemTime) {
        let since = since.duration_since(UNIX_EPOCH).unwrap_or_default();
        let words = self.memory.words();
        words[TABLE].store(table, Ordering::Relaxed);
        words[SINCE].store(since.as_secs(), Ordering::Relaxed);
    }

    /// The fingerprint of the syscall table whose rows are counted.
    pub(crate) fn table(&self) -> u64 {
        self.memory.words()[TABLE].load(Ordering::Relaxed)
    }

    /// The time of the listener's arrival, in seconds of Unix time.
    pub(crate) fn since(&self) -> u64 {
        self.memory.words()[SINCE].load(Ordering::Relaxed)
    }

    /// The namespaces that the worker has joined; all zero before that.
    pub(crate) fn namespaces(&self) -> Namespaces {
        let word = |index: usize| self.memory.words()[NAMESPACES + index].load(Ordering::Relaxed);
        Namespaces {
            pid: word(0),
            mount: word(1),
            user: word(2),
        }
    }

    pub(crate) fn set_namespaces(&self, joined: Namespaces) {
        for (index, inode) in [joined.pid, joined.mount, joined.user]
            .into_iter()
            .enumerate()
        {
            self.memory.words()[NAMESPACES + index].store(inode, Ordering::Relaxed);
        }
    }
}

impl AsFd for Board {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memfd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_mapping_sees_calls_in_flight_and_counters() {
        let board = Board::create(false).unwrap();
        let other = Board::open(board.as_fd().try_clone_to_owned().unwrap(), None).unwrap();
        board.slot(3)[0].store(42, Ordering::Relaxed);
        assert_eq!(board.attempt(3), 1);
        assert_eq!(other.slot(3)[0].load(Ordering::Relaxed), 42);
        assert_eq!(other.attempt(3), 2);
        assert_eq!(other.used_slots(), 0..0);
        board.use_slot(3);
        board.use_slot(1);
        assert_eq!(other.used_slots(), 0..4);
        let step = Step::Assigning {
            record: 0x3fff,
            value: u32::MAX,
        };
        assert_eq!(other.journal(3).noted(), None);
        board.journal(3).note(step);
        assert_eq!(other.journal(3).noted(), Some(step));
        let step = Step::Creating(Creation {
            device: 1,
            inode: u64::MAX,
            name: 3,
            since: 4,
        });
        other.journal(3).note(step);
        assert_eq!(board.journal(3).noted(), Some(step));
        other.finish(3);
        assert_eq!(board.journal(3).noted(), None);
        assert_eq!(board.slot(3)[0].load(Ordering::Relaxed), 0);
        assert_eq!(board.attempt(3), 1);

        board.count(Some(0), Outcome::Answered, Duration::ZERO);
        board.count(None, Outcome::Continued, Duration::MAX);
        assert_eq!(other.served().total(), 2);
        let namespaces = Namespaces {
            pid: 1,
            mount: 2,
            user: u64::MAX,
        };
        assert_eq!(other.namespaces(), Namespaces::default());
        board.set_namespaces(namespaces);
        assert_eq!(other.namespaces(), namespaces);
        board.begin(42, UNIX_EPOCH + Duration::from_secs(7));
        assert_eq!((other.table(), other.since()), (42, 7));
    }

    #[test]
    fn a_role_is_one_claimants_as_long_as_it_lives() {
        let board = Board::create(false).unwrap();
        let other = Board::open(board.as_fd().try_clone_to_owned().unwrap(), None).unwrap();
        let first = board.claim(Role::Worker).unwrap();
        let second = other.claim(Role::Worker).unwrap();
        assert!(!other.is_taken(Role::Worker));
        assert!(first.take().unwrap());
        assert!(!second.take().unwrap());
        assert!(other.is_taken(Role::Worker) && board.is_taken(Role::Worker));
        assert!(!other.is_taken(Role::Manager));
        drop(first);
        assert!(second.take().unwrap());
    }

    #[test]
    fn the_memory_can_be_neither_shrunk_nor_grown() {
        use nix::unistd::ftruncate;
        let board = Board::create(false).unwrap();
        assert_eq!(ftruncate(board.as_fd(), 0), Err(Errno::EPERM));
        assert_eq!(ftruncate(board.as_fd(), 1 << 20), Err(Errno::EPERM));
    }
}
