//! getrlimit(2), setrlimit(2), prlimit(2) for RLIMIT_LOCKS, which holds the cookie of a process;
//! prlimit(2) of another process.
//!
//! The limit has had no effect since Linux 2.4.25. For a target, the soft limit equals the hard
//! one; new values are checked as in the kernel, and change nothing.

use nix::errno::Errno;

use crate::credentials::Act;
use crate::linux::seccomp::Reply;
use crate::linux::sys;
use crate::target::{Abi, Call};

pub(super) fn getrlimit(call: &mut Call) -> Result<Reply, Errno> {
    answer(call, call.pid(), 0, None, Some(1))
}

/// getrlimit(2) of newer 32-bit programs; the older one had a smaller RLIM_INFINITY.
pub(super) fn ugetrlimit(call: &mut Call) -> Result<Reply, Errno> {
    answer(call, call.pid(), 0, None, Some(1))
}

pub(super) fn setrlimit(call: &mut Call) -> Result<Reply, Errno> {
    answer(call, call.pid(), 0, Some(1), None)
}

pub(super) fn prlimit64(call: &mut Call) -> Result<Reply, Errno> {
    let given = |index: usize| Some(index).filter(|index| call.register(*index) != 0);
    let (new, old) = (given(2), given(3));
    let is_of_locks = call.unsigned(1) == libc::RLIMIT_LOCKS;
    let actor = call.actor(Act::Limit)?;
    if actor.is_none() && !is_of_locks {
        // CONTINUE: the kernel decides.
        return Ok(Reply::Continue);
    }
    if let Some(new) = new {
        // kernel/sys.c: EFAULT comes before the process is looked for.
        read_limit(call, new, false)?;
    }
    let Some(tid) = call.thread_named(0) else {
        // CONTINUE: ESRCH.
        return Ok(Reply::Continue);
    };
    if actor.is_some_and(|actor| !call.may_do(&actor, Act::Limit, tid)) {
        return Err(Errno::EPERM);
    }
    if is_of_locks && tid != call.pid() && call.credentials_at(tid).is_none() {
        // CONTINUE: a process outside of the container, whose limit carries no identity.
        return Ok(Reply::Continue);
    }
    answer(call, tid, 1, new, old)
}

/// Answers a call about the thread `tid`; `resource`, `new` and `old` are argument numbers.
fn answer(
    call: &Call,
    tid: u32,
    resource: usize,
    new: Option<usize>,
    old: Option<usize>,
) -> Result<Reply, Errno> {
    if call.unsigned(resource) != libc::RLIMIT_LOCKS {
        // CONTINUE: a limit that is not emulated.
        return Ok(Reply::Continue);
    }
    let (_, hard) = sys::lock_limit(tid)?;
    // prlimit64 (whose resource is argument 1) has the same structure on all architectures.
    let is_short = call.abi != Abi::Native && resource == 0;
    if let Some(new) = new {
        let [soft, max] = read_limit(call, new, is_short)?;
        // kernel/sys.c, do_prlimit: EINVAL, then EPERM.
        if soft > max {
            return Err(Errno::EINVAL);
        }
        if max > hard {
            return Err(Errno::EPERM);
        }
    }
    if let Some(old) = old {
        let bytes = match is_short {
            true => u32::try_from(hard)
                .unwrap_or(u32::MAX)
                .to_ne_bytes()
                .repeat(2),
            false => hard.to_ne_bytes().repeat(2),
        };
        call.write(old, &bytes)?;
    }
    Ok(Reply::Value(0))
}

/// Reads a soft and a hard limit. In the 32-bit structure, COMPAT_RLIM_INFINITY (u32::MAX) stands
/// for RLIM_INFINITY.
fn read_limit(call: &Call, index: usize, is_short: bool) -> Result<[u64; 2], Errno> {
    let mut bytes = [0; 16];
    if is_short {
        call.read(index, &mut bytes[..8])?;
        let [a, b, c, d, e, f, g, h, ..] = bytes;
        return Ok(
            [[a, b, c, d], [e, f, g, h]].map(|limit| match u32::from_ne_bytes(limit) {
                u32::MAX => u64::MAX,
                limit => limit.into(),
            }),
        );
    }
    call.read(index, &mut bytes)?;
    Ok([0, 8].map(|start| {
        let bytes = bytes[start..].first_chunk().copied().unwrap_or_default();
        u64::from_ne_bytes(bytes)
    }))
}
