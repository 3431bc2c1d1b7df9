//! The side store: what inodes cannot carry in an extended attribute.
//!
//! `user.*` attributes exist on regular files and directories only (xattr(7)), and not on every
//! file system. Everything else lives in two LMDB environments that all workers of a user share:
//! reads take no lock, a killed writer leaves nothing half done. The *recent* one lies in memory
//! (tmpfs) and runs without fsync: a write costs microseconds. Every second it is moved to the
//! *lasting* one on disk, with fsync; so after a power cut as much is there as of an extended
//! attribute, which nobody syncs either. What is in the recent one counts, a removal included. The
//! life of an entry is told at [`SideStore`].

mod damage;
mod environment;
mod key;
mod layer;
mod mend;
mod patience;
mod places;
mod settle;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

pub(crate) use damage::{end_where_damaged, ended_by_damage, is_suspect, store_failed, tell_once};
pub(crate) use environment::{DATA, FULL_ONES};
use environment::{Environment, Holds, Unusable, open_lasting};
pub(crate) use key::{InodeNumber, Key, inode_of, is_by_birth};
pub(crate) use layer::Layers;
pub(crate) use mend::mend;
use patience::Patience;
pub(crate) use places::{Places, lasting_place, open_side_store, recent_directory, refuse_shared};
pub(crate) use settle::{Marker, read_through, result_of, settle};

use crate::linux::sys::Durability;

/// In front of a value in the recent store: it is to be moved to the lasting one.
const LASTING: u8 = b'l';
/// It is not, since its file system is gone after a boot.
const PASSING: u8 = b'p';

/// How many entries are moved at once.
const BATCH: usize = 4096;

/// The life of an entry, who brings it on, and what is left if that one is killed:
///
/// - *recent*, under all keys of its inode at once: a worker or `subuidless owners`, in one
///   transaction. Killed: the state before, and the call is done again.
/// - *recent and lasting*: the process that moves entries ([`SideStore::settle`]), in a transaction
///   of the lasting one. Killed: recent only, and moved again.
/// - *lasting*: the same process, in a transaction of the recent one, unless the value has changed
///   meanwhile. Killed: both, and moved again.
/// - *removed*: a recent entry without a value, moved as any other. Then it is deleted from the
///   lasting one; in an overlay it stays, since there may be a lower layer.
/// - *gone*, of an inode that is no more: `owners gc`, all keys in one transaction, if their values
///   are unchanged. Killed: all of them, or none.
///
/// The key is the file system and the file handle, which carries the inode's generation, so that a
/// recycled inode number inherits nothing. An overlay gives no such handle, and another file system
/// id with every mount: through it an inode is known by its number and its time of birth in
/// nanoseconds, by which it is entered, too, when it is seen without.
#[derive(Debug)]
pub(crate) struct SideStore {
    recent: Environment,
    lasting: Option<Environment>,
    /// The recent one's.
    directory: PathBuf,
}

impl SideStore {
    pub(crate) fn open(recent: &Path) -> heed::Result<Self> {
        let _patience = Patience::begin();
        Ok(Self {
            recent: Environment::open(recent, Durability::None)?,
            lasting: None,
            directory: recent.to_owned(),
        })
    }

    /// Adds what outlives the boot.
    pub(crate) fn open_lasting(&mut self, directory: &Path) -> Result<(), Unusable> {
        let _patience = Patience::begin();
        self.lasting = Some(open_lasting(directory)?);
        Ok(())
    }

    /// Reads all that lasts. LMDB trusts its pages: where they are damaged, this may end the
    /// process.
    pub(crate) fn read_lasting(directory: &Path) -> Result<(), Unusable> {
        open_lasting(directory)?.read_through(directory)
    }

    /// Reads all that is recent, with the same risk.
    pub(crate) fn read_recent(directory: &Path) -> Result<(), Unusable> {
        Environment::open(directory, Durability::None)?.read_through(directory)
    }

    /// Whether nothing is stored at all: then no file needs a look-up. Costs no system call.
    pub(crate) fn is_empty(&self) -> bool {
        self.holds() == Holds::Nothing
    }

    /// Whether there has been anything of an inode that carries attributes, but had no room for
    /// one.
    pub(crate) fn has_full_ones(&self) -> bool {
        self.holds() == Holds::FullOnes
    }

    fn holds(&self) -> Holds {
        let lasting = self.lasting.as_ref().map(Environment::holds);
        self.recent.holds().max(lasting.unwrap_or(Holds::Nothing))
    }

    pub(crate) fn load(&self, key: &Key) -> heed::Result<Option<Vec<u8>>> {
        let _patience = Patience::begin();
        for bytes in key.to_look_up() {
            if let Some(value) = self.get(bytes)? {
                return Ok(Some(value).filter(|value| !value.is_empty()));
            }
        }
        Ok(None)
    }

    /// Empty: it was removed.
    fn get(&self, bytes: &[u8]) -> heed::Result<Option<Vec<u8>>> {
        // In this order: what is moved is in both for a while.
        match self.recent.get(bytes)? {
            Some(value) => Ok(Some(value.get(1..).unwrap_or_default().to_vec())),
            None => self.lasting_value(bytes),
        }
    }

    fn lasting_value(&self, bytes: &[u8]) -> heed::Result<Option<Vec<u8>>> {
        match &self.lasting {
            Some(lasting) if lasting.holds() != Holds::Nothing => {
                lasting.ensure_in_place()?;
                lasting.get(bytes)
            }
            _ => Ok(None),
        }
    }

    /// Replaces what is stored by what `change` makes of it, and under which keys; empty: nothing
    /// is.
    ///
    /// That nothing is has an entry that says so, since there may be one below that counts
    /// otherwise.
    pub(crate) fn update(
        &self,
        key: &Key,
        change: impl FnOnce(&[u8]) -> (Vec<u8>, Vec<Vec<u8>>),
    ) -> heed::Result<()> {
        let _patience = Patience::begin();
        let lasts = if key.passes { PASSING } else { LASTING };
        self.recent.ensure_in_place()?;
        self.recent.change(|owners, transaction| {
            let mut known = None;
            for bytes in key.to_look_up() {
                known = match owners.get(transaction, bytes)? {
                    Some(value) => Some(value.get(1..).unwrap_or_default().to_vec()),
                    None => self.lasting_value(bytes)?,
                };
                if known.is_some() {
                    break;
                }
            }
            let (value, keys) = change(&known.unwrap_or_default());
            let value = [&[lasts], value.as_slice()].concat();
            keys.iter()
                .try_for_each(|bytes| owners.put(transaction, bytes, &value))
        })
    }

    /// Moves what is recent to where it lasts; the number of entries moved.
    pub(crate) fn settle(&self) -> heed::Result<usize> {
        let Some(lasting) = &self.lasting else {
            return Ok(0);
        };
        // One at a time, of the daemon and the commands that do it, too: two could put an older
        // value over a newer one.
        let _alone = Flock::lock(File::open(&self.directory)?, FlockArg::LockExclusive)
            .map_err(|(_, errno)| io::Error::from(errno))?;
        let moved = self
            .recent
            .entries(BATCH, |value| value.first() != Some(&PASSING))?;
        if moved.is_empty() {
            return Ok(0);
        }
        lasting.change(|owners, transaction| {
            moved.iter().try_for_each(|(key, value)| {
                let value = value.get(1..).unwrap_or_default();
                if value.is_empty() && !Key::overlays(key) {
                    owners.delete(transaction, key).map(drop)
                } else {
                    owners.put(transaction, key, value)
                }
            })
        })?;
        self.recent.change(|owners, transaction| {
            for (key, value) in &moved {
                // Not what has been changed meanwhile.
                if owners.get(transaction, key)? == Some(value.as_slice()) {
                    owners.delete(transaction, key)?;
                }
            }
            Ok(())
        })?;
        Ok(moved.len())
    }

    /// All that lasts.
    pub(crate) fn lasting_entries(&self) -> heed::Result<Vec<StoredEntry>> {
        let entries = match &self.lasting {
            Some(lasting) => lasting.entries(usize::MAX, |_| true)?,
            None => Vec::new(),
        };
        let entries = entries.into_iter().filter(|(key, _)| key != FULL_ONES);
        Ok(entries.map(StoredEntry::new).collect())
    }

    /// Removes those of `entries` whose value is still the same from what lasts; how many they
    /// were.
    pub(crate) fn remove_lasting(&self, entries: &[&StoredEntry]) -> heed::Result<usize> {
        let Some(lasting) = &self.lasting else {
            return Ok(0);
        };
        lasting.change(|owners, transaction| {
            let mut removed = 0;
            for entry in entries {
                if owners.get(transaction, entry.key())? == Some(entry.value()) {
                    owners.delete(transaction, entry.key())?;
                    removed += 1;
                }
            }
            Ok(removed)
        })
    }
}

/// A key of the side store and what is stored under it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct StoredEntry {
    key: Vec<u8>,
    value: Vec<u8>,
}

impl StoredEntry {
    pub(crate) fn new((key, value): (Vec<u8>, Vec<u8>)) -> Self {
        Self { key, value }
    }

    pub(crate) fn key(&self) -> &[u8] {
        &self.key
    }

    pub(crate) fn value(&self) -> &[u8] {
        &self.value
    }

    /// The file system that the inode is on; empty where the entry does not say it.
    pub(crate) fn file_system(&self) -> &[u8] {
        key::file_system_of(&self.key).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::key::{BY_HANDLE, FILE_SYSTEM};
    use super::*;
    use std::os::fd::AsFd;
    use std::sync::atomic::Ordering;

    fn put(store: &SideStore, key: &Key, value: &[u8]) {
        let keys = key.to_enter().map(<[u8]>::to_vec).collect();
        store.update(key, |_| (value.to_vec(), keys)).unwrap();
    }

    fn opened(recent: &Path, lasting: &Path) -> SideStore {
        let mut store = SideStore::open(recent).unwrap();
        store.open_lasting(lasting).unwrap();
        store
    }

    /// Of a file that outlives a boot, whatever the test's directory is on.
    fn lasting_key(number: u8) -> Key {
        Key {
            own: [&[BY_HANDLE], [number; FILE_SYSTEM].as_slice()].concat(),
            by_birth: None,
            other: None,
            passes: false,
        }
    }

    #[test]
    fn what_one_opener_stores_another_one_sees_and_an_empty_store_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let store = SideStore::open(directory.path()).unwrap();
        assert!(store.is_empty());
        let file = File::create(directory.path().join("file")).unwrap();
        let key = Key::of(file.as_fd()).unwrap();
        put(&store, &key, b"value");
        assert!(!store.is_empty());
        assert_eq!(store.load(&key).unwrap().unwrap(), b"value");
        put(&store, &key, b"");
        assert_eq!(store.load(&key).unwrap(), None);
    }

    #[test]
    fn what_has_settled_is_there_after_a_boot_and_what_was_removed_is_not() {
        let [recent, lasting, next] = [0; 3].map(|_| tempfile::tempdir().unwrap());
        let store = opened(recent.path(), lasting.path());
        let [a, b] = [1, 2].map(lasting_key);
        let c = Key {
            passes: true,
            ..lasting_key(3)
        };
        put(&store, &a, b"a");
        put(&store, &b, b"b");
        put(&store, &c, b"c");
        assert_eq!(store.settle().unwrap(), 2);
        assert_eq!(store.settle().unwrap(), 0);
        put(&store, &a, b"");
        assert_eq!(store.load(&a).unwrap(), None);
        assert_eq!(store.load(&b).unwrap().unwrap(), b"b");
        put(&store, &b, b"new");
        assert_eq!(store.load(&b).unwrap().unwrap(), b"new");
        assert_eq!(store.settle().unwrap(), 2);
        drop(store);
        let store = opened(next.path(), lasting.path());
        assert_eq!(store.load(&a).unwrap(), None);
        assert_eq!(store.load(&b).unwrap().unwrap(), b"new");
        assert_eq!(store.load(&c).unwrap(), None);
        let entries = store.lasting_entries().unwrap();
        let [entry] = entries.as_slice() else {
            panic!("{entries:?}");
        };
        // Only what has not been changed since it was looked at.
        let other = StoredEntry::new((entry.key().to_vec(), b"older".to_vec()));
        assert_eq!(store.remove_lasting(&[&other]).unwrap(), 0);
        assert!(!store.is_empty());
        assert_eq!(store.remove_lasting(&[entry]).unwrap(), 1);
        assert!(store.is_empty());
    }

    #[test]
    fn two_that_settle_at_the_same_time_leave_the_newest() {
        let [recent, lasting] = [0; 2].map(|_| tempfile::tempdir().unwrap());
        // LMDB takes no second environment of a directory in a process; what is locked is an open
        // file, once for each of them.
        let store = opened(recent.path(), lasting.path());
        let key = lasting_key(1);
        for round in 0..400u32 {
            let done = std::sync::atomic::AtomicBool::new(false);
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        while !done.load(Ordering::Relaxed) {
                            store.settle().unwrap();
                        }
                    });
                }
                for number in 0..=30 {
                    put(&store, &key, &(round + number).to_le_bytes());
                    // For about as long as it takes to move it.
                    for _ in 0..number {
                        store.load(&key).unwrap();
                    }
                }
                done.store(true, Ordering::Relaxed);
            });
            store.settle().unwrap();
            assert_eq!(store.recent.holds(), Holds::Nothing);
            let value = store.load(&key).unwrap().unwrap();
            assert_eq!(value, (round + 30).to_le_bytes());
        }
    }

    #[test]
    fn a_store_of_a_newer_version_is_left_alone() {
        let [recent, lasting] = [0; 2].map(|_| tempfile::tempdir().unwrap());
        std::fs::write(lasting.path().join("format"), "2\n").unwrap();
        let mut store = SideStore::open(recent.path()).unwrap();
        let refused = store.open_lasting(lasting.path());
        assert!(matches!(refused, Err(Unusable::Newer(format)) if format == "2"));
    }
}
