//! setuid(2), setgid(2), setreuid(2), setresuid(2), setfsuid(2), setfsgid(2), setgroups(2), and
//! their variants.
//!
//! The kernel's own ids of the target never change: its user namespace maps one id only.

use nix::errno::Errno;

use crate::credentials::{Change, EmulatedGid, Id, MAX_GROUPS};
use crate::linux::seccomp::Reply;
use crate::target::Call;

pub(super) fn setuid(call: &mut Call) -> Result<Reply, Errno> {
    let uid = call.uid(0).ok_or(Errno::EINVAL)?;
    change(call, |credentials| credentials.setuid(uid))
}

pub(super) fn setgid(call: &mut Call) -> Result<Reply, Errno> {
    let gid = call.gid(0).ok_or(Errno::EINVAL)?;
    change(call, |credentials| credentials.setgid(gid))
}

pub(super) fn setreuid(call: &mut Call) -> Result<Reply, Errno> {
    let (real, effective) = (call.uid(0), call.uid(1));
    change(call, |credentials| credentials.setreuid(real, effective))
}

pub(super) fn setregid(call: &mut Call) -> Result<Reply, Errno> {
    let (real, effective) = (call.gid(0), call.gid(1));
    change(call, |credentials| credentials.setregid(real, effective))
}

pub(super) fn setresuid(call: &mut Call) -> Result<Reply, Errno> {
    let ids = [call.uid(0), call.uid(1), call.uid(2)];
    change(call, |credentials| credentials.setresuid(ids))
}

pub(super) fn setresgid(call: &mut Call) -> Result<Reply, Errno> {
    let ids = [call.gid(0), call.gid(1), call.gid(2)];
    change(call, |credentials| credentials.setresgid(ids))
}

pub(super) fn setfsuid(call: &mut Call) -> Result<Reply, Errno> {
    let uid = call.uid(0);
    change_and_tell(call, |credentials| Ok(credentials.setfsuid(uid).as_raw()))
}

pub(super) fn setfsgid(call: &mut Call) -> Result<Reply, Errno> {
    let gid = call.gid(0);
    change_and_tell(call, |credentials| Ok(credentials.setfsgid(gid).as_raw()))
}

pub(super) fn setgroups(call: &mut Call) -> Result<Reply, Errno> {
    let wanted = call.unsigned(0) as usize;
    let read = || -> Result<Vec<EmulatedGid>, Errno> {
        let size = call.id_size();
        let mut bytes = vec![0; wanted * size];
        call.read(1, &mut bytes)?;
        let ids = bytes.chunks_exact(size).map(|id| match *id {
            [a, b] => low_to_high(u16::from_ne_bytes([a, b])),
            [a, b, c, d] => u32::from_ne_bytes([a, b, c, d]),
            _ => u32::MAX,
        });
        // kernel/groups.c, groups_from_user: −1 is EINVAL.
        ids.map(|id| EmulatedGid::new(id).ok_or(Errno::EINVAL))
            .collect()
    };
    // kernel/groups.c, SYSCALL_DEFINE2(setgroups): EPERM, then EINVAL, then EFAULT. So the list is
    // read last.
    change(call, |credentials| {
        if !credentials.may_set_groups() {
            return Err(Errno::EPERM);
        }
        if wanted > MAX_GROUPS {
            return Err(Errno::EINVAL);
        }
        credentials.setgroups(read()?);
        Ok(())
    })
}

/// linux/highuid.h, low2highgid: a 16-bit −1 is −1.
fn low_to_high(id: u16) -> u32 {
    if id == u16::MAX { u32::MAX } else { id.into() }
}

fn change(
    call: &Call,
    change: impl FnOnce(&mut Change) -> Result<(), Errno>,
) -> Result<Reply, Errno> {
    change_and_tell(call, |credentials| change(credentials).map(|()| 0))
}

/// As `change`, for calls that return a value: setfsuid(2) returns the previous id.
fn change_and_tell(
    call: &Call,
    change: impl FnOnce(&mut Change) -> Result<u32, Errno>,
) -> Result<Reply, Errno> {
    if call.is_nested() {
        // CONTINUE: another user namespace, whose ids are the kernel's.
        return Ok(Reply::Continue);
    }
    let value = call.change_credentials(change)?;
    Ok(Reply::Value(call.shown_id(value).into()))
}
