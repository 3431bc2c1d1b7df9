//! The inode behind one that is seen through an overlay.
//!
//! What has been copied up keeps its inode number for as long as the overlay is mounted. Then it
//! has that of its copy in the upper layer, since only regular files and directories carry what
//! would tell of their origin (`user.overlay.origin`).

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

/// Where upper layers are that cannot be reached from inside the container.
#[derive(Debug, Default)]
pub(crate) struct Layers {
    /// By the number of the overlay's device.
    known: HashMap<String, OwnedFd>,
    /// The root directory out there.
    outside: Option<OwnedFd>,
}

/// Whoever sees the host's mounts may see many, and mostly other users'.
const MOST: usize = 64;

impl Layers {
    /// Of the overlays that the process `pid` sees, by the paths that they have out here.
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

    /// The key of the upper layer's inode that the overlay shows as `file`, if it can be found;
    /// `seen_by`: a process whose mounts it may be of, if not of the worker's own.
    pub(crate) fn key_behind(&self, file: BorrowedFd, seen_by: Option<u32>) -> Option<Key> {
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
        // Below `run --keep-id` a container's mounts are its own, and layers have the names that
        // they have out here.
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
        // This thread's root may be a container's.
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
            .and_then(|found| Key::of(found.as_fd()).ok())
    }
}

/// What a mount shows of an overlay.
struct Overlay {
    device: String,
    root: PathBuf,
    point: PathBuf,
    upper: PathBuf,
}

impl Overlay {
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

    /// A relative path was the mounting process's own.
    fn open(&self) -> Option<OwnedFd> {
        self.open_how(AT_FDCWD, ResolveFlag::empty())
    }

    /// The same, seen from another root directory.
    fn open_from(&self, root: &OwnedFd) -> Option<OwnedFd> {
        self.open_how(root.as_fd(), ResolveFlag::RESOLVE_IN_ROOT)
    }

    /// Whoever has mounted the overlay has chosen the path: it leads through no process's files.
    fn open_how(&self, root: BorrowedFd, resolve: ResolveFlag) -> Option<OwnedFd> {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(resolve | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let is_absolute = self.upper.is_absolute();
        is_absolute.then(|| openat2(root, &self.upper, how).ok())?
    }
}

fn open_beneath(layer: BorrowedFd, path: &Path) -> Option<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    openat2(layer, OsStr::from_bytes(path.as_os_str().as_bytes()), how).ok()
}

/// An overlay shows all but the number of the inode behind.
fn is_same(shown: BorrowedFd, found: BorrowedFd) -> bool {
    let look = |file: BorrowedFd| {
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
    look(shown).is_some() && look(shown) == look(found)
}
