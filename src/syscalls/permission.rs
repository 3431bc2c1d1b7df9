//! Who may do what to a file.
//!
//! To the kernel everybody owns everything. So whoever has other ids than the container's root is
//! checked here, and what is allowed goes on to the kernel.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::statvfs::{FsFlags, fstatvfs};

use crate::credentials::{FileMode, Subject, capability};
use crate::linux::name::Name;
use crate::linux::seccomp::Reply;
use crate::target::{Call, Dirfd, Location};

/// Where a call names its file; numbers are those of arguments.
#[derive(Clone, Copy)]
pub(super) struct FileArgument {
    pub(super) dirfd: Dirfd,
    /// `None`: the file is `dirfd` itself.
    pub(super) path: Option<usize>,
    pub(super) flags: AtFlags,
}

impl FileArgument {
    pub(super) fn path(path: usize) -> Self {
        Self::at(Dirfd::Cwd, path, AtFlags::empty())
    }

    pub(super) fn link(path: usize) -> Self {
        Self::at(Dirfd::Cwd, path, AtFlags::AT_SYMLINK_NOFOLLOW)
    }

    pub(super) fn at(dirfd: Dirfd, path: usize, flags: AtFlags) -> Self {
        Self {
            dirfd,
            path: Some(path),
            flags,
        }
    }

    pub(super) fn fd(call: &Call, fd: usize) -> Self {
        Self {
            dirfd: Dirfd::from_fd(call.int(fd)),
            path: None,
            flags: AtFlags::AT_EMPTY_PATH,
        }
    }

    /// The path, empty where there is none; `None`: the kernel finds the same fault.
    pub(super) fn read(&self, call: &Call) -> Option<Name> {
        self.path
            .map_or(Some(Name::default()), |path| call.path(path).ok())
    }

    /// With the path that has been read.
    pub(super) fn location<'a>(&self, path: &'a Name) -> Location<'a> {
        Location::new(self.dirfd, path.as_c_str(), self.flags)
    }
}

/// The capabilities with which root is not held up by owners and modes.
const OVER_FILES: u64 = capability::DAC_OVERRIDE | capability::FOWNER | capability::FSETID;

/// Lets the call go on, if `decide` allows it to the target.
///
/// The file is looked at by its name: it may be another one by the time the kernel gets there, as
/// between two calls of the target's own.
pub(super) fn check(
    call: &mut Call,
    named: FileArgument,
    decide: impl FnOnce(&Call, &Subject, FileMode, &Location) -> Result<Reply, Errno>,
) -> Result<Reply, Errno> {
    let subject = call.subject()?;
    check_as(call, &subject, named, decide)
}

/// As [`check`], for somebody who is not the target as it stands.
pub(super) fn check_as(
    call: &mut Call,
    subject: &Subject,
    named: FileArgument,
    decide: impl FnOnce(&Call, &Subject, FileMode, &Location) -> Result<Reply, Errno>,
) -> Result<Reply, Errno> {
    if subject.has(OVER_FILES) || call.is_nested() {
        // CONTINUE: nothing holds it up, neither here nor in the kernel.
        return Ok(Reply::Continue);
    }
    let Some(path) = named.read(call) else {
        // CONTINUE: the kernel finds the same fault.
        return Ok(Reply::Continue);
    };
    let location = named.location(&path);
    if location.is_empty() && !location.empty_path {
        // CONTINUE: ENOENT.
        return Ok(Reply::Continue);
    }
    let Ok(mode) = call.mode_of(&location) else {
        // CONTINUE: the kernel says why.
        return Ok(Reply::Continue);
    };
    match decide(call, subject, mode, &location) {
        // CONTINUE: its own, or EBADF.
        Err(_) if named.path.is_none() && call.is_beyond_us(named.dirfd) => Ok(Reply::Continue),
        result => result,
    }
}

/// As [`check`], for what changes the file: that its mount is read-only is noticed first
/// (mnt_want_write).
pub(super) fn check_change(
    call: &mut Call,
    named: FileArgument,
    decide: impl FnOnce(&Call, &Subject, FileMode, &Location) -> Result<Reply, Errno>,
) -> Result<Reply, Errno> {
    check(call, named, |call, subject, mode, location| {
        match decide(call, subject, mode, location) {
            Err(_)
                if call
                    .resolve(location)
                    .is_ok_and(|file| is_read_only(file.as_fd())) =>
            {
                Err(Errno::EROFS)
            }
            result => result,
        }
    })
}

pub(super) fn is_read_only(file: BorrowedFd) -> bool {
    fstatvfs(file).is_ok_and(|found| found.flags().contains(FsFlags::ST_RDONLY))
}

pub(super) fn allow(allowed: bool, errno: Errno) -> Result<Reply, Errno> {
    if allowed {
        // CONTINUE: allowed to the target, and to everybody as far as the kernel is concerned.
        Ok(Reply::Continue)
    } else {
        Err(errno)
    }
}
