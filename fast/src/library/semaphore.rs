//! semop(2), semtimedop(2): some programs make thousands of these calls per second.

use core::ffi::{c_int, c_void};

use super::raw::{MARK, call, int, number};
use super::{page, result, who};
use crate::facts::SEMAPHORES;

/// These calls wait, and a signal interrupts them natively, too: none is begun anew.
fn operate(number: usize, id: c_int, operations: *mut c_void, count: usize, limit: usize) -> c_int {
    let facts = page::facts(number);
    let is_kernels = facts.is_some_and(|facts| facts & SEMAPHORES == 0 && who::is_first(facts));
    let mark = if is_kernels { MARK } else { 0 };
    let operations = operations.expose_provenance();
    result(call(number, [int(id), operations, count, limit, 0, mark]))
}

#[cfg_attr(fast_library, unsafe(no_mangle))]
pub extern "C" fn semop(id: c_int, operations: *mut c_void, count: usize) -> c_int {
    operate(number::SEMOP, id, operations, count, 0)
}

#[cfg_attr(fast_library, unsafe(no_mangle))]
pub extern "C" fn semtimedop(
    id: c_int,
    operations: *mut c_void,
    count: usize,
    limit: *const c_void,
) -> c_int {
    let limit = limit.expose_provenance();
    operate(number::SEMTIMEDOP, id, operations, count, limit)
}
