//! The same calls by functions of the C library, which a preloaded library may replace.

#![expect(
    clippy::multiple_unsafe_ops_per_block,
    reason = "one of many functions is called, with the same arguments"
)]

use std::ffi::{c_char, c_int, c_void};
use std::sync::atomic::{AtomicU64, Ordering};

use libc::c_long;

use super::calls::number;

/// Of a hundred calls, as many are made by functions.
static SHARE: AtomicU64 = AtomicU64::new(0);
static CALLS: AtomicU64 = AtomicU64::new(0);

/// Lets so many of a hundred calls be made by functions, `u64::MAX` of them all.
pub(crate) fn make_by_functions(share: u64) {
    SHARE.store(share, Ordering::Relaxed);
}

/// The function's value, with errno, or `None`: it is a system call's turn, or no function makes
/// exactly this call.
///
/// # Safety
///
/// As for the system call.
pub(super) unsafe fn by_function(number: c_long, words: [i64; 6]) -> Option<i64> {
    let share = SHARE.load(Ordering::Relaxed);
    if share == 0 || !is_turn(share) {
        return None;
    }
    // SAFETY: the caller's promise; the functions pass on what they get.
    unsafe {
        by_two(number, words)
            .or_else(|| by_path(number, words))
            .or_else(|| by_directory(number, words))
            .or_else(|| by_ids(number, words))
    }
}

/// The same sequence in each run of a seed, as far as threads make calls one after the other.
fn is_turn(share: u64) -> bool {
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    call.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 & 0x7f < share.saturating_mul(128) / 100
}

fn int(word: i64) -> c_int {
    c_int::from_ne_bytes(
        word.to_ne_bytes()
            .first_chunk()
            .copied()
            .unwrap_or_default(),
    )
}

fn id(word: i64) -> u32 {
    int(word).cast_unsigned()
}

fn text(word: i64) -> *const c_char {
    buffer::<c_char>(word).cast_const()
}

fn buffer<T>(word: i64) -> *mut T {
    let address = usize::try_from(word.cast_unsigned());
    std::ptr::with_exposed_provenance_mut(address.expect("registers have 64 bits"))
}

unsafe fn by_two(number: c_long, [a, b, c, d, ..]: [i64; 6]) -> Option<i64> {
    // SAFETY: the caller's promise.
    Some(i64::from(unsafe {
        match number {
            libc::SYS_fstat => libc::fstat(int(a), buffer(b)),
            libc::SYS_fchown => libc::fchown(int(a), id(b), id(c)),
            libc::SYS_fchmod => libc::fchmod(int(a), id(b)),
            libc::SYS_chdir => libc::chdir(text(a)),
            libc::SYS_fchdir => libc::fchdir(int(a)),
            libc::SYS_truncate => libc::truncate(text(a), b),
            libc::SYS_connect => libc::connect(int(a), buffer::<libc::sockaddr>(b), id(c)),
            libc::SYS_getgroups => libc::getgroups(int(a), buffer(b)),
            libc::SYS_getresuid => libc::getresuid(buffer(a), buffer(b), buffer(c)),
            libc::SYS_getresgid => libc::getresgid(buffer(a), buffer(b), buffer(c)),
            libc::SYS_semop => libc::semop(int(a), buffer(b), usize::try_from(c).ok()?),
            libc::SYS_utimensat if b == 0 && d == 0 && int(a) >= 0 => {
                libc::futimens(int(a), buffer::<libc::timespec>(c))
            }
            _ => return None,
        }
    }))
}

unsafe fn by_path(number: c_long, [a, b, c, ..]: [i64; 6]) -> Option<i64> {
    // SAFETY: the caller's promise.
    Some(i64::from(unsafe {
        match number {
            number::STAT => libc::stat(text(a), buffer(b)),
            number::LSTAT => libc::lstat(text(a), buffer(b)),
            number::CHOWN => libc::chown(text(a), id(b), id(c)),
            number::LCHOWN => libc::lchown(text(a), id(b), id(c)),
            number::OPEN => libc::open(text(a), int(b), id(c)),
            number::CREAT => libc::creat(text(a), id(b)),
            number::MKDIR => libc::mkdir(text(a), id(b)),
            number::SYMLINK => libc::symlink(text(a), text(b)),
            number::MKNOD if is_fifo(b) && c == 0 => libc::mkfifo(text(a), id(b) & 0o7777),
            number::CHMOD => libc::chmod(text(a), id(b)),
            number::ACCESS => libc::access(text(a), int(b)),
            _ => return None,
        }
    }))
}

fn is_fifo(mode: i64) -> bool {
    id(mode) & libc::S_IFMT == libc::S_IFIFO && id(mode) & !(libc::S_IFMT | 0o7777) == 0
}

unsafe fn by_directory(number: c_long, [a, b, c, d, e, _]: [i64; 6]) -> Option<i64> {
    // SAFETY: the caller's promise.
    Some(i64::from(unsafe {
        match number {
            libc::SYS_newfstatat => libc::fstatat(int(a), text(b), buffer(c), int(d)),
            libc::SYS_statx => libc::statx(int(a), text(b), int(c), id(d), buffer(e)),
            libc::SYS_fchownat => libc::fchownat(int(a), text(b), id(c), id(d), int(e)),
            libc::SYS_openat => libc::openat(int(a), text(b), int(c), id(d)),
            libc::SYS_mkdirat => libc::mkdirat(int(a), text(b), id(c)),
            libc::SYS_symlinkat => libc::symlinkat(text(a), int(b), text(c)),
            libc::SYS_mknodat if is_fifo(c) && d == 0 => {
                libc::mkfifoat(int(a), text(b), id(c) & 0o7777)
            }
            libc::SYS_fchmodat => libc::fchmodat(int(a), text(b), id(c), 0),
            libc::SYS_unlinkat => libc::unlinkat(int(a), text(b), int(c)),
            libc::SYS_renameat2 => libc::renameat2(int(a), text(b), int(c), text(d), id(e)),
            libc::SYS_linkat => libc::linkat(int(a), text(b), int(c), text(d), int(e)),
            libc::SYS_utimensat if b != 0 => {
                libc::utimensat(int(a), text(b), buffer::<libc::timespec>(c), int(d))
            }
            libc::SYS_faccessat => libc::faccessat(int(a), text(b), int(c), 0),
            libc::SYS_faccessat2 if int(d) == libc::AT_EACCESS => {
                libc::faccessat(int(a), text(b), int(c), int(d))
            }
            _ => return None,
        }
    }))
}

unsafe fn by_ids(number: c_long, [a, b, c, d, e, _]: [i64; 6]) -> Option<i64> {
    // SAFETY: the caller's promise.
    Some(unsafe {
        match number {
            libc::SYS_getuid => libc::getuid().into(),
            libc::SYS_geteuid => libc::geteuid().into(),
            libc::SYS_getgid => libc::getgid().into(),
            libc::SYS_getegid => libc::getegid().into(),
            libc::SYS_setxattr => {
                let size = usize::try_from(d).ok()?;
                let value = buffer::<c_void>(c);
                libc::setxattr(text(a), text(b), value, size, int(e)).into()
            }
            libc::SYS_fsetxattr => {
                let size = usize::try_from(d).ok()?;
                libc::fsetxattr(int(a), text(b), buffer::<c_void>(c), size, int(e)).into()
            }
            libc::SYS_removexattr => libc::removexattr(text(a), text(b)).into(),
            libc::SYS_readlinkat => {
                let size = usize::try_from(d).ok()?;
                libc::readlinkat(int(a), text(b), buffer(c), size) as i64
            }
            libc::SYS_getxattr => {
                let size = usize::try_from(d).ok()?;
                libc::getxattr(text(a), text(b), buffer::<c_void>(c), size) as i64
            }
            _ => return None,
        }
    })
}
