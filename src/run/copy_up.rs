//! `--copy-up`: a writable copy of a directory, in memory.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MsFlags, mount};

use super::place::Place;
use crate::error::{Context, Error};
use crate::wire::config;

/// The mount point of the overlay over `directory`, in a tmpfs of this mount namespace.
pub(super) fn copied(place: &Place, directory: &str) -> PathBuf {
    let name = directory.trim_matches('/').replace('/', "-");
    place.directory.join("up").join(name).join("merged")
}

/// Mounts an overlay with the directory as its lower layer and a tmpfs as its upper one.
pub(super) fn copy_up(place: &Place, rootfs: &Path, directory: &str) -> Result<(), Error> {
    let lower = directory_in(rootfs, directory)?;
    let merged = copied(place, directory);
    let base = merged.parent().unwrap_or(Path::new("/")).to_owned();
    let mount_at = |kind: &str, at: &Path, data: Option<&str>| {
        mount(Some(kind), at, Some(kind), MsFlags::MS_NODEV, data).at(at)
    };
    fs::create_dir_all(&base).at(&base)?;
    mount_at("tmpfs", &base, None)?;
    for name in ["upper", "work", "merged"] {
        let path = base.join(name);
        fs::create_dir(&path).at(&path)?;
    }
    let data = format!(
        "userxattr,lowerdir={},upperdir={},workdir={}",
        procfs_name(&lower),
        escaped(config::text(&base.join("upper"))?),
        escaped(config::text(&base.join("work"))?)
    );
    mount_at("overlay", &merged, Some(&data))
}

/// Opens a directory of the root file system. Symbolic links are refused: they could lead out of
/// it.
fn directory_in(rootfs: &Path, directory: &str) -> Result<OwnedFd, Error> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    let inside = directory.trim_start_matches('/');
    let open = || -> io::Result<OwnedFd> { Ok(openat2(File::open(rootfs)?, inside, how)?) };
    open().map_err(|_| Error::Rootfs {
        path: rootfs.join(inside),
        reason: "--copy-up wants a directory of the root file system, with no link on the way",
    })
}

fn procfs_name(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Escapes the characters that separate overlay's mount options.
fn escaped(path: &str) -> String {
    path.replace('\\', "\\\\")
        .replace(':', "\\:")
        .replace(',', "\\,")
}
