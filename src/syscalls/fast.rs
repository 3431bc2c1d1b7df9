//! The calls that the preloaded library makes itself (the crate `subuidless_fast`), and the one
//! with which it asks whether it may.

use std::os::fd::AsFd;

use nix::errno::Errno;
use subuidless_fast::facts::{HELLO, MAGIC, MAGIC_ABOVE_INT};

use crate::linux::seccomp::Reply;
use crate::target::{Abi, Call};
use crate::wire::facts::Facts;

/// The functions of libc that the library replaces, by the call that it makes for them.
pub(super) const NEWFSTATAT: &[&str] = &[
    "stat",
    "stat64",
    "lstat",
    "lstat64",
    "fstatat",
    "fstatat64",
    "__xstat",
    "__xstat64",
    "__lxstat",
    "__lxstat64",
    "__fxstatat",
    "__fxstatat64",
];
pub(super) const FSTAT: &[&str] = &["fstat", "fstat64", "__fxstat", "__fxstat64"];
pub(super) const STATX: &[&str] = &["statx"];
pub(super) const GETXATTR: &[&str] = &["getxattr"];
pub(super) const LGETXATTR: &[&str] = &["lgetxattr"];
pub(super) const FGETXATTR: &[&str] = &["fgetxattr"];
pub(super) const LISTXATTR: &[&str] = &["listxattr"];
pub(super) const LLISTXATTR: &[&str] = &["llistxattr"];
pub(super) const FLISTXATTR: &[&str] = &["flistxattr"];
/// Replaces no function: the library reads owners with this call.
pub(super) const HELPER: &[&str] = &[];

/// The answer to a call that only the library makes. `None`: the call is one like any other.
pub(crate) fn answer(call: &Call) -> Option<Result<Reply, Errno>> {
    let facts = call.container.facts.as_ref()?;
    if call.register(5) == HELLO {
        return Some(introduce(call, facts));
    }
    let is_marked =
        call.register(5) == MAGIC || call.register(0) >> u32::BITS == MAGIC_ABOVE_INT >> u32::BITS;
    // The filter should have allowed the call, so the profile is not ours. The library would take
    // an emulated answer for the kernel's.
    is_marked.then_some(Err(Errno::ENOSYS))
}

/// Gives the library in the target the page of facts, if it may answer calls at all.
fn introduce(call: &Call, facts: &Facts) -> Result<Reply, Errno> {
    let container = call.container;
    if call.abi != Abi::Native || !container.is_joined() || call.is_nested() {
        return Err(Errno::ENOSYS);
    }
    container.publish();
    // Read before the check: a filter that is loaded from now on changes the number.
    let filters = facts.filters();
    if facts.is_filtered(call.pid())? {
        return Err(Errno::ENOSYS);
    }
    let mut words = [0; 16];
    call.read(1, &mut words)?;
    call.write(1, &filters.to_ne_bytes())?;
    let is_mapped = words[8..] != [0; 8];
    match is_mapped {
        true => Ok(Reply::Value(0)),
        false => call
            .listener
            .reply_with_file(call.notification.id, facts.as_fd(), true),
    }
}
