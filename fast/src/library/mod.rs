//! What takes the place of libc's functions. One file per man-page family, as in the worker's
//! `syscalls`.
//!
//! All functions here are called by programs, with whatever arguments a program has. A pointer goes
//! to the kernel first, which says EFAULT where it is none; only after that is it looked through.

/// Defines functions under both names that programs know them by.
macro_rules! with_64 {
    ($($name:ident, $name64:ident => ($($argument:ident: $type:ty),*) $body:block)*) => {$(
        #[cfg_attr(fast_library, unsafe(no_mangle))]
        pub extern "C" fn $name($($argument: $type),*) -> c_int $body

        #[cfg_attr(fast_library, unsafe(no_mangle))]
        pub extern "C" fn $name64($($argument: $type),*) -> c_int {
            $name($($argument),*)
        }
    )*};
}

mod cache;
pub mod change;
pub mod chown;
pub mod create;
pub mod directory;
mod file;
pub mod getid;
pub mod message;
mod next;
mod page;
pub mod path;
mod raw;
pub mod semaphore;
pub mod stat;
mod status;
mod who;
pub mod xattr;

use core::ffi::{c_char, c_int};

// Weak, so that a libc that calls it otherwise can load the library all the same.
core::arch::global_asm!(".weak __errno_location");

unsafe extern "C" {
    /// glibc and musl.
    fn __errno_location() -> *mut c_int;
}

/// The loader calls it before the program begins.
#[cfg(fast_library)]
#[used]
#[unsafe(link_section = ".init_array")]
static BEGIN: extern "C" fn() = begin;

#[cfg_attr(not(fast_library), expect(dead_code, reason = "called by the loader"))]
extern "C" fn begin() {
    next::look_up();
    if raw::is_under_valgrind() {
        page::refuse();
    }
}

/// A result as the kernel gives it: an error is negative.
type Raw = isize;

const EPERM: Raw = -1;
const ENOENT: Raw = -2;
const EINTR: Raw = -4;
const ENXIO: Raw = -6;
const EBADF: Raw = -9;
const EACCES: Raw = -13;
const EFAULT: Raw = -14;
const EISDIR: Raw = -21;
const EINVAL: Raw = -22;
const ERANGE: Raw = -34;
const ENOSYS: Raw = -38;
const ENODATA: Raw = -61;
const EOPNOTSUPP: Raw = -95;
const ENOBUFS: Raw = -105;

/// The result as libc gives it, with errno where it is an error.
fn result(raw: Raw) -> c_int {
    if raw < 0 {
        set_errno(-raw);
        return -1;
    }
    // Those that are given to programs so are 0.
    c_int::try_from(raw).unwrap_or(c_int::MAX)
}

/// The same for calls that give a number.
fn long_result(raw: Raw) -> isize {
    if raw < 0 {
        set_errno(-raw);
        return -1;
    }
    raw
}

fn set_errno(errno: Raw) {
    if let Some(place) = place_of_errno() {
        // SAFETY: libc's errno lives as long as the thread.
        unsafe { place.write(c_int::try_from(errno).unwrap_or(c_int::MAX)) };
    }
}

/// errno, negative as the kernel gives it.
fn errno() -> Raw {
    // SAFETY: libc's errno lives as long as the thread.
    let errno = place_of_errno().map(|place| unsafe { place.read() });
    errno.map_or(0, |errno| -(errno as Raw))
}

fn place_of_errno() -> Option<*mut c_int> {
    let function = __errno_location as *const ();
    if function.is_null() {
        return None;
    }
    // SAFETY: the function is there, takes nothing, and gives the address of this thread's errno.
    Some(unsafe { __errno_location() })
}

/// A path that a program gives, which may be no address at all.
#[derive(Clone, Copy)]
struct Path(*const c_char);

impl Path {
    const EMPTY: Self = Self(c"".as_ptr());
    const HERE: Self = Self(c".".as_ptr());

    fn register(self) -> usize {
        self.0.expose_provenance()
    }

    /// The first byte, once the kernel has read the path.
    fn first(self) -> Option<u8> {
        if self.0.is_null() {
            return None;
        }
        // SAFETY: the kernel has just read a string from there; a program that unmaps it meanwhile
        // would fault in libc as well.
        Some(unsafe { self.0.cast::<u8>().read() })
    }

    /// The bytes in front of the NUL, if that is among the first `most`.
    ///
    /// # Safety
    ///
    /// The kernel has read a string of no more bytes from there.
    unsafe fn bytes<'a>(self, most: usize) -> Option<&'a [u8]> {
        if self.0.is_null() {
            return None;
        }
        let start = self.0.cast::<u8>();
        for length in 0..most {
            // SAFETY: there was no NUL yet, so the string goes on.
            let place = unsafe { start.add(length) };
            // SAFETY: as above; a program that changes it meanwhile gets what it asks for.
            if unsafe { place.read_volatile() } == 0 {
                // SAFETY: so many bytes have just been read.
                return Some(unsafe { core::slice::from_raw_parts(start, length) });
            }
        }
        None
    }
}
