//! Permission checks of files by emulated ids.
//!
//! To the kernel, all processes of a container are its root, and own its files. So a target with
//! other ids is checked here, and if it has permission, the call is left to the kernel.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::statvfs::{FsFlags, fstatvfs};

use crate::credentials::{FileMode, Subject, capability};
use crate::linux::name::Name;
use crate::linux::seccomp::Reply;
use crate::target::{Call, Dirfd, Location};

/// The arguments by which a call names its file.
#[derive(Clone, Copy)]
pub(super) struct FileArgument {
    pub(super) dirfd: Dirfd,
    /// The argument number of the path; `None`: the file is `dirfd` itself.
    pub(super) path: Option<usize>,
    pub(super) flags: AtFlags,
}

impl FileArgument {
    /// A path relative to the working directory.
    pub(super) fn path(path: usize) -> Self {
        Self::at(Dirfd::Cwd, path, AtFlags::empty())
    }

    /// As `path`, but a link in the last component is not followed.
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

    /// What newer calls take: argument 0 and a path, argument 1, which may be a null pointer with
    /// AT_EMPTY_PATH; `flags` is an argument number. `None` if a flag is unknown.
    pub(super) fn of_newer(call: &Call, flags: usize) -> Option<Self> {
        let flags = AtFlags::from_bits_retain(call.int(flags));
        if !(AtFlags::AT_SYMLINK_NOFOLLOW | AtFlags::AT_EMPTY_PATH).contains(flags) {
            return None;
        }
        let is_fd =
            || call.register(1) == 0 || call.path(1).is_ok_and(|path| path.as_c_str().is_empty());
        let named = Self::at(call.dirfd(0), 1, flags);
        Some(match flags.contains(AtFlags::AT_EMPTY_PATH) && is_fd() {
            true => Self {
                path: None,
                ..named
            },
            false => named,
        })
    }

    /// A file descriptor.
    pub(super) fn fd(call: &Call, fd: usize) -> Self {
        Self {
            dirfd: Dirfd::from_fd(call.int(fd)),
            path: None,
            flags: AtFlags::AT_EMPTY_PATH,
        }
    }

    /// Reads the path, which is empty if the call has none. Returns `None` if it cannot be read:
    /// the kernel finds the same fault.
    pub(super) fn read(&self, call: &Call) -> Option<Name> {
        self.path
            .map_or(Some(Name::default()), |path| call.path(path).ok())
    }

    /// The location with `path`, which [`FileArgument::read`] has returned.
    pub(super) fn location<'a>(&self, path: &'a Name) -> Location<'a> {
        Location::new(self.dirfd, path.as_c_str(), self.flags)
    }
}

/// Leaves the call to the kernel if `decide` allows it to the target.
///
/// The file is checked by its name. By the time the kernel resolves the name, it may be that of
/// another file, as between two calls of the target.
pub(super) fn check(
    call: &mut Call,
    named: FileArgument,
    decide: impl FnOnce(&Call, &Subject, FileMode, &Location) -> Result<Reply, Errno>,
) -> Result<Reply, Errno> {
    let subject = call.subject()?;
    check_as(call, &subject, named, decide)
}

/// As [`check`], for a `subject` that is not given by the target's fs ids.
pub(super) fn check_as(
    call: &mut Call,
    subject: &Subject,
    named: FileArgument,
    decide: impl FnOnce(&Call, &Subject, FileMode, &Location) -> Result<Reply, Errno>,
) -> Result<Reply, Errno> {
    if subject.has(capability::OVER_FILES) || call.is_nested() {
        // CONTINUE: neither emulated owners nor the kernel restrict the target.
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
        // CONTINUE: the kernel fails with the right errno.
        return Ok(Reply::Continue);
    };
    match decide(call, subject, mode, &location) {
        // CONTINUE: a file without a name, or EBADF.
        Err(_) if named.path.is_none() && call.is_beyond_us(named.dirfd) => Ok(Reply::Continue),
        result => result,
    }
}

/// As [`check`], for calls that change the file: the kernel checks first whether the mount is
/// read-only (mnt_want_write), so EROFS takes precedence over the errno of `decide`.
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

/// Leaves the call to the kernel if it is allowed, and fails with `errno` otherwise.
pub(super) fn allow(allowed: bool, errno: Errno) -> Result<Reply, Errno> {
    if allowed {
        // CONTINUE: the target has permission; to the kernel, every target has.
        Ok(Reply::Continue)
    } else {
        Err(errno)
    }
}
