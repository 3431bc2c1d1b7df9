//! The page of facts ([`subuidless_fast::facts`]), in which a worker tells the preloaded library of
//! its targets when it may answer.
//!
//! The memory is handed over from worker to worker with the board: targets have it mapped until
//! they exit. They get it read-only, but it belongs to their user, who can find a way to write to
//! it. So a worker reads back only what matters to these targets alone.

use std::fmt::Display;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::sys::stat::{Mode, fchmod};
use subuidless_fast::facts::{
    self, CHANGES, FACTS, FILTER, GROUPS, MAPPED, TRACED, VERSION, VERSION_BITS,
};

use crate::linux::memfd;
use crate::linux::procfs::{self, Status};
use crate::linux::sys::SharedWords;

const PAGE: usize = 4096;
const WORDS: usize = PAGE / size_of::<AtomicU64>();

/// 1 + the number of filters that targets had when the first of them loaded its own; 0: none has.
const FILTERS_BEFORE: usize = facts::READ;

#[derive(Debug)]
pub(crate) struct Facts {
    memory: SharedWords,
    /// The file descriptor for targets.
    read_only: OwnedFd,
    /// The lasting facts that this worker has set.
    said: AtomicU64,
    /// The number of changes of credentials before this worker.
    changes_before: u64,
}

impl Facts {
    /// Creates the memory of a new page.
    pub(crate) fn create() -> Result<OwnedFd, Errno> {
        let memfd = memfd::sealed(c"subuidless-facts", WORDS)?;
        let memory = SharedWords::map(memfd.as_fd(), WORDS)?;
        memory.words()[FACTS].store(VERSION, Ordering::Relaxed);
        Ok(memfd)
    }

    /// Maps a memfd from [`Facts::create`]. Fails with EINVAL for others, which could be truncated.
    /// To be called while /proc is the host's.
    pub(crate) fn open(memfd: BorrowedFd) -> Result<Self, Errno> {
        // A target that has the descriptor may have taken all permissions away.
        fchmod(memfd, Mode::S_IRUSR | Mode::S_IWUSR)?;
        let facts = Self {
            memory: SharedWords::map(memfd, WORDS)?,
            read_only: memfd::read_only(memfd)?,
            said: AtomicU64::new(0),
            changes_before: 0,
        };
        let changes_before = facts.memory.words()[CHANGES].load(Ordering::Relaxed);
        let facts = Self {
            changes_before,
            ..facts
        };
        if facts.word().load(Ordering::Relaxed) & VERSION_BITS != VERSION {
            // From another version of this program: the library must not use it.
            facts.word().store(0, Ordering::Relaxed);
        }
        // The tracers of an earlier worker have ended with it.
        facts.set_traced(false);
        Ok(facts)
    }

    fn word(&self) -> &AtomicU64 {
        &self.memory.words()[FACTS]
    }

    /// Sets facts that remain true.
    pub(crate) fn say(&self, facts: u64) {
        if self.said.load(Ordering::Relaxed) & facts != facts {
            self.word().fetch_or(facts, Ordering::SeqCst);
            self.said.fetch_or(facts, Ordering::Relaxed);
        }
    }

    /// Sets how often targets have changed their credentials while this worker has served them.
    pub(crate) fn count_changes(&self, changes: u64) {
        let word = &self.memory.words()[CHANGES];
        let all = self.changes_before + changes;
        if word.load(Ordering::Relaxed) < all {
            word.fetch_max(all, Ordering::SeqCst);
        }
    }

    /// Sets what does not change: the uid that is mapped, if it is the only one, and the number of
    /// the first supplementary groups.
    pub(crate) fn describe(&self, mapped: Option<u32>, groups: usize) {
        let words = self.memory.words();
        let mapped = mapped.map_or(0, |uid| u64::from(uid) + 1);
        words[MAPPED].store(mapped, Ordering::Relaxed);
        words[GROUPS].store(groups as u64 + 1, Ordering::Relaxed);
    }

    /// Sets whether calls are traced.
    pub(crate) fn set_traced(&self, is_traced: bool) {
        if (self.word().load(Ordering::Relaxed) & TRACED != 0) == is_traced {
            return;
        }
        match is_traced {
            true => self.word().fetch_or(TRACED, Ordering::SeqCst),
            false => self.word().fetch_and(!TRACED, Ordering::SeqCst),
        };
    }

    /// The number of filters that targets have loaded.
    pub(crate) fn filters(&self) -> u64 {
        facts::filters(self.word().load(Ordering::SeqCst))
    }

    /// The target `pid` is about to load a filter.
    pub(crate) fn expect_filter(&self, pid: u32) {
        self.word().fetch_add(FILTER, Ordering::SeqCst);
        let Ok(before) = filters_of(pid) else {
            // Which targets have a filter cannot be told any more: no fast path from now on.
            self.word().fetch_and(!VERSION_BITS, Ordering::SeqCst);
            return;
        };
        // Until a target loads a filter, all targets have the same number.
        let _ = self.memory.words()[FILTERS_BEFORE].compare_exchange(
            0,
            before + 1,
            Ordering::SeqCst,
            Ordering::Relaxed,
        );
    }

    /// Whether a thread of the target `pid` has a filter of its own.
    pub(crate) fn is_filtered(&self, pid: u32) -> Result<bool, Errno> {
        let before = match self.memory.words()[FILTERS_BEFORE].load(Ordering::SeqCst) {
            0 => return Ok(false),
            before => before - 1,
        };
        let task = procfs::target(pid, "task");
        for thread in procfs::list(task.as_c_str())? {
            match filters_of(format_args!("{pid}/task/{thread}")) {
                Ok(filters) if filters <= before => {}
                // The thread has exited.
                Err(Errno::ENOENT | Errno::ESRCH) => {}
                _ => return Ok(true),
            }
        }
        Ok(false)
    }
}

impl AsFd for Facts {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read_only.as_fd()
    }
}

/// The number of seccomp filters of a process or thread, given as for [`Status::of`] (Linux 5.9).
fn filters_of(process: impl Display) -> Result<u64, Errno> {
    let filters = Status::of(process)?.filters();
    filters.map(u64::from).ok_or(Errno::ENODATA)
}
