//! The only unsafe room: one kernel call per function, no policy.
//!
//! What nix wraps safely is called from there; this file holds the rest. Functions return the
//! kernel's own errno and never interpret it. Paths are C strings: bytes, as the kernel sees them.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use libc::c_long;
use nix::errno::Errno;

mod child;
mod file;
mod memory;
mod mount;
mod process;
mod seccomp;
mod socket;

pub(crate) use child::Child;
pub(crate) use file::*;
pub(crate) use memory::*;
pub(crate) use mount::*;
pub(crate) use process::*;
pub(crate) use seccomp::*;
pub(crate) use socket::*;

fn owned_fd(result: c_long) -> Result<OwnedFd, Errno> {
    let fd = RawFd::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just returned `fd`; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
