//! The root directory of a target, and how a service thread moves to it.
//!
//! A service thread has its own root (unshare(2), CLONE_FS), and the host's procfs as its working
//! directory. Until a target calls chroot(2) or the like, all targets have the root that the worker
//! joined, and no check is needed. After that, each call checks PID/root, which costs 2-3 µs, and
//! the thread calls chroot(2) if its own root differs. The root may be in another mount namespace:
//! path walks follow mounts, not namespaces.

use std::ffi::CStr;
use std::os::fd::AsFd;

use nix::errno::Errno;

use super::{Call, PROCFS};
use crate::linux::procfs;
use crate::linux::sys;

/// STATX_MNT_ID_UNIQUE (Linux 6.8): a mount id that is never reused. Older kernels clear the bit,
/// and return an id that may be reused.
const STATX_MNT_ID_UNIQUE: u32 = 0x4000;

/// The identity of a root directory: a mount, which belongs to one mount namespace, and an inode.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct View {
    mount: u64,
    device: (u32, u32),
    inode: u64,
}

impl View {
    /// The directory `path`, which is relative to the caller's working directory.
    pub(crate) fn at(path: &CStr) -> Result<Self, Errno> {
        let mask = libc::STATX_INO | libc::STATX_MNT_ID | STATX_MNT_ID_UNIQUE;
        let root = sys::statx(PROCFS, path, 0, mask)?;
        Ok(Self {
            mount: root.stx_mnt_id,
            device: (root.stx_dev_major, root.stx_dev_minor),
            inode: root.stx_ino,
        })
    }

    /// The present root directory of this thread.
    pub(crate) fn current() -> Result<Self, Errno> {
        Self::at(c"/")
    }
}

impl Call<'_> {
    /// Makes the target's root the root of this thread, if they differ.
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
        // Read again, and not `wanted`: another thread of the target may have changed the root
        // before chroot(2) followed the link.
        self.thread.view = View::current()?;
        Ok(())
    }

    /// Makes the container's root the root of this thread again: any other root directory would
    /// keep its mount busy (umount(2): EBUSY).
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
        // If that fails, the default view differs from any root, so the next call moves this
        // thread.
        self.thread.view = returned.and_then(|()| View::current()).unwrap_or_default();
    }
}
