//! Attributes that the kernel does not take of a container's root: beside the others where the
//! inode carries `user.*` (see `attribute`), otherwise in the side store.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use super::attribute::original;
use super::kept::Named;
use super::record::{KeptAttribute, Record};
use super::{Owners, carries_xattrs, file_type};
use crate::linux::attribute;
use crate::linux::name::Name;
use crate::linux::procfs;
use crate::linux::sys;
use crate::store::{Key, store_failed};

/// What is kept of one open file; names are those of [`super::Attribute::Kept`].
#[derive(Debug)]
pub(crate) struct Kept<'a> {
    owners: &'a Owners,
    file: BorrowedFd<'a>,
    /// `user.*` attributes are for others.
    is_beside: bool,
}

impl Owners {
    /// What is kept of the file behind `file`, whose st_mode is `mode`.
    pub(crate) fn kept<'a>(&'a self, file: BorrowedFd<'a>, mode: u32) -> Kept<'a> {
        Kept {
            owners: self,
            file,
            is_beside: !carries_xattrs(file_type(mode)),
        }
    }
}

impl Kept<'_> {
    pub(crate) fn get(&self, name: &Name) -> Result<Option<Vec<u8>>, Errno> {
        if self.is_beside {
            let known = self.record()?.attributes;
            let name = original(name);
            return Ok(known
                .into_iter()
                .find(|known| known.name == name)
                .map(|known| known.value));
        }
        let path = procfs::own_fd(self.file);
        match attribute::value(path.as_c_str(), name.as_c_str(), true) {
            Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(None),
            value => value.map(Some),
        }
    }

    /// What is in the side store, by the names that the container knows.
    pub(crate) fn beside(&self) -> Result<Vec<Named>, Errno> {
        let known = self.record()?.attributes;
        Ok(known
            .into_iter()
            .map(|known| (known.name, known.value))
            .collect())
    }

    fn record(&self) -> Result<Record, Errno> {
        match &self.owners.side {
            Ok(side) if self.is_beside && !side.is_empty() => {
                let bytes = side.load(&Key::of(self.file)?).map_err(store_failed)?;
                // What is unreadable has been told of when the owner was looked up.
                Ok(bytes
                    .and_then(|bytes| Record::decode(&bytes).ok())
                    .unwrap_or_default())
            }
            _ => Ok(Record::default()),
        }
    }

    /// `flags` as in setxattr(2).
    pub(crate) fn set(&self, name: &Name, value: &[u8], flags: i32) -> Result<(), Errno> {
        if !self.is_beside {
            let path = procfs::own_fd(self.file);
            return sys::setxattr(path.as_c_str(), name.as_c_str(), value, flags);
        }
        if flags & !(libc::XATTR_CREATE | libc::XATTR_REPLACE) != 0 {
            return Err(Errno::EINVAL);
        }
        self.change_beside(|attributes| {
            let name = original(name);
            let known = attributes.iter().position(|known| known.name == name);
            match known {
                Some(_) if flags & libc::XATTR_CREATE != 0 => return Err(Errno::EEXIST),
                None if flags & libc::XATTR_REPLACE != 0 => return Err(Errno::ENODATA),
                Some(index) => attributes[index].value = value.to_vec(),
                None => attributes.push(KeptAttribute {
                    name: name.to_vec(),
                    value: value.to_vec(),
                }),
            }
            let sizes = attributes
                .iter()
                .map(|known| known.name.len() + known.value.len());
            if sizes.sum::<usize>() > attribute::LARGEST {
                return Err(Errno::ENOSPC);
            }
            Ok(())
        })
    }

    pub(crate) fn remove(&self, name: &Name) -> Result<(), Errno> {
        if !self.is_beside {
            let path = procfs::own_fd(self.file);
            return sys::removexattr(path.as_c_str(), name.as_c_str());
        }
        self.change_beside(|attributes| {
            let name = original(name);
            let known = attributes.iter().position(|known| known.name == name);
            known
                .map(|index| drop(attributes.remove(index)))
                .ok_or(Errno::ENODATA)
        })
    }

    fn change_beside(
        &self,
        change: impl FnOnce(&mut Vec<KeptAttribute>) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        if !takes_attributes(self.file) {
            return Err(Errno::EOPNOTSUPP);
        }
        // As the kernel answers to who is not its root.
        let side = self.owners.side.as_ref().map_err(|_| Errno::EPERM)?;
        let key = Key::of(self.file)?;
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

/// Whether the file system has attributes of root's at all: procfs has none.
pub(crate) fn takes_attributes(file: BorrowedFd) -> bool {
    let path = procfs::own_fd(file);
    // Unlike `trusted.*`, this kind may be asked for by everybody.
    let asked = sys::getxattr(path.as_c_str(), c"security.subuidless", &mut [], true);
    asked != Err(Errno::EOPNOTSUPP)
}
