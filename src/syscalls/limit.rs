//! getrlimit(2), setrlimit(2), prlimit(2) of RLIMIT_LOCKS, in which the identity of a process lives.
//!
//! The limit means nothing since Linux 2.4.25. It shows its hard value, and setting it succeeds and does nothing.

use nix::errno::Errno;

use crate::seccomp::Reply;
use crate::sys;
use crate::target::Call;

pub(super) fn getrlimit(call: &mut Call) -> Result<Reply, Errno> {
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
    if let Some(new) = new {
        let mut bytes = [0; 16];
        call.read(new, &mut bytes)?;
        let [soft, max] = [0, 8].map(|start| {
            let bytes = bytes[start..].first_chunk().copied().unwrap_or_default();
            u64::from_ne_bytes(bytes)
        });
        // kernel/sys.c, do_prlimit
        if soft > max {
            return Err(Errno::EINVAL);
        }
        if max > hard {
            return Err(Errno::EPERM);
        }
    }
    if let Some(old) = old {
        call.write(old, &[hard.to_ne_bytes(), hard.to_ne_bytes()].concat())?;
    }
    Ok(Reply::Value(0))
}
