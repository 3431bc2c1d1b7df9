//! fsconfig(2) and fsmount(2) with a `uid` or `gid` that the user namespace does not map, as
//! [`mount`](super::mount): the option gets a mapped id instead, and the worker remembers the
//! owner, and makes and attaches the mount.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::Mode;

use super::owned::made_for;
use super::{check, inside, is_made_by_workers, is_out_of_reach};
use crate::credentials::{EmulatedGid, EmulatedUid, Id as _};
use crate::linux::name::Name;
use crate::linux::seccomp::Reply;
use crate::linux::sys;
use crate::owner::Owner;
use crate::target::{Call, Location};

pub(crate) fn fsconfig(call: &mut Call) -> Result<Reply, Errno> {
    const FSCONFIG_SET_STRING: u32 = 1;
    const FSCONFIG_CMD_CREATE: u32 = 6;
    match call.unsigned(1) {
        FSCONFIG_SET_STRING => set_string(call),
        FSCONFIG_CMD_CREATE.. => check(call),
        // CONTINUE: the file system is not made yet, and these values are no ids.
        _ => Ok(Reply::Continue),
    }
}

fn set_string(call: &mut Call) -> Result<Reply, Errno> {
    let Some(owner) = foreign(call) else {
        // CONTINUE: another option, or an id that the kernel knows.
        return Ok(Reply::Continue);
    };
    let Some(mapped) = call.container.mapped_uids.first() else {
        // CONTINUE: EINVAL, for no id is mapped.
        return Ok(Reply::Continue);
    };
    if is_out_of_reach(call)? {
        // CONTINUE: EINVAL, because of the id.
        return Ok(Reply::Continue);
    }
    let Ok(context) = call.duplicate(call.int(0)) else {
        // CONTINUE: EBADF.
        return Ok(Reply::Continue);
    };
    let mapped = Name::new(mapped.to_string().into_bytes());
    // Fails if the file system does not have the option, or is already made.
    let key = call.path(2)?;
    sys::fsconfig_set(context.as_fd(), key.as_c_str(), Some(mapped.as_c_str()))?;
    call.container.contexts.add(context, owner)?;
    Ok(Reply::Value(0))
}

/// The owner that the option names, if the kernel does not know it.
fn foreign(call: &Call) -> Option<Owner> {
    let key = call.path(2).ok()?;
    let value = call.path(3).ok()?;
    let id = value.as_c_str().to_str().ok()?.parse().ok()?;
    let mut owner = Owner::default();
    match key.as_c_str().to_bytes() {
        b"uid" => owner.uid = EmulatedUid::new(id),
        b"gid" => owner.gid = EmulatedGid::new(id),
        _ => return None,
    }
    (!call.container.is_mapped(id) && !owner.is_unset()).then_some(owner)
}

pub(crate) fn fsmount(call: &mut Call) -> Result<Reply, Errno> {
    const FSMOUNT_CLOEXEC: u32 = 1;
    let reply = check(call)?;
    if call.container.contexts.is_empty() || !is_made_by_workers(call)? {
        return Ok(reply);
    }
    let Ok(context) = call.duplicate(call.int(0)) else {
        // CONTINUE: EBADF.
        return Ok(Reply::Continue);
    };
    let Some(owner) = call.container.contexts.take(context.as_fd())? else {
        return Ok(reply);
    };
    let (flags, attributes) = (call.unsigned(1), call.unsigned(2));
    if flags & !FSMOUNT_CLOEXEC != 0 {
        return Err(Errno::EINVAL);
    }
    let made = inside(call, || made_for(call, context.as_fd(), attributes, owner))?;
    // Not the descriptor itself: one with O_PATH cannot be passed on (kernel/seccomp.c, ADDFD).
    let root = openat(
        &made,
        c".",
        OFlag::O_RDONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    let number = mount_of(root.as_fd())?;
    let reply = call
        .listener
        .reply_with_file(call.notification.id, root.as_fd(), flags != 0)?;
    call.container.contexts.keep(number, made);
    Ok(reply)
}

/// Attaches a mount that a worker has made, which lasts as long as that has a descriptor of it.
pub(super) fn attach(call: &mut Call) -> Result<Option<Reply>, Errno> {
    const MOVE_MOUNT_F_EMPTY_PATH: u32 = 0x4;
    const MOVE_MOUNT_T_SYMLINKS: u32 = 0x10;
    const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;
    let flags = call.unsigned(4);
    let may_be = flags & MOVE_MOUNT_F_EMPTY_PATH != 0 && !call.container.contexts.is_empty();
    if !may_be || call.path(1).is_ok_and(|path| !path.as_c_str().is_empty()) {
        return Ok(None);
    }
    let Some(made) = call
        .duplicate(call.int(0))
        .and_then(|root| mount_of(root.as_fd()))
        .ok()
        .and_then(|number| call.container.contexts.take_mount(number))
    else {
        return Ok(None);
    };
    let mut how = AtFlags::empty();
    how.set(AtFlags::AT_EMPTY_PATH, flags & MOVE_MOUNT_T_EMPTY_PATH != 0);
    how.set(
        AtFlags::AT_SYMLINK_NOFOLLOW,
        flags & MOVE_MOUNT_T_SYMLINKS == 0,
    );
    let path = call.path(3)?;
    let location = Location::new(call.dirfd(2), path.as_c_str(), how);
    let number = mount_of(made.as_fd())?;
    let done = call.resolve(&location).and_then(|directory| {
        inside(call, || {
            call.ensure_waiting()?;
            sys::attach_mount(made.as_fd(), directory.as_fd())
        })
    });
    if done.is_err() {
        call.container.contexts.keep(number, made);
    }
    done.map(|()| Some(Reply::Value(0)))
}

fn mount_of(file: BorrowedFd) -> Result<u64, Errno> {
    const STATX_MNT_ID_UNIQUE: u32 = 0x4000;
    let mask = libc::STATX_MNT_ID | STATX_MNT_ID_UNIQUE;
    Ok(sys::statx(file, c"", libc::AT_EMPTY_PATH, mask)?.stx_mnt_id)
}
