//! An entry of the side store, as `owners gc` sees it.

use super::key::{self, InodeNumber};
use super::record::{Owner, Record};

/// A key of the side store and what is stored under it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct StoredEntry {
    key: Vec<u8>,
    value: Vec<u8>,
}

impl StoredEntry {
    pub(super) fn new((key, value): (Vec<u8>, Vec<u8>)) -> Self {
        Self { key, value }
    }

    pub(crate) fn key(&self) -> &[u8] {
        &self.key
    }

    pub(super) fn value(&self) -> &[u8] {
        &self.value
    }

    /// The file system that the inode is on; empty where the entry does not say it.
    pub(crate) fn file_system(&self) -> &[u8] {
        key::file_system_of(&self.key).unwrap_or_default()
    }

    /// The inode's number, where two inodes that have the same one after each other can be told
    /// apart.
    pub(crate) fn number(&self) -> Option<InodeNumber> {
        let keys = Record::decode(&self.value).ok()?.keys;
        let birth = keys.iter().find(|key| key::is_by_birth(key))?;
        InodeNumber::of(&self.key, birth)
    }

    /// As stat(2) has it.
    pub(crate) fn inode(&self) -> Option<u64> {
        let keys = Record::decode(&self.value).ok()?.keys;
        let mut keys = keys.iter().map(Vec::as_slice).chain([self.key()]);
        keys.find_map(key::inode_of)
    }

    pub(crate) fn owner(&self) -> Owner {
        Owner::decode(&self.value).unwrap_or_default()
    }

    /// This entry, and the others that were stored with it.
    pub(crate) fn of_same_inode(&self) -> Vec<Self> {
        let keys = Record::decode(&self.value).map_or_else(|_| Vec::new(), |record| record.keys);
        let others = keys.into_iter().filter(|key| *key != self.key);
        others
            .map(|key| Self {
                key,
                value: self.value.clone(),
            })
            .chain([self.clone()])
            .collect()
    }
}
