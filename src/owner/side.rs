//! The side store: what inodes cannot carry in an extended attribute.
//!
//! `user.*` attributes exist on regular files and directories only (xattr(7)), and not on every file system. Everything
//! else lives in two LMDB environments that all workers of a user share: reads take no lock, a killed writer leaves
//! nothing half done. The *recent* one lies in memory (tmpfs) and runs without fsync: a write costs microseconds. The daemon
//! moves what is in there to the *lasting* one on disk, with fsync, every second; so after a power cut as much is there
//! as of an extended attribute, which nobody syncs either. What is in the recent one counts, a removal included.
//!
//! The key is the file system and the file handle, which carries the inode's generation, so that a recycled inode number
//! inherits nothing. An inode seen through an overlay has the key that it has without.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use heed::types::Bytes;
use nix::errno::Errno;
use nix::sys::statfs::{self, FsType, fstatfs};
use nix::sys::statvfs::fstatvfs;

use crate::sys::{self, Durability};

/// Address space only; the file grows as entries come.
const MAP_SIZE: usize = 1 << 30;

/// In the recent store: it is no more in the lasting one either. No record begins with a field of number 0.
const REMOVED: &[u8] = &[0];

/// The form of keys and values in the lasting store.
const FORMAT: &str = "1\n";

/// How many entries are moved at once.
const BATCH: usize = 4096;

#[derive(Debug)]
pub(crate) struct SideStore {
    recent: Environment,
    lasting: Option<Environment>,
}

/// Why the lasting store cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0} (moving the directory away begins a new one)")]
    Database(#[from] heed::Error),
    #[error("it was written by a newer version of subuidless: format {0}")]
    Newer(String),
}

impl SideStore {
    pub(crate) fn open(recent: &Path) -> heed::Result<Self> {
        Ok(Self {
            recent: Environment::open(recent, Durability::None)?,
            lasting: None,
        })
    }

    /// Adds what outlives the boot.
    pub(crate) fn open_lasting(&mut self, directory: &Path) -> Result<(), Unusable> {
        let file = directory.join("format");
        match std::fs::read_to_string(&file) {
            Ok(format) if format == FORMAT => {}
            Ok(format) => return Err(Unusable::Newer(format.trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::write(&file, FORMAT)?;
            }
            Err(error) => return Err(error.into()),
        }
        self.lasting = Some(Environment::open(directory, Durability::Full)?);
        Ok(())
    }

    /// Whether nothing is stored at all: then no file needs a look-up. Costs no system call.
    pub(crate) fn is_empty(&self) -> bool {
        self.recent.is_empty() && self.lasting.as_ref().is_none_or(Environment::is_empty)
    }

    pub(crate) fn load(&self, key: &Key) -> heed::Result<Option<Vec<u8>>> {
        // In this order: what is moved is in both for a while.
        match self.recent.get(&key.0)? {
            Some(value) if value == REMOVED => Ok(None),
            Some(value) => Ok(Some(value)),
            None => match &self.lasting {
                Some(lasting) if key.is_lasting() && !lasting.is_empty() => lasting.get(&key.0),
                _ => Ok(None),
            },
        }
    }

    pub(crate) fn store(&self, key: &Key, value: &[u8]) -> heed::Result<()> {
        self.recent
            .change(|owners, transaction| owners.put(transaction, &key.0, value))
    }

    pub(crate) fn remove(&self, key: &Key) -> heed::Result<()> {
        let is_lasting = match &self.lasting {
            Some(lasting) if key.is_lasting() => lasting.get(&key.0)?.is_some(),
            // The daemon may have one that this worker could not open.
            _ => key.is_lasting(),
        };
        self.recent.change(|owners, transaction| {
            if is_lasting {
                owners.put(transaction, &key.0, REMOVED)
            } else {
                owners.delete(transaction, &key.0).map(drop)
            }
        })
    }

    /// Moves what is recent to where it lasts; the number of entries moved.
    pub(crate) fn settle(&self) -> heed::Result<usize> {
        let Some(lasting) = &self.lasting else {
            return Ok(0);
        };
        let moved = self.recent.entries(BATCH, |key| Key::lasts(key))?;
        if moved.is_empty() {
            return Ok(0);
        }
        lasting.change(|owners, transaction| {
            moved
                .iter()
                .try_for_each(|(key, value)| match value.as_slice() {
                    REMOVED => owners.delete(transaction, key).map(drop),
                    value => owners.put(transaction, key, value),
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

    /// Removes what `is_gone` says of the lasting entries, unless it is only a rehearsal; how many there were, and how
    /// many of them are gone.
    pub(crate) fn sweep(
        &self,
        is_gone: impl Fn(&Key) -> bool,
        dry_run: bool,
    ) -> heed::Result<(usize, usize)> {
        let Some(lasting) = &self.lasting else {
            return Ok((0, 0));
        };
        let all = lasting.entries(usize::MAX, |_| true)?;
        let keys = all.iter().map(|(key, _)| Key(key.clone()));
        let gone: Vec<_> = keys.filter(is_gone).collect();
        if !dry_run {
            lasting.change(|owners, transaction| {
                gone.iter()
                    .try_for_each(|key| owners.delete(transaction, &key.0).map(drop))
            })?;
        }
        Ok((all.len(), gone.len()))
    }
}

#[derive(Debug)]
struct Environment {
    environment: heed::Env<heed::WithoutTls>,
    owners: heed::Database<Bytes, Bytes>,
    /// The last transaction seen, shifted left by one; bit 0: it left the store empty.
    emptiness: AtomicU64,
}

impl Environment {
    fn open(directory: &Path, durability: Durability) -> heed::Result<Self> {
        let environment = sys::open_lmdb(directory, MAP_SIZE, durability)?;
        // Slots of readers that were killed.
        environment.clear_stale_readers()?;
        let snapshot = environment.read_txn()?;
        let known = environment.open_database(&snapshot, None)?;
        snapshot.commit()?;
        let owners = match known {
            Some(owners) => owners,
            None => {
                let mut transaction = environment.write_txn()?;
                let owners = environment.create_database(&mut transaction, None)?;
                transaction.commit()?;
                owners
            }
        };
        Ok(Self {
            environment,
            owners,
            emptiness: AtomicU64::new(u64::MAX),
        })
    }

    fn is_empty(&self) -> bool {
        let transaction = self.environment.info().last_txn_id as u64;
        let known = self.emptiness.load(Ordering::Relaxed);
        if known >> 1 == transaction {
            return known & 1 == 1;
        }
        let empty = self
            .environment
            .read_txn()
            .and_then(|snapshot| self.owners.is_empty(&snapshot))
            .unwrap_or(false);
        self.emptiness
            .store(transaction << 1 | u64::from(empty), Ordering::Relaxed);
        empty
    }

    fn get(&self, key: &[u8]) -> heed::Result<Option<Vec<u8>>> {
        let snapshot = self.environment.read_txn()?;
        Ok(self.owners.get(&snapshot, key)?.map(<[u8]>::to_vec))
    }

    fn change<T>(
        &self,
        change: impl FnOnce(&heed::Database<Bytes, Bytes>, &mut heed::RwTxn) -> heed::Result<T>,
    ) -> heed::Result<T> {
        let mut transaction = self.environment.write_txn()?;
        let result = change(&self.owners, &mut transaction)?;
        transaction.commit()?;
        Ok(result)
    }

    fn entries(
        &self,
        most: usize,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> heed::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let snapshot = self.environment.read_txn()?;
        let entries = self.owners.iter(&snapshot)?;
        entries
            .filter(|entry| entry.as_ref().map_or(true, |(key, _)| wanted(key)))
            .take(most)
            .map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())))
            .collect()
    }
}

/// What identifies an inode for as long as it exists.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key(Vec<u8>);

/// By handle, on a file system that outlives a boot.
const LASTING: u8 = b'h';
/// By handle, on one that does not.
const PASSING: u8 = b't';
/// By device, inode and birth time, which are good for one mount.
const BY_INODE: u8 = b'i';

/// File systems that are gone after a boot, and begin anew with the same ids.
const PASSING_FILE_SYSTEMS: [FsType; 5] = [
    statfs::TMPFS_MAGIC,
    statfs::PROC_SUPER_MAGIC,
    statfs::DEVPTS_SUPER_MAGIC,
    statfs::SYSFS_MAGIC,
    FsType(0x8584_58f6), // RAMFS_MAGIC
];

impl Key {
    /// The key of the file behind `fd`.
    ///
    /// File systems without handles (procfs, devpts, pipes) fall back to device, inode and birth time.
    pub(crate) fn of(fd: BorrowedFd) -> Result<Self, Errno> {
        let mut key = Vec::with_capacity(64);
        let handle = sys::file_handle(fd, true).or_else(|_| sys::file_handle(fd, false));
        if let Ok(handle) = handle {
            if let Some(real) = behind_overlay(handle.handle_type, handle.bytes()) {
                return Ok(real);
            }
            let passes = PASSING_FILE_SYSTEMS.contains(&fstatfs(fd)?.filesystem_type());
            key.push(if passes { PASSING } else { LASTING });
            key.extend(fstatvfs(fd)?.filesystem_id().to_ne_bytes());
            key.extend(handle.handle_type.to_ne_bytes());
            key.extend(handle.bytes());
        } else {
            let mask = libc::STATX_INO | libc::STATX_BTIME;
            let file = sys::statx(fd, c"", libc::AT_EMPTY_PATH, mask)?;
            key.push(BY_INODE);
            key.extend(file.stx_dev_major.to_ne_bytes());
            key.extend(file.stx_dev_minor.to_ne_bytes());
            key.extend(file.stx_ino.to_ne_bytes());
            key.extend(file.stx_btime.tv_sec.to_ne_bytes());
            key.extend(file.stx_btime.tv_nsec.to_ne_bytes());
        }
        Ok(Self(key))
    }

    fn lasts(key: &[u8]) -> bool {
        key.first() == Some(&LASTING)
    }

    fn is_lasting(&self) -> bool {
        Self::lasts(&self.0)
    }

    /// The file system that the inode is on, as far as the key says.
    pub(crate) fn file_system(&self) -> &[u8] {
        self.0.get(..9).unwrap_or(&self.0)
    }
}

/// The key that an inode has without the overlay that it was seen through: fs/overlayfs/overlayfs.h, struct ovl_fh.
///
/// Three bytes of padding, version, magic, length, flags, type, then the UUID of the real file system, and its handle. For
/// ext4 and its like the file system id is made of the UUID.
fn behind_overlay(handle_type: i32, handle: &[u8]) -> Option<Key> {
    const OVL_FILEID_V1: i32 = 0xfb;
    const UUID: usize = 8;
    const REAL: usize = UUID + 16;
    if handle_type != OVL_FILEID_V1 || handle.len() <= REAL {
        return None;
    }
    let half = |start: usize| Some(u64::from_le_bytes(*handle[start..].first_chunk()?));
    let id = half(UUID)? ^ half(UUID + 8)?;
    if id == 0 {
        return None;
    }
    // The kernel pads the handle to whole words; its length is in its head.
    let length = usize::from(handle[5]).saturating_sub(REAL - 3);
    let mut key = vec![LASTING];
    key.extend(id.to_le_bytes());
    key.extend(i32::from(handle[7]).to_ne_bytes());
    key.extend(handle.get(REAL..REAL + length)?);
    Some(Key(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    fn opened(recent: &Path, lasting: &Path) -> SideStore {
        let mut store = SideStore::open(recent).unwrap();
        store.open_lasting(lasting).unwrap();
        store
    }

    /// Of a file that outlives a boot, whatever the test's directory is on.
    fn lasting_key(number: u8) -> Key {
        Key(vec![LASTING, number])
    }

    #[test]
    fn what_one_opener_stores_another_one_sees_and_an_empty_store_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let store = SideStore::open(directory.path()).unwrap();
        assert!(store.is_empty());
        let file = File::create(directory.path().join("file")).unwrap();
        let key = Key::of(file.as_fd()).unwrap();
        store.store(&key, b"value").unwrap();
        assert!(!store.is_empty());
        assert_eq!(store.load(&key).unwrap().unwrap(), b"value");
        store.remove(&key).unwrap();
        assert_eq!(store.load(&key).unwrap(), None);
    }

    #[test]
    fn what_has_settled_is_there_after_a_boot_and_what_was_removed_is_not() {
        let [recent, lasting, next] = [0; 3].map(|_| tempfile::tempdir().unwrap());
        let store = opened(recent.path(), lasting.path());
        let [a, b] = [1, 2].map(lasting_key);
        store.store(&a, b"a").unwrap();
        store.store(&b, b"b").unwrap();
        store.store(&Key(vec![PASSING, 1]), b"c").unwrap();
        assert_eq!(store.settle().unwrap(), 2);
        assert_eq!(store.settle().unwrap(), 0);
        store.remove(&a).unwrap();
        assert_eq!(store.load(&a).unwrap(), None);
        assert_eq!(store.load(&b).unwrap().unwrap(), b"b");
        store.store(&b, b"new").unwrap();
        assert_eq!(store.load(&b).unwrap().unwrap(), b"new");
        assert_eq!(store.settle().unwrap(), 2);
        drop(store);
        let store = opened(next.path(), lasting.path());
        assert_eq!(store.load(&a).unwrap(), None);
        assert_eq!(store.load(&b).unwrap().unwrap(), b"new");
        assert_eq!(store.load(&Key(vec![PASSING, 1])).unwrap(), None);
        assert_eq!(store.sweep(|key| *key == b, true).unwrap(), (1, 1));
        assert!(!store.is_empty());
        assert_eq!(store.sweep(|key| *key == b, false).unwrap(), (1, 1));
        assert!(store.is_empty());
    }

    #[test]
    fn a_store_of_a_newer_version_is_left_alone() {
        let [recent, lasting] = [0; 2].map(|_| tempfile::tempdir().unwrap());
        std::fs::write(lasting.path().join("format"), "2\n").unwrap();
        let mut store = SideStore::open(recent.path()).unwrap();
        let refused = store.open_lasting(lasting.path());
        assert!(matches!(refused, Err(Unusable::Newer(format)) if format == "2"));
    }

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
