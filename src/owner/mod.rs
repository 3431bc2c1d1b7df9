//! Emulated owners of files: load, store, remove.
//!
//! An owner is in the extended attribute [`XATTR`] if the inode can carry one, otherwise in the
//! side store; that of a terminal is in the memory of the container. Functions take an open file,
//! usually an O_PATH fd, so that a path is resolved only once. The caller's working directory must
//! be the host's procfs (see [`crate::linux::procfs`]).

pub(crate) mod acl;
mod attribute;
mod cache;
mod emulated;
mod exported;
mod notes;
mod record;
mod stored;
mod terminal;

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmodat, fstat};
use nix::sys::statfs::{FsType, MSDOS_SUPER_MAGIC, PROC_SUPER_MAGIC};
use nix::unistd::Uid;
use tracing::warn;
use xattr::FileExt;

pub(crate) use attribute::{Attribute, NamedValue, shown, stored_name};
pub(crate) use cache::{Cache, OwnerCache, Version};
pub(crate) use emulated::takes_attributes;
pub(crate) use exported::{attributes, remove_access_list, set_attribute};
pub(crate) use notes::Notes;
use record::Record;
pub(crate) use record::{Device, Owner};

use crate::linux;
use crate::linux::errno_of;
use crate::linux::procfs;
use crate::linux::sys;
use crate::store::{FULL_ONES, Key, Layers, SideStore, store_failed, tell_once};
use crate::wire::objects::Objects;

/// The attribute that contains the owner. umoci and other tools use the same one.
pub(crate) const XATTR: &CStr = subuidless_fast::owner::ATTRIBUTE;

/// Whether the inode carries the owner in its attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carried {
    Yes,
    /// No: other attributes take all the room.
    Full,
    /// No: its type or file system has no user attributes.
    Never,
}

/// Access to the owners of files.
#[derive(Debug)]
pub(crate) struct FileOwners {
    /// Without a side store, this is the errno of calls that need it. The log has the reason.
    side: Result<SideStore, Errno>,
    pub(crate) layers: Layers,
    /// Where owners of terminals are; `None` outside of containers.
    objects: Option<Arc<Objects>>,
    /// Of a command whose owners are saved when it has ended.
    pub(crate) notes: Option<Notes>,
    unreadable_reported: AtomicBool,
}

impl FileOwners {
    pub(crate) fn new(side: Result<SideStore, Errno>) -> Self {
        Self {
            side,
            layers: Layers::default(),
            objects: None,
            notes: None,
            unreadable_reported: AtomicBool::new(false),
        }
    }

    /// As [`FileOwners::new`], for the files of a container.
    pub(crate) fn of_container(side: Result<SideStore, Errno>, objects: Arc<Objects>) -> Self {
        Self {
            objects: Some(objects),
            ..Self::new(side)
        }
    }

    /// Whether an inode without the attribute may have an emulated owner nevertheless.
    pub(crate) fn is_any_elsewhere(&self) -> bool {
        self.side_store_is_used() || self.has_terminals()
    }

    /// Whether the side store has any owner.
    pub(crate) fn side_store_is_used(&self) -> bool {
        self.side.as_ref().is_ok_and(|side| !side.is_empty())
    }

    /// Whether a file or directory without the attribute may have one in there.
    pub(crate) fn has_full_ones(&self) -> bool {
        self.side.as_ref().is_ok_and(SideStore::has_full_ones)
    }

    /// Whether an inode of this type without the attribute may have an owner in the side store: it
    /// cannot carry the attribute, or had no room for it. The same for a terminal in the memory of
    /// the container.
    pub(crate) fn may_be_elsewhere(&self, file_type: SFlag) -> bool {
        if file_type == SFlag::S_IFCHR && self.has_terminals() {
            return true;
        }
        self.side.as_ref().is_ok_and(|side| {
            !side.is_empty() && (!carries_xattrs(file_type) || side.has_full_ones())
        })
    }

    /// Reads the attribute of the file at `path` with one system call, without opening it.
    /// EOPNOTSUPP if the file cannot carry it.
    pub(crate) fn read_attribute(&self, path: &CStr, follow: bool) -> Result<Option<Owner>, Errno> {
        let mut value = [0; 64];
        let length = sys::getxattr(path, XATTR, &mut value, follow);
        self.decode(length.map(|length| &value[..length]))
    }

    /// As [`FileOwners::read_attribute`], for a path relative to `directory`.
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

    /// Returns the owner of the open file `fd`; `None` if it has no emulated one.
    pub(crate) fn load(&self, fd: BorrowedFd, file_type: SFlag) -> Result<Option<Owner>, Errno> {
        if carries_xattrs(file_type) {
            let mut value = [0; 64];
            let length = match sys::fgetxattr(fd, XATTR, &mut value) {
                // fgetxattr(2) refuses O_PATH fds.
                Err(Errno::EBADF) => {
                    let name = procfs::own_fd(fd);
                    sys::getxattr(name.as_c_str(), XATTR, &mut value, true)
                }
                result => result,
            };
            let is_elsewhere = match length {
                Err(Errno::EOPNOTSUPP) => true,
                Err(Errno::ENODATA) => self.may_be_elsewhere(file_type),
                _ => false,
            };
            if !is_elsewhere {
                return self.decode(length.map(|length| &value[..length]));
            }
        }
        if let Some(owner) = self.load_terminal(fd, file_type)? {
            return Ok(Some(owner));
        }
        match &self.side {
            Ok(side) if !side.is_empty() => {
                let bytes = side.load(&Key::of(fd)?).map_err(store_failed)?;
                self.decode(bytes.as_deref().ok_or(Errno::ENODATA))
            }
            _ => Ok(None),
        }
    }

    /// Sets the owner of the open file `fd`, or removes it if `owner` is unset, with all other
    /// effects of chown(2). `known` is the result of [`FileOwners::load`]; `seen_by`: see
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
        self.note(fd)?;
        let carried = self.carry(fd, file_type(stat.st_mode), owner)?;
        if carried == Carried::Yes {
            return touch(fd, stat, false);
        }
        if !owner.is_unset() && has_one_owner(fd)? {
            return Err(Errno::EPERM);
        }
        // `touch` comes first because it may fail: on a read-only mount, or on an inode that
        // refuses every chown. In an overlay it copies the file up, which may change the key:
        // `before` is the key under which the side store has the file so far.
        let before = Key::in_overlay(fd)?;
        touch(fd, stat, true)?;
        if self.store_terminal(stat, owner)? {
            return Ok(());
        }
        let before = before.as_ref().map(|key| (key, seen_by));
        self.store_in_side(fd, owner, (before, carried))
    }

    /// Before the change: one that is not noted would be lost.
    fn note(&self, fd: BorrowedFd) -> Result<(), Errno> {
        self.notes.as_ref().map_or(Ok(()), |notes| notes.add(fd))
    }

    /// Stores `owner` in the inode's attribute, if it can carry one and has room.
    fn carry(&self, fd: BorrowedFd, file_type: SFlag, owner: Owner) -> Result<Carried, Errno> {
        if !carries_xattrs(file_type) {
            return Ok(Carried::Never);
        }
        let has_full_ones = self.has_full_ones();
        // `load` asks the attribute first. Without an attribute it asks the side store, whose older
        // entry must therefore be removed before the attribute is.
        if has_full_ones && owner.is_unset() {
            self.remove_from_side(fd)?;
        }
        match store_xattr(fd, owner) {
            Err(Errno::EOPNOTSUPP) => Ok(Carried::Never),
            // ext4 has one block for all attributes of an inode; a quota may be exhausted.
            Err(Errno::ENOSPC | Errno::EDQUOT | Errno::E2BIG) => Ok(Carried::Full),
            Ok(()) if has_full_ones && !owner.is_unset() => {
                self.remove_from_side(fd)?;
                Ok(Carried::Yes)
            }
            result => result.map(|()| Carried::Yes),
        }
    }

    /// Removes the owner from the side store, because the inode carries the attribute now.
    fn remove_from_side(&self, fd: BorrowedFd) -> Result<(), Errno> {
        let Ok(side) = &self.side else {
            return Ok(());
        };
        let key = Key::to_store(fd)?;
        if side.load(&key).map_err(store_failed)?.is_none() {
            return Ok(());
        }
        let keys = || key.to_enter().map(<[u8]>::to_vec).collect();
        side.update(&key, |_| (Vec::new(), keys()))
            .map_err(store_failed)
    }

    /// Copies up a special file of an overlay if it has an entry in the side store, and stores the
    /// entry under the key of the copy. To be called before a system call that would copy it up:
    /// afterwards the key is lost.
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
            // Unlike chown(2), chmod(2) to the same mode clears no bits. Symlinks have no chmod.
            let mode = Mode::from_bits_truncate(stat.st_mode);
            let path = procfs::own_fd(fd);
            fchmodat(AT_FDCWD, &path, mode, FchmodatFlags::FollowSymlink)?;
        }
        self.store_in_side(fd, record.owner, (Some((&before, seen_by)), Carried::Never))
    }

    /// Sets the owner of a file that has just been created, without the other effects of chown(2).
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

    /// Sets the owner of a file, or removes it if `owner` is unset, without the other effects of
    /// chown(2): set-ID bits and file capabilities stay.
    pub(crate) fn put(&self, fd: BorrowedFd, stat: &FileStat, owner: Owner) -> Result<(), Errno> {
        self.note(fd)?;
        let carried = self.carry(fd, file_type(stat.st_mode), owner)?;
        if carried == Carried::Yes || self.store_terminal(stat, owner)? {
            return Ok(());
        }
        self.store_in_side(fd, owner, (None, carried))?;
        if carried == Carried::Full {
            // Updates ctime, as setting the attribute would have done: the cache of owners depends
            // on it.
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

    /// Settles the recent entries of the side store, if it has an on-disk part.
    pub(crate) fn settle(&self) -> Result<(), Errno> {
        if let Ok(side) = &self.side {
            while side.settle().map_err(store_failed)? > 0 {}
        }
        Ok(())
    }

    /// Sets the owner of an inode that does not carry the attribute. `before`: its key before it
    /// was copied up in an overlay, and a process that sees the overlay (see
    /// [`Layers::key_behind`]).
    fn store_in_side(
        &self,
        fd: BorrowedFd,
        owner: Owner,
        (before, carried): (Option<(&Key, Option<u32>)>, Carried),
    ) -> Result<(), Errno> {
        if linux::file_system(fd)? == PROC_SUPER_MAGIC || has_one_owner(fd)? {
            // procfs accepts a chown, but keeps showing the ids of the process. A new file on FAT
            // belongs to whom all others belong to.
            return Ok(());
        }
        let side = match &self.side {
            Ok(side) => side,
            // Without a side store, there is nothing to remove.
            Err(_) if owner.is_unset() => return Ok(()),
            Err(errno) => {
                tell_once(
                    "there is no side store for the owner of a symlink, fifo, socket or device",
                );
                return Err(*errno);
            }
        };
        let key = Key::to_store(fd)?;
        // If the key has changed, `touch` has copied the file up. The new entry gets the old one's
        // attributes, and is stored under the key of the copy in the upper layer as well: the
        // overlay shows the copy's number once it is mounted again.
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
                // From now on lookups of files and directories ask the side store, too.
                keys.push(FULL_ONES.to_vec());
            }
            (value, keys)
        };
        side.update(&key, update).map_err(store_failed)?;
        if carried == Carried::Full {
            // An older attribute would take precedence over the new entry.
            store_xattr(fd, Owner::default())?;
        }
        Ok(())
    }

    /// Records in the owner of `directory` whether it has a stored default access control list, so
    /// that creating a file in it finds out with the one lookup that it does anyway.
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

    /// Decodes a value, or the errno of reading it. A malformed record is logged once and counts as
    /// absent: it must not make a file unusable.
    fn decode(&self, value: Result<&[u8], Errno>) -> Result<Option<Owner>, Errno> {
        let problem = match value {
            Ok(bytes) => match Owner::decode(bytes) {
                Ok(owner) => return Ok((!owner.is_unset()).then_some(owner)),
                Err(error) => error.to_string(),
            },
            // EACCES: an unreadable file of another host user. A worker can read all files of its
            // own user.
            Err(Errno::ENODATA | Errno::EACCES) => return Ok(None),
            // More bytes than the buffers of `load` and others have.
            Err(Errno::ERANGE) => "longer than any record".to_owned(),
            Err(errno) => return Err(errno),
        };
        if !self.unreadable_reported.swap(true, Ordering::Relaxed) {
            warn!(
                problem,
                "a file's user.rootlesscontainers is not readable and counts as absent; \
                 `setfattr -x user.rootlesscontainers FILE` removes it"
            );
        }
        Ok(None)
    }
}

/// Whether all files of the file system belong to the one user whom its mount options name, and
/// chown(2) to another one is EPERM for everybody: fs/fat/file.c and fs/exfat/file.c, `setattr`.
fn has_one_owner(fd: BorrowedFd) -> Result<bool, Errno> {
    const EXFAT_SUPER_MAGIC: FsType = FsType(0x2011_bab0);
    let file_system = linux::file_system(fd)?;
    Ok([MSDOS_SUPER_MAGIC, EXFAT_SUPER_MAGIC].contains(&file_system))
}

/// All effects of chown(2) except the change of ids.
///
/// Clears S_ISUID, S_ISGID and security.capability, updates ctime, and fails on a read-only mount.
/// With `notify` it also triggers inotify's IN_ATTRIB; without, the caller has triggered it by
/// setting an extended attribute.
pub(crate) fn touch(fd: BorrowedFd, stat: &FileStat, notify: bool) -> Result<(), Errno> {
    // fsnotify_change: IN_ATTRIB needs ATTR_UID or ATTR_GID; a chown(-1, -1) has neither.
    let uid = notify.then(|| Uid::from_raw(stat.st_uid));
    nix::unistd::fchownat(fd, c"", uid, None, AtFlags::AT_EMPTY_PATH)
}

/// Whether inodes of this type can carry user attributes: xattr(7) allows them for regular files
/// and directories only.
pub(crate) fn carries_xattrs(file_type: SFlag) -> bool {
    matches!(file_type, SFlag::S_IFREG | SFlag::S_IFDIR)
}

/// The file type in a mode (S_IFMT).
pub(crate) fn file_type(mode: u32) -> SFlag {
    SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits())
}

/// Sets the attribute, or removes it if `owner` is unset.
fn store_xattr(fd: BorrowedFd, owner: Owner) -> Result<(), Errno> {
    let name = OsStr::from_bytes(XATTR.to_bytes());
    let value = owner.encode();
    let file = OpenFile(fd);
    let stored = match owner.is_unset() {
        true => file.remove_xattr(name),
        false => file.set_xattr(name, &value),
    };
    let stored = match stored.map_err(errno_of) {
        // fsetxattr(2) refuses O_PATH fds.
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
        // There was nothing to remove.
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
