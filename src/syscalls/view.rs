//! Calls after which a target may see another root directory or an overlay, live in another user
//! namespace, or be restricted: chroot(2), pivot_root(2), fsopen(2), setns(2), unshare(2),
//! clone(2), landlock_restrict_self(2), seccomp(2).
//!
//! The kernel executes them. They are rare: until one of them is noticed, no other call needs to
//! check for its effects.

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
    // setns(2): with a type of 0, the fd may be of any namespace; so the type is not even read.
    notice(call, NEW_MOUNTS | NEW_USERS)
}

pub(super) fn unshare(call: &mut Call) -> Result<Reply, Errno> {
    notice(call, call.register(0))
}

pub(super) fn clone(call: &mut Call) -> Result<Reply, Errno> {
    notice(call, call.register(0))
}

pub(super) fn clone3(call: &mut Call) -> Result<Reply, Errno> {
    // The first member of struct clone_args is the flags. If they cannot be read, the kernel cannot
    // read them, either. They may change before the kernel reads them: `Call::is_in_namespace` does
    // not rely on them.
    notice(call, call.read_u64(0).unwrap_or(0))
}

/// fsopen(2): the first step of a mount, which may be an overlay.
pub(super) fn fsopen(call: &mut Call) -> Result<Reply, Errno> {
    call.container.expect_overlays();
    // CONTINUE: the call is only observed.
    Ok(Reply::Continue)
}

/// landlock_restrict_self(2): from now on, the kernel creates the target's files, because the
/// target's rules would not restrict a worker.
pub(super) fn landlock_restrict_self(call: &mut Call) -> Result<Reply, Errno> {
    let identities = &call.container.identities;
    identities.confine(&identities.lock(), call.pid())?;
    // CONTINUE: the call is only observed.
    Ok(Reply::Continue)
}

/// seccomp(2)
pub(super) fn seccomp(call: &mut Call) -> Result<Reply, Errno> {
    match call.unsigned(0) {
        libc::SECCOMP_SET_MODE_STRICT | libc::SECCOMP_SET_MODE_FILTER => filter(call),
        // CONTINUE: a question.
        _ => Ok(Reply::Continue),
    }
}

/// Notes a filter of the target's own, which may forbid the calls of the preloaded library.
pub(super) fn filter(call: &Call) -> Result<Reply, Errno> {
    if let Some(facts) = &call.container.facts {
        facts.expect_filter(call.pid());
        call.turn_library_off();
    }
    // CONTINUE: what the call does is the kernel's business.
    Ok(Reply::Continue)
}

const NEW_MOUNTS: u64 = libc::CLONE_NEWNS.unsigned_abs() as u64;
const NEW_USERS: u64 = libc::CLONE_NEWUSER.unsigned_abs() as u64;

/// Notes which namespaces a call with these CLONE_NEW* flags may change.
fn notice(call: &Call, flags: u64) -> Result<Reply, Errno> {
    if flags & NEW_MOUNTS != 0 {
        call.container.expect_other_views();
    }
    if flags & NEW_USERS != 0 {
        call.container.identities.expect_nested();
    }
    // CONTINUE: the call is only observed.
    Ok(Reply::Continue)
}
