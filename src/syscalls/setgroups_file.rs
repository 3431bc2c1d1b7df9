//! open(2) of /proc/self/setgroups (user_namespaces(7)). To the kernel it says "deny" in a
//! namespace with one mapped id; runtimes then leave out the supplementary groups of a container's
//! user. But setgroups(2) is emulated.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use crate::credentials::Access;
use crate::linux::errno_of;
use crate::linux::memfd;
use crate::linux::seccomp::Reply;
use crate::target::{Call, Location};

const PATH: &[u8] = b"/proc/self/setgroups";

/// Opens a file that says "allow". `None`: the call is about another file.
pub(super) fn open(call: &Call, location: &Location, flags: OFlag) -> Result<Option<Reply>, Errno> {
    let is_read = Access::of_open(flags) == Access::READ && !flags.contains(OFlag::O_PATH);
    if location.path.to_bytes() != PATH || !is_read || call.is_nested() {
        return Ok(None);
    }
    let is_in_procfs = call
        .resolve(location)
        .and_then(fstatfs)
        .is_ok_and(|found| found.filesystem_type() == PROC_SUPER_MAGIC);
    if !is_in_procfs {
        return Ok(None);
    }
    let file = memfd::with_contents(c"setgroups", b"allow\n").map_err(errno_of)?;
    let close_on_exec = flags.contains(OFlag::O_CLOEXEC);
    let id = call.notification.id;
    let sent = call
        .listener
        .reply_with_file(id, file.as_fd(), close_on_exec);
    sent.map(Some)
}
