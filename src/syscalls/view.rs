//! Calls after which a target may see another root directory: chroot(2), pivot_root(2), setns(2), unshare(2), clone(2).
//!
//! The kernel runs them. They are rare, and knowing that one has happened keeps every other call from having to ask.

use nix::errno::Errno;

use crate::seccomp::Reply;
use crate::target::Call;

pub(super) fn chroot(call: &mut Call) -> Result<Reply, Errno> {
    notice(call)
}

pub(super) fn pivot_root(call: &mut Call) -> Result<Reply, Errno> {
    notice(call)
}

pub(super) fn setns(call: &mut Call) -> Result<Reply, Errno> {
    notice(call)
}

pub(super) fn unshare(call: &mut Call) -> Result<Reply, Errno> {
    notice(call)
}

pub(super) fn clone(call: &mut Call) -> Result<Reply, Errno> {
    notice(call)
}

pub(super) fn clone3(call: &mut Call) -> Result<Reply, Errno> {
    // The first member of struct clone_args. What cannot be read the kernel cannot read either.
    let flags = call.read_u64(0).unwrap_or(0);
    if flags & u64::from(libc::CLONE_NEWNS.unsigned_abs()) != 0 {
        return notice(call);
    }
    // CONTINUE: an ordinary new process or thread.
    Ok(Reply::Continue)
}

fn notice(call: &Call) -> Result<Reply, Errno> {
    call.container.expect_other_views();
    // CONTINUE: what the call does is the kernel's business.
    Ok(Reply::Continue)
}
