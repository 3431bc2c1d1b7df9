//! ptrace(2), process_vm_readv(2), process_vm_writev(2), pidfd_getfd(2): who may look into another
//! process.

use nix::errno::Errno;

use crate::credentials::Act;
use crate::linux::seccomp::Reply;
use crate::target::Call;

pub(super) fn ptrace(call: &mut Call) -> Result<Reply, Errno> {
    let request = call.register(0);
    let is_attach = request == u64::from(libc::PTRACE_ATTACH);
    // kernel/ptrace.c, ptrace_attach: an address, or unknown options, are EIO.
    let is_seize = request == u64::from(libc::PTRACE_SEIZE) && call.register(2) == 0;
    if !is_attach && !is_seize {
        // CONTINUE: another operation, or EIO.
        return Ok(Reply::Continue);
    }
    check(call, |call| call.thread_named(1))
}

pub(super) fn process_vm_readv(call: &mut Call) -> Result<Reply, Errno> {
    copy(call)
}

pub(super) fn process_vm_writev(call: &mut Call) -> Result<Reply, Errno> {
    copy(call)
}

/// mm/process_vm_access.c, process_vm_rw: the process is looked at after the arguments.
fn copy(call: &Call) -> Result<Reply, Errno> {
    /// UIO_MAXIOV
    const MOST: u64 = 1024;
    let is_sane = |count: u64| (1..=MOST).contains(&count);
    if !is_sane(call.register(2)) || !is_sane(call.register(4)) || call.register(5) != 0 {
        // CONTINUE: EINVAL, or nothing to copy.
        return Ok(Reply::Continue);
    }
    check(call, |call| call.thread_named(0))
}

pub(super) fn pidfd_getfd(call: &mut Call) -> Result<Reply, Errno> {
    if call.unsigned(2) != 0 {
        // CONTINUE: EINVAL.
        return Ok(Reply::Continue);
    }
    check(call, |call| call.process_of_pidfd(call.int(0)))
}

fn check(call: &Call, find: impl FnOnce(&Call) -> Option<u32>) -> Result<Reply, Errno> {
    let Some(actor) = call.actor(Act::Trace)? else {
        // CONTINUE: the kernel decides.
        return Ok(Reply::Continue);
    };
    match find(call) {
        Some(pid) if !call.may_do(&actor, Act::Trace, pid) => Err(Errno::EPERM),
        // CONTINUE: the target may; or EBADF, or ESRCH.
        _ => Ok(Reply::Continue),
    }
}
