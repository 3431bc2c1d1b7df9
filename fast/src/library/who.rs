//! Whether the calling process still is what the container's first process was.

use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU64, Ordering};

use super::raw::{number, to_kernel, to_worker};
use super::{Raw, page};
use crate::cookie;
use crate::facts::{CHANGED, CHANGES, LIMITED, PERMISSIONS};

/// The capabilities with which owners and modes do not restrict a process: CHOWN, DAC_OVERRIDE,
/// FOWNER, FSETID (capabilities(7)).
const OVER_FILES: u32 = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4;

/// What was found out last: in the lowest bit, whether this process is one with the first
/// credentials, and above it 1 plus the number of changes at that time. Only calls of its own change
/// a process's credentials, and each of them changes that number. fork(2) copies both.
static KNOWN: AtomicU64 = AtomicU64::new(0);

/// Whether the calling process has the credentials with which the container's first one started.
pub(super) fn is_first(facts: u64) -> bool {
    if facts & CHANGED == 0 {
        return true;
    }
    let now = (page::word(CHANGES) + 1) << 1;
    let known = KNOWN.load(Ordering::Relaxed);
    if known & !1 == now {
        return known & 1 == 1;
    }
    let is_first = has_first_cookie();
    KNOWN.store(now | u64::from(is_first), Ordering::Relaxed);
    is_first
}

fn has_first_cookie() -> bool {
    const RLIMIT_LOCKS: usize = 10;
    let mut limits = MaybeUninit::<[u64; 2]>::uninit();
    let place = limits.as_mut_ptr().expose_provenance();
    if to_kernel(number::GETRLIMIT, [RLIMIT_LOCKS, place, 0, 0, 0]) != 0 {
        return false;
    }
    // SAFETY: the kernel has just filled them in.
    let [soft, _] = unsafe { limits.assume_init() };
    cookie::is_first(soft)
}

/// Whether neither owners nor modes restrict the calling process.
pub(super) fn is_free(facts: u64) -> bool {
    is_first(facts) && (facts & LIMITED == 0 || has_by(to_kernel, OVER_FILES))
}

/// Whether it may look up any path.
pub(super) fn may_look_up(facts: u64) -> bool {
    facts & PERMISSIONS == 0 || is_free(facts)
}

/// Whether the calling thread has these capabilities (of the lower 32), as the worker knows.
pub(super) fn has_emulated(capabilities: u32) -> bool {
    has_by(to_worker, capabilities)
}

fn has_by(call: fn(usize, [usize; 5]) -> Raw, capabilities: u32) -> bool {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let mut sets = MaybeUninit::<[u32; 6]>::uninit();
    let header = header.as_ptr().expose_provenance();
    let place = sets.as_mut_ptr().expose_provenance();
    if call(number::CAPGET, [header, place, 0, 0, 0]) != 0 {
        return false;
    }
    // SAFETY: the kernel has just filled them in.
    let [effective, ..] = unsafe { sets.assume_init() };
    effective & capabilities == capabilities
}
