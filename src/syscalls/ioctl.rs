//! ioctl(2): of terminals, and of pidfds.

use nix::errno::Errno;

use super::{pidfd, terminal};
use crate::linux::seccomp::Reply;
use crate::target::Call;

/// Type and number of PIDFD_GET_INFO (linux/pidfd.h).
pub(super) const PIDFD_GET_INFO: u32 = 0xff0b;

pub(super) fn ioctl(call: &mut Call) -> Result<Reply, Errno> {
    match call.unsigned(1) & 0xffff {
        PIDFD_GET_INFO => pidfd::get_info(call),
        _ => terminal::ioctl(call),
    }
}
