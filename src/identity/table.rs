//! The table: the records that cookies refer to, in memory that all workers of a container share.
//!
//! Records are only added, each set of credentials once: a number keeps its meaning, and reading
//! takes no lock. The daemon holds the memory, too, so nothing is lost with a worker.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;

use super::cookie::{Index, MAX_RECORDS};
use super::record;
use crate::credentials::{Credentials, EmulatedGid, EmulatedUid, Ids};
use crate::linux::lock::Locks;
use crate::linux::memfd;
use crate::linux::sys::SharedWords;
use crate::wire::objects;

const COUNT: usize = 0;
const USED: usize = 1;
const FLAGS: usize = 2;
const OFFSETS: usize = 16;
/// The first record: the initial credentials.
const FIRST: usize = 0;
const DATA: usize = OFFSETS + MAX_RECORDS;
/// The size in words: enough for a hundred lists of 65,536 groups, or for as many short ones as
/// there are numbers. Pages that are never written take no memory.
const WORDS: usize = DATA + (1 << 22);
/// Where the records end: the rest is for `wire::objects`.
const END: usize = WORDS - objects::WORDS;

/// A flag: a process may have credentials other than the initial ones.
const CHANGED: u64 = 1;
/// A flag: a process may live in a user namespace below the container's.
const NESTED: u64 = 2;
/// A flag: a process may have restricted itself (landlock(7)).
const CONFINED: u64 = 4;

#[derive(Debug)]
pub(crate) struct Table {
    memory: SharedWords,
    /// An index of the records that this process has read so far.
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    numbers: HashMap<Credentials, Index>,
    looked_at: usize,
}

impl Table {
    /// Creates a table in a memfd, for a container whose processes start with `groups`. The
    /// container's locks are on the same file.
    pub(crate) fn create(groups: Vec<EmulatedGid>) -> Result<OwnedFd, Errno> {
        let memfd = memfd::sealed(c"subuidless-identities", WORDS)?;
        // No lock: no other process has the memfd yet.
        let start = Credentials::initial(EmulatedUid::ROOT, EmulatedGid::ROOT, groups);
        Self::open(memfd.as_fd())?.push(&start)?;
        Ok(memfd)
    }

    /// The supplementary groups with which the container's processes start.
    pub(crate) fn initial_groups(&self) -> Vec<EmulatedGid> {
        let first = Index::new(FIRST).and_then(|first| self.get(first));
        first.map_or_else(Vec::new, |first| first.groups)
    }

    /// Maps a memfd from [`Table::create`]. Fails with EINVAL for others.
    pub(crate) fn open(memfd: BorrowedFd) -> Result<Self, Errno> {
        Ok(Self {
            memory: SharedWords::map(memfd, WORDS)?,
            known: Mutex::default(),
        })
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        &self.memory.words()[index]
    }

    pub(super) fn anyone_changed(&self) -> bool {
        self.word(FLAGS).load(Ordering::Relaxed) & CHANGED != 0
    }

    pub(super) fn set_changed(&self) {
        self.word(FLAGS).fetch_or(CHANGED, Ordering::SeqCst);
    }

    pub(super) fn anyone_nested(&self) -> bool {
        self.word(FLAGS).load(Ordering::Relaxed) & NESTED != 0
    }

    pub(super) fn set_nested(&self) {
        self.word(FLAGS).fetch_or(NESTED, Ordering::SeqCst);
    }

    pub(super) fn anyone_confined(&self) -> bool {
        self.word(FLAGS).load(Ordering::Relaxed) & CONFINED != 0
    }

    pub(super) fn set_confined(&self) {
        self.word(FLAGS).fetch_or(CONFINED, Ordering::SeqCst);
    }

    /// The words of a record. Returns `None` for a number that was never assigned.
    fn record(&self, index: Index) -> Option<&[AtomicU64]> {
        if index.number() >= self.count() {
            return None;
        }
        let offset = self.word(OFFSETS + index.number()).load(Ordering::Relaxed);
        let start = DATA.checked_add(usize::try_from(offset).ok()?)?;
        self.memory.words().get(start..)
    }

    fn count(&self) -> usize {
        usize::try_from(self.word(COUNT).load(Ordering::Acquire)).unwrap_or(0)
    }

    pub(super) fn get(&self, index: Index) -> Option<Credentials> {
        record::decode(self.record(index)?)
    }

    /// As [`Table::get`], but only the ids, which most callers need.
    pub(super) fn ids(&self, index: Index) -> Option<(Ids<EmulatedUid>, Ids<EmulatedGid>)> {
        record::decode_ids(self.record(index)?)
    }

    /// The number of `credentials`, added if they are not in the table. Fails with EAGAIN when the
    /// table is full: setuid(2) returns it for lack of resources.
    pub(super) fn add(&self, credentials: &Credentials, locks: &Locks) -> Result<Index, Errno> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = known.numbers.get(credentials) {
            return Ok(*index);
        }
        let _lock = locks.lock_identities()?;
        // First the records that other workers have added.
        for number in known.looked_at..self.count() {
            let index = Index::new(number).ok_or(Errno::EAGAIN)?;
            if let Some(credentials) = self.get(index) {
                known.numbers.insert(credentials, index);
            }
            known.looked_at = number + 1;
        }
        if let Some(index) = known.numbers.get(credentials) {
            return Ok(*index);
        }
        let index = self.push(credentials)?;
        known.numbers.insert(credentials.clone(), index);
        known.looked_at = index.number() + 1;
        Ok(index)
    }

    /// Appends a record. The caller must exclude other writers.
    fn push(&self, credentials: &Credentials) -> Result<Index, Errno> {
        let number = self.count();
        let index = Index::new(number).ok_or(Errno::EAGAIN)?;
        let used = self.word(USED).load(Ordering::Relaxed);
        let words = record::encode(credentials);
        let start = DATA + usize::try_from(used).map_err(|_| Errno::EAGAIN)?;
        let room = self.memory.words()[..END].get(start..start + words.len());
        for (to, from) in room.ok_or(Errno::EAGAIN)?.iter().zip(&words) {
            to.store(*from, Ordering::Relaxed);
        }
        self.word(OFFSETS + number).store(used, Ordering::Relaxed);
        let used = used + words.len() as u64;
        self.word(USED).store(used, Ordering::Relaxed);
        // Release: the record is complete before its number becomes visible.
        self.word(COUNT).store(number as u64 + 1, Ordering::Release);
        Ok(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::{Capabilities, Id};

    fn locks(memfd: &OwnedFd) -> Locks {
        Locks::new(memfd::reopened(memfd).unwrap())
    }

    fn credentials(number: u32) -> Credentials {
        let (uid, gid) = (
            EmulatedUid::new(number).unwrap(),
            EmulatedGid::new(number + 1).unwrap(),
        );
        let groups = (0..number % 5).map(|group| EmulatedGid::new(group).unwrap());
        Credentials {
            capabilities: number.is_multiple_of(2).then_some(Capabilities {
                permitted: u64::from(number),
                ..Capabilities::default()
            }),
            ..Credentials::initial(uid, gid, groups.collect())
        }
    }

    #[test]
    fn two_openers_that_add_at_the_same_time_agree_on_every_number() {
        let memfd = Table::create(Vec::new()).unwrap();
        let tables = [
            Table::open(memfd.as_fd()).unwrap(),
            Table::open(memfd.as_fd()).unwrap(),
        ];
        let locks = [locks(&memfd), locks(&memfd)];
        std::thread::scope(|scope| {
            for (table, locks) in tables.iter().zip(&locks) {
                scope.spawn(move || {
                    for number in 0..500 {
                        let index = table.add(&credentials(number), locks).unwrap();
                        assert_eq!(table.get(index), Some(credentials(number)));
                    }
                });
            }
        });
        for number in 0..500 {
            let [a, b] = [0, 1].map(|n| tables[n].add(&credentials(number), &locks[n]).unwrap());
            assert_eq!(a, b);
        }
        assert_eq!(tables[0].count(), 501);
    }

    #[test]
    fn a_full_table_takes_no_more_and_keeps_what_it_has() {
        let memfd = Table::create(Vec::new()).unwrap();
        let table = Table::open(memfd.as_fd()).unwrap();
        let locks = locks(&memfd);
        for number in 1..MAX_RECORDS {
            let number = u32::try_from(number).unwrap();
            table.add(&credentials(number), &locks).unwrap();
        }
        assert_eq!(table.add(&credentials(1 << 20), &locks), Err(Errno::EAGAIN));
        assert!(table.add(&credentials(3), &locks).is_ok());
        assert_eq!(table.get(Index::INITIAL), None);
    }
}
