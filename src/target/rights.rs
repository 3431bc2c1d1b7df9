//! Lookups with the target's own rights, for paths that lead through procfs.
//!
//! A worker has CAP_SYS_PTRACE, which it needs to read its targets' memory, and more capabilities
//! over files than many targets; and the kernel lets it follow all of its own links in procfs. So a
//! child follows links of procfs. The child has no files, and has the target's root directory and
//! the target's capabilities in the target's user namespace. So the kernel decides about `root`,
//! `cwd`, `exe`, `fd/N`, `ns/*` and `map_files` as it would for the target (kernel/ptrace.c,
//! __ptrace_may_access).
//!
//! The worker does not try to find out to which process a link belongs: a target can mount anything
//! over the files that say so.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fstat, fstatat};

use super::path::Dirfd;
use super::{Call, PROCFS};
use crate::credentials::Capabilities;
use crate::identity::Identities;
use crate::linux::procfs;
use crate::linux::sys;

/// Restores these capabilities of this thread when it is dropped.
struct Back(Capabilities);

impl Drop for Back {
    fn drop(&mut self) {
        // Cannot fail: a thread may always make its permitted capabilities effective
        // (capabilities(7)).
        let _ = sys::set_capabilities(self.0.effective, self.0.permitted);
    }
}

impl Call<'_> {
    /// Runs `work`, which looks up a file, with no capabilities but the target's. A target in a
    /// user namespace below the container's has no capabilities in the container's.
    pub(super) fn with_own_rights<T>(
        &self,
        work: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let effective = match self.is_in_namespace()? {
            true => sys::capabilities(self.pid())?.effective,
            false => 0,
        };
        // After the reads by pid, so that they are known to have been the target's.
        self.ensure_waiting()?;
        let own = sys::capabilities(0)?;
        sys::set_capabilities(effective & own.permitted, own.permitted)?;
        let _back = Back(own);
        work()
    }

    /// Whether the target has restricted itself by landlock(7).
    pub(crate) fn is_confined(&self) -> Result<bool, Errno> {
        let anyone_is = self.container.identities.anyone_confined();
        Ok(anyone_is && Identities::is_confined(self.pid())?)
    }

    /// Follows the link `link` in the directory `directory` of procfs, if the target may.
    pub(super) fn follow_as_target(
        &self,
        directory: &OwnedFd,
        link: &CStr,
    ) -> Result<OwnedFd, Errno> {
        // landlock(7) forbids the target to access processes outside of its domain, but the child
        // is not in that domain.
        if self.is_confined()? && self.is_in_own_process(directory.as_fd()) != Ok(true) {
            return Err(Errno::EACCES);
        }
        let root = super::walk::root()?;
        let found = self.with_child(directory.as_fd(), root.as_fd(), |child| child.open(link))?;
        // The link may have been replaced by one to the child. Of the child's files, only its
        // program, which is the worker's, is not the target's.
        let program = fstatat(PROCFS, c"self/exe", AtFlags::empty())?;
        let stat = fstat(&found)?;
        match (stat.st_dev, stat.st_ino) == (program.st_dev, program.st_ino) {
            true => Err(Errno::EACCES),
            false => Ok(found),
        }
    }

    /// Binds the target's `socket` to an address with a path, as the target would: bind(2).
    pub(crate) fn bind_as_target(&self, socket: BorrowedFd, address: &[u8]) -> Result<(), Errno> {
        let directory = self.open_base(Dirfd::Cwd)?;
        self.with_child(socket, directory.as_fd(), |child| child.bind(address))
    }

    /// Runs `work` with a child that keeps only `file`, has the working directory `directory`, and
    /// has the target's capabilities in the target's user namespace.
    fn with_child<T>(
        &self,
        file: BorrowedFd,
        directory: BorrowedFd,
        work: impl FnOnce(&sys::Child) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let namespace = match self.is_in_namespace()? {
            true => None,
            false => {
                let name = procfs::target(self.pid(), "ns/user");
                let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
                Some(openat(PROCFS, &name, flags, Mode::empty())?)
            }
        };
        let effective = sys::capabilities(self.pid())?.effective;
        // After all reads by pid, so that they are known to have been the target's.
        self.ensure_waiting()?;
        work(&sys::Child {
            file,
            user_namespace: namespace.as_ref().map(AsFd::as_fd),
            directory,
            effective,
        })
    }
}
