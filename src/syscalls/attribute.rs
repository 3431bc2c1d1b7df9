//! chmod(2), utime(2), utimensat(2), file_setattr(2), access(2), and their variants.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, fchmod as change_mode_of, fchmodat as change_mode_at, fstat,
    fstatat,
};

use super::lookup::search;
use super::permission::{FileArgument, allow, check_as, check_change, is_read_only};
use super::stat::resolve_in_side_store;
use crate::credentials::{Access, FileMode, Subject, capability};
use crate::linux::procfs;
use crate::linux::seccomp::Reply;
use crate::owner::file_type;
use crate::target::{Abi, Call, PROCFS};
use crate::wire::permissions::Permissions;

// ---- chmod(2)

pub(super) fn chmod(call: &mut Call) -> Result<Reply, Errno> {
    change_mode(call, FileArgument::path(0), 1)
}

pub(super) fn fchmod(call: &mut Call) -> Result<Reply, Errno> {
    change_mode(call, FileArgument::fd(call, 0), 1)
}

pub(super) fn fchmodat(call: &mut Call) -> Result<Reply, Errno> {
    change_mode(
        call,
        FileArgument::at(call.dirfd(0), 1, AtFlags::empty()),
        2,
    )
}

pub(super) fn fchmodat2(call: &mut Call) -> Result<Reply, Errno> {
    let flags = AtFlags::from_bits_retain(call.int(3));
    if !(AtFlags::AT_SYMLINK_NOFOLLOW | AtFlags::AT_EMPTY_PATH).contains(flags) {
        // CONTINUE: EINVAL.
        return Ok(Reply::Continue);
    }
    change_mode(call, FileArgument::at(call.dirfd(0), 1, flags), 2)
}

/// Handles a chmod(2); `mode` is an argument number.
fn change_mode(call: &mut Call, named: FileArgument, mode: usize) -> Result<Reply, Errno> {
    let mode = call.unsigned(mode);
    if let Some(kept) = keep_mode(call, named, mode) {
        return kept;
    }
    bring_up(call, named);
    check_change(call, named, |call, subject, file, location| {
        if file_type(file.mode) == SFlag::S_IFLNK {
            // CONTINUE: EOPNOTSUPP, even for root.
            return Ok(Reply::Continue);
        }
        if !subject.owns(file) {
            return Err(Errno::EPERM);
        }
        // If the new mode lacks S_ISGID, the group does not matter: the kernel may do it.
        if mode & libc::S_ISGID == 0 || subject.may_set_group_id(file.gid) {
            return allow(true, Errno::EPERM);
        }
        // fs/attr.c, setattr_prepare: for a caller outside of the group, the kernel silently clears
        // S_ISGID. To the kernel every target has CAP_FSETID, so the worker changes the mode.
        let is_fd = named.path.is_none();
        let file = if is_fd {
            // fchmod(2) refuses an O_PATH descriptor (EBADF), and the duplicate is one if the
            // target's is.
            call.duplicate(call.int(0))?
        } else {
            call.resolve(location)?
        };
        call.ensure_waiting()?;
        let mode = Mode::from_bits_truncate(mode & !libc::S_ISGID);
        let changed = match is_fd {
            true => change_mode_of(&file, mode),
            false => {
                let name = procfs::own_fd(file.as_fd());
                change_mode_at(PROCFS, &name, mode, FchmodatFlags::FollowSymlink)
            }
        };
        changed.map(|()| Reply::Value(0))
    })
}

/// Answers for a file of procfs or sysfs that shows root: its mode can be set to what it is. `None`
/// for all other files.
fn keep_mode(call: &Call, named: FileArgument, mode: u32) -> Option<Result<Reply, Errno>> {
    let (file, shown) = of_kernel(call, named)?;
    let is_settable = call.is_settable_of_kernel(file.as_fd(), fstat(&file).ok()?.st_uid);
    if is_settable != Ok(true) || shown.mode & 0o7777 != mode & 0o7777 {
        return None;
    }
    Some(keep(call, file.as_fd(), |subject| {
        match subject.owns(shown) {
            true => Ok(()),
            false => Err(Errno::EPERM),
        }
    }))
}

/// The file of a call and what it shows, if it is one of procfs or sysfs that shows root. To the
/// kernel it belongs to another user, who alone may change it.
fn of_kernel(call: &Call, named: FileArgument) -> Option<(OwnedFd, FileMode)> {
    let path = named.read(call)?;
    let location = named.location(&path);
    if location.is_empty() && !location.empty_path {
        return None;
    }
    let reached = call.name(&location)?;
    let flags = match location.follow {
        true => AtFlags::empty(),
        false => AtFlags::AT_SYMLINK_NOFOLLOW,
    };
    let stat = fstatat(PROCFS, reached.as_c_str(), flags).ok()?;
    if call.container.is_mapped(stat.st_uid) {
        // Nearly always.
        return None;
    }
    let file = match named.path {
        // fchmod(2) refuses a descriptor that was opened with O_PATH.
        None if call.is_beyond_us(named.dirfd) => return None,
        _ => call.resolve(&location).ok()?,
    };
    let shown = call.file_mode(file.as_fd()).ok()?;
    (call.is_of_kernel(file.as_fd(), stat.st_uid) == Ok(true)).then_some((file, shown))
}

/// Changes nothing, if the target `may` change it.
fn keep(
    call: &Call,
    file: BorrowedFd,
    may: impl FnOnce(&Subject) -> Result<(), Errno>,
) -> Result<Reply, Errno> {
    if is_read_only(file) {
        return Err(Errno::EROFS);
    }
    may(&call.subject()?).map(|()| Reply::Value(0))
}

/// Copies a special file of an overlay's lower layer up before the kernel does, so that its entry
/// in the side store is copied along. If that fails, the kernel reports the reason when it handles
/// the call.
fn bring_up(call: &Call, named: FileArgument) {
    if !call.container.owners.side_store_is_used() || !call.container.has_overlays() {
        // Nearly always.
        return;
    }
    if let Some(path) = named.read(call)
        && let Some((file, stat)) = resolve_in_side_store(call, &named.location(&path))
        && call.ensure_waiting().is_ok()
    {
        let owners = &call.container.owners;
        let _ = owners.bring_up(file.as_fd(), &stat, Some(call.pid()));
    }
}

// ---- utime(2), utimensat(2)

/// How a call changes the times of a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Times {
    /// Both to the current time: write permission is enough.
    Now,
    Given,
    /// Neither changes: the kernel does not even look up the file (fs/utimes.c, utimensat).
    Kept,
}

fn change_times(call: &mut Call, named: FileArgument, times: Times) -> Result<Reply, Errno> {
    if times == Times::Kept {
        // CONTINUE: nothing to check.
        return Ok(Reply::Continue);
    }
    if let Some((file, shown)) = of_kernel(call, named) {
        // The kernel does not keep these times for long, either.
        return keep(call, file.as_fd(), |subject| match times {
            _ if subject.owns(shown) => Ok(()),
            Times::Now if subject.may(Access::WRITE, shown) => Ok(()),
            Times::Now => Err(Errno::EACCES),
            _ => Err(Errno::EPERM),
        });
    }
    bring_up(call, named);
    check_change(call, named, |call, subject, file, location| match times {
        Times::Now => allow(
            subject.owns(file) || call.may_at(subject, Access::WRITE, location, file)?,
            Errno::EACCES,
        ),
        _ => allow(subject.owns(file), Errno::EPERM),
    })
}

/// The kind of change by a pointer to times: null stands for the current time.
fn given(call: &Call, times: usize) -> Times {
    match call.register(times) {
        0 => Times::Now,
        _ => Times::Given,
    }
}

pub(super) fn utime(call: &mut Call) -> Result<Reply, Errno> {
    let times = given(call, 1);
    change_times(call, FileArgument::path(0), times)
}

pub(super) fn utimes(call: &mut Call) -> Result<Reply, Errno> {
    let times = given(call, 1);
    change_times(call, FileArgument::path(0), times)
}

pub(super) fn futimesat(call: &mut Call) -> Result<Reply, Errno> {
    let times = given(call, 2);
    change_times(call, path_or_fd(call, AtFlags::empty()), times)
}

pub(super) fn utimensat(call: &mut Call) -> Result<Reply, Errno> {
    let is_short = call.abi != Abi::Native;
    change_times_at(call, is_short)
}

/// utimensat(2) of 32-bit programs with 64-bit times.
pub(super) fn utimensat_time64(call: &mut Call) -> Result<Reply, Errno> {
    change_times_at(call, false)
}

/// Handles a utimensat(2); `is_short`: struct timespec has 32-bit members.
fn change_times_at(call: &mut Call, is_short: bool) -> Result<Reply, Errno> {
    let flags = AtFlags::from_bits_retain(call.int(3));
    if !(AtFlags::AT_SYMLINK_NOFOLLOW | AtFlags::AT_EMPTY_PATH).contains(flags) {
        // CONTINUE: EINVAL.
        return Ok(Reply::Continue);
    }
    let mut times = given(call, 2);
    if times == Times::Given {
        let mut bytes = [0; 32];
        let bytes = if is_short {
            &mut bytes[..16]
        } else {
            &mut bytes
        };
        call.read(2, bytes)?;
        // tv_nsec is the second member. Its lower 32 bits are enough: if others are set, the kernel
        // fails with EINVAL, or ignores them (of a 32-bit program).
        let nanoseconds = [bytes.len() / 4, bytes.len() / 4 * 3].map(|start| {
            let bytes = bytes[start..].first_chunk().copied().unwrap_or_default();
            i64::from(i32::from_le_bytes(bytes))
        });
        times = match nanoseconds {
            [libc::UTIME_NOW, libc::UTIME_NOW] => Times::Now,
            [libc::UTIME_OMIT, libc::UTIME_OMIT] => Times::Kept,
            _ if !nanoseconds.iter().copied().all(is_valid) => {
                // CONTINUE: EINVAL.
                return Ok(Reply::Continue);
            }
            _ => Times::Given,
        };
    }
    change_times(call, path_or_fd(call, flags), times)
}

fn is_valid(nanoseconds: i64) -> bool {
    matches!(
        nanoseconds,
        0..1_000_000_000 | libc::UTIME_NOW | libc::UTIME_OMIT
    )
}

/// The file that the first two arguments name: `dirfd` and a path. If the path is null, it is
/// `dirfd` itself.
fn path_or_fd(call: &Call, flags: AtFlags) -> FileArgument {
    match call.register(1) {
        0 => FileArgument::fd(call, 0),
        _ => FileArgument::at(call.dirfd(0), 1, flags),
    }
}

// ---- file_setattr(2) (Linux 6.17)

/// What chattr(1) changes. For others than their owner, files that have nothing of it are EPERM,
/// too (EOPNOTSUPP in the kernel).
pub(super) fn file_setattr(call: &mut Call) -> Result<Reply, Errno> {
    /// struct file_attr, first version
    const LEAST: u64 = 24;
    let named = FileArgument::of_newer(call, 4).filter(|_| call.register(3) >= LEAST);
    let Some(named) = named else {
        // CONTINUE: EINVAL.
        return Ok(Reply::Continue);
    };
    check_change(call, named, |_, subject, file, _| {
        allow(subject.owns(file), Errno::EPERM)
    })
}

// ---- access(2)

/// Checks search permission on the way to the file, by ids that may be the real ones.
fn look_up(call: &Call, subject: &Subject, named: FileArgument) -> Result<(), Errno> {
    if call.container.service.permissions == Permissions::Full
        && !subject.has(capability::OVER_FILES)
        && !call.is_nested()
        && let Some(path) = named.read(call)
    {
        search(call, subject, &named.location(&path))?;
    }
    Ok(())
}

pub(super) fn access(call: &mut Call) -> Result<Reply, Errno> {
    may_access(call, FileArgument::path(0), 1)
}

pub(super) fn faccessat(call: &mut Call) -> Result<Reply, Errno> {
    may_access(
        call,
        FileArgument::at(call.dirfd(0), 1, AtFlags::empty()),
        2,
    )
}

pub(super) fn faccessat2(call: &mut Call) -> Result<Reply, Errno> {
    let flags = AtFlags::from_bits_retain(call.int(3));
    may_access(call, FileArgument::at(call.dirfd(0), 1, flags), 2)
}

/// Handles an access(2): fs/open.c, do_faccessat. `mode` is an argument number.
fn may_access(call: &mut Call, named: FileArgument, mode: usize) -> Result<Reply, Errno> {
    let mode = call.unsigned(mode);
    let by_effective_ids = named.flags.contains(AtFlags::AT_EACCESS);
    let known = AtFlags::AT_EACCESS | AtFlags::AT_SYMLINK_NOFOLLOW | AtFlags::AT_EMPTY_PATH;
    if mode & !7 != 0 || !known.contains(named.flags) {
        // CONTINUE: EINVAL.
        return Ok(Reply::Continue);
    }
    let subject = if by_effective_ids {
        call.subject()?
    } else {
        call.subject_by_real_ids()?
    };
    look_up(call, &subject, named)?;
    if mode == 0 {
        // CONTINUE: F_OK only asks whether the file exists.
        return Ok(Reply::Continue);
    }
    check_as(call, &subject, named, |call, subject, file, location| {
        let may = call.may_at(subject, Access::from_bits(mode), location, file)?;
        allow(may, Errno::EACCES)
    })
}
