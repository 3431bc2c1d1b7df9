//! getuid(2), getgid(2), getresuid(2), getgroups(2), and their variants.
//!
//! Until a process of the container changes its ids, the kernel's ids are right.

use nix::errno::Errno;

use crate::credentials::{EmulatedGid, EmulatedUid, Id, Ids};
use crate::linux::seccomp::Reply;
use crate::target::Call;

pub(super) fn getuid(call: &mut Call) -> Result<Reply, Errno> {
    answer(call, |uid, _| uid.real.as_raw())
}

pub(super) fn geteuid(call: &mut Call) -> Result<Reply, Errno> {
    answer(call, |uid, _| uid.effective.as_raw())
}

pub(super) fn getgid(call: &mut Call) -> Result<Reply, Errno> {
    answer(call, |_, gid| gid.real.as_raw())
}

pub(super) fn getegid(call: &mut Call) -> Result<Reply, Errno> {
    answer(call, |_, gid| gid.effective.as_raw())
}

pub(super) fn getresuid(call: &mut Call) -> Result<Reply, Errno> {
    answer_three(call, |call| Ok(raw(call.ids()?.0)))
}

pub(super) fn getresgid(call: &mut Call) -> Result<Reply, Errno> {
    answer_three(call, |call| Ok(raw(call.ids()?.1)))
}

pub(super) fn getgroups(call: &mut Call) -> Result<Reply, Errno> {
    if call.is_nested() || !call.container.is_joined() {
        // CONTINUE: another user namespace, whose ids are the kernel's; or a runtime, whose memory
        // cannot be written.
        return Ok(Reply::Continue);
    }
    let identities = &call.container.identities;
    // Even if no process has changed ids: the kernel would return the host user's groups.
    let groups = if identities.anyone_changed() {
        call.credentials()?.groups
    } else {
        identities.initial.groups.clone()
    };
    let room = usize::try_from(call.int(0)).map_err(|_| Errno::EINVAL)?;
    if room > 0 {
        if groups.len() > room {
            return Err(Errno::EINVAL);
        }
        let bytes = call.id_bytes(groups.iter().map(|gid| gid.as_raw()));
        call.write(1, &bytes)?;
    }
    let count = i64::try_from(groups.len()).map_err(|_| Errno::EINVAL)?;
    Ok(Reply::Value(count))
}

/// Whether the kernel's own answer is right.
fn is_the_kernels(call: &Call) -> bool {
    !call.container.identities.anyone_changed() || call.is_nested()
}

/// Answers with one id as the value.
fn answer(
    call: &Call,
    pick: impl FnOnce(Ids<EmulatedUid>, Ids<EmulatedGid>) -> u32,
) -> Result<Reply, Errno> {
    if is_the_kernels(call) {
        // CONTINUE: no process has changed ids, or the target is in another user namespace.
        return Ok(Reply::Continue);
    }
    let (uid, gid) = call.ids()?;
    Ok(Reply::Value(call.shown_id(pick(uid, gid)).into()))
}

/// The real, effective and saved id.
fn raw<T: Id>(ids: Ids<T>) -> [u32; 3] {
    [ids.real, ids.effective, ids.saved].map(Id::as_raw)
}

/// Writes three ids to where the first three arguments point.
fn answer_three(
    call: &Call,
    ids: impl FnOnce(&Call) -> Result<[u32; 3], Errno>,
) -> Result<Reply, Errno> {
    if is_the_kernels(call) {
        // CONTINUE: no process has changed ids, or the target is in another user namespace.
        return Ok(Reply::Continue);
    }
    let [real, effective, saved] = ids(call)?.map(|id| call.id_bytes([id]));
    call.write_each([(0, &real[..]), (1, &effective), (2, &saved)])?;
    Ok(Reply::Value(0))
}
