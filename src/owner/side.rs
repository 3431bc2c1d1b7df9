//! The side store: owners of inodes that cannot carry the extended attribute.
//!
//! `user.*` attributes exist on regular files and directories only (xattr(7)), and not on every file system. The
//! other owners live in an LMDB environment that all workers of a user share: reads take no lock, a killed writer
//! leaves nothing half done. The key is the file system and the file handle, which carries the inode's generation, so
//! that a recycled inode number inherits nothing.
//!
//! For now the store lasts until the next boot: LMDB runs without fsync, which is safe against kill -9 but not
//! against a power cut, so each boot begins with a directory of its own.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use heed::types::Bytes;
use nix::errno::Errno;
use nix::sys::statvfs::fstatvfs;

use super::record::Owner;
use crate::sys;

/// Address space only; the file grows as entries come.
const MAP_SIZE: usize = 1 << 30;

#[derive(Debug)]
pub(crate) struct SideStore {
    environment: heed::Env<heed::WithoutTls>,
    owners: heed::Database<Bytes, Bytes>,
    /// The last transaction seen, shifted left by one; bit 0: it left the store empty.
    emptiness: AtomicU64,
}

impl SideStore {
    pub(crate) fn open(directory: &Path) -> heed::Result<Self> {
        let environment = sys::open_lmdb(directory, MAP_SIZE)?;
        // Slots of readers that were killed.
        environment.clear_stale_readers()?;
        let mut transaction = environment.write_txn()?;
        let owners = environment.create_database(&mut transaction, None)?;
        transaction.commit()?;
        Ok(Self {
            environment,
            owners,
            emptiness: AtomicU64::new(u64::MAX),
        })
    }

    /// Whether nothing is stored at all: then no file needs a look-up. Costs no system call.
    pub(crate) fn is_empty(&self) -> bool {
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

    pub(crate) fn load(&self, key: &Key) -> heed::Result<Option<Vec<u8>>> {
        let snapshot = self.environment.read_txn()?;
        Ok(self.owners.get(&snapshot, &key.0)?.map(<[u8]>::to_vec))
    }

    pub(crate) fn store(&self, key: &Key, owner: Owner) -> heed::Result<()> {
        let mut transaction = self.environment.write_txn()?;
        self.owners.put(&mut transaction, &key.0, &owner.encode())?;
        transaction.commit()
    }

    pub(crate) fn remove(&self, key: &Key) -> heed::Result<()> {
        let mut transaction = self.environment.write_txn()?;
        self.owners.delete(&mut transaction, &key.0)?;
        transaction.commit()
    }
}

/// What identifies an inode for as long as it exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key(Vec<u8>);

impl Key {
    /// The key of the file behind `fd`.
    ///
    /// File systems without handles (procfs, devpts, pipes) fall back to device, inode and birth time.
    pub(crate) fn of(fd: BorrowedFd) -> Result<Self, Errno> {
        let mut key = Vec::with_capacity(64);
        let handle = sys::file_handle(fd, true).or_else(|_| sys::file_handle(fd, false));
        if let Ok(handle) = handle {
            key.push(b'h');
            key.extend(fstatvfs(fd)?.filesystem_id().to_ne_bytes());
            key.extend(handle.handle_type.to_ne_bytes());
            key.extend(handle.bytes());
        } else {
            let mask = libc::STATX_INO | libc::STATX_BTIME;
            let file = sys::statx(fd, c"", libc::AT_EMPTY_PATH, mask)?;
            key.push(b'i');
            key.extend(file.stx_dev_major.to_ne_bytes());
            key.extend(file.stx_dev_minor.to_ne_bytes());
            key.extend(file.stx_ino.to_ne_bytes());
            key.extend(file.stx_btime.tv_sec.to_ne_bytes());
            key.extend(file.stx_btime.tv_nsec.to_ne_bytes());
        }
        Ok(Self(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::Id;
    use crate::credentials::{EmulatedGid, EmulatedUid};
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn what_one_opener_stores_another_one_sees_and_an_empty_store_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let one = SideStore::open(directory.path()).unwrap();
        assert!(one.is_empty());
        let file = File::create(directory.path().join("file")).unwrap();
        let key = Key::of(file.as_fd()).unwrap();
        let owner = Owner {
            uid: EmulatedUid::new(4_294_967_294),
            gid: EmulatedGid::new(0),
        };
        one.store(&key, owner).unwrap();
        assert!(!one.is_empty());
        assert_eq!(one.load(&key).unwrap(), Some(owner.encode()));
        one.remove(&key).unwrap();
        assert!(one.is_empty());
        assert_eq!(one.load(&key).unwrap(), None);
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
