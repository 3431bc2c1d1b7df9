//! Keys of the side store, which identify inodes, also after a boot.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::sys::statfs::{self, FsType, fstatfs};
use nix::sys::statvfs::fstatvfs;

use crate::linux::sys;

/// The keys that identify an inode for as long as it exists.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// By file handle; by number and time of birth in an overlay, and where there are no handles.
    pub(super) own: Vec<u8>,
    /// By number and time of birth: a second key to store under, for lookups through an overlay.
    pub(super) by_birth: Option<Vec<u8>>,
    /// A second key to look up: an entry stored through an overlay if the inode is seen directly,
    /// or the other way round.
    pub(super) other: Option<Vec<u8>>,
    /// The file system does not survive a boot.
    pub(super) passes: bool,
}

/// The number of bytes, at the start of a key by handle, that identify the file system.
pub(super) const FILE_SYSTEM: usize = 9;

// The first byte of a key: its kind.
/// By file system and file handle.
pub(super) const BY_HANDLE: u8 = b'h';
/// By device, inode number and time of birth, on file systems without handles: valid for one mount.
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
        let file_system = fstatfs(fd)?.filesystem_type();
        let mask = libc::STATX_INO | libc::STATX_BTIME;
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
                other: Some(with(BY_BIRTH)),
                passes: false,
            });
        }
        let handle = sys::file_handle(fd, true).or_else(|_| sys::file_handle(fd, false));
        let Ok(handle) = handle else {
            // For instance procfs, devpts, pipes.
            let device = libc::makedev(file.stx_dev_major, file.stx_dev_minor);
            return Ok(Self {
                own: [&with(BY_INODE)[..], &device.to_ne_bytes()].concat(),
                by_birth: None,
                other: None,
                passes: true,
            });
        };
        let mut own = Vec::with_capacity(64);
        own.push(BY_HANDLE);
        own.extend(fstatvfs(fd)?.filesystem_id().to_ne_bytes());
        own.extend(handle.handle_type.to_ne_bytes());
        own.extend(handle.bytes());
        let is_born = file.stx_mask & libc::STATX_BTIME != 0;
        Ok(Self {
            own,
            by_birth: is_born.then(|| with(BY_BIRTH)),
            other: is_born.then(|| with(BY_BIRTH_IN_OVERLAY)),
            passes: PASSING_FILE_SYSTEMS.contains(&file_system),
        })
    }

    /// The keys to store an entry under.
    pub(crate) fn to_enter(&self) -> impl Iterator<Item = &[u8]> {
        [Some(&self.own), self.by_birth.as_ref()]
            .into_iter()
            .flatten()
            .map(Vec::as_slice)
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
        let is_overlaid = fstatfs(fd)?.filesystem_type() == statfs::OVERLAYFS_SUPER_MAGIC;
        is_overlaid.then(|| Self::of(fd)).transpose()
    }

    /// Whether the key was stored through an overlay.
    pub(super) fn overlays(bytes: &[u8]) -> bool {
        bytes.first() == Some(&BY_BIRTH_IN_OVERLAY)
    }

    /// The first key.
    pub(crate) fn own(&self) -> &[u8] {
        &self.own
    }

    /// The inode's file system, if the key contains it.
    pub(crate) fn file_system(&self) -> Option<&[u8]> {
        file_system_of(&self.own)
    }

    /// The inode's number and file system; see `StoredEntry::number`.
    pub(crate) fn number(&self) -> Option<InodeNumber> {
        InodeNumber::of(&self.own, self.by_birth.as_ref()?)
    }
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
    use std::os::fd::AsFd;

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
