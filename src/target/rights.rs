//! A target's own rights, for what its words name in procfs.
//!
//! A worker holds CAP_SYS_PTRACE, without which it could not look into its targets, and more
//! capabilities over files than many of them; and to its own links in procfs nothing is closed. So
//! a link of procfs is followed by a child, which has no files, the target's root and the target's
//! capabilities in the target's user namespace: then the kernel decides about `root`, `cwd`, `exe`,
//! `fd/N`, `ns/*` and `map_files` as it would for the target (kernel/ptrace.c,
//! __ptrace_may_access). A target can mount anything on what would tell whose a link is, so nobody
//! asks that.

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

/// The capabilities that this thread gets back at the end.
struct Back(Capabilities);

impl Drop for Back {
    fn drop(&mut self) {
        // What is permitted may always be made effective again (capabilities(7)).
        let _ = sys::set_capabilities(self.0.effective, self.0.permitted);
    }
}

impl Call<'_> {
    /// Runs `work`, which looks something up, with the target's capabilities and no others. One that
    /// lives in a user namespace below the container's has none.
    pub(super) fn with_own_rights<T>(
        &self,
        work: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let effective = match self.is_in_namespace()? {
            true => sys::capabilities(self.pid())?.effective,
            false => 0,
        };
        self.ensure_waiting()?;
        let own = sys::capabilities(0)?;
        sys::set_capabilities(effective & own.permitted, own.permitted)?;
        let _back = Back(own);
        work()
    }

    /// Follows the link `link` of procfs's `directory`, as far as the kernel lets the target.
    pub(super) fn follow_as_target(
        &self,
        directory: &OwnedFd,
        link: &CStr,
    ) -> Result<OwnedFd, Errno> {
        let is_confined =
            self.container.identities.anyone_confined() && Identities::is_confined(self.pid())?;
        // A child is not confined by the target's Landlock domain, which closes other processes.
        if is_confined && self.is_in_own_process(directory) != Ok(true) {
            return Err(Errno::EACCES);
        }
        let root = super::walk::root()?;
        let found = self.with_child(directory.as_fd(), root.as_fd(), |child| child.open(link))?;
        // All that the child has of its own: whatever stands in the link's place by now may lead to it.
        let program = fstatat(PROCFS, c"self/exe", AtFlags::empty())?;
        let stat = fstat(&found)?;
        match (stat.st_dev, stat.st_ino) == (program.st_dev, program.st_ino) {
            true => Err(Errno::EACCES),
            false => Ok(found),
        }
    }

    /// bind(2) of the target's `socket`, with a path of its words.
    pub(crate) fn bind_as_target(&self, socket: BorrowedFd, address: &[u8]) -> Result<(), Errno> {
        let directory = self.open_base(Dirfd::Cwd)?;
        self.with_child(socket, directory.as_fd(), |child| child.bind(address))
    }

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
        self.ensure_waiting()?;
        work(&sys::Child {
            file,
            user_namespace: namespace.as_ref().map(AsFd::as_fd),
            directory,
            effective,
        })
    }
}
