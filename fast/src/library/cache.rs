//! What the last files showed, for programs that look at the same ones again.
//!
//! An owner changes with its file's ctime. A file that was changed shortly before this process
//! began could be changed again at the same ctime, and is not kept.

use core::sync::atomic::{AtomicU64, Ordering};

use super::raw::{call, number};
use crate::owner::Shown;

/// Tells one state of one file from every other.
#[derive(PartialEq, Eq)]
pub(super) struct Version {
    pub(super) dev: u64,
    pub(super) ino: u64,
    /// Seconds and nanoseconds.
    pub(super) ctime: [u64; 2],
    pub(super) mode: u32,
}

/// In each slot a value, and that value mixed with the version's hash: what is read while another
/// thread writes belongs to no version.
static SLOTS: [[AtomicU64; 2]; 64] = [const { [const { AtomicU64::new(0) }; 2] }; 64];

/// Seconds: files that were changed before then are kept. 0: not known yet.
static LIMIT: AtomicU64 = AtomicU64::new(0);

/// More than file systems round times by.
const ROUNDING: u64 = 3;

impl Version {
    fn hash(&self) -> u64 {
        let [seconds, nanoseconds] = self.ctime;
        let parts = [self.dev, self.ino, seconds, nanoseconds, self.mode.into()];
        parts.into_iter().fold(1, |hash: u64, part| {
            (hash ^ part)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(29)
        })
    }

    fn slot(&self) -> (&'static [AtomicU64; 2], u64) {
        let hash = self.hash();
        let [index, ..] = hash.to_le_bytes();
        (&SLOTS[usize::from(index) % SLOTS.len()], hash)
    }

    /// What this version shows, if it is known.
    pub(super) fn known(&self) -> Option<Shown> {
        let ([mixed, value], hash) = self.slot();
        let value = value.load(Ordering::Relaxed);
        (mixed.load(Ordering::Relaxed) ^ value == hash).then_some(Shown::from_word(value))
    }

    /// Keeps what this version shows.
    pub(super) fn keep(&self, shown: Shown) {
        let [seconds, _] = self.ctime;
        if seconds >= limit() {
            return;
        }
        let ([mixed, place], hash) = self.slot();
        let value = shown.to_word();
        mixed.store(hash ^ value, Ordering::Relaxed);
        place.store(value, Ordering::Relaxed);
    }
}

/// Devices of file systems that are neither procfs nor sysfs.
static ORDINARY: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

/// Whether [`note_ordinary`] was called for this device.
pub(super) fn is_ordinary(device: u64) -> bool {
    place_of(device).load(Ordering::Relaxed) == device
}

/// Keeps that the file system of this device is an ordinary one.
pub(super) fn note_ordinary(device: u64) {
    place_of(device).store(device, Ordering::Relaxed);
}

fn place_of(device: u64) -> &'static AtomicU64 {
    let [low, ..] = device.to_le_bytes();
    &ORDINARY[usize::from(low) % ORDINARY.len()]
}

fn limit() -> u64 {
    const CLOCK_REALTIME_COARSE: usize = 5;
    let known = LIMIT.load(Ordering::Relaxed);
    if known != 0 {
        return known;
    }
    let now = [AtomicU64::new(0), AtomicU64::new(0)];
    let place = now.as_ptr().expose_provenance();
    call(
        number::CLOCK_GETTIME,
        [CLOCK_REALTIME_COARSE, place, 0, 0, 0, 0],
    );
    let limit = now[0].load(Ordering::Relaxed).saturating_sub(ROUNDING);
    LIMIT.store(limit, Ordering::Relaxed);
    limit
}
