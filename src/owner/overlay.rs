//! The inode behind one of an overlay.
//!
//! Symbolic links, fifos and the like that the kernel has copied up keep the number of their lower inode until the overlay is
//! unmounted, and then have that of the upper one: the kernel notes down where a file came from in an attribute, which they
//! cannot carry either. So a new owner is entered for the upper inode as well. It is found by path, since the kernel gives
//! nothing else, and is the right one if it was born in the same nanosecond.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2, readlinkat};
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, fstatfs};

use crate::procfs::unescaped;
use crate::{procfs, sys};

/// The inode of the upper layer that `fd` shows, if `fd` is of an overlay that `pid` has mounted; `root` is where the names of
/// layers begin.
pub(super) fn upper(fd: BorrowedFd, pid: u32, root: BorrowedFd) -> Result<Option<OwnedFd>, Errno> {
    if fstatfs(fd)?.filesystem_type() != OVERLAYFS_SUPER_MAGIC {
        return Ok(None);
    }
    let mask = libc::STATX_TYPE | libc::STATX_BTIME | libc::STATX_MNT_ID;
    let shown = sys::statx(fd, c"", libc::AT_EMPTY_PATH, mask)?;
    let mounts = procfs::read(&procfs::target(pid, "mountinfo"))?;
    let Some(mount) = Mount::find(&mounts, shown.stx_mnt_id) else {
        return Ok(None);
    };
    let path = readlinkat(AT_FDCWD, &procfs::own_fd(fd))?;
    let Ok(path) = Path::new(&path).strip_prefix(&mount.point) else {
        return Ok(None);
    };
    let Ok(file) = open_below(root, &mount.upper, &mount.root.join(path)) else {
        // Its layers are named from somewhere else, or the file is gone.
        return Ok(None);
    };
    let found = sys::statx(file.as_fd(), c"", libc::AT_EMPTY_PATH, mask)?;
    let birth = |file: &libc::statx| (file.stx_btime.tv_sec, file.stx_btime.tv_nsec);
    let kind = |file: &libc::statx| u32::from(file.stx_mode) & libc::S_IFMT;
    let is_it = birth(&found) == birth(&shown) && kind(&found) == kind(&shown);
    Ok(is_it.then_some(file))
}

fn open_below(root: BorrowedFd, layer: &Path, path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let how = OpenHow::new().resolve(ResolveFlag::RESOLVE_IN_ROOT);
    let layer = openat2(root, layer, how.flags(flags | OFlag::O_DIRECTORY))?;
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
    openat2(layer, path, OpenHow::new().resolve(resolve).flags(flags))
}

/// What proc_pid_mountinfo(5) says of an overlay.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    /// What of the overlay is mounted, below its own root.
    root: PathBuf,
    point: PathBuf,
    upper: PathBuf,
}

impl Mount {
    fn find(mounts: &str, id: u64) -> Option<Self> {
        let line = mounts
            .lines()
            .find(|line| line.split(' ').next().is_some_and(|it| it.parse() == Ok(id)))?;
        let (fields, rest) = line.split_once(" - ")?;
        let mut fields = fields.split(' ').skip(3);
        let (root, point) = (unescaped(fields.next()?), unescaped(fields.next()?));
        let upper = rest
            .split([' ', ','])
            .find_map(|option| option.strip_prefix("upperdir="))?;
        Some(Self {
            root: Path::new(&root).strip_prefix("/").ok()?.to_owned(),
            point: PathBuf::from(point),
            upper: PathBuf::from(unescaped(upper)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upper_layer_of_a_mount_is_found_by_the_mounts_number() {
        let mounts = "21 20 0:3 / /proc rw - proc proc rw\n\
            77 20 0:52 /a\\040b /mnt/x\\040y rw,relatime shared:1 - overlay overlay rw,lowerdir=/l:/m,upperdir=/u\\040p,workdir=/w\n\
            7 20 0:53 / / ro - overlay overlay ro,lowerdir=/l:/m\n";
        let mount = Mount {
            root: "a b".into(),
            point: "/mnt/x y".into(),
            upper: "/u p".into(),
        };
        assert_eq!(Mount::find(mounts, 77), Some(mount));
        assert_eq!(Mount::find(mounts, 7), None);
        assert_eq!(Mount::find(mounts, 8), None);
    }
}
