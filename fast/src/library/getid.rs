//! getuid(2), getresuid(2), getgroups(2), and their relatives.
//!
//! The kernel's ids are right for a process that has the container's first credentials. How many
//! groups it has is in the page; the list itself is the worker's to write, who finds out whether
//! there is memory for it.

use core::ffi::{c_int, c_uint};

use super::raw::{number, to_kernel, to_worker};
use super::{Raw, page, result, who};
use crate::facts::GROUPS;

fn ask(number: usize, arguments: [usize; 5]) -> Raw {
    match page::facts(number) {
        Some(facts) if who::is_first(facts) => to_kernel(number, arguments),
        _ => to_worker(number, arguments),
    }
}

/// Defines functions under the names that programs know them by.
macro_rules! symbols {
    ($($name:ident => $number:ident)* ; $($three:ident => $of_three:ident)*) => {
        $(
            #[cfg_attr(fast_library, unsafe(no_mangle))]
            pub extern "C" fn $name() -> c_uint {
                let [a, b, c, d, ..] = ask(number::$number, [0; 5]).to_le_bytes();
                c_uint::from_le_bytes([a, b, c, d])
            }
        )*
        $(
            #[cfg_attr(fast_library, unsafe(no_mangle))]
            pub extern "C" fn $three(
                real: *mut c_uint,
                effective: *mut c_uint,
                saved: *mut c_uint,
            ) -> c_int {
                let places = [real, effective, saved].map(|place| place.expose_provenance());
                let [real, effective, saved] = places;
                result(ask(number::$of_three, [real, effective, saved, 0, 0]))
            }
        )*
    };
}

symbols! {
    getuid => GETUID
    geteuid => GETEUID
    getgid => GETGID
    getegid => GETEGID
    ;
    getresuid => GETRESUID
    getresgid => GETRESGID
}

#[cfg_attr(fast_library, unsafe(no_mangle))]
pub extern "C" fn getgroups(size: c_int, list: *mut c_uint) -> c_int {
    let arguments = [
        size.cast_unsigned() as usize,
        list.expose_provenance(),
        0,
        0,
        0,
    ];
    let answered = page::facts(number::GETGROUPS)
        .filter(|facts| who::is_first(*facts))
        .and_then(|_| without_list(size));
    result(answered.unwrap_or_else(|| to_worker(number::GETGROUPS, arguments)))
}

/// The answer where no list is written.
fn without_list(size: c_int) -> Option<Raw> {
    let count = Raw::try_from(page::word(GROUPS).checked_sub(1)?).ok()?;
    (size == 0 || (size > 0 && count == 0)).then_some(count)
}
