//! Mounts of FUSE: the kernel gives the device number of one that has ended to the next.

use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use nix::fcntl::{AtFlags, OFlag, open};
use nix::sys::stat::{Mode, fstatat};

use crate::linux::name::Name;

/// A directory with one for each mount, named by the number; `None` where the host has none. The
/// rest of this process's life it may be in a container, which need not have it.
static CONNECTIONS: OnceLock<Option<OwnedFd>> = OnceLock::new();

/// To be called before this process joins a container.
pub(super) fn look_for_connections() {
    CONNECTIONS.get_or_init(|| {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        open("/sys/fs/fuse/connections", flags, Mode::empty()).ok()
    });
}

/// What the mount with this number has and no other one had: when it was made. Zeros where that is
/// not known.
pub(super) fn connection(major: u32, minor: u32) -> [u8; 16] {
    let Some(Some(connections)) = CONNECTIONS.get() else {
        return [0; 16];
    };
    // fs/fuse/control.c, fuse_ctl_add_conn: a dev_t of the kernel's (linux/kdev_t.h, MKDEV).
    let name = Name::format(format_args!("{}", major << 20 | minor));
    match fstatat(connections, &name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => {
            let made = i128::from(stat.st_ctime) << 64 | i128::from(stat.st_ctime_nsec);
            made.to_ne_bytes()
        }
        Err(_) => [0; 16],
    }
}
