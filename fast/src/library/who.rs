//! Whether the calling process still is what the container's first process was.

use core::mem::MaybeUninit;

use super::raw::{number, to_kernel};
use crate::cookie;
use crate::facts::CHANGED;

/// capabilities(7)
pub(super) const CHOWN: u32 = 1;
/// The capabilities with which owners and modes do not restrict a process: DAC_OVERRIDE, FOWNER,
/// FSETID.
pub(super) const OVER_FILES: u32 = 1 << 1 | 1 << 3 | 1 << 4;

/// Whether the calling process has the credentials with which the container's first one started.
pub(super) fn is_first(facts: u64) -> bool {
    const RLIMIT_LOCKS: usize = 10;
    if facts & CHANGED == 0 {
        return true;
    }
    let mut limits = MaybeUninit::<[u64; 2]>::uninit();
    let place = limits.as_mut_ptr().expose_provenance();
    if to_kernel(number::GETRLIMIT, [RLIMIT_LOCKS, place, 0, 0, 0]) != 0 {
        return false;
    }
    // SAFETY: the kernel has just filled them in.
    let [soft, _] = unsafe { limits.assume_init() };
    cookie::is_first(soft)
}

/// Whether it also has these capabilities (of the lower 32), in the kernel.
pub(super) fn has(facts: u64, capabilities: u32) -> bool {
    const VERSION_3: u32 = 0x2008_0522;
    if !is_first(facts) {
        return false;
    }
    let header = [VERSION_3, 0];
    let mut sets = MaybeUninit::<[u32; 6]>::uninit();
    let header = header.as_ptr().expose_provenance();
    let place = sets.as_mut_ptr().expose_provenance();
    if to_kernel(number::CAPGET, [header, place, 0, 0, 0]) != 0 {
        return false;
    }
    // SAFETY: the kernel has just filled them in.
    let [effective, ..] = unsafe { sets.assume_init() };
    effective & capabilities == capabilities
}
