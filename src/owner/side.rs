//! The side store: what inodes cannot carry in an extended attribute.
//!
//! `user.*` attributes exist on regular files and directories only (xattr(7)), and not on every
//! file system. Everything else lives in two LMDB environments that all workers of a user share:
//! reads take no lock, a killed writer leaves nothing half done. The *recent* one lies in memory
//! (tmpfs) and runs without fsync: a write costs microseconds. What is in there is moved to the
//! *lasting* one on disk, with fsync, every second; so after a power cut as much is there as of an
//! extended attribute, which nobody syncs either. What is in the recent one counts, a removal
//! included.
//!
//! The life of an entry, who brings it on, and what is left if that one is killed:
//!
//! - *recent*, under all keys of its inode at once: a worker or `subuidless owners`, in one
//!   transaction. Killed: the state before, and the call is done again.
//! - *recent and lasting*: the process that moves entries ([`SideStore::settle`]), in a transaction
//!   of the lasting one. Killed: recent only, and moved again.
//! - *lasting*: the same process, in a transaction of the recent one, unless the value has changed
//!   meanwhile. Killed: both, and moved again.
//! - *removed*: a recent entry without a value, moved as any other. Then it is deleted from the
//!   lasting one; in an overlay it stays, since there may be a lower layer.
//! - *gone*, of an inode that is no more: `owners gc`, all keys in one transaction, if their values
//!   are unchanged. Killed: all of them, or none.
//!
//! The key is the file system and the file handle, which carries the inode's generation, so that a
//! recycled inode number inherits nothing. An overlay gives no such handle, and another file system
//! id with every mount: through it an inode is known by its number and its time of birth in
//! nanoseconds, by which it is entered, too, when it is seen without.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use heed::types::Bytes;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, open, posix_fallocate};
use nix::sys::stat::{Mode, fstatat};
use nix::unistd::{SysconfVar, sysconf};

use super::key::Key;
use super::patience::Patience;
use super::stored::StoredEntry;
use crate::linux::sys::{self, Durability};
use crate::wire::rundir;

/// Address space only; the file grows as entries come. The smaller ones are for who is limited
/// (`ulimit -v`).
const MAP_SIZES: [usize; 3] = [1 << 30, 1 << 27, 1 << 24];

/// In front of a value in the recent store: it is to be moved to the lasting one.
const LASTING: u8 = b'l';
/// It is not, since its file system is gone after a boot.
const PASSING: u8 = b'p';

/// The form of keys and values in the lasting store.
const FORMAT: &str = "1\n";

/// How many entries are moved at once.
const BATCH: usize = 4096;

/// LMDB's names for its files.
pub(crate) const DATA: &str = "data.mdb";
pub(crate) const LOCK: &str = "lock.mdb";

/// The key that is there from the first entry on of an inode that carries attributes, but had no
/// room for one.
pub(super) const FULL_ONES: &[u8] = b"full inodes";

/// What has to be looked up in a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Holds {
    Nothing,
    /// What carries no attributes.
    Special,
    /// Files and directories as well.
    FullOnes,
}

/// A key and a value.
pub(crate) type Entry = (Vec<u8>, Vec<u8>);

#[derive(Debug)]
pub(crate) struct SideStore {
    recent: Environment,
    lasting: Option<Environment>,
    /// The recent one's.
    directory: PathBuf,
}

/// Why the lasting store cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0} (moving the directory away begins a new one)")]
    Database(heed::Error),
    #[error("it has been cut off (moving the directory away begins a new one)")]
    CutOff,
    #[error("it was written by a newer version of subuidless: format {0}")]
    Newer(String),
}

impl From<heed::Error> for Unusable {
    fn from(error: heed::Error) -> Self {
        match error {
            // Of the machine, and not of what lies there.
            heed::Error::Io(error) => Self::Io(error),
            error => Self::Database(error),
        }
    }
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

fn open_lasting(directory: &Path) -> Result<Environment, Unusable> {
    let file = directory.join("format");
    let make = || rundir::write_own(&file, FORMAT.as_bytes());
    match rundir::read_own(&file) {
        Ok(format) if format == FORMAT => {}
        // The disk was full when it was made.
        Ok(format) if format.is_empty() => make()?,
        Ok(format) => return Err(Unusable::Newer(format.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => make()?,
        Err(error) => return Err(error.into()),
    }
    match Environment::open(directory, Durability::Full) {
        Err(heed::Error::Io(error)) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            Ok(Environment::open(directory, Durability::ReadOnly)?)
        }
        environment => Ok(environment?),
    }
}

#[derive(Debug)]
struct Environment {
    environment: heed::Env<heed::WithoutTls>,
    owners: heed::Database<Bytes, Bytes>,
    files: Files,
    /// The last transaction seen, shifted left by two, and what it has left: a [`Holds`].
    seen: AtomicU64,
}

impl Environment {
    fn open(directory: &Path, durability: Durability) -> heed::Result<Self> {
        // LMDB opens them by name.
        rundir::examine_own(&directory.join(DATA))?;
        if durability != Durability::ReadOnly {
            reserve_lock_file(directory)?;
        }
        let [whole, less @ ..] = MAP_SIZES;
        let mut environment = sys::open_lmdb(directory, whole, durability);
        for size in less {
            match environment {
                Err(heed::Error::Io(error)) if error.raw_os_error() == Some(libc::ENOMEM) => {
                    environment = sys::open_lmdb(directory, size, durability);
                }
                _ => break,
            }
        }
        let environment = environment?;
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
            files: Files::find(directory)?,
            seen: AtomicU64::new(u64::MAX),
        })
    }

    /// An error if the files are others by now: what is written to removed ones nobody would ever
    /// see.
    fn ensure_in_place(&self) -> heed::Result<()> {
        match self.files.identities()? == self.files.found {
            true => Ok(()),
            false => Err(heed::Error::Io(Errno::ESTALE.into())),
        }
    }

    fn read_through(&self, directory: &Path) -> Result<(), Unusable> {
        let file = std::fs::metadata(directory.join(DATA))?;
        let pages = self.environment.info().last_page_number as u64 + 1;
        if file.len() < pages * page_size() {
            return Err(Unusable::CutOff);
        }
        self.entries(usize::MAX, |_| false)?;
        Ok(())
    }

    fn holds(&self) -> Holds {
        const ALL: [Holds; 3] = [Holds::Nothing, Holds::Special, Holds::FullOnes];
        let transaction = self.environment.info().last_txn_id as u64;
        let known = self.seen.load(Ordering::Relaxed);
        if known >> 2 == transaction
            && let Some(holds) = ALL.iter().find(|holds| **holds as u64 == known & 3)
        {
            return *holds;
        }
        let _patience = Patience::begin();
        // The snapshot may be older than what the environment tells: a writer that has to wait for
        // the disk shows its transaction there before anybody can read it.
        let Ok(snapshot) = self.environment.read_txn() else {
            return Holds::FullOnes;
        };
        let holds = match self.owners.get(&snapshot, FULL_ONES) {
            Ok(None) if self.owners.is_empty(&snapshot).unwrap_or(false) => Holds::Nothing,
            Ok(None) => Holds::Special,
            _ => Holds::FullOnes,
        };
        self.seen.store(
            (snapshot.id() as u64) << 2 | holds as u64,
            Ordering::Relaxed,
        );
        holds
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

    fn entries(&self, most: usize, wanted: impl Fn(&[u8]) -> bool) -> heed::Result<Vec<Entry>> {
        let snapshot = self.environment.read_txn()?;
        let entries = self.owners.iter(&snapshot)?;
        entries
            .filter(|entry| entry.as_ref().map_or(true, |(_, value)| wanted(value)))
            .take(most)
            .map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())))
            .collect()
    }
}

/// Which files an environment was opened with, to be asked for when its path may be another file
/// system's.
#[derive(Debug)]
struct Files {
    directory: OwnedFd,
    found: [Option<(u64, u64)>; 2],
}

impl Files {
    fn find(directory: &Path) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut files = Self {
            directory: open(directory, flags, Mode::empty())?,
            found: [None; 2],
        };
        files.found = files.identities()?;
        Ok(files)
    }

    /// `None` for what is missing.
    fn identities(&self) -> io::Result<[Option<(u64, u64)>; 2]> {
        let identity = |name| match fstatat(&self.directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some((stat.st_dev, stat.st_ino))),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno),
        };
        Ok([identity(DATA)?, identity(LOCK)?])
    }
}

/// LMDB's pages are those of the machine.
fn page_size() -> u64 {
    let size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    size.and_then(|size| u64::try_from(size).ok())
        .unwrap_or(4096)
}

/// LMDB writes to its table of readers through memory: where the disk has no room for it, that
/// would be SIGBUS.
fn reserve_lock_file(directory: &Path) -> io::Result<()> {
    /// The reader slots of `sys::open_lmdb`, of a cache line each, and what comes before them.
    const SIZE: i64 = 1024 * 64 + 4096;
    let path = directory.join(LOCK);
    rundir::examine_own(&path)?;
    if std::fs::symlink_metadata(&path).is_ok_and(|file| file.blocks() * 512 >= SIZE.unsigned_abs())
    {
        return Ok(());
    }
    let file = rundir::open_own(&path, File::options().write(true).create(true))?;
    match posix_fallocate(&file, 0, SIZE) {
        // A file system that cannot say so beforehand.
        Err(Errno::EOPNOTSUPP) => Ok(()),
        result => Ok(result?),
    }
}

#[cfg(test)]
mod tests {
    use super::super::key::{BY_HANDLE, FILE_SYSTEM};
    use super::*;
    use std::os::fd::AsFd;

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
