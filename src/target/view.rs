//! Which root directory a target sees, and how a service thread comes to see the same one.
//!
//! A service thread has its own root (unshare(2), CLONE_FS) and keeps the host's procfs as its
//! working directory. As long as no target has called chroot(2) or the like, all see the root that
//! the worker joined, and nobody is asked. Afterwards a look at PID/root costs 2-3 µs a call, and
//! chroot(2) moves the thread when the answer differs. The root may lie in another mount namespace:
//! path walks follow mounts, not namespaces.

use std::ffi::CStr;
use std::os::fd::AsFd;

use nix::errno::Errno;

use super::{Call, PROCFS};
use crate::linux::procfs;
use crate::linux::sys;

/// STATX_MNT_ID_UNIQUE (Linux 6.8): a mount's id that is never used again. Older kernels clear the
/// bit.
const STATX_MNT_ID_UNIQUE: u32 = 0x4000;

/// A root directory: a mount, which belongs to one mount namespace, and an inode on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct View {
    mount: u64,
    device: (u32, u32),
    inode: u64,
}

impl View {
    /// The directory that `path` leads to from the caller's own working directory.
    pub(crate) fn at(path: &CStr) -> Result<Self, Errno> {
        let mask = libc::STATX_INO | libc::STATX_MNT_ID | STATX_MNT_ID_UNIQUE;
        let root = sys::statx(PROCFS, path, 0, mask)?;
        Ok(Self {
            mount: root.stx_mnt_id,
            device: (root.stx_dev_major, root.stx_dev_minor),
            inode: root.stx_ino,
        })
    }

    /// What this thread sees now.
    pub(crate) fn current() -> Result<Self, Errno> {
        Self::at(c"/")
    }
}

impl Call<'_> {
    /// Lets this thread see the target's root.
    pub(crate) fn share_view(&mut self) -> Result<(), Errno> {
        if !self.container.views_differ() {
            return Ok(());
        }
        let root = procfs::target(self.pid(), "root");
        let wanted = View::at(root.as_c_str())?;
        if wanted == self.thread.view {
            return Ok(());
        }
        nix::unistd::chroot(&root)?;
        self.thread.away = true;
        // What was entered counts, not what was seen before: the target's other threads may have
        // moved on.
        self.thread.view = View::current()?;
        Ok(())
    }

    /// Lets this thread see the container's own root again: a root directory keeps its mount busy.
    pub(crate) fn leave_view(&mut self) {
        if !std::mem::take(&mut self.thread.away) {
            return;
        }
        let home = self
            .container
            .root
            .as_ref()
            .map(|root| procfs::own_fd(root.as_fd()));
        let returned = home.map_or(Err(Errno::ENOENT), |home| nix::unistd::chroot(&home));
        // Without a way back, the next call finds that this thread is elsewhere.
        self.thread.view = returned.and_then(|()| View::current()).unwrap_or_default();
    }
}
