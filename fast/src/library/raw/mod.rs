//! System calls: one file for each architecture says how, and which numbers, flags and structures
//! they have.

#[cfg_attr(target_arch = "x86_64", path = "x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "aarch64.rs")]
mod architecture;

pub(super) use architecture::{Stat, call, clear_mark, flag, is_under_valgrind, number};

use core::ffi::c_int;

use super::Raw;
use crate::facts::MAGIC;

#[expect(clippy::cast_possible_truncation, reason = "registers have 64 bits")]
pub(super) const MARK: usize = MAGIC as usize;

/// A register, as the kernel takes an `int` from it.
pub(super) fn int(value: c_int) -> usize {
    value.cast_unsigned() as usize
}

/// A call with up to five arguments that the filter lets go on to the kernel.
pub(super) fn to_kernel(number: usize, [a, b, c, d, e]: [usize; 5]) -> Raw {
    call(number, [a, b, c, d, e, MARK])
}

/// The same call for the worker. It is begun anew where a signal has interrupted the wait for the
/// worker: natively these calls are not interrupted.
pub(super) fn to_worker(number: usize, arguments: [usize; 5]) -> Raw {
    to_worker_with(0, number, arguments)
}

/// The same, with a mark that tells the worker more.
pub(super) fn to_worker_with(mark: usize, number: usize, [a, b, c, d, e]: [usize; 5]) -> Raw {
    loop {
        let result = call(number, [a, b, c, d, e, mark]);
        if result != super::EINTR {
            return result;
        }
    }
}
