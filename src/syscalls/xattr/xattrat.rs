//! getxattrat(2), listxattrat(2), setxattrat(2), removexattrat(2) (Linux 6.13): the calls of
//! xattr(7) with a dirfd and flags.

use nix::errno::Errno;

use super::change::change;
use super::read::{get, list};
use super::{Asked, Change};
use crate::linux::page_size;
use crate::linux::seccomp::Reply;
use crate::syscalls::permission::FileArgument;
use crate::target::Call;

/// Reads `struct xattr_args`; `None` if that fails, or if the kernel refuses it.
fn asked(call: &Call) -> Option<Asked> {
    /// struct xattr_args: the value's address, its size, flags.
    const KNOWN: usize = 16;
    let named = FileArgument::of_newer(call, 2)?;
    let size = usize::try_from(call.register(5)).ok()?;
    if size < KNOWN || size as u64 > page_size() {
        return None;
    }
    let mut bytes = vec![0; size];
    call.read(4, &mut bytes).ok()?;
    let (known, unknown) = bytes.split_at(KNOWN);
    if unknown.iter().any(|byte| *byte != 0) {
        return None;
    }
    let (value, rest) = known.split_first_chunk()?;
    let (size, rest) = rest.split_first_chunk()?;
    let flags = rest.first_chunk()?;
    Some(Asked {
        named,
        name: 3,
        value: u64::from_ne_bytes(*value),
        size: u32::from_ne_bytes(*size).into(),
        flags: i32::from_ne_bytes(*flags),
    })
}

pub(in crate::syscalls) fn getxattrat(call: &mut Call) -> Result<Reply, Errno> {
    match asked(call) {
        Some(asked) if asked.flags == 0 => get(call, &asked),
        // CONTINUE: EINVAL, E2BIG or a bad pointer.
        _ => Ok(Reply::Continue),
    }
}

pub(in crate::syscalls) fn setxattrat(call: &mut Call) -> Result<Reply, Errno> {
    match asked(call) {
        Some(asked) => change(call, &asked, Change::Set),
        // CONTINUE: EINVAL, E2BIG or a bad pointer.
        None => Ok(Reply::Continue),
    }
}

pub(in crate::syscalls) fn listxattrat(call: &mut Call) -> Result<Reply, Errno> {
    let Some(named) = FileArgument::of_newer(call, 2) else {
        // CONTINUE: EINVAL.
        return Ok(Reply::Continue);
    };
    let asked = Asked {
        named,
        name: 3,
        value: call.register(3),
        size: call.register(4),
        flags: 0,
    };
    list(call, &asked)
}

pub(in crate::syscalls) fn removexattrat(call: &mut Call) -> Result<Reply, Errno> {
    let Some(named) = FileArgument::of_newer(call, 2) else {
        // CONTINUE: EINVAL.
        return Ok(Reply::Continue);
    };
    let asked = Asked {
        named,
        name: 3,
        value: 0,
        size: 0,
        flags: 0,
    };
    change(call, &asked, Change::Remove)
}
