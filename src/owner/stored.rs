//! What an entry of the side store says of its inode.

use super::record::{Owner, Record};
use crate::store::{InodeNumber, StoredEntry, inode_of, is_by_birth};

impl StoredEntry {
    /// The inode's number, where two inodes that have the same one after each other can be told
    /// apart.
    pub(crate) fn number(&self) -> Option<InodeNumber> {
        let keys = Record::decode(self.value()).ok()?.keys;
        let birth = keys.iter().find(|key| is_by_birth(key))?;
        InodeNumber::of(self.key(), birth)
    }

    /// As stat(2) has it.
    pub(crate) fn inode(&self) -> Option<u64> {
        let keys = Record::decode(self.value()).ok()?.keys;
        let mut keys = keys.iter().map(Vec::as_slice).chain([self.key()]);
        keys.find_map(inode_of)
    }

    pub(crate) fn owner(&self) -> Owner {
        Owner::decode(self.value()).unwrap_or_default()
    }

    /// This entry, and the others that were stored with it.
    pub(crate) fn of_same_inode(&self) -> Vec<Self> {
        let keys = Record::decode(self.value()).map_or_else(|_| Vec::new(), |record| record.keys);
        let others = keys.into_iter().filter(|key| key != self.key());
        others
            .map(|key| Self::new((key, self.value().to_vec())))
            .chain([self.clone()])
            .collect()
    }
}
