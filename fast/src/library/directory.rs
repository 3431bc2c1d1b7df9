//! opendir(3), fdopendir(3)

use core::ffi::{c_char, c_int, c_void};

use super::raw::{MARK, clear_mark, number};
use super::{next, page, who};

/// What stands in the register of the sixth argument.
fn mark() -> usize {
    match page::facts(number::FSTAT) {
        Some(facts) if who::may_look_up(facts) => MARK,
        _ => 0,
    }
}

#[cfg_attr(fast_library, unsafe(no_mangle))]
pub extern "C" fn opendir(path: *const c_char) -> *mut c_void {
    let directory = next::opendir(path, mark());
    clear_mark();
    directory
}

#[cfg_attr(fast_library, unsafe(no_mangle))]
pub extern "C" fn fdopendir(fd: c_int) -> *mut c_void {
    let directory = next::fdopendir(fd, mark());
    clear_mark();
    directory
}
