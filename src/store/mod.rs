//! The side store: owners and attributes of inodes that cannot carry them.
//!
//! Only regular files and directories have `user.*` attributes (xattr(7)), and not on every file
//! system. The rest is in two LMDB environments that all workers of a user share: reads take no
//! lock, and a killed writer leaves no partial change. The *recent* one is in tmpfs, without fsync:
//! a write costs microseconds. Each second its entries are settled into the *lasting* one on disk,
//! with fsync. So a power cut loses about as much here as it does of extended attributes, which are
//! not synced either. The recent one takes precedence, also with a tombstone. [`SideStore`]
//! describes the life of an entry.

mod damage;
mod environment;
mod fuse;
mod key;
mod layer;
mod mend;
mod patience;
mod places;
mod settle;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Once;

use nix::fcntl::{Flock, FlockArg};
use tracing::warn;

pub(crate) use damage::{end_where_damaged, ended_by_damage, is_suspect, store_failed, tell_once};
pub(crate) use environment::{DATA, FULL_ONES, try_in};
use environment::{Environment, Holds, Unusable, open_lasting};
pub(crate) use key::{FileSystem, InodeNumber, Key, inode_of, is_by_birth};
pub(crate) use layer::Layers;
pub(crate) use mend::mend;
use patience::Patience;
use places::UNTIL_BOOT;
pub(crate) use places::{Places, lasting_place, open_side_store, recent_directory, refuse_shared};
pub(crate) use settle::{Marker, read_through, result_of, settle};

use crate::linux::sys::Durability;

/// The first byte of a value in the recent store: the entry will be settled.
const LASTING: u8 = b'l';
/// The same for an entry that is never settled, because its file system does not survive a boot.
const PASSING: u8 = b'p';

/// The number of entries that are settled in one transaction.
const BATCH: usize = 4096;

/// The two parts of the side store.
///
/// The states of an entry, the process that leads to each, and the state if it is killed meanwhile:
///
/// - *recent*: a worker or `subuidless owners` stores it under all keys of its inode in one
///   transaction. Killed: the state before; the call is repeated.
/// - *recent and lasting*: the process that settles entries ([`SideStore::settle`]), in a
///   transaction of the lasting part. Killed: recent only; settled again.
/// - *lasting*: the same process, in a transaction of the recent part, unless the value has changed
///   meanwhile. Killed: recent and lasting; settled again.
/// - *tombstone*: a recent entry without a value, settled like the others. Settling deletes the
///   entry from the lasting part; that of an overlay is kept there as a tombstone, because a lower
///   layer may have an entry.
/// - *no entry*, after the inode has been deleted: `owners gc` removes all keys in one transaction,
///   if their values are unchanged. Killed: all of them remain, or none.
///
/// The key is the file system and the file handle, whose generation distinguishes a recycled inode
/// number. Where the id of the file system is only the number of its disk (XFS), the inode's time
/// of birth takes its place: a lookup needs no more then, and `owners gc` has a key with the UUID.
/// An overlay has no such handle, and another file system id with each mount: through it an
/// inode is known by its number and its time of birth in nanoseconds. An inode that is seen
/// directly gets an entry under that key as well.
#[derive(Debug)]
pub(crate) struct SideStore {
    recent: Environment,
    lasting: Option<Environment>,
    /// The directory of the recent part.
    directory: PathBuf,
}

impl SideStore {
    /// Opens the recent part only.
    pub(crate) fn open(recent: &Path) -> heed::Result<Self> {
        fuse::look_for_connections();
        let _patience = Patience::begin();
        Ok(Self {
            recent: Environment::open(recent, Durability::None)?,
            lasting: None,
            directory: recent.to_owned(),
        })
    }

    /// Opens the lasting part, too.
    pub(crate) fn open_lasting(&mut self, directory: &Path) -> Result<(), Unusable> {
        let _patience = Patience::begin();
        self.lasting = Some(open_lasting(directory)?);
        Ok(())
    }

    /// Reads the whole lasting part. LMDB trusts its pages: damaged ones may crash this process.
    pub(crate) fn read_lasting(directory: &Path) -> Result<(), Unusable> {
        open_lasting(directory)?.read_through(directory)
    }

    /// Reads the whole recent part, with the same risk.
    pub(crate) fn read_recent(directory: &Path) -> Result<(), Unusable> {
        Environment::open(directory, Durability::None)?.read_through(directory)
    }

    /// Whether there are no entries at all, so that no file needs a lookup. Usually costs no system
    /// call.
    pub(crate) fn is_empty(&self) -> bool {
        self.holds() == Holds::Nothing
    }

    /// Whether a file or directory that had no room for its attribute may have an entry.
    pub(crate) fn has_full_ones(&self) -> bool {
        self.holds() == Holds::FullOnes
    }

    fn holds(&self) -> Holds {
        let lasting = self.lasting.as_ref().map(Environment::holds);
        self.recent.holds().max(lasting.unwrap_or(Holds::Nothing))
    }

    /// Returns the value stored for an inode; `None` if there is no entry, or a tombstone.
    pub(crate) fn load(&self, key: &Key) -> heed::Result<Option<Vec<u8>>> {
        let _patience = Patience::begin();
        for bytes in key.to_look_up() {
            if let Some(value) = self.get(bytes)? {
                return Ok(Some(value).filter(|value| !value.is_empty()));
            }
        }
        Ok(None)
    }

    /// Returns the value of one key; an empty one for a tombstone.
    fn get(&self, bytes: &[u8]) -> heed::Result<Option<Vec<u8>>> {
        // In this order: an entry being settled is in both parts before it leaves the recent one.
        // In the other order, it could be settled between the two lookups and be missed.
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

    /// Changes an inode's value: `change` gets the present one (empty if there is none), and
    /// returns the new one and the keys to store it under.
    ///
    /// An empty new value is stored as a tombstone: without it, an older entry in the lasting part
    /// or of a lower layer would show through.
    pub(crate) fn update(
        &self,
        key: &Key,
        change: impl FnOnce(&[u8]) -> (Vec<u8>, Vec<Vec<u8>>),
    ) -> heed::Result<()> {
        let _patience = Patience::begin();
        let lasts = if key.passes { PASSING } else { LASTING };
        let lasting = self.lasting.as_ref().filter(|_| !key.passes);
        if lasting.is_some_and(|lasting| lasting.ensure_writable().is_err()) {
            static TOLD: Once = Once::new();
            TOLD.call_once(|| warn!("the side store's disk is read-only: {UNTIL_BOOT}"));
        }
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

    /// Settles at most [`BATCH`] entries. Returns their number; 0 if there is no lasting part.
    pub(crate) fn settle(&self) -> heed::Result<usize> {
        let Some(lasting) = &self.lasting else {
            return Ok(0);
        };
        // Only one process (the daemon's, or a command) settles at a time: otherwise one could
        // overwrite a newer value with an older one that it read before.
        let _alone = Flock::lock(File::open(&self.directory)?, FlockArg::LockExclusive)
            .map_err(|(_, errno)| io::Error::from(errno))?;
        let moved = self
            .recent
            .entries(BATCH, |value| value.first() != Some(&PASSING))?;
        if moved.is_empty() {
            return Ok(0);
        }
        // The lasting part first: if this process is killed between the two transactions, entries
        // are in both parts, not in none.
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
                // An entry that has changed meanwhile stays, to be settled again.
                if owners.get(transaction, key)? == Some(value.as_slice()) {
                    owners.delete(transaction, key)?;
                }
            }
            Ok(())
        })?;
        Ok(moved.len())
    }

    /// Returns all entries of the lasting part.
    pub(crate) fn lasting_entries(&self) -> heed::Result<Vec<StoredEntry>> {
        let entries = match &self.lasting {
            Some(lasting) => lasting.entries(usize::MAX, |_| true)?,
            None => Vec::new(),
        };
        let entries = entries.into_iter().filter(|(key, _)| key != FULL_ONES);
        Ok(entries.map(StoredEntry::new).collect())
    }

    /// Removes those of `entries` whose value is unchanged from the lasting part. Returns their
    /// number.
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

/// A key of the side store and its value.
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

    /// The inode's file system; empty if the key does not contain it.
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

    /// The key of a file that survives a boot, whatever file system the test's directory is on.
    fn lasting_key(number: u8) -> Key {
        Key {
            own: [&[BY_HANDLE], [number; FILE_SYSTEM].as_slice()].concat(),
            by_birth: None,
            by_handle: None,
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
        // An entry that has changed since it was read stays.
        let other = StoredEntry::new((entry.key().to_vec(), b"older".to_vec()));
        assert_eq!(store.remove_lasting(&[&other]).unwrap(), 0);
        assert!(!store.is_empty());
        assert_eq!(store.remove_lasting(&[entry]).unwrap(), 1);
        assert!(store.is_empty());
    }

    #[test]
    fn two_that_settle_at_the_same_time_leave_the_newest() {
        let [recent, lasting] = [0; 2].map(|_| tempfile::tempdir().unwrap());
        // A process cannot open an LMDB environment twice. flock(2) locks open file descriptions,
        // of which each `settle` has its own.
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
                    // For about as long as settling takes.
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
