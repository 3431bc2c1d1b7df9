//! (dirfd, path, follow) to an O_PATH fd, as the target itself would resolve it.
//!
//! Absolute paths start at this thread's root, which is the target's (see `view`). Relative ones
//! start behind a magic link of the host's procfs, `PID/cwd` or `PID/fd/N`, which the kernel
//! resolves to the target's own directory. `/proc/self` and `/proc/thread-self` would mean this
//! program. As a rule it has no pid in the container's procfs: for the kernel they do not exist
//! here (ENOENT). With the host's pid namespace it has one, and may be led to itself by magic links
//! only, which the kernel is not let follow (ELOOP). In both cases, and when they are named
//! outright, the path is walked (`walk`).

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::Mode;

use super::{Call, PROCFS};
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
    /// An argument that is a plain file descriptor: AT_FDCWD is none.
    pub(crate) fn from_fd(fd: i32) -> Self {
        Self::Fd(fd)
    }

    pub(crate) fn from_raw(fd: i32) -> Self {
        if fd == libc::AT_FDCWD {
            Self::Cwd
        } else {
            Self::Fd(fd)
        }
    }
}

/// What a call names a file by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Location<'a> {
    pub(crate) dirfd: Dirfd,
    pub(crate) path: &'a CStr,
    /// Follow a symbolic link in the last component.
    pub(crate) follow: bool,
    /// AT_EMPTY_PATH: an empty path means `dirfd` itself; links are followed, since it is reached
    /// through one.
    pub(crate) empty_path: bool,
}

/// A path by which a service thread reaches what a target named.
#[derive(Debug)]
pub(crate) enum Reached<'a> {
    /// An absolute path, as it is.
    Itself(&'a CStr),
    /// A relative one, behind a magic link of the host's procfs.
    Behind(Name),
}

impl Reached<'_> {
    pub(crate) fn as_c_str(&self) -> &CStr {
        match self {
            Self::Itself(path) => path,
            Self::Behind(name) => name.as_c_str(),
        }
    }

    /// What follows `PID/fd/`.
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

/// PATH_MAX without the NUL.
const MAX_PATH: usize = 4095;

pub(super) const O_PATH: OFlag = OFlag::O_PATH.union(OFlag::O_CLOEXEC);

impl<'a> Location<'a> {
    /// As calls with `flags` mean it. The file behind an fd is reached through a link,
    /// `/proc/PID/fd/N`, so that is always followed.
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

/// Whether the path certainly, or very likely, leads through `/proc/self`.
fn names_the_target(path: &CStr) -> bool {
    let path = path.to_bytes();
    path.starts_with(b"/dev/fd")
        || path.starts_with(b"/dev/std")
        || path.windows(4).any(|window| window == b"self")
}

impl Call<'_> {
    /// A name by which this thread reaches the file in one system call, following links as the
    /// location says; `None` if it takes [`Call::resolve`].
    pub(crate) fn name<'a>(&self, location: &Location<'a>) -> Option<Reached<'a>> {
        if self.container.shows_worker() {
            // The kernel would take a link to `/proc/self` on the way for one to us.
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

    fn base_name(&self, dirfd: Dirfd) -> Option<Name> {
        match dirfd {
            Dirfd::Cwd => Some(procfs::target(self.pid(), "cwd")),
            Dirfd::Fd(fd) if fd < 0 => None,
            Dirfd::Fd(fd) => Some(procfs::target_fd(self.pid(), fd)),
        }
    }

    /// Opens what `location` names, with O_PATH.
    pub(crate) fn resolve(&self, location: &Location) -> Result<OwnedFd, Errno> {
        self.patiently(|| self.resolve_at_once(location))
    }

    /// Tries again as long as this process lacks descriptors, or another process, and the target
    /// waits: what is missing here says nothing about its call. ENOMEM and EAGAIN may be a file
    /// system's own words.
    pub(crate) fn patiently<T>(&self, look: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
        const PAUSE: Duration = Duration::from_millis(10);
        loop {
            match look() {
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

    /// Opens what `path` names from the directory `base`, or from the target's root.
    pub(crate) fn resolve_from(
        &self,
        base: Option<OwnedFd>,
        path: &CStr,
        follow: bool,
    ) -> Result<OwnedFd, Errno> {
        // Where the worker is seen, `/proc/self` behind any link would be its own directory to the
        // kernel.
        if !names_the_target(path) && !self.container.shows_worker() {
            match open(base.as_ref(), path, follow) {
                // ELOOP: a magic link, or too many links.
                Err(Errno::ENOENT | Errno::ELOOP) => {}
                result => return result,
            }
        }
        self.walk(base, path, follow)
    }

    /// As openat2(2) resolves: with the flags of its `resolve`.
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

    /// The directory, or for AT_EMPTY_PATH the file, that `dirfd` means.
    pub(super) fn open_base(&self, dirfd: Dirfd) -> Result<OwnedFd, Errno> {
        let name = self.base_name(dirfd).ok_or(Errno::EBADF)?;
        match openat(PROCFS, &name, O_PATH, Mode::empty()) {
            Err(Errno::ENOENT) if dirfd != Dirfd::Cwd => Err(Errno::EBADF),
            result => result,
        }
    }
}

/// The kernel's own resolution, in which `/proc/self` does not exist.
fn open(base: Option<&OwnedFd>, path: &CStr, follow: bool) -> Result<OwnedFd, Errno> {
    let flags = match follow {
        true => O_PATH,
        false => O_PATH | OFlag::O_NOFOLLOW,
    };
    // Where the container's procfs shows this process, a link to `/proc/self/cwd` would lead the
    // kernel to the host's procfs and on: magic links are followed by `walk` only.
    let how = OpenHow::new()
        .flags(flags)
        .resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    match base {
        Some(base) => openat2(base, path, how),
        None => openat2(PROCFS, path, how),
    }
}
