//! Access control lists with ids that the user namespace does not map: acl(5).
//!
//! The kernel gets those entries of the list that it accepts, which keeps the file's mode right.
//! The whole list is stored in an attribute of its own.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::stat::{FileStat, SFlag, fstat};

use super::{Asked, Change};
use crate::linux::name::Name;
use crate::linux::procfs;
use crate::linux::seccomp::Reply;
use crate::linux::sys;
use crate::owner::acl::{ACCESS, Acl, DEFAULT};
use crate::owner::{Attribute, file_type};
use crate::target::{Call, Location};
use crate::wire::board::Step;

/// The name under which the list `of` is stored.
fn stored_name(of: &CStr) -> Name {
    match Attribute::of(of) {
        Attribute::Acl(name) => name,
        _ => Name::default(),
    }
}

/// The list that is stored under `name` as `bytes`, with the permissions that the file's present
/// mode gives it. Returns `None` if it cannot be decoded.
pub(super) fn shown(
    call: &Call,
    location: &Location,
    name: &Name,
    bytes: &[u8],
) -> Result<Option<Vec<u8>>, Errno> {
    let Some(list) = Acl::decode(bytes) else {
        return Ok(None);
    };
    // A default list does not depend on the mode.
    let list = if *name == stored_name(DEFAULT) {
        list
    } else {
        list.with_mode(fstat(call.resolve(location)?)?.st_mode)
    };
    Ok(Some(list.encode()))
}

/// Handles setxattr(2) or removexattr(2) of the list `name`, whose whole form is stored under
/// `stored`.
pub(super) fn change(
    call: &Call,
    location: &Location,
    (name, stored): (&CStr, &Name),
    (asked, change): (&Asked, Change),
) -> Result<Reply, Errno> {
    let Ok(file) = call.resolve(location) else {
        // CONTINUE: no such file.
        return Ok(Reply::Continue);
    };
    let given = match change {
        Change::Set => match asked.given(call) {
            Some(given) => given,
            // CONTINUE: E2BIG, or a bad pointer.
            None => return Ok(Reply::Continue),
        },
        Change::Remove => Vec::new(),
    };
    let is_known = |id| call.container.is_mapped(id);
    let known = call.container.mapped_uids.first().unwrap_or(0);
    // The kernel's part of the list, if the list has unmapped ids.
    let foreign = Acl::decode(&given).and_then(|list| list.for_kernel(is_known, known));
    let stat = fstat(&file)?;
    // The kernel's list and the stored one must be those of one change.
    let _lock = call.container.locks.lock_file(&stat)?;
    let emulated = call.container.owners.emulated(file.as_fd(), stat.st_mode);
    // A worker that was killed may have made the change, or half of it: no check of the old state
    // may fail because of that.
    let is_again = call.journal.noted() == Some(Step::Changing);
    if foreign.is_none() && !is_again && emulated.get(stored)?.is_none() {
        // CONTINUE: the kernel accepts the whole list, or fails with the right errno.
        return Ok(Reply::Continue);
    }
    call.ensure_waiting()?;
    let owners = &call.container.owners;
    owners.bring_up(file.as_fd(), &stat, Some(call.pid()))?;
    call.journal.note(Step::Changing);
    let path = procfs::own_fd(file.as_fd());
    let path = path.as_c_str();
    let flags = if is_again { 0 } else { asked.flags };
    match (change, &foreign) {
        (Change::Remove, _) => match sys::removexattr(path, name) {
            Err(Errno::ENODATA) if is_again => {}
            result => result?,
        },
        (Change::Set, Some(list)) => sys::setxattr(path, name, &list.encode(), flags)?,
        (Change::Set, None) => sys::setxattr(path, name, &given, flags)?,
    }
    // After the kernel's list, because the kernel may refuse that one.
    let whole = foreign.is_some().then_some(&given[..]);
    emulated.set_whole_list(stored, whole)?;
    Ok(Reply::Value(0))
}

/// The stored default list of a directory, which new files inherit.
pub(in crate::syscalls) fn handed_down(
    call: &Call,
    directory: BorrowedFd,
) -> Result<Option<Vec<u8>>, Errno> {
    let emulated = call.container.owners.emulated(directory, libc::S_IFDIR);
    emulated.get(&stored_name(DEFAULT))
}

/// Stores the inherited `list` of a new file: fs/posix_acl.c, posix_acl_create. The kernel has
/// given the file its own part of the list; the file's mode replaces the rest, see [`shown`].
pub(in crate::syscalls) fn inherit(
    call: &Call,
    file: BorrowedFd,
    stat: &FileStat,
    list: &[u8],
) -> Result<(), Errno> {
    let emulated = call.container.owners.emulated(file, stat.st_mode);
    let kind = file_type(stat.st_mode);
    if kind == SFlag::S_IFLNK {
        return Ok(());
    }
    emulated.set(&stored_name(ACCESS), list, 0)?;
    if kind == SFlag::S_IFDIR {
        emulated.set(&stored_name(DEFAULT), list, 0)?;
    }
    Ok(())
}
