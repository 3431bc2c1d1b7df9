//! Calls after which a target may see another root directory or an overlay, live in another user
//! namespace, or be restricted: chroot(2), pivot_root(2), fsopen(2), setns(2), unshare(2),
//! clone(2), landlock_restrict_self(2).
//!
//! The kernel runs them. They are rare, and knowing that one has happened keeps every other call
//! from having to ask.

use nix::errno::Errno;

use crate::linux::seccomp::Reply;
use crate::target::Call;

pub(super) fn chroot(call: &mut Call) -> Result<Reply, Errno> {
    notice(call, NEW_MOUNTS)
}

pub(super) fn pivot_root(call: &mut Call) -> Result<Reply, Errno> {
    notice(call, NEW_MOUNTS)
}

pub(super) fn setns(call: &mut Call) -> Result<Reply, Errno> {
    // setns(2): no type stands for any.
    notice(call, NEW_MOUNTS | NEW_USERS)
}

pub(super) fn unshare(call: &mut Call) -> Result<Reply, Errno> {
    notice(call, call.register(0))
}

pub(super) fn clone(call: &mut Call) -> Result<Reply, Errno> {
    notice(call, call.register(0))
}

pub(super) fn clone3(call: &mut Call) -> Result<Reply, Errno> {
    // The first member of struct clone_args. What cannot be read the kernel cannot read either.
    notice(call, call.read_u64(0).unwrap_or(0))
}

/// fsopen(2): the first step to a mount, perhaps of an overlay.
pub(super) fn fsopen(call: &mut Call) -> Result<Reply, Errno> {
    call.container.expect_overlays();
    // CONTINUE: what the call does is the kernel's business.
    Ok(Reply::Continue)
}

/// landlock_restrict_self(2): from now on the kernel creates files for the target, since a worker
/// would do it in spite of the rules.
pub(super) fn landlock_restrict_self(call: &mut Call) -> Result<Reply, Errno> {
    let identities = &call.container.identities;
    identities.confine(&identities.lock(), call.pid())?;
    // CONTINUE: what the call does is the kernel's business.
    Ok(Reply::Continue)
}

const NEW_MOUNTS: u64 = libc::CLONE_NEWNS.unsigned_abs() as u64;
const NEW_USERS: u64 = libc::CLONE_NEWUSER.unsigned_abs() as u64;

fn notice(call: &Call, flags: u64) -> Result<Reply, Errno> {
    if flags & NEW_MOUNTS != 0 {
        call.container.expect_other_views();
    }
    if flags & NEW_USERS != 0 {
        call.container.identities.expect_nested();
    }
    // CONTINUE: what the call does is the kernel's business.
    Ok(Reply::Continue)
}
