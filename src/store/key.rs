//! Keys of the side store, which identify inodes, also after a boot.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2, readlink};
use nix::sys::stat::fstat;
use nix::sys::statfs::{self, FsType};
use nix::sys::statvfs::fstatvfs;

use super::fuse::connection;
use crate::linux;
use crate::linux::procfs;
use crate::linux::sys;

/// The keys that identify an inode for as long as it exists.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// By file handle; by number and time of birth in an overlay, and where there are no handles.
    pub(super) own: Vec<u8>,
    /// By number and time of birth: a second key to store under, for lookups through an overlay.
    pub(super) by_birth: Option<Vec<u8>>,
    /// By file handle, if `own` does not contain the file system: a third key to store under, for
    /// `owners gc`.
    pub(super) by_handle: Option<Vec<u8>>,
    /// A second key to look up: an entry stored through an overlay if the inode is seen directly,
    /// or the other way round.
    pub(super) other: Option<Vec<u8>>,
    /// The file system does not survive a boot.
    pub(super) passes: bool,
}

/// The number of bytes, at the start of a key by handle, that identify the file system.
pub(super) const FILE_SYSTEM: usize = 9;
/// The number of bytes before the handle in a key by handle and time of birth: its kind, and the
/// inode's number, and seconds and nanoseconds of its birth.
const BIRTH: usize = 25;

// The first byte of a key: its kind.
/// By file system and file handle.
pub(super) const BY_HANDLE: u8 = b'h';
/// By file handle and time of birth, on file systems that the kernel knows only by the number of
/// their disk, which is another one after a boot, and then another disk's.
const BY_HANDLE_AND_BIRTH: u8 = b'n';
/// By device, inode number, time of birth and type, on file systems without handles that last:
/// valid for one mount.
const BY_INODE: u8 = b'i';
/// By inode number and time of birth, stored through an overlay.
const BY_BIRTH_IN_OVERLAY: u8 = b'o';
/// By inode number and time of birth, stored directly.
const BY_BIRTH: u8 = b'b';

/// File systems that do not survive a boot.
const PASSING_FILE_SYSTEMS: [FsType; 5] = [
    statfs::TMPFS_MAGIC,
    statfs::PROC_SUPER_MAGIC,
    statfs::DEVPTS_SUPER_MAGIC,
    statfs::SYSFS_MAGIC,
    FsType(0x8584_58f6), // RAMFS_MAGIC
];

impl Key {
    /// The keys of the open file `fd`.
    pub(crate) fn of(fd: BorrowedFd) -> Result<Self, Errno> {
        let file_system = linux::file_system(fd)?;
        let mask = libc::STATX_TYPE | libc::STATX_INO | libc::STATX_BTIME;
        let file = sys::statx(fd, c"", libc::AT_EMPTY_PATH, mask)?;
        let birth = [
            file.stx_ino.to_ne_bytes(),
            file.stx_btime.tv_sec.to_ne_bytes(),
            u64::from(file.stx_btime.tv_nsec).to_ne_bytes(),
        ]
        .concat();
        let with = |kind: u8| [&[kind], birth.as_slice()].concat();
        if file_system == statfs::OVERLAYFS_SUPER_MAGIC {
            return Ok(Self {
                own: with(BY_BIRTH_IN_OVERLAY),
                by_birth: None,
                by_handle: None,
                other: Some(with(BY_BIRTH)),
                passes: false,
            });
        }
        let device = libc::makedev(file.stx_dev_major, file.stx_dev_minor);
        // The type, since the number may be that of a removed inode.
        let kind = (u32::from(file.stx_mode) & libc::S_IFMT).to_ne_bytes();
        let for_one_mount = |which: &[u8]| Self {
            own: [&with(BY_INODE)[..], &device.to_ne_bytes(), &kind, which].concat(),
            by_birth: None,
            by_handle: None,
            other: None,
            passes: true,
        };
        if file_system == statfs::FUSE_SUPER_MAGIC {
            // It numbers its handles anew with each mount, often from 1 on, and its id is always 0.
            let which = connection(file.stx_dev_major, file.stx_dev_minor);
            return Ok(for_one_mount(&which));
        }
        let handle = sys::file_handle(fd, true).or_else(|_| sys::file_handle(fd, false));
        let Ok(handle) = handle else {
            // For instance procfs, devpts, pipes.
            return Ok(for_one_mount(&[]));
        };
        let handle = [&handle.handle_type.to_ne_bytes(), handle.bytes()].concat();
        let is_born = file.stx_mask & libc::STATX_BTIME != 0;
        let id = fstatvfs(fd)?.filesystem_id();
        let own = if id != encoded(file.stx_dev_major, file.stx_dev_minor) {
            [&[BY_HANDLE], id.to_ne_bytes().as_slice(), &handle].concat()
        } else if is_born {
            [&with(BY_HANDLE_AND_BIRTH)[..], &handle].concat()
        } else {
            return Ok(for_one_mount(&[]));
        };
        Ok(Self {
            own,
            by_birth: is_born.then(|| with(BY_BIRTH)),
            by_handle: None,
            other: is_born.then(|| with(BY_BIRTH_IN_OVERLAY)),
            passes: PASSING_FILE_SYSTEMS.contains(&file_system),
        })
    }

    /// As [`Key::of`], with all keys to store an entry under.
    pub(crate) fn to_store(fd: BorrowedFd) -> Result<Self, Errno> {
        let key = Self::of(fd)?;
        Ok(match key.is_numbered() {
            true => key.on(file_system_behind(fd)),
            false => key,
        })
    }

    /// With the file system that the inode is on, if the kernel knows that only by a number.
    pub(crate) fn on(mut self, file_system: Option<FileSystem>) -> Self {
        if let Some(FileSystem(id)) = file_system.filter(|_| self.is_numbered()) {
            let handle = &self.own[BIRTH..];
            self.by_handle = Some([&[BY_HANDLE], id.as_slice(), handle].concat());
        }
        self
    }

    fn is_numbered(&self) -> bool {
        self.own.first() == Some(&BY_HANDLE_AND_BIRTH)
    }

    /// The keys to store an entry under.
    pub(crate) fn to_enter(&self) -> impl Iterator<Item = &[u8]> {
        let others = [&self.by_birth, &self.by_handle];
        let others = others.into_iter().flatten();
        [&self.own].into_iter().chain(others).map(Vec::as_slice)
    }

    /// The keys to look up, in this order.
    pub(super) fn to_look_up(&self) -> impl Iterator<Item = &[u8]> {
        [Some(&self.own), self.other.as_ref()]
            .into_iter()
            .flatten()
            .map(Vec::as_slice)
    }

    /// The keys of the file, if it is in an overlay; otherwise `None`.
    pub(crate) fn in_overlay(fd: BorrowedFd) -> Result<Option<Self>, Errno> {
        let is_overlaid = linux::file_system(fd)? == statfs::OVERLAYFS_SUPER_MAGIC;
        is_overlaid.then(|| Self::of(fd)).transpose()
    }

    /// Whether the key was stored through an overlay.
    pub(super) fn overlays(bytes: &[u8]) -> bool {
        bytes.first() == Some(&BY_BIRTH_IN_OVERLAY)
    }

    /// The keys that no other inode of its file system has.
    pub(crate) fn exact(&self) -> impl Iterator<Item = &[u8]> {
        [&self.own]
            .into_iter()
            .chain(&self.by_handle)
            .map(Vec::as_slice)
    }

    /// The inode's file system, if a key contains it.
    pub(crate) fn file_system(&self) -> Option<&[u8]> {
        self.exact().find_map(file_system_of)
    }

    /// The inode's number and file system; see `StoredEntry::number`.
    pub(crate) fn number(&self) -> Option<InodeNumber> {
        let birth = self.by_birth.as_ref()?;
        self.exact().find_map(|key| InodeNumber::of(key, birth))
    }
}

/// The id of a file system that the kernel knows only by a number: from its own UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileSystem([u8; 8]);

impl FileSystem {
    /// That of an open directory, if it has one: XFS.
    pub(crate) fn of(directory: BorrowedFd) -> Option<Self> {
        if linux::file_system(directory) != Ok(statfs::XFS_SUPER_MAGIC) {
            return None;
        }
        let uuid = sys::xfs_uuid(directory).ok()?;
        // As ext4 makes its id: linux/statfs.h, uuid_to_fsid.
        Some(Self(std::array::from_fn(|n| uuid[n] ^ uuid[n + 8])))
    }
}

/// The file system of a file that cannot be opened, by way of the directories that it is in.
fn file_system_behind(file: BorrowedFd) -> Option<FileSystem> {
    let device = fstat(file).ok()?.st_dev;
    let path = readlink(&procfs::own_fd(file)).ok()?;
    Path::new(&path).ancestors().find_map(|ancestor| {
        let directory = open_directory(ancestor)?;
        let is_same = fstat(&directory).ok()?.st_dev == device;
        is_same.then(|| FileSystem::of(directory.as_fd()))?
    })
}

/// Opens a directory by the path that procfs shows.
fn open_directory(path: &Path) -> Option<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    path.is_absolute()
        .then(|| openat2(AT_FDCWD, path, how).ok())?
}

/// A device number as the kernel makes the id of a file system of it: linux/kdev_t.h,
/// huge_encode_dev.
fn encoded(major: u32, minor: u32) -> u64 {
    let [major, minor] = [major, minor].map(u64::from);
    minor & 0xff | major << 8 | (minor & !0xff) << 12
}

/// The file system in a key by handle.
pub(super) fn file_system_of(key: &[u8]) -> Option<&[u8]> {
    key.get(..FILE_SYSTEM)
        .filter(|key| key.first() == Some(&BY_HANDLE))
}

/// Whether the key is by number and time of birth, and was stored directly.
pub(crate) fn is_by_birth(key: &[u8]) -> bool {
    key.first() == Some(&BY_BIRTH)
}

/// The inode number in a key by number and time of birth.
pub(crate) fn inode_of(key: &[u8]) -> Option<u64> {
    let is_by_birth = matches!(key.first()?, &(BY_BIRTH | BY_BIRTH_IN_OVERLAY));
    let number = key.get(1..9)?.try_into().ok()?;
    is_by_birth.then(|| u64::from_ne_bytes(number))
}

/// An inode's number, with its file system and the type of its file handle.
///
/// If the number belongs to another inode now, the earlier one no longer exists.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct InodeNumber {
    file_system: Vec<u8>,
    number: [u8; 8],
}

impl InodeNumber {
    /// From an inode's key by handle and its key by time of birth. Returns `None` if they are not
    /// such keys.
    pub(crate) fn of(by_handle: &[u8], by_birth: &[u8]) -> Option<Self> {
        file_system_of(by_handle)?;
        let file_system = by_handle.get(..FILE_SYSTEM + size_of::<i32>())?;
        Some(Self {
            file_system: file_system.to_vec(),
            number: by_birth.get(1..9)?.try_into().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn a_recycled_inode_number_has_another_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let mut keys = Vec::new();
        for _ in 0..8 {
            let file = File::create(&path).unwrap();
            keys.push(Key::of(file.as_fd()).unwrap());
            drop(file);
            std::fs::remove_file(&path).unwrap();
        }
        for (index, key) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(key), "{keys:?}");
        }
    }
}
