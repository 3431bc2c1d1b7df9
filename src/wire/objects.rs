//! Who owns what has no file attributes and does not outlive a boot: terminals and System V IPC
//! objects. It is kept at the end of the memory that all workers of a container share, after the
//! table of identities, so it outlives a worker and ends with the container.
//!
//! Readers take no lock. Writers claim a slot with one atomic operation; a slot that is being
//! written when its worker is killed is lost. Two writers of one object must exclude each other.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use nix::errno::Errno;
use nix::sys::stat::fstat;

use crate::linux::hash;
use crate::linux::sys::SharedWords;

/// As many as a terminal server and a busy database have together. Unused pages take no memory.
const SLOTS: usize = 1 << 14;
const SLOT: usize = 4;
const HEADER: usize = 8;
pub(crate) const WORDS: usize = HEADER + SLOTS * SLOT;

/// The words of a slot. `STATE`: a kind, a count of the objects that the slot has held, and the
/// place of the present one.
const STATE: usize = 0;
/// The object's number, and above it the note.
const NUMBER: usize = 1;
const OWNER: usize = 2;
const CREATOR: usize = 3;

const KIND_SHIFT: u32 = 56;
const COUNT: u64 = 1 << 32;
const COUNTS: u64 = (1 << KIND_SHIFT) - COUNT;

/// Kinds of a slot without an object.
const NEVER_USED: u64 = 0;
const BUSY: u64 = 1;
const FREE: u64 = 2;

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The place is a device, the number an inode of devpts.
    Terminal = 3,
    /// The place is the inode of an IPC namespace, the number an id.
    SharedMemory = 4,
    Semaphores = 5,
    Queue = 6,
}

impl Kind {
    fn bit(self) -> u64 {
        1 << self as u64
    }
}

/// The name of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) kind: Kind,
    pub(crate) place: u32,
    pub(crate) number: u32,
}

/// A uid and a gid; for `u32::MAX` the kernel's is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Pair {
    fn encode(self) -> u64 {
        u64::from(self.gid) << u32::BITS | u64::from(self.uid)
    }

    fn decode(word: u64) -> Self {
        let [uid, gid] = halves(word);
        Self { uid, gid }
    }
}

/// What is known of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) owner: Pair,
    pub(crate) creator: Pair,
    /// What else its kind needs.
    pub(crate) note: u32,
}

#[derive(Debug)]
pub(crate) struct Objects(SharedWords);

impl Objects {
    /// Maps the memory that a container's workers share.
    pub(crate) fn open(shared: BorrowedFd) -> Result<Self, Errno> {
        let length = usize::try_from(fstat(shared)?.st_size).map_err(|_| Errno::EINVAL)?;
        let words = length / size_of::<AtomicU64>();
        if words < WORDS {
            return Err(Errno::EINVAL);
        }
        SharedWords::map(shared, words).map(Self)
    }

    fn words(&self) -> &[AtomicU64] {
        let words = self.0.words();
        &words[words.len() - WORDS..]
    }

    /// Whether objects of this kind have ever been stored.
    pub(crate) fn has(&self, kind: Kind) -> bool {
        self.words()[0].load(Ordering::Relaxed) & kind.bit() != 0
    }

    /// The slots in which the object may be, up to the first that was never used.
    fn slots(&self, object: Object) -> impl Iterator<Item = &[AtomicU64]> {
        let start = hash::spread(object.place.into(), object.number.into());
        let words = &self.words()[HEADER..];
        let slot = move |step: usize| {
            let at = start.wrapping_add(step) % SLOTS * SLOT;
            &words[at..at + SLOT]
        };
        (0..SLOTS).map(slot)
    }

    fn find(&self, object: Object) -> Option<(&[AtomicU64], Known)> {
        if !self.has(object.kind) {
            return None;
        }
        for slot in self.slots(object) {
            let state = slot[STATE].load(Ordering::Acquire);
            if state == NEVER_USED {
                return None;
            }
            if state & !COUNTS != Self::state(object) {
                continue;
            }
            let words = [NUMBER, OWNER, CREATOR].map(|word| slot[word].load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            let [number, note] = halves(words[0]);
            if number == object.number && slot[STATE].load(Ordering::Relaxed) == state {
                let known = Known {
                    owner: Pair::decode(words[1]),
                    creator: Pair::decode(words[2]),
                    note,
                };
                return Some((slot, known));
            }
        }
        None
    }

    fn state(object: Object) -> u64 {
        (object.kind as u64) << KIND_SHIFT | u64::from(object.place)
    }

    /// What is known of the object; `None`: the kernel is right about it.
    pub(crate) fn get(&self, object: Object) -> Option<Known> {
        self.find(object).map(|(_, known)| known)
    }

    /// Stores what is known of the object, and if it is new its creator. ENOSPC: there is no room.
    pub(crate) fn set(&self, object: Object, known: Known) -> Result<(), Errno> {
        let number = u64::from(known.note) << u32::BITS | u64::from(object.number);
        if let Some((slot, _)) = self.find(object) {
            slot[OWNER].store(known.owner.encode(), Ordering::Relaxed);
            slot[NUMBER].store(number, Ordering::Relaxed);
            return Ok(());
        }
        let slot = self.claim(object).ok_or(Errno::ENOSPC)?;
        let count = slot[STATE].load(Ordering::Relaxed) & COUNTS;
        slot[NUMBER].store(number, Ordering::Relaxed);
        slot[OWNER].store(known.owner.encode(), Ordering::Relaxed);
        slot[CREATOR].store(known.creator.encode(), Ordering::Relaxed);
        slot[STATE].store(Self::state(object) | count, Ordering::Release);
        self.words()[0].fetch_or(object.kind.bit(), Ordering::SeqCst);
        Ok(())
    }

    /// The numbers of the objects of a kind in a place.
    pub(crate) fn numbers(&self, kind: Kind, place: u32) -> Vec<u32> {
        let state = Self::state(Object {
            kind,
            place,
            number: 0,
        });
        let slots = self.words()[HEADER..].chunks_exact(SLOT);
        let known = slots.filter(|slot| slot[STATE].load(Ordering::Acquire) & !COUNTS == state);
        known
            .map(|slot| halves(slot[NUMBER].load(Ordering::Relaxed))[0])
            .collect()
    }

    /// Marks a slot without an object as busy.
    fn claim(&self, object: Object) -> Option<&[AtomicU64]> {
        self.slots(object).find(|slot| {
            let state = slot[STATE].load(Ordering::Relaxed);
            let count = state.wrapping_add(COUNT) & COUNTS;
            let is_empty = state == NEVER_USED || state >> KIND_SHIFT == FREE;
            is_empty
                && slot[STATE]
                    .compare_exchange(
                        state,
                        BUSY << KIND_SHIFT | count,
                        Ordering::Acquire,
                        Ordering::Relaxed,
                    )
                    .is_ok()
        })
    }

    /// Forgets the object, whose owner is the kernel's from now on.
    pub(crate) fn remove(&self, object: Object) {
        if let Some((slot, _)) = self.find(object) {
            let count = slot[STATE].load(Ordering::Relaxed) & COUNTS;
            slot[STATE].store(FREE << KIND_SHIFT | count, Ordering::Release);
        }
    }
}

/// The lower and the upper half of a word.
fn halves(word: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = word.to_le_bytes();
    [[a, b, c, d], [e, f, g, h]].map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::memfd;
    use std::os::fd::AsFd;

    fn known(id: u32) -> Known {
        let pair = |uid| Pair { uid, gid: !uid };
        Known {
            owner: pair(id),
            creator: pair(id + 1),
            note: id + 2,
        }
    }

    fn object(kind: Kind, number: u32) -> Object {
        Object {
            kind,
            place: u32::MAX - 1,
            number,
        }
    }

    #[test]
    fn what_one_worker_stores_the_next_one_finds() {
        let memfd = memfd::sealed(c"test", WORDS + 100).unwrap();
        let (first, second) = (
            Objects::open(memfd.as_fd()).unwrap(),
            Objects::open(memfd.as_fd()).unwrap(),
        );
        let terminal = object(Kind::Terminal, 7);
        assert_eq!(second.get(terminal), None);
        assert!(!second.has(Kind::Terminal));
        first.set(terminal, known(1)).unwrap();
        assert!(second.has(Kind::Terminal) && !second.has(Kind::Queue));
        assert_eq!(second.get(terminal), Some(known(1)));
        assert_eq!(second.get(object(Kind::Queue, 7)), None);
        second.set(terminal, known(5)).unwrap();
        let after = first.get(terminal).unwrap();
        // The creator stays who it was.
        assert_eq!(
            (after.owner, after.creator, after.note),
            (known(5).owner, known(1).creator, 7)
        );
        second.remove(terminal);
        assert_eq!(first.get(terminal), None);
        let short = memfd::sealed(c"test", WORDS - 1).unwrap();
        assert!(Objects::open(short.as_fd()).is_err());
    }

    #[test]
    fn however_many_come_and_go_there_is_room_until_all_are_there_at_once() {
        let memfd = memfd::sealed(c"test", WORDS).unwrap();
        let objects = Objects::open(memfd.as_fd()).unwrap();
        let number = |at: usize| u32::try_from(at).unwrap();
        for at in 0..3 * SLOTS {
            let new = object(Kind::Semaphores, number(at));
            objects.set(new, known(number(at))).unwrap();
            if at >= 100 {
                objects.remove(object(Kind::Semaphores, number(at - 100)));
            }
        }
        for at in 3 * SLOTS - 100..3 * SLOTS {
            let there = objects.get(object(Kind::Semaphores, number(at)));
            assert_eq!(there, Some(known(number(at))));
        }
        for at in 0..SLOTS - 100 {
            objects
                .set(object(Kind::Queue, number(at)), known(1))
                .unwrap();
        }
        let more = objects.set(object(Kind::Queue, number(SLOTS)), known(1));
        assert_eq!(more, Err(Errno::ENOSPC));
    }

    #[test]
    fn many_threads_use_the_slots_of_each_other_and_never_see_anothers_owner() {
        let memfd = memfd::sealed(c"test", WORDS).unwrap();
        let objects = Objects::open(memfd.as_fd()).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let objects = &objects;
                scope.spawn(move || {
                    for round in 0..20_000 {
                        let id = thread + 4 * (round % 16);
                        let own = object(Kind::SharedMemory, id);
                        objects.set(own, known(id)).unwrap();
                        assert_eq!(objects.get(own), Some(known(id)));
                        let other = objects.get(object(Kind::SharedMemory, id ^ 1));
                        assert!(other.is_none_or(|it| it == known(id ^ 1)), "{other:?}");
                        objects.remove(own);
                    }
                });
            }
        });
    }
}
