//! chmod(2), utimensat(2), access(2), and their variants.
//!
//! A process that owners and modes do not restrict is left to the kernel, as the worker does.

use core::ffi::{c_char, c_int, c_uint, c_void};

use super::file::{AT_FDCWD, AT_SYMLINK_NOFOLLOW, Named};
use super::raw::{int, number, to_kernel, to_worker};
use super::stat::is_special;
use super::{EACCES, EBADF, EINVAL, ENOSYS, EPERM, Path, Raw, next, page, result, who};
use crate::facts::{OVERLAYS, SIDE_STORE};

const AT_EACCESS: c_int = 0x200;

/// The kernel's answer to a call from which only permissions could keep a process.
fn by_kernel(
    number: usize,
    arguments: [usize; 5],
    is_plain: impl FnOnce(u64) -> bool,
) -> Option<Raw> {
    let facts = page::facts(number)?;
    let is_free = who::is_free(facts) && is_plain(facts);
    is_free
        .then(|| to_kernel(number, arguments))
        .and_then(allowed)
}

fn make(number: usize, arguments: [usize; 5], is_plain: impl FnOnce(u64) -> bool) -> c_int {
    let answered = by_kernel(number, arguments, is_plain);
    result(answered.unwrap_or_else(|| to_worker(number, arguments)))
}

/// The kernel's answer, unless the worker may know better.
pub(super) fn allowed(answer: Raw) -> Option<Raw> {
    (!matches!(answer, EACCES | EPERM | ENOSYS)).then_some(answer)
}

/// Whether a change does not copy a file up whose owner is in the side store.
pub(super) fn stays(file: Named) -> impl FnOnce(u64) -> bool {
    const BOTH: u64 = SIDE_STORE | OVERLAYS;
    move |facts| facts & BOTH != BOTH || !is_special(file)
}

// ---- chmod(2)

/// `None`: the worker knows better.
fn change_mode(dirfd: c_int, path: *const c_char, mode: c_uint) -> Option<Raw> {
    let arguments = [int(dirfd), path.expose_provenance(), mode as usize, 0, 0];
    let file = Named::at(dirfd, Path(path), true);
    by_kernel(number::FCHMODAT, arguments, stays(file))
}

#[cfg_attr(fast_library, unsafe(no_mangle))]
pub extern "C" fn chmod(path: *const c_char, mode: c_uint) -> c_int {
    let arguments = [path.expose_provenance(), mode as usize, 0, 0, 0];
    let answered = change_mode(AT_FDCWD, path, mode);
    result(answered.unwrap_or_else(|| to_worker(number::CHMOD, arguments)))
}

#[cfg_attr(fast_library, unsafe(no_mangle))]
pub extern "C" fn fchmod(fd: c_int, mode: c_uint) -> c_int {
    let arguments = [int(fd), mode as usize, 0, 0, 0];
    make(number::FCHMOD, arguments, stays(Named::fd(fd)))
}

#[cfg_attr(fast_library, unsafe(no_mangle))]
pub extern "C" fn fchmodat(dirfd: c_int, path: *const c_char, mode: c_uint, flags: c_int) -> c_int {
    let answered = match flags {
        0 => change_mode(dirfd, path, mode),
        _ => None,
    };
    match answered {
        Some(answer) => result(answer),
        // The C library finds a way where the kernel has none.
        None => next::fchmodat(dirfd, path, mode, flags),
    }
}

// ---- utimensat(2)

fn change_times(dirfd: c_int, path: *const c_char, times: *const c_void, flags: c_int) -> c_int {
    let times = times.expose_provenance();
    let arguments = [int(dirfd), path.expose_provenance(), times, int(flags), 0];
    let file = match path.is_null() {
        true => Named::fd(dirfd),
        false => Named::at(dirfd, Path(path), flags & AT_SYMLINK_NOFOLLOW == 0),
    };
    make(number::UTIMENSAT, arguments, stays(file))
}

#[cfg_attr(fast_library, unsafe(no_mangle))]
pub extern "C" fn utimensat(
    dirfd: c_int,
    path: *const c_char,
    times: *const c_void,
    flags: c_int,
) -> c_int {
    match path.is_null() {
        // The C library does not let it mean `dirfd`.
        true => result(EINVAL),
        false => change_times(dirfd, path, times, flags),
    }
}

#[cfg_attr(fast_library, unsafe(no_mangle))]
pub extern "C" fn futimens(fd: c_int, times: *const c_void) -> c_int {
    match fd < 0 {
        true => result(EBADF),
        false => change_times(fd, core::ptr::null(), times, 0),
    }
}

// ---- access(2)

#[cfg_attr(fast_library, unsafe(no_mangle))]
pub extern "C" fn access(path: *const c_char, mode: c_int) -> c_int {
    let arguments = [path.expose_provenance(), int(mode), 0, 0, 0];
    let answered = may_access(AT_FDCWD, path, mode, 0);
    result(answered.unwrap_or_else(|| to_worker(number::ACCESS, arguments)))
}

#[cfg_attr(fast_library, unsafe(no_mangle))]
pub extern "C" fn faccessat(dirfd: c_int, path: *const c_char, mode: c_int, flags: c_int) -> c_int {
    match may_access(dirfd, path, mode, flags) {
        Some(answer) => result(answer),
        // The C library finds a way where the kernel has none.
        None => next::faccessat(dirfd, path, mode, flags),
    }
}

/// `None`: the worker knows better.
fn may_access(dirfd: c_int, path: *const c_char, mode: c_int, flags: c_int) -> Option<Raw> {
    let number = match flags {
        0 => number::FACCESSAT,
        AT_EACCESS => number::FACCESSAT2,
        _ => return None,
    };
    let path = path.expose_provenance();
    let arguments = [int(dirfd), path, int(mode), int(flags), 0];
    by_kernel(number, arguments, |_| true)
}

/// `access` by the effective ids.
#[cfg_attr(fast_library, unsafe(no_mangle))]
pub extern "C" fn eaccess(path: *const c_char, mode: c_int) -> c_int {
    faccessat(AT_FDCWD, path, mode, AT_EACCESS)
}

#[cfg_attr(fast_library, unsafe(no_mangle))]
pub extern "C" fn euidaccess(path: *const c_char, mode: c_int) -> c_int {
    eaccess(path, mode)
}
