//! Calls that the kernel does, and from which only permissions could keep a process: unlink(2),
//! rename(2), link(2), readlink(2), chdir(2), truncate(2), connect(2), and their variants.

use core::ffi::{c_char, c_int, c_uint, c_void};

use super::change::allowed;
use super::raw::{MARK, clear_mark, int, number, to_kernel, to_worker};
use super::{EISDIR, Raw, long_result, next, page, result, who};

/// The call with which the worker is asked for the page: unless all permissions are checked, it is
/// not notified of those in here.
const ASKED_BY: usize = number::GETUID;

/// The kernel's answer to a process that may do what it likes, and the worker's to others.
fn ask(number: usize, arguments: [usize; 5]) -> Raw {
    let is_free = |facts: &u64| who::is_free(*facts);
    page::facts(ASKED_BY)
        .filter(is_free)
        .and_then(|_| allowed(to_kernel(number, arguments)))
        .unwrap_or_else(|| to_worker(number, arguments))
}

/// An argument, as it stands in a register.
trait Register {
    fn register(self) -> usize;
}

impl Register for c_int {
    fn register(self) -> usize {
        int(self)
    }
}

impl Register for c_uint {
    fn register(self) -> usize {
        self as usize
    }
}

impl Register for isize {
    fn register(self) -> usize {
        self.cast_unsigned()
    }
}

impl Register for usize {
    fn register(self) -> usize {
        self
    }
}

impl<T> Register for *const T {
    fn register(self) -> usize {
        self.expose_provenance()
    }
}

impl<T> Register for *mut T {
    fn register(self) -> usize {
        self.expose_provenance()
    }
}

/// The registers of a call with up to five arguments.
macro_rules! registers {
    ($($argument:ident)*) => {{
        let [a, b, c, d, e, ..] = [$($argument.register(),)* 0, 0, 0, 0, 0];
        [a, b, c, d, e]
    }};
}

/// Defines functions with the arguments of their calls.
macro_rules! calls {
    ($($name:ident($($argument:ident: $type:ty),*) => $number:ident;)*) => {$(
        #[cfg_attr(fast_library, unsafe(no_mangle))]
        pub extern "C" fn $name($($argument: $type),*) -> c_int {
            result(ask(number::$number, registers!($($argument)*)))
        }
    )*};
}

calls! {
    unlink(path: *const c_char) => UNLINK;
    unlinkat(dirfd: c_int, path: *const c_char, flags: c_int) => UNLINKAT;
    rmdir(path: *const c_char) => RMDIR;
    rename(old: *const c_char, new: *const c_char) => RENAME;
    renameat(from: c_int, old: *const c_char, to: c_int, new: *const c_char) => RENAMEAT;
    renameat2(
        from: c_int,
        old: *const c_char,
        to: c_int,
        new: *const c_char,
        flags: c_uint
    ) => RENAMEAT2;
    link(old: *const c_char, new: *const c_char) => LINK;
    linkat(
        from: c_int,
        old: *const c_char,
        to: c_int,
        new: *const c_char,
        flags: c_int
    ) => LINKAT;
    chdir(path: *const c_char) => CHDIR;
    fchdir(fd: c_int) => FCHDIR;
    truncate(path: *const c_char, length: isize) => TRUNCATE;
    truncate64(path: *const c_char, length: isize) => TRUNCATE;
}

/// The C library's own makes the same two calls.
#[cfg_attr(fast_library, unsafe(no_mangle))]
pub extern "C" fn remove(path: *const c_char) -> c_int {
    let arguments = registers!(path);
    result(match ask(number::UNLINK, arguments) {
        EISDIR => ask(number::RMDIR, arguments),
        answer => answer,
    })
}

#[cfg_attr(fast_library, unsafe(no_mangle))]
pub extern "C" fn readlink(path: *const c_char, text: *mut c_char, size: usize) -> isize {
    long_result(ask(number::READLINK, registers!(path text size)))
}

#[cfg_attr(fast_library, unsafe(no_mangle))]
pub extern "C" fn readlinkat(
    dirfd: c_int,
    path: *const c_char,
    text: *mut c_char,
    size: usize,
) -> isize {
    long_result(ask(number::READLINKAT, registers!(dirfd path text size)))
}

/// Connects by libc's function, where pthread_cancel(3) may end the thread. The mark is as in
/// `directory`.
#[cfg_attr(fast_library, unsafe(no_mangle))]
pub extern "C" fn connect(socket: c_int, address: *const c_void, length: c_uint) -> c_int {
    let mark = match page::facts(ASKED_BY) {
        Some(facts) if who::is_free(facts) => MARK,
        _ => 0,
    };
    let answer = next::connect(socket, address, length, mark);
    clear_mark();
    answer
}
