//! Emulated attributes: get, set, remove. They are stored in `user.*` attributes if the inode can
//! carry those (see `attribute`), otherwise in the side store.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use super::acl::DEFAULT;
use super::attribute::{NamedValue, original};
use super::record::{Record, StoredAttribute};
use super::{FileOwners, carries_xattrs, file_type};
use crate::linux::attribute;
use crate::linux::name::Name;
use crate::linux::procfs;
use crate::linux::sys;
use crate::store::{Key, store_failed};

/// The emulated attributes of an open file. The names are those in [`super::Attribute::Emulated`].
#[derive(Debug)]
pub(crate) struct Emulated<'a> {
    owners: &'a FileOwners,
    file: BorrowedFd<'a>,
    /// The inode cannot carry `user.*` attributes.
    in_side_store: bool,
}

impl FileOwners {
    /// The emulated attributes of `file`, whose st_mode is `mode`.
    pub(crate) fn emulated<'a>(&'a self, file: BorrowedFd<'a>, mode: u32) -> Emulated<'a> {
        Emulated {
            owners: self,
            file,
            in_side_store: !carries_xattrs(file_type(mode)),
        }
    }
}

impl Emulated<'_> {
    /// Returns `None` if the attribute does not exist.
    pub(crate) fn get(&self, name: &Name) -> Result<Option<Vec<u8>>, Errno> {
        if self.in_side_store {
            let known = self.record()?.attributes;
            let name = original(name);
            return Ok(known
                .into_iter()
                .find(|known| known.name == name)
                .map(|known| known.value));
        }
        attribute::of_file(self.file, name.as_c_str())
    }

    /// Returns the attributes in the side store, with the names that the container sees.
    pub(crate) fn of_side_store(&self) -> Result<Vec<NamedValue>, Errno> {
        let known = self.record()?.attributes;
        Ok(known
            .into_iter()
            .map(|known| (known.name, known.value))
            .collect())
    }

    /// The record in the side store; an empty one if there is none.
    fn record(&self) -> Result<Record, Errno> {
        match &self.owners.side {
            Ok(side) if self.in_side_store && !side.is_empty() => {
                let bytes = side.load(&Key::of(self.file)?).map_err(store_failed)?;
                // An unreadable record was reported when the owner was loaded.
                Ok(bytes
                    .and_then(|bytes| Record::decode(&bytes).ok())
                    .unwrap_or_default())
            }
            _ => Ok(Record::default()),
        }
    }

    /// setxattr(2), with its flags and errnos.
    pub(crate) fn set(&self, name: &Name, value: &[u8], flags: i32) -> Result<(), Errno> {
        if !self.in_side_store {
            let path = procfs::own_fd(self.file);
            return sys::setxattr(path.as_c_str(), name.as_c_str(), value, flags);
        }
        if flags & !(libc::XATTR_CREATE | libc::XATTR_REPLACE) != 0 {
            return Err(Errno::EINVAL);
        }
        self.change_in_side_store(|attributes| {
            let name = original(name);
            let known = attributes.iter().position(|known| known.name == name);
            match known {
                Some(_) if flags & libc::XATTR_CREATE != 0 => return Err(Errno::EEXIST),
                None if flags & libc::XATTR_REPLACE != 0 => return Err(Errno::ENODATA),
                Some(index) => attributes[index].value = value.to_vec(),
                None => attributes.push(StoredAttribute {
                    name: name.to_vec(),
                    value: value.to_vec(),
                }),
            }
            let sizes = attributes
                .iter()
                .map(|known| known.name.len() + known.value.len());
            // All attributes of an inode together may be as large as one value (setxattr(2):
            // ENOSPC).
            if sizes.sum::<usize>() > attribute::LARGEST {
                return Err(Errno::ENOSPC);
            }
            Ok(())
        })
    }

    /// removexattr(2): ENODATA if the attribute does not exist.
    pub(crate) fn remove(&self, name: &Name) -> Result<(), Errno> {
        if !self.in_side_store {
            let path = procfs::own_fd(self.file);
            return sys::removexattr(path.as_c_str(), name.as_c_str());
        }
        self.change_in_side_store(|attributes| {
            let name = original(name);
            let known = attributes.iter().position(|known| known.name == name);
            known
                .map(|index| drop(attributes.remove(index)))
                .ok_or(Errno::ENODATA)
        })
    }

    /// Stores the whole access control list if the kernel has only those entries whose ids are
    /// mapped. `None`: the kernel's list is whole, so the stored one is removed.
    pub(crate) fn set_whole_list(&self, name: &Name, list: Option<&[u8]>) -> Result<(), Errno> {
        match list.map_or_else(|| self.remove(name), |list| self.set(name, list, 0)) {
            Err(Errno::ENODATA) if list.is_none() => {}
            result => result?,
        }
        match original(name) == DEFAULT.to_bytes() {
            true => self.owners.note_list(self.file, list.is_some()),
            false => Ok(()),
        }
    }

    /// Changes the attributes in the side store, in one transaction, or returns the errno of
    /// `change`. EOPNOTSUPP if the file system has no such attributes; EPERM without a side store.
    fn change_in_side_store(
        &self,
        change: impl FnOnce(&mut Vec<StoredAttribute>) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        if !takes_attributes(self.file) {
            return Err(Errno::EOPNOTSUPP);
        }
        // The errno for `trusted.*` without CAP_SYS_ADMIN: fs/xattr.c, xattr_permission.
        let side = self.owners.side.as_ref().map_err(|_| Errno::EPERM)?;
        let key = Key::to_store(self.file)?;
        let mut changed = Ok(());
        let update = |bytes: &[u8]| {
            let mut record = Record::decode(bytes).unwrap_or_default();
            let mut attributes = record.attributes.clone();
            changed = change(&mut attributes);
            if changed.is_ok() {
                record.attributes = attributes;
            }
            record.encode_for_store(&key)
        };
        side.update(&key, update).map_err(store_failed)?;
        changed
    }
}

/// Whether the file system supports `trusted.*` and `security.*`; procfs does not.
pub(crate) fn takes_attributes(file: BorrowedFd) -> bool {
    let path = procfs::own_fd(file);
    // xattr_permission lets every process read `security.*`, but not `trusted.*`.
    let asked = sys::getxattr(path.as_c_str(), c"security.subuidless", &mut [], true);
    asked != Err(Errno::EOPNOTSUPP)
}
