//! getrlimit(2), setrlimit(2), prlimit(2) of RLIMIT_LOCKS, in which the identity of a process
//! lives.
//!
//! The limit means nothing since Linux 2.4.25. It shows its hard value, and setting it succeeds and
//! does nothing.

use nix::errno::Errno;

use crate::linux::seccomp::Reply;
use crate::linux::sys;
use crate::target::{Abi, Call};

pub(super) fn getrlimit(call: &mut Call) -> Result<Reply, Errno> {
    answer(call, 0, None, Some(1))
}

/// getrlimit(2) of i386, which once had a smaller infinity.
pub(super) fn ugetrlimit(call: &mut Call) -> Result<Reply, Errno> {
    answer(call, 0, None, Some(1))
}

pub(super) fn setrlimit(call: &mut Call) -> Result<Reply, Errno> {
    answer(call, 0, Some(1), None)
}

pub(super) fn prlimit64(call: &mut Call) -> Result<Reply, Errno> {
    let given = |index: usize| Some(index).filter(|index| call.register(*index) != 0);
    let (new, old) = (given(2), given(3));
    answer(call, 1, new, old)
}

/// All are argument numbers.
fn answer(
    call: &Call,
    resource: usize,
    new: Option<usize>,
    old: Option<usize>,
) -> Result<Reply, Errno> {
    if call.unsigned(resource) != libc::RLIMIT_LOCKS {
        // CONTINUE: a limit that means what it says.
        return Ok(Reply::Continue);
    }
    let (_, hard) = sys::lock_limit(call.pid())?;
    // prlimit64 has the same structure everywhere.
    let is_short = call.abi != Abi::Native && resource == 0;
    if let Some(new) = new {
        let [soft, max] = read_limit(call, new, is_short)?;
        // kernel/sys.c, do_prlimit
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

/// Soft and hard; COMPAT_RLIM_INFINITY is infinity.
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
