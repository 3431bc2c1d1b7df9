//! The only unsafe code: one kernel call per function, no policy.
//!
//! Only calls that no crate wraps safely are here; for the others the program uses nix. Functions
//! return the kernel's errno and do not interpret it. Paths are C strings.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use libc::c_long;
use nix::errno::Errno;

mod child;
mod file;
mod fork;
mod ipc;
mod memory;
mod mount;
mod process;
mod seccomp;
mod socket;
mod terminal;

pub(crate) use child::Child;
pub(crate) use file::*;
pub(crate) use fork::*;
pub(crate) use ipc::*;
pub(crate) use memory::*;
pub(crate) use mount::*;
pub(crate) use process::*;
pub(crate) use seccomp::*;
pub(crate) use socket::*;
pub(crate) use terminal::*;

/// Takes ownership of the file descriptor that a system call has returned.
fn owned_fd(result: c_long) -> Result<OwnedFd, Errno> {
    let fd = RawFd::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the callers pass the result of a call that has just created `fd`; nothing else owns
    // it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
