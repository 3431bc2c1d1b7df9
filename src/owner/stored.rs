//! Decodes entries of the side store.

use super::record::{Owner, Record};
use crate::store::{InodeNumber, StoredEntry, inode_of, is_by_birth};

impl StoredEntry {
    /// The inode's number and file system. Returns `None` if the entry has no keys that distinguish
    /// successive inodes with the same number.
    pub(crate) fn number(&self) -> Option<InodeNumber> {
        let keys = Record::decode(self.value()).ok()?.keys;
        let birth = keys.iter().find(|key| is_by_birth(key))?;
        InodeNumber::of(self.key(), birth)
    }

    /// The inode number, as in stat(2). Returns `None` if no key contains it.
    pub(crate) fn inode(&self) -> Option<u64> {
        let keys = Record::decode(self.value()).ok()?.keys;
        let mut keys = keys.iter().map(Vec::as_slice).chain([self.key()]);
        keys.find_map(inode_of)
    }

    /// The owner in the entry; unset if the value is malformed.
    pub(crate) fn owner(&self) -> Owner {
        Owner::decode(self.value()).unwrap_or_default()
    }

    /// This entry, and those of the inode's other keys, which were stored with the same value.
    pub(crate) fn of_same_inode(&self) -> Vec<Self> {
        let keys = Record::decode(self.value()).map_or_else(|_| Vec::new(), |record| record.keys);
        let others = keys.into_iter().filter(|key| key != self.key());
        others
            .map(|key| Self::new((key, self.value().to_vec())))
            .chain([self.clone()])
            .collect()
    }
}
