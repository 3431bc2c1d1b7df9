//! chmod(2), utime(2), utimensat(2), setxattr(2), removexattr(2), and their relatives: who may do it.
//!
//! To the kernel everybody owns everything. So whoever has other ids than the container's root is checked here, and what
//! is allowed goes on to the kernel.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FchmodatFlags, Mode, fchmod as change_mode_of, fchmodat as change_mode_at};
use nix::sys::statvfs::{FsFlags, fstatvfs};

use crate::credentials::{Access, FileMode, Subject, capability};
use crate::identity::Index;
use crate::name::Name;
use crate::procfs;
use crate::seccomp::Reply;
use crate::target::{Call, Dirfd, Location, PROCFS};

/// Where a call names its file; numbers are those of arguments.
#[derive(Clone, Copy)]
struct Named {
    dirfd: Dirfd,
    /// `None`: the file is `dirfd` itself.
    path: Option<usize>,
    flags: AtFlags,
}

impl Named {
    fn path(path: usize) -> Self {
        Self::at(Dirfd::Cwd, path, AtFlags::empty())
    }

    fn link(path: usize) -> Self {
        Self::at(Dirfd::Cwd, path, AtFlags::AT_SYMLINK_NOFOLLOW)
    }

    fn at(dirfd: Dirfd, path: usize, flags: AtFlags) -> Self {
        Self {
            dirfd,
            path: Some(path),
            flags,
        }
    }

    fn fd(call: &Call, fd: usize) -> Self {
        Self {
            dirfd: Dirfd::from_fd(call.int(fd)),
            path: None,
            flags: AtFlags::AT_EMPTY_PATH,
        }
    }
}

/// The capabilities with which root is not held up by owners and modes.
const OVER_FILES: u64 = capability::DAC_OVERRIDE | capability::FOWNER | capability::FSETID;

/// Lets the call go on, if `decide` allows it to the target.
///
/// The file is looked at by its name: it may be another one by the time the kernel gets there, as between two calls of the
/// target's own.
fn check(
    call: &mut Call,
    named: Named,
    decide: impl FnOnce(&Call, &Subject, FileMode, &Location) -> Result<Reply, Errno>,
) -> Result<Reply, Errno> {
    let who = call.who_among_files()?;
    let subject = call.subject_of(who)?;
    if (who == Index::INITIAL && subject.has(OVER_FILES)) || call.is_nested() {
        // CONTINUE: the kernel checks the container's root rightly.
        return Ok(Reply::Continue);
    }
    let Ok(path) = named
        .path
        .map_or(Ok(Name::default()), |path| call.path(path))
    else {
        // CONTINUE: the kernel finds the same fault.
        return Ok(Reply::Continue);
    };
    let location = Location {
        dirfd: named.dirfd,
        path: path.as_c_str(),
        follow: !named.flags.contains(AtFlags::AT_SYMLINK_NOFOLLOW),
        empty_path: named.flags.contains(AtFlags::AT_EMPTY_PATH),
    };
    let Ok(mode) = call.mode_of(&location) else {
        // CONTINUE: the kernel says why.
        return Ok(Reply::Continue);
    };
    match decide(call, &subject, mode, &location) {
        // A read-only mount is noticed first (mnt_want_write).
        Err(_)
            if call
                .resolve(&location)
                .is_ok_and(|file| is_read_only(file.as_fd())) =>
        {
            Err(Errno::EROFS)
        }
        result => result,
    }
}

pub(super) fn is_read_only(file: BorrowedFd) -> bool {
    fstatvfs(file).is_ok_and(|found| found.flags().contains(FsFlags::ST_RDONLY))
}

fn allow(allowed: bool, errno: Errno) -> Result<Reply, Errno> {
    if allowed {
        // CONTINUE: allowed to the target, and to everybody as far as the kernel is concerned.
        Ok(Reply::Continue)
    } else {
        Err(errno)
    }
}

// ---- chmod(2)

pub(super) fn chmod(call: &mut Call) -> Result<Reply, Errno> {
    change_mode(call, Named::path(0), 1)
}

pub(super) fn fchmod(call: &mut Call) -> Result<Reply, Errno> {
    change_mode(call, Named::fd(call, 0), 1)
}

pub(super) fn fchmodat(call: &mut Call) -> Result<Reply, Errno> {
    change_mode(call, Named::at(call.dirfd(0), 1, AtFlags::empty()), 2)
}

/// `mode` is an argument number.
fn change_mode(call: &mut Call, named: Named, mode: usize) -> Result<Reply, Errno> {
    let mode = call.unsigned(mode);
    check(call, named, |call, subject, file, location| {
        if !subject.owns(file) {
            return Err(Errno::EPERM);
        }
        if mode & libc::S_ISGID == 0 || subject.may_set_group_id(file.gid) {
            return allow(true, Errno::EPERM);
        }
        // fs/attr.c, setattr_prepare: not a member of the group, so the bit goes, without a word.
        let file = if location.is_empty() {
            // chmod(2) takes no O_PATH fd, and the duplicate is one if the target's is.
            call.duplicate(call.int(0))?
        } else {
            call.resolve(location)?
        };
        call.ensure_waiting()?;
        let mode = Mode::from_bits_truncate(mode & !libc::S_ISGID);
        let changed = match location.is_empty() {
            true => change_mode_of(&file, mode),
            false => {
                let name = procfs::own_fd(file.as_fd());
                change_mode_at(PROCFS, &name, mode, FchmodatFlags::FollowSymlink)
            }
        };
        changed.map(|()| Reply::Value(0))
    })
}

// ---- utime(2), utimensat(2)

/// What a call wants of the times.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Times {
    /// Both now: whoever may write may do that.
    Now,
    Given,
    /// None changes, and nothing is even looked at.
    Kept,
}

fn change_times(call: &mut Call, named: Named, times: Times) -> Result<Reply, Errno> {
    if times == Times::Kept {
        // CONTINUE: nothing to check.
        return Ok(Reply::Continue);
    }
    check(call, named, |_, subject, file, _| match times {
        Times::Now => allow(
            subject.owns(file) || subject.may(Access::WRITE, file),
            Errno::EACCES,
        ),
        _ => allow(subject.owns(file), Errno::EPERM),
    })
}

/// A pointer to times: null stands for now.
fn given(call: &Call, times: usize) -> Times {
    match call.register(times) {
        0 => Times::Now,
        _ => Times::Given,
    }
}

pub(super) fn utime(call: &mut Call) -> Result<Reply, Errno> {
    let times = given(call, 1);
    change_times(call, Named::path(0), times)
}

pub(super) fn utimes(call: &mut Call) -> Result<Reply, Errno> {
    let times = given(call, 1);
    change_times(call, Named::path(0), times)
}

pub(super) fn futimesat(call: &mut Call) -> Result<Reply, Errno> {
    let times = given(call, 2);
    change_times(call, path_or_fd(call, AtFlags::empty()), times)
}

pub(super) fn utimensat(call: &mut Call) -> Result<Reply, Errno> {
    let flags = AtFlags::from_bits_retain(call.int(3));
    let mut times = given(call, 2);
    if times == Times::Given {
        let mut bytes = [0; 32];
        call.read(2, &mut bytes)?;
        let nanoseconds = [8, 24].map(|start| {
            let bytes = bytes[start..].first_chunk().copied().unwrap_or_default();
            i64::from_ne_bytes(bytes)
        });
        times = match nanoseconds {
            [libc::UTIME_NOW, libc::UTIME_NOW] => Times::Now,
            [libc::UTIME_OMIT, libc::UTIME_OMIT] => Times::Kept,
            _ => Times::Given,
        };
    }
    change_times(call, path_or_fd(call, flags), times)
}

/// `dirfd` and path in the first two arguments; without a path `dirfd` is the file.
fn path_or_fd(call: &Call, flags: AtFlags) -> Named {
    match call.register(1) {
        0 => Named::fd(call, 0),
        _ => Named::at(call.dirfd(0), 1, flags),
    }
}

// ---- setxattr(2), removexattr(2)

/// `name` is an argument number. fs/xattr.c, xattr_permission; fs/posix_acl.c; security/commoncap.c.
fn change_attribute(call: &mut Call, named: Named, name: usize) -> Result<Reply, Errno> {
    check(call, named, |call, subject, file, _| {
        let Ok(name) = call.path(name) else {
            // CONTINUE: the kernel finds the same fault.
            return Ok(Reply::Continue);
        };
        let name = name.as_c_str().to_bytes();
        if name.starts_with(b"user.") {
            const STICKY: u32 = 0o1000;
            if file.is_directory() && file.mode & STICKY != 0 && !subject.owns(file) {
                return Err(Errno::EPERM);
            }
            return allow(subject.may(Access::WRITE, file), Errno::EACCES);
        }
        let allowed = if name == b"security.capability" {
            subject.has(capability::SETFCAP)
        } else if name.starts_with(b"system.posix_acl_") {
            subject.owns(file)
        } else {
            subject.has(capability::SYS_ADMIN)
        };
        allow(allowed, Errno::EPERM)
    })
}

pub(super) fn setxattr(call: &mut Call) -> Result<Reply, Errno> {
    change_attribute(call, Named::path(0), 1)
}

pub(super) fn lsetxattr(call: &mut Call) -> Result<Reply, Errno> {
    change_attribute(call, Named::link(0), 1)
}

pub(super) fn fsetxattr(call: &mut Call) -> Result<Reply, Errno> {
    change_attribute(call, Named::fd(call, 0), 1)
}

pub(super) fn removexattr(call: &mut Call) -> Result<Reply, Errno> {
    change_attribute(call, Named::path(0), 1)
}

pub(super) fn lremovexattr(call: &mut Call) -> Result<Reply, Errno> {
    change_attribute(call, Named::link(0), 1)
}

pub(super) fn fremovexattr(call: &mut Call) -> Result<Reply, Errno> {
    change_attribute(call, Named::fd(call, 0), 1)
}

// ---- access(2)

pub(super) fn access(call: &mut Call) -> Result<Reply, Errno> {
    may_access(call, Named::path(0), 1)
}

pub(super) fn faccessat(call: &mut Call) -> Result<Reply, Errno> {
    may_access(call, Named::at(call.dirfd(0), 1, AtFlags::empty()), 2)
}

pub(super) fn faccessat2(call: &mut Call) -> Result<Reply, Errno> {
    let flags = AtFlags::from_bits_retain(call.int(3));
    may_access(call, Named::at(call.dirfd(0), 1, flags), 2)
}

/// fs/open.c, do_faccessat. `mode` is an argument number.
fn may_access(call: &mut Call, named: Named, mode: usize) -> Result<Reply, Errno> {
    let mode = call.unsigned(mode);
    let by_effective_ids = named.flags.contains(AtFlags::AT_EACCESS);
    if mode == 0 || mode & !7 != 0 {
        // CONTINUE: whether the file exists is all that is asked, or EINVAL.
        return Ok(Reply::Continue);
    }
    check(call, named, |call, effective, file, _| {
        let access = Access::from_bits(mode);
        let allowed = if by_effective_ids {
            effective.may(access, file)
        } else {
            call.subject_by_real_ids()?.may(access, file)
        };
        allow(allowed, Errno::EACCES)
    })
}
