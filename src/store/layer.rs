//! The inode in the upper layer that an overlay shows.
//!
//! An inode that has been copied up keeps its number only until the overlay is mounted again. Then
//! it has the number of its copy in the upper layer, because only regular files and directories
//! carry `user.overlay.origin`.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, open, openat2, readlink};
use nix::sys::stat::Mode;

use super::key::Key;
use crate::linux::mountinfo::{Mount, Mounts};
use crate::linux::name::Name;
use crate::linux::procfs;
use crate::linux::sys;

/// Upper layers, opened before the worker joined: from inside a container they cannot be reached.
#[derive(Debug, Default)]
pub(crate) struct Layers {
    /// The upper layers, by the overlay's device number.
    known: HashMap<String, OwnedFd>,
    /// The host's root directory.
    outside: Option<OwnedFd>,
}

/// The most overlays whose upper layers are opened. A process in the host's mount namespace sees
/// those of all users.
const MOST: usize = 64;

impl Layers {
    /// Opens the upper layers of the overlays that the process `pid` sees. To be called in the
    /// host's mount namespace, whose paths their mount options contain.
    pub(crate) fn of(pid: u32) -> Self {
        let mounts = Mounts::read(&procfs::target(pid, "mountinfo")).ok();
        let mounts = mounts.as_ref().map(Mounts::iter).into_iter().flatten();
        let layers = mounts.filter_map(Overlay::of).take(MOST);
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Self {
            known: layers
                .filter_map(|overlay| Some((overlay.device.clone(), overlay.open()?)))
                .collect(),
            outside: open("/", flags, Mode::empty()).ok(),
        }
    }

    /// Returns the key of the upper layer's inode that an overlay shows as `file`; `None` if it
    /// cannot be found. `seen_by`: a process in whose mount namespace the overlay is, if it is not
    /// in this thread's.
    pub(crate) fn key_behind(&self, file: BorrowedFd, seen_by: Option<u32>) -> Option<Key> {
        // fdinfo names the mount of the file, mountinfo the overlay's device and upper layer, and
        // the magic link the path in the overlay. A rename in between, or a mount over the path,
        // only makes the search fail: `is_same` compares what was found.
        let thread = |what: &str| Name::format(format_args!("thread-self/{what}"));
        let number = file.as_raw_fd();
        let details = procfs::read(&thread(&format!("fdinfo/{number}"))).ok()?;
        let mount: u64 = details
            .lines()
            .find_map(|line| line.strip_prefix("mnt_id:"))?
            .trim()
            .parse()
            .ok()?;
        let path = readlink(&thread(&format!("fd/{number}"))).ok()?;
        let path = Path::new(&path);
        // Below `run --keep-id` a container has its own mount namespace, which the worker has not
        // joined; upper layers have paths of the host.
        let files = [
            Some(thread("mountinfo")),
            seen_by.map(|pid| procfs::target(pid, "mountinfo")),
        ];
        let overlay = files.iter().flatten().find_map(|file| {
            let mounts = Mounts::read(file).ok()?;
            let mount = mounts.iter().find(|it| it.id == mount)?;
            Some(Overlay::of(mount))
        })??;
        let inside = path.strip_prefix(&overlay.point).ok()?;
        let inside = overlay.root.strip_prefix("/").ok()?.join(inside);
        let known = self.known.get(&overlay.device).map(AsFd::as_fd);
        // This thread's root directory may be a container's: the host's root is tried as well.
        let outside = self
            .outside
            .as_ref()
            .and_then(|root| overlay.open_from(root));
        let opened = [overlay.open(), outside];
        let opened = opened.iter().flatten().map(AsFd::as_fd);
        let layers = known.into_iter().chain(opened);
        layers
            .filter_map(|layer| open_beneath(layer, &inside))
            .find(|found| is_same(file, found.as_fd()))
            .and_then(|found| Key::to_store(found.as_fd()).ok())
    }
}

/// A mount of an overlay.
struct Overlay {
    device: String,
    /// The directory of the overlay that is mounted.
    root: PathBuf,
    /// The mount point.
    point: PathBuf,
    /// The `upperdir` option.
    upper: PathBuf,
}

impl Overlay {
    /// Returns `None` if the mount is not an overlay with an upper layer.
    fn of(mount: Mount) -> Option<Self> {
        let upper = mount
            .option("upperdir")
            .filter(|_| mount.kind == "overlay")?;
        Some(Self {
            device: mount.device.to_owned(),
            root: mount.root(),
            point: mount.point(),
            upper: upper.into(),
        })
    }

    /// Opens the upper layer by its path from this thread's root directory.
    fn open(&self) -> Option<OwnedFd> {
        self.open_how(AT_FDCWD, ResolveFlag::empty())
    }

    /// Opens the upper layer by its path from another root directory.
    fn open_from(&self, root: &OwnedFd) -> Option<OwnedFd> {
        self.open_how(root.as_fd(), ResolveFlag::RESOLVE_IN_ROOT)
    }

    /// The process that mounted the overlay chose the path, so magic links are refused. A relative
    /// path was relative to that process's working directory, which is unknown.
    fn open_how(&self, root: BorrowedFd, resolve: ResolveFlag) -> Option<OwnedFd> {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(resolve | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let is_absolute = self.upper.is_absolute();
        is_absolute.then(|| openat2(root, &self.upper, how).ok())?
    }
}

/// Opens a file in an upper layer, without following any symlink.
fn open_beneath(layer: BorrowedFd, path: &Path) -> Option<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    openat2(layer, OsStr::from_bytes(path.as_os_str().as_bytes()), how).ok()
}

/// Whether `found` may be the inode that the overlay shows: except for the inode number, an overlay
/// shows the status of the upper layer's inode.
fn is_same(shown: BorrowedFd, found: BorrowedFd) -> bool {
    let status = |file: BorrowedFd| {
        let mask = libc::STATX_BASIC_STATS | libc::STATX_BTIME;
        let file = sys::statx(file, c"", libc::AT_EMPTY_PATH, mask).ok()?;
        let time = |time: libc::statx_timestamp| (time.tv_sec, time.tv_nsec);
        let times = (
            time(file.stx_btime),
            time(file.stx_ctime),
            time(file.stx_mtime),
        );
        Some((times, file.stx_mode, file.stx_size))
    };
    status(shown).is_some() && status(shown) == status(found)
}
