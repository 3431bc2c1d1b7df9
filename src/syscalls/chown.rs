//! chown(2): chown, lchown, fchown, fchownat.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, FcntlArg, OFlag, fcntl};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, fstat};
use nix::unistd::{getegid, geteuid};

use super::permission::is_read_only;
use crate::credentials::{EmulatedGid, EmulatedUid, FileMode, OwnerChange};
use crate::linux::procfs;
use crate::linux::seccomp::Reply;
use crate::owner::file_type;
use crate::target::{Call, Dirfd, Location, PROCFS};

pub(super) fn chown(call: &mut Call) -> Result<Reply, Errno> {
    change_at(call, Dirfd::Cwd, 0, 1, AtFlags::empty())
}

pub(super) fn lchown(call: &mut Call) -> Result<Reply, Errno> {
    change_at(call, Dirfd::Cwd, 0, 1, AtFlags::AT_SYMLINK_NOFOLLOW)
}

pub(super) fn fchownat(call: &mut Call) -> Result<Reply, Errno> {
    // fs/open.c, do_fchownat: unknown flags are EINVAL before the path is read.
    let flags = AtFlags::from_bits(call.int(4)).ok_or(Errno::EINVAL)?;
    if !(AtFlags::AT_SYMLINK_NOFOLLOW | AtFlags::AT_EMPTY_PATH).contains(flags) {
        return Err(Errno::EINVAL);
    }
    change_at(call, call.dirfd(0), 1, 2, flags)
}

pub(super) fn fchown(call: &mut Call) -> Result<Reply, Errno> {
    let file = call.duplicate(call.int(0))?;
    // The duplicate shares the open file description, so it shows O_PATH: fchown(2) refuses such a
    // descriptor.
    let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
    if flags.contains(OFlag::O_PATH) {
        return Err(Errno::EBADF);
    }
    let change = call.owner_change(1, 2);
    apply(call, file.as_fd(), change)
}

/// `path` and `uid` are argument numbers; the gid comes after the uid.
fn change_at(
    call: &mut Call,
    dirfd: Dirfd,
    path: usize,
    uid: usize,
    flags: AtFlags,
) -> Result<Reply, Errno> {
    let path = call.path(path)?;
    let location = Location::new(dirfd, path.as_c_str(), flags);
    let file = call.resolve(&location)?;
    let change = call.owner_change(uid, uid + 1);
    apply(call, file.as_fd(), change)
}

/// Does everything after the lookup: fs/open.c, chown_common.
fn apply(call: &Call, file: BorrowedFd, change: OwnerChange) -> Result<Reply, Errno> {
    let stat = fstat(file)?;
    if !call.container.is_mapped(stat.st_uid) {
        return match call.is_settable_of_kernel(file, stat.st_uid)? {
            true => keep(call, file, change),
            false => refused(file, change),
        };
    }
    let owners = &call.container.owners;
    // With −1 for one id, the new owner depends on the old one: no other thread or worker may
    // change it in between.
    let _lock = call.container.locks.lock_file(&stat)?;
    let known = owners.load(file, file_type(stat.st_mode))?;
    let shown = call.container.shown(known.unwrap_or_default());
    let shown = FileMode::new(shown.uid, shown.gid, &stat).ok_or(Errno::EOVERFLOW)?;
    let subject = call.subject()?;
    if !subject.may_change_owner((shown.uid, shown.gid), change) {
        // fs/open.c, chown_common: the mount is asked first (mnt_want_write).
        return Err(match is_read_only(file) {
            true => Errno::EROFS,
            false => Errno::EPERM,
        });
    }
    // fs/attr.c, setattr_should_drop_sgid: without group execute permission, the kernel clears
    // S_ISGID only for callers without CAP_FSETID outside of the group.
    let both = libc::S_ISGID | libc::S_IXGRP;
    let is_file = file_type(stat.st_mode) != SFlag::S_IFDIR;
    let is_group_id = is_file && stat.st_mode & both == libc::S_ISGID;
    let clears_group_id = is_group_id && !subject.may_set_group_id(shown.gid);
    let clears = clears_group_id
        || is_file && (stat.st_mode & libc::S_ISUID != 0 || stat.st_mode & both == both);
    if clears && !subject.owns(shown) {
        // setattr_prepare: that is a change of the mode.
        return Err(Errno::EPERM);
    }
    // A record holds more than the owner: these parts stay as they are.
    let owner = known
        .unwrap_or_default()
        .with_ids(change.uid, change.gid, &stat);
    call.ensure_waiting()?;
    owners.store(file, &stat, (known, owner), Some(call.pid()))?;
    // A worker has CAP_FSETID, so this decides for the target. S_ISUID has been cleared by `store`,
    // but is still in `stat`.
    if clears_group_id {
        let mode = Mode::from_bits_truncate(stat.st_mode & !(libc::S_ISGID | libc::S_ISUID));
        let name = procfs::own_fd(file);
        fchmodat(PROCFS, &name, mode, FchmodatFlags::FollowSymlink)?;
    }
    Ok(Reply::Value(0))
}

/// A file of procfs or sysfs, which shows root: it keeps this owner.
fn keep(call: &Call, file: BorrowedFd, change: OwnerChange) -> Result<Reply, Errno> {
    const ROOT: (EmulatedUid, EmulatedGid) = (EmulatedUid::ROOT, EmulatedGid::ROOT);
    if is_read_only(file) {
        return Err(Errno::EROFS);
    }
    let keeps =
        change.uid.is_none_or(|uid| uid == ROOT.0) && change.gid.is_none_or(|gid| gid == ROOT.1);
    match keeps && call.subject()?.may_change_owner(ROOT, change) {
        true => Ok(Reply::Value(0)),
        false => Err(Errno::EPERM),
    }
}

/// Lets the kernel refuse the change for a file of another host user, which not even the
/// container's root may change. The errno is the kernel's: for ids that it maps, whatever the new
/// ones are (EINVAL otherwise).
fn refused(file: BorrowedFd, change: OwnerChange) -> Result<Reply, Errno> {
    let uid = change.uid.map(|_| geteuid());
    let gid = change.gid.map(|_| getegid());
    nix::unistd::fchownat(file, c"", uid, gid, AtFlags::AT_EMPTY_PATH)?;
    Ok(Reply::Value(0))
}
