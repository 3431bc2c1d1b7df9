//! Calls that the kernel does, and for which the caller needs permission: chdir(2), truncate(2),
//! connect(2), inotify_add_watch(2), and those that only look up a path.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{SFlag, fstat};

use super::make::unix_address;
use super::permission::{FileArgument, allow, check};
use crate::credentials::Access;
use crate::linux::seccomp::Reply;
use crate::owner::file_type;
use crate::target::{Call, Dirfd, Location, Walked};

/// readlink(2), statfs(2), name_to_handle_at(2): search permission is enough, and was checked.
pub(super) fn look_up(_: &mut Call) -> Result<Reply, Errno> {
    // CONTINUE: the target may look up the path.
    Ok(Reply::Continue)
}

pub(super) fn fchdir(call: &mut Call) -> Result<Reply, Errno> {
    let Some(subject) = call.restricted()? else {
        // CONTINUE: neither owners nor modes restrict the target.
        return Ok(Reply::Continue);
    };
    let Ok(directory) = call.duplicate(call.int(0)) else {
        // CONTINUE: EBADF.
        return Ok(Reply::Continue);
    };
    let stat = fstat(&directory)?;
    // A file of another type is ENOTDIR.
    let may = file_type(stat.st_mode) != SFlag::S_IFDIR
        || call.may(&subject, Access::EXECUTE, directory.as_fd(), &stat)?;
    allow(may, Errno::EACCES)
}

pub(super) fn chdir(call: &mut Call) -> Result<Reply, Errno> {
    check(
        call,
        FileArgument::path(0),
        |call, subject, file, location| {
            // A file of another type is ENOTDIR.
            let may =
                !file.is_directory() || call.may_at(subject, Access::EXECUTE, location, file)?;
            allow(may, Errno::EACCES)
        },
    )
}

pub(super) fn truncate(call: &mut Call) -> Result<Reply, Errno> {
    // fs/open.c, vfs_truncate: EACCES comes before EROFS, since Linux 6.8.
    check(
        call,
        FileArgument::path(0),
        |call, subject, file, location| {
            // Files of other types are EISDIR or EINVAL.
            let may = file_type(file.mode) != SFlag::S_IFREG
                || call.may_at(subject, Access::WRITE, location, file)?;
            allow(may, Errno::EACCES)
        },
    )
}

pub(super) fn inotify_add_watch(call: &mut Call) -> Result<Reply, Errno> {
    let flags = match call.unsigned(2) & libc::IN_DONT_FOLLOW {
        0 => AtFlags::empty(),
        _ => AtFlags::AT_SYMLINK_NOFOLLOW,
    };
    let only_directories = call.unsigned(2) & libc::IN_ONLYDIR != 0;
    let named = FileArgument::at(Dirfd::Cwd, 1, flags);
    check(call, named, |call, subject, file, location| {
        let is_fault = only_directories && !file.is_directory();
        let may = is_fault || call.may_at(subject, Access::READ, location, file)?;
        allow(may, Errno::EACCES)
    })
}

/// connect(2) to a Unix socket with a path: net/unix/af_unix.c, unix_find_bsd.
pub(super) fn connect(call: &mut Call) -> Result<Reply, Errno> {
    let Some(subject) = call.restricted()? else {
        // CONTINUE: neither owners nor modes restrict the target.
        return Ok(Reply::Continue);
    };
    let Some((_, path)) = unix_address(call) else {
        // CONTINUE: an address without a path, or a bad pointer.
        return Ok(Reply::Continue);
    };
    let location = Location::new(Dirfd::Cwd, path.as_c_str(), AtFlags::empty());
    let file = match call.search(&subject, &location) {
        Ok(Walked::To(file)) => file,
        Ok(Walked::Refused(errno)) => return Err(errno),
        // CONTINUE: the kernel fails with the right errno.
        Err(_) => return Ok(Reply::Continue),
    };
    let stat = fstat(&file)?;
    allow(
        call.may(&subject, Access::WRITE, file.as_fd(), &stat)?,
        Errno::EACCES,
    )
}
