//! Fake owners of files: load, store, remove.
//!
//! An owner lives in the extended attribute [`XATTR`] where the inode can carry one, otherwise in
//! the side store. All functions work on an open file, usually an O_PATH fd: what was resolved once
//! is what is read and changed. The caller's working directory must be the host's procfs (see
//! [`crate::linux::procfs`]).

pub(crate) mod acl;
mod attribute;
mod cache;
mod emulated;
mod exported;
mod record;
mod stored;

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmodat, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::Uid;
use tracing::warn;
use xattr::FileExt;

pub(crate) use attribute::{Attribute, NamedValue, shown, stored_name};
pub(crate) use cache::{OwnerCache, Version};
pub(crate) use emulated::takes_attributes;
pub(crate) use exported::{attributes, remove_access_list, set_attribute};
use record::Record;
pub(crate) use record::{Device, Owner};

use crate::linux::errno_of;
use crate::linux::procfs;
use crate::linux::sys;
use crate::store::{FULL_ONES, Key, Layers, SideStore, store_failed, tell_once};

/// The attribute that holds the owner; the field's common name, shared with umoci.
pub(crate) const XATTR: &CStr = c"user.rootlesscontainers";

/// Whether an inode has the attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carried {
    Yes,
    /// It is full of others.
    Full,
    Never,
}

/// Where owners are kept.
#[derive(Debug)]
pub(crate) struct Owners {
    /// Where there is none, what is to be kept in it is refused so. The log says why.
    side: Result<SideStore, Errno>,
    pub(crate) layers: Layers,
    unreadable_reported: AtomicBool,
}

impl Owners {
    pub(crate) fn new(side: Result<SideStore, Errno>) -> Self {
        Self {
            side,
            layers: Layers::default(),
            unreadable_reported: AtomicBool::new(false),
        }
    }

    /// Whether an inode without the attribute may have an owner all the same.
    pub(crate) fn side_store_is_used(&self) -> bool {
        self.side.as_ref().is_ok_and(|side| !side.is_empty())
    }

    /// Whether an inode of this type, on which no attribute was found, may have an owner all the
    /// same: it can carry none, or it was full of others.
    pub(crate) fn may_be_in_side_store(&self, file_type: SFlag) -> bool {
        self.side.as_ref().is_ok_and(|side| {
            !side.is_empty() && (!carries_xattrs(file_type) || side.has_full_ones())
        })
    }

    /// The attribute of the file that `path` leads to, without opening it: one system call.
    /// EOPNOTSUPP where files have no such attributes.
    pub(crate) fn read_attribute(&self, path: &CStr, follow: bool) -> Result<Option<Owner>, Errno> {
        let mut value = [0; 64];
        let length = sys::getxattr(path, XATTR, &mut value, follow);
        self.decode(length.map(|length| &value[..length]))
    }

    /// As [`Owners::read_attribute`], from a directory.
    pub(crate) fn read_attribute_at(
        &self,
        directory: BorrowedFd,
        path: &CStr,
        follow: bool,
    ) -> Result<Option<Owner>, Errno> {
        let mut value = [0; 64];
        let length = sys::getxattrat(directory, path, XATTR, &mut value, follow);
        self.decode(length.map(|length| &value[..length]))
    }

    /// The owner of the file behind `fd`.
    pub(crate) fn load(&self, fd: BorrowedFd, file_type: SFlag) -> Result<Option<Owner>, Errno> {
        if carries_xattrs(file_type) {
            let mut value = [0; 64];
            let length = match sys::fgetxattr(fd, XATTR, &mut value) {
                // fgetxattr(2) takes no O_PATH fd.
                Err(Errno::EBADF) => {
                    let name = procfs::own_fd(fd);
                    sys::getxattr(name.as_c_str(), XATTR, &mut value, true)
                }
                result => result,
            };
            let is_elsewhere = match length {
                Err(Errno::EOPNOTSUPP) => true,
                Err(Errno::ENODATA) => self.may_be_in_side_store(file_type),
                _ => false,
            };
            if !is_elsewhere {
                return self.decode(length.map(|length| &value[..length]));
            }
        }
        match &self.side {
            Ok(side) if !side.is_empty() => {
                let bytes = side.load(&Key::of(fd)?).map_err(store_failed)?;
                self.decode(bytes.as_deref().ok_or(Errno::ENODATA))
            }
            _ => Ok(None),
        }
    }

    /// Makes `owner` the owner of the file behind `fd`, or removes it where nothing is set, with
    /// all that chown(2) does beside; `known` is what [`Owners::load`] found, `seen_by` as in
    /// [`Layers::key_behind`].
    pub(crate) fn store(
        &self,
        fd: BorrowedFd,
        stat: &FileStat,
        (known, owner): (Option<Owner>, Owner),
        seen_by: Option<u32>,
    ) -> Result<(), Errno> {
        if known.is_none() && owner.is_unset() {
            return touch(fd, stat, true);
        }
        let carried = self.carry(fd, file_type(stat.st_mode), owner)?;
        if carried == Carried::Yes {
            return touch(fd, stat, false);
        }
        // First, since it may fail: on a read-only mount, or on an inode that takes no chown at
        // all.
        let before = Key::in_overlay(fd)?;
        touch(fd, stat, true)?;
        let before = before.as_ref().map(|key| (key, seen_by));
        self.store_in_side(fd, owner, (before, carried))
    }

    /// Puts `owner` into the inode's attribute, if there is room for it.
    fn carry(&self, fd: BorrowedFd, file_type: SFlag, owner: Owner) -> Result<Carried, Errno> {
        if !carries_xattrs(file_type) {
            return Ok(Carried::Never);
        }
        let has_full_ones = self.side.as_ref().is_ok_and(SideStore::has_full_ones);
        // The attribute is what counts: what is in the side store must be gone before it would
        // show.
        if has_full_ones && owner.is_unset() {
            self.remove_from_side(fd)?;
        }
        match store_xattr(fd, owner) {
            Err(Errno::EOPNOTSUPP) => Ok(Carried::Never),
            // ext4 has a block for all attributes of an inode, a quota may be used up.
            Err(Errno::ENOSPC | Errno::EDQUOT | Errno::E2BIG) => Ok(Carried::Full),
            Ok(()) if has_full_ones && !owner.is_unset() => {
                self.remove_from_side(fd)?;
                Ok(Carried::Yes)
            }
            result => result.map(|()| Carried::Yes),
        }
    }

    /// There is room again for what was in the side store.
    fn remove_from_side(&self, fd: BorrowedFd) -> Result<(), Errno> {
        let Ok(side) = &self.side else {
            return Ok(());
        };
        let key = Key::of(fd)?;
        if side.load(&key).map_err(store_failed)?.is_none() {
            return Ok(());
        }
        let keys = || key.to_enter().map(<[u8]>::to_vec).collect();
        side.update(&key, |_| (Vec::new(), keys()))
            .map_err(store_failed)
    }

    /// Copies the file up, if it is a special one in a lower layer of an overlay and something is
    /// kept of it: what is kept goes along. To be done before the kernel does it for whatever
    /// reason.
    pub(crate) fn bring_up(
        &self,
        fd: BorrowedFd,
        stat: &FileStat,
        seen_by: Option<u32>,
    ) -> Result<(), Errno> {
        let kind = file_type(stat.st_mode);
        let Some(side) = self.side.as_ref().ok().filter(|side| !side.is_empty()) else {
            return Ok(());
        };
        if carries_xattrs(kind) {
            return Ok(());
        }
        let Some(before) = Key::in_overlay(fd)? else {
            return Ok(());
        };
        let known = side.load(&before).map_err(store_failed)?;
        let Some(record) = known.and_then(|bytes| Record::decode(&bytes).ok()) else {
            return Ok(());
        };
        if kind == SFlag::S_IFLNK {
            touch(fd, stat, false)?;
        } else {
            // Unlike chown(2) it takes no bits away.
            let mode = Mode::from_bits_truncate(stat.st_mode);
            let path = procfs::own_fd(fd);
            fchmodat(AT_FDCWD, &path, mode, FchmodatFlags::FollowSymlink)?;
        }
        self.store_in_side(fd, record.owner, (Some((&before, seen_by)), Carried::Never))
    }

    /// Makes `owner` the owner of a file that has just been created, and does nothing beside.
    pub(crate) fn record(
        &self,
        fd: BorrowedFd,
        stat: &FileStat,
        owner: Owner,
    ) -> Result<(), Errno> {
        if owner.is_unset() {
            return Ok(());
        }
        self.put(fd, stat, owner)
    }

    /// Makes `owner` the owner of a file, or removes it where nothing is set, and does nothing
    /// beside: what chown(2) clears stays.
    pub(crate) fn put(&self, fd: BorrowedFd, stat: &FileStat, owner: Owner) -> Result<(), Errno> {
        let carried = self.carry(fd, file_type(stat.st_mode), owner)?;
        if carried == Carried::Yes {
            return Ok(());
        }
        self.store_in_side(fd, owner, (None, carried))?;
        if carried == Carried::Full {
            // As setting an attribute would, this moves ctime, by which owners are remembered.
            let mode = Mode::from_bits_truncate(stat.st_mode);
            fchmodat(
                AT_FDCWD,
                &procfs::own_fd(fd),
                mode,
                FchmodatFlags::FollowSymlink,
            )?;
        }
        Ok(())
    }

    /// Moves what is recent in the side store to the disk, where there is one for it.
    pub(crate) fn settle(&self) -> Result<(), Errno> {
        if let Ok(side) = &self.side {
            while side.settle().map_err(store_failed)? > 0 {}
        }
        Ok(())
    }

    /// Of an inode that does not carry the attribute, and that was known by the key `before` to
    /// the process behind it.
    fn store_in_side(
        &self,
        fd: BorrowedFd,
        owner: Owner,
        (before, carried): (Option<(&Key, Option<u32>)>, Carried),
    ) -> Result<(), Errno> {
        if fstatfs(fd)?.filesystem_type() == PROC_SUPER_MAGIC {
            // procfs takes a chown and goes on showing the process's ids.
            return Ok(());
        }
        let side = match &self.side {
            Ok(side) => side,
            // Nothing was there, and nothing is to be.
            Err(_) if owner.is_unset() => return Ok(()),
            Err(errno) => {
                tell_once(
                    "there is no side store to keep the owner of a symlink, fifo, socket or \
                     device in",
                );
                return Err(*errno);
            }
        };
        let key = Key::of(fd)?;
        let copied_up = match before.filter(|(before, _)| **before != key) {
            Some((before, seen_by)) => Some((
                side.load(before).map_err(store_failed)?.unwrap_or_default(),
                self.layers.key_behind(fd, seen_by),
            )),
            None => None,
        };
        let update = |bytes: &[u8]| {
            let mut record = Record::decode(bytes).unwrap_or_default();
            if let Some((known, behind)) = &copied_up {
                record.attributes = Record::decode(known).unwrap_or_default().attributes;
                let keys = behind.iter().flat_map(Key::to_enter);
                record.elsewhere = keys.map(<[u8]>::to_vec).collect();
            }
            record.owner = owner;
            let (value, mut keys) = record.encode_for_store(&key);
            if carried == Carried::Full && !value.is_empty() {
                keys.push(FULL_ONES.to_vec());
            }
            (value, keys)
        };
        side.update(&key, update).map_err(store_failed)?;
        if carried == Carried::Full {
            // An older one would count.
            store_xattr(fd, Owner::default())?;
        }
        Ok(())
    }

    /// Notes whether there is a default access control list that is kept for what is created in a
    /// directory.
    pub(crate) fn note_list(&self, directory: BorrowedFd, is_kept: bool) -> Result<(), Errno> {
        let known = self.load(directory, SFlag::S_IFDIR)?.unwrap_or_default();
        let owner = Owner {
            hands_down_list: is_kept,
            ..known
        };
        if owner == known {
            return Ok(());
        }
        self.put(directory, &fstat(directory)?, owner)
    }

    /// A record that cannot be read is reported once and then as good as none: it must not make a
    /// file unusable.
    fn decode(&self, value: Result<&[u8], Errno>) -> Result<Option<Owner>, Errno> {
        let problem = match value {
            Ok(bytes) => match Owner::decode(bytes) {
                Ok(owner) => return Ok((!owner.is_unset()).then_some(owner)),
                Err(error) => error.to_string(),
            },
            // A file of another host user that is closed to us: ours are never closed to a worker.
            Err(Errno::ENODATA | Errno::EACCES) => return Ok(None),
            Err(Errno::ERANGE) => "longer than any record".to_owned(),
            Err(errno) => return Err(errno),
        };
        if !self.unreadable_reported.swap(true, Ordering::Relaxed) {
            warn!(
                problem,
                "a file's user.rootlesscontainers is not readable and counts as absent; `setfattr -x \
                 user.rootlesscontainers FILE` removes it"
            );
        }
        Ok(None)
    }
}

/// chown(2) to the ids that the file has: everything that chown does beside changing ids.
///
/// Clears S_ISUID, S_ISGID and security.capability as chown(2) says, moves ctime, fails on a
/// read-only mount. With `notify` inotify's IN_ATTRIB is fired, too; setting an extended attribute
/// has fired one already.
pub(crate) fn touch(fd: BorrowedFd, stat: &FileStat, notify: bool) -> Result<(), Errno> {
    let uid = notify.then(|| Uid::from_raw(stat.st_uid));
    nix::unistd::fchownat(fd, c"", uid, None, AtFlags::AT_EMPTY_PATH)
}

/// xattr(7): user attributes are for regular files and directories.
pub(crate) fn carries_xattrs(file_type: SFlag) -> bool {
    matches!(file_type, SFlag::S_IFREG | SFlag::S_IFDIR)
}

/// The S_IFMT part of a mode.
pub(crate) fn file_type(mode: u32) -> SFlag {
    SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits())
}

fn store_xattr(fd: BorrowedFd, owner: Owner) -> Result<(), Errno> {
    let name = OsStr::from_bytes(XATTR.to_bytes());
    let value = owner.encode();
    let file = OpenFile(fd);
    let stored = match owner.is_unset() {
        true => file.remove_xattr(name),
        false => file.set_xattr(name, &value),
    };
    let stored = match stored.map_err(errno_of) {
        // fsetxattr(2) takes no O_PATH fd.
        Err(Errno::EBADF) => {
            let path = procfs::own_fd(fd);
            let path = Path::new(OsStr::from_bytes(path.as_c_str().to_bytes()));
            match owner.is_unset() {
                true => xattr::remove_deref(path, name),
                false => xattr::set_deref(path, name, &value),
            }
            .map_err(errno_of)
        }
        result => result,
    };
    match stored {
        // There was none to remove.
        Err(Errno::ENODATA) => Ok(()),
        result => result,
    }
}

/// Lends an fd to the xattr crate.
struct OpenFile<'a>(BorrowedFd<'a>);

impl AsRawFd for OpenFile<'_> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl xattr::FileExt for OpenFile<'_> {}
