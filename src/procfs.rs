//! Names in the host's procfs. Pure.
//!
//! A worker keeps the procfs of the pid namespace that it was born in as the working directory of every service
//! thread, so these names are relative: in the container's own procfs a worker has no pid. A name never goes on
//! *through* a directory of the host's procfs with bytes that a target chose: only behind a magic link, which has left it.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd};

/// `self/fd/N`: one of our own files, as a path for calls that refuse O_PATH fds.
pub(crate) fn own_fd(fd: BorrowedFd) -> CString {
    c_string(format!("self/fd/{}", fd.as_raw_fd()).into_bytes())
}

/// `self/WHAT`
pub(crate) fn own(what: &str) -> CString {
    c_string(format!("self/{what}").into_bytes())
}

/// `PID/fd/N`: a file of the target.
pub(crate) fn target_fd(pid: u32, fd: i32) -> CString {
    c_string(format!("{pid}/fd/{fd}").into_bytes())
}

/// `PID/WHAT`
pub(crate) fn target(pid: u32, what: &str) -> CString {
    c_string(format!("{pid}/{what}").into_bytes())
}

/// `LINK/REST`, where `link` is a magic link that the kernel jumps through.
pub(crate) fn behind(link: &CStr, rest: &CStr) -> CString {
    let mut bytes = Vec::with_capacity(link.to_bytes().len() + rest.to_bytes().len() + 2);
    bytes.extend(link.to_bytes());
    bytes.push(b'/');
    bytes.extend(rest.to_bytes());
    c_string(bytes)
}

fn c_string(bytes: Vec<u8>) -> CString {
    // Numbers, literals and other C strings: there is no NUL to be found.
    CString::new(bytes).unwrap_or_default()
}
