//! Names in the host's procfs. Pure.
//!
//! A worker keeps the procfs of the pid namespace that it was born in as the working directory of every service
//! thread, so these names are relative: in the container's own procfs a worker has no pid. A name never goes on
//! *through* a directory of the host's procfs with bytes that a target chose: only behind a magic link, which has left it.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::name::Name;

/// `self/fd/N`: one of our own files, as a path for calls that refuse O_PATH fds.
pub(crate) fn own_fd(fd: BorrowedFd) -> Name {
    Name::format(format_args!("self/fd/{}", fd.as_raw_fd()))
}

/// `self/WHAT`
pub(crate) fn own(what: &str) -> Name {
    Name::format(format_args!("self/{what}"))
}

/// `PID/fd/N`: a file of the target.
pub(crate) fn target_fd(pid: u32, fd: i32) -> Name {
    Name::format(format_args!("{pid}/fd/{fd}"))
}

/// `PID/WHAT`
pub(crate) fn target(pid: u32, what: &str) -> Name {
    Name::format(format_args!("{pid}/{what}"))
}
