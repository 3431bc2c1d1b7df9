//! Resolves (dirfd, path, follow) to an O_PATH fd, as the target itself would.
//!
//! An absolute path starts at this thread's root, which is the target's (see `view`). A relative
//! one starts behind a magic link of the host's procfs, `PID/cwd` or `PID/fd/N`, which the kernel
//! resolves to the target's directory.
//!
//! `/proc/self` and `/proc/thread-self` would mean the worker. Usually a worker has no pid in the
//! container's procfs, so there they do not exist for it (ENOENT). If the container has the host's
//! pid namespace, they do exist, but lead to the worker's files through magic links only, and
//! RESOLVE_NO_MAGICLINKS forbids the kernel to follow these (ELOOP). In both cases, and if the path
//! itself contains such a name, `walk` resolves it component by component.

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::Mode;

use super::{Call, PROCFS};
use crate::credentials::Subject;
use crate::linux::name::Name;
use crate::linux::procfs;

/// A `dirfd` argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dirfd {
    /// AT_FDCWD
    Cwd,
    Fd(i32),
}

impl Dirfd {
    /// The value of an argument that must be a file descriptor: AT_FDCWD is not one.
    pub(crate) fn from_fd(fd: i32) -> Self {
        Self::Fd(fd)
    }

    /// The value of an argument that is a file descriptor or AT_FDCWD.
    pub(crate) fn from_raw(fd: i32) -> Self {
        if fd == libc::AT_FDCWD {
            Self::Cwd
        } else {
            Self::Fd(fd)
        }
    }
}

/// The arguments by which a call names a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Location<'a> {
    pub(crate) dirfd: Dirfd,
    pub(crate) path: &'a CStr,
    /// Whether to follow a symbolic link in the last component.
    pub(crate) follow: bool,
    /// AT_EMPTY_PATH: an empty path names `dirfd` itself.
    pub(crate) empty_path: bool,
}

/// A path by which a service thread reaches the file that a target named.
#[derive(Debug)]
pub(crate) enum Reached<'a> {
    /// The target's absolute path, unchanged.
    Itself(&'a CStr),
    /// The target's relative path behind a magic link of the host's procfs.
    Behind(Name),
}

impl Reached<'_> {
    pub(crate) fn as_c_str(&self) -> &CStr {
        match self {
            Self::Itself(path) => path,
            Self::Behind(name) => name.as_c_str(),
        }
    }

    /// The part behind `PID/fd/`; `None` if the path does not start with that.
    pub(super) fn behind_fd(&self) -> Option<&CStr> {
        let Self::Behind(name) = self else {
            return None;
        };
        let bytes = name.as_c_str().to_bytes_with_nul();
        let slash = bytes.iter().position(|byte| *byte == b'/')?;
        let rest = bytes[slash..].strip_prefix(b"/fd/")?;
        CStr::from_bytes_with_nul(rest).ok()
    }
}

/// What stat(2) of the directories on a way has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Open,
    Closed,
    /// It is open, and there is no file.
    Missing(Errno),
}

/// Why a target cannot look up a path.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Its emulated credentials do not allow it: EACCES.
    Denied,
    /// The kernel fails with this, too.
    ByKernel(Errno),
}

/// Where a walk ends.
#[derive(Debug)]
pub(crate) enum Walked {
    To(OwnedFd),
    /// The target's emulated credentials do not allow it to go on. The kernel would.
    Refused(Errno),
}

/// PATH_MAX without the NUL.
const MAX_PATH: usize = 4095;

pub(super) const O_PATH: OFlag = OFlag::O_PATH.union(OFlag::O_CLOEXEC);

impl<'a> Location<'a> {
    /// The location that a call with `flags` names. An empty path is always followed, because a
    /// worker reaches the file of a descriptor through the link `PID/fd/N`.
    pub(crate) fn new(dirfd: Dirfd, path: &'a CStr, flags: AtFlags) -> Self {
        Self {
            dirfd,
            path,
            follow: path.is_empty() || !flags.contains(AtFlags::AT_SYMLINK_NOFOLLOW),
            empty_path: flags.contains(AtFlags::AT_EMPTY_PATH),
        }
    }

    pub(super) fn is_absolute(&self) -> bool {
        self.path.to_bytes().starts_with(b"/")
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.path.is_empty()
    }
}

/// Whether the path probably leads through `/proc/self`. A path that does, and is not recognized
/// here, fails in the kernel's lookup, and is then walked.
fn names_the_target(path: &CStr) -> bool {
    let path = path.to_bytes();
    path.starts_with(b"/dev/fd")
        || path.starts_with(b"/dev/std")
        || path.windows(4).any(|window| window == b"self")
}

impl Call<'_> {
    /// A path by which this thread reaches the file in one system call. The caller follows a final
    /// link as the location says. Returns `None` if only [`Call::resolve`] finds the file.
    pub(crate) fn name<'a>(&self, location: &Location<'a>) -> Option<Reached<'a>> {
        if self.container.must_walk() {
            // For the kernel, a link to `/proc/self` in the middle of the path would lead to this
            // process.
            return None;
        }
        if location.is_empty() {
            return self.base_name(location.dirfd).map(Reached::Behind);
        }
        if names_the_target(location.path) {
            return None;
        }
        if location.is_absolute() {
            return Some(Reached::Itself(location.path));
        }
        let name = self.base_name(location.dirfd)?.join(location.path);
        (name.as_c_str().count_bytes() <= MAX_PATH).then_some(Reached::Behind(name))
    }

    /// The link of the host's procfs that leads to `dirfd`; `None` if it is negative (EBADF).
    pub(super) fn base_name(&self, dirfd: Dirfd) -> Option<Name> {
        match dirfd {
            Dirfd::Cwd => Some(procfs::target(self.pid(), "cwd")),
            Dirfd::Fd(fd) if fd < 0 => None,
            Dirfd::Fd(fd) => Some(procfs::target_fd(self.pid(), fd)),
        }
    }

    /// Opens the file that `location` names, with O_PATH.
    pub(crate) fn resolve(&self, location: &Location) -> Result<OwnedFd, Errno> {
        self.patiently(|| self.resolve_at_once(location))
    }

    /// Repeats `look_up` while it fails because this process lacks descriptors (EMFILE, ENFILE) or
    /// cannot fork (ENFILE, see `linux::sys::child`), and the target waits: this lack says nothing
    /// about the target's call. ENOMEM and EAGAIN are not repeated, because a file system may have
    /// returned them.
    pub(crate) fn patiently<T>(&self, look_up: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
        const PAUSE: Duration = Duration::from_millis(10);
        loop {
            match look_up() {
                Err(Errno::EMFILE | Errno::ENFILE) => {
                    self.ensure_waiting()?;
                    thread::sleep(PAUSE);
                }
                result => return result,
            }
        }
    }

    fn resolve_at_once(&self, location: &Location) -> Result<OwnedFd, Errno> {
        if location.is_empty() {
            return if location.empty_path {
                self.open_base(location.dirfd)
            } else {
                Err(Errno::ENOENT)
            };
        }
        let base = match location.is_absolute() {
            true => None,
            false => Some(self.open_base(location.dirfd)?),
        };
        self.resolve_from(base, location.path, location.follow)
    }

    /// Opens the file that `path` names, starting at the directory `base`, or at the target's root.
    pub(crate) fn resolve_from(
        &self,
        base: Option<OwnedFd>,
        path: &CStr,
        follow: bool,
    ) -> Result<OwnedFd, Errno> {
        // In a procfs that shows the worker, `/proc/self` behind any link would lead the kernel to
        // the worker's directory.
        if !names_the_target(path) && !self.container.must_walk() {
            match open(base.as_ref(), path, follow) {
                // ENOENT: it may lead through `/proc/self`. ELOOP: a magic link, or too many links.
                Err(Errno::ENOENT | Errno::ELOOP) => {}
                result => return result,
            }
        }
        match self.walk(base, path, follow, None)? {
            Walked::To(file) => Ok(file),
            Walked::Refused(errno) => Err(errno),
        }
    }

    /// Opens the file that `location` names, as [`Call::resolve`] does, and checks on the way that
    /// `subject` may search the directories.
    pub(crate) fn search(&self, subject: &Subject, location: &Location) -> Result<Walked, Errno> {
        match self.way_to(subject, location) {
            Some(Way::Open) => self.resolve(location).map(Walked::To),
            Some(Way::Closed) => Ok(Walked::Refused(Errno::EACCES)),
            Some(Way::Missing(errno)) => Err(errno),
            None => self.search_by_walk(subject, location),
        }
    }

    /// As [`Call::search`], without opening the file.
    pub(crate) fn look_up(&self, subject: &Subject, location: &Location) -> Result<(), Refusal> {
        match self.way_to(subject, location) {
            Some(Way::Open) => Ok(()),
            Some(Way::Closed) => Err(Refusal::Denied),
            Some(Way::Missing(errno)) => Err(Refusal::ByKernel(errno)),
            None => match self.search_by_walk(subject, location) {
                Ok(Walked::To(_)) => Ok(()),
                Ok(Walked::Refused(_)) => Err(Refusal::Denied),
                Err(errno) => Err(Refusal::ByKernel(errno)),
            },
        }
    }

    fn search_by_walk(&self, subject: &Subject, location: &Location) -> Result<Walked, Errno> {
        self.patiently(|| {
            let base = match location.is_absolute() {
                true => None,
                false => Some(self.open_base(location.dirfd)?),
            };
            if location.is_empty() {
                // A descriptor, for which nothing is looked up.
                return base.map(Walked::To).ok_or(Errno::ENOENT);
            }
            self.walk(base, location.path, location.follow, Some(subject))
        })
    }

    /// Resolves as openat2(2) with these flags in `resolve` does, except that it never follows
    /// magic links.
    pub(crate) fn resolve_with(
        &self,
        location: &Location,
        resolve: ResolveFlag,
    ) -> Result<OwnedFd, Errno> {
        let how = OpenHow::new()
            .flags(O_PATH)
            .resolve(resolve | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let base = self.open_base(location.dirfd)?;
        openat2(&base, location.path, how)
    }

    /// Opens the directory that `dirfd` names (for AT_EMPTY_PATH, a file of any type).
    pub(super) fn open_base(&self, dirfd: Dirfd) -> Result<OwnedFd, Errno> {
        let name = self.base_name(dirfd).ok_or(Errno::EBADF)?;
        match openat(PROCFS, &name, O_PATH, Mode::empty()) {
            // procfs has no link for a descriptor that is not open.
            Err(Errno::ENOENT) if dirfd != Dirfd::Cwd => Err(Errno::EBADF),
            result => result,
        }
    }
}

/// Resolves a path in the kernel, where `/proc/self` does not exist or cannot be passed.
fn open(base: Option<&OwnedFd>, path: &CStr, follow: bool) -> Result<OwnedFd, Errno> {
    let flags = match follow {
        true => O_PATH,
        false => O_PATH | OFlag::O_NOFOLLOW,
    };
    // In a procfs that shows this process, a link to `/proc/self/cwd` would lead the kernel to the
    // host's procfs and further: only `walk` follows magic links.
    let how = OpenHow::new()
        .flags(flags)
        .resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    match base {
        Some(base) => openat2(base, path, how),
        None => openat2(PROCFS, path, how),
    }
}
