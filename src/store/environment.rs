//! An LMDB environment of the side store: a directory with a database, its locks and, in the
//! lasting one, the version of its format.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use heed::types::Bytes;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, posix_fallocate};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::sys::stat::{Mode, fstatat};

use super::patience::Patience;
use crate::linux::sys::{self, Durability};
use crate::wire::rundir;

/// The sizes of the map, in bytes, of which the first that is possible is used: smaller ones if the
/// address space is limited (`ulimit -v`). The file grows only with its entries.
const MAP_SIZES: [usize; 3] = [1 << 30, 1 << 27, 1 << 24];
/// A map may be this part of the address space: both stores are mapped, and what serves calls needs
/// the rest.
const SHARE: u64 = 3;

/// The version of keys and values in the lasting store.
const FORMAT: &str = "1\n";

/// LMDB's file names.
pub(crate) const DATA: &str = "data.mdb";
pub(crate) const LOCK: &str = "lock.mdb";

/// The key of a mark: a file or directory that had no room for its attribute has an entry. It is
/// never removed.
pub(crate) const FULL_ONES: &[u8] = b"full inodes";

/// The inodes that may have entries in a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holds {
    Nothing,
    /// Inodes that cannot carry attributes.
    Special,
    /// Also files and directories that had no room.
    FullOnes,
}

/// A key and a value.
pub(crate) type Entry = (Vec<u8>, Vec<u8>);

/// The reason why the lasting store cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0} (move the directory away to begin with an empty one)")]
    Database(heed::Error),
    #[error("it has been truncated (move the directory away to begin with an empty one)")]
    CutOff,
    #[error("it was written by a newer version of subuidless: format {0}")]
    Newer(String),
}

impl From<heed::Error> for Unusable {
    fn from(error: heed::Error) -> Self {
        match error {
            // A failure of the machine, not of the database.
            heed::Error::Io(error) => Self::Io(error),
            error => Self::Database(error),
        }
    }
}

/// Opens the lasting environment, read-only if its file system is.
pub(super) fn open_lasting(directory: &Path) -> Result<Environment, Unusable> {
    let file = directory.join("format");
    let make = || rundir::write_own(&file, FORMAT.as_bytes());
    match rundir::read_own(&file) {
        Ok(format) if format == FORMAT => {}
        // The disk was full when the file was created.
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

/// Makes a lasting environment in an empty directory, to find out whether that is possible.
pub(crate) fn try_in(directory: &Path) -> heed::Result<()> {
    Environment::open(directory, Durability::Full).map(drop)
}

/// Opens the database with the largest map that leaves room for everything else.
fn open_mapped(
    directory: &Path,
    durability: Durability,
) -> heed::Result<heed::Env<heed::WithoutTls>> {
    let (limit, _) = getrlimit(Resource::RLIMIT_AS).unwrap_or((RLIM_INFINITY, RLIM_INFINITY));
    let [larger @ .., least] = MAP_SIZES;
    for size in larger {
        if size as u64 > limit / SHARE {
            continue;
        }
        match sys::open_lmdb(directory, size, durability) {
            Err(heed::Error::Io(error)) if error.raw_os_error() == Some(libc::ENOMEM) => {}
            environment => return environment,
        }
    }
    sys::open_lmdb(directory, least, durability)
}

/// An open environment.
#[derive(Debug)]
pub(super) struct Environment {
    environment: heed::Env<heed::WithoutTls>,
    owners: heed::Database<Bytes, Bytes>,
    files: Files,
    is_read_only: bool,
    /// The id of the last transaction seen, shifted left by two, and the [`Holds`] after it.
    seen: AtomicU64,
}

impl Environment {
    /// Opens or creates the environment in `directory`.
    pub(super) fn open(directory: &Path, durability: Durability) -> heed::Result<Self> {
        // LMDB opens its files by name and follows symlinks.
        rundir::examine_own(&directory.join(DATA))?;
        if durability != Durability::ReadOnly {
            reserve_lock_file(directory)?;
        }
        let environment = open_mapped(directory, durability)?;
        // The slot of a killed reader would keep old pages from being reused.
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
            is_read_only: durability == Durability::ReadOnly,
            seen: AtomicU64::new(u64::MAX),
        })
    }

    /// EROFS if nothing can be changed.
    pub(super) fn ensure_writable(&self) -> heed::Result<()> {
        match self.is_read_only {
            true => Err(heed::Error::Io(Errno::EROFS.into())),
            false => Ok(()),
        }
    }

    /// ESTALE if the files have been replaced: no other process would see what is written to the
    /// removed ones.
    pub(super) fn ensure_in_place(&self) -> heed::Result<()> {
        match self.files.identities()? == self.files.found {
            true => Ok(()),
            false => Err(heed::Error::Io(Errno::ESTALE.into())),
        }
    }

    /// Reads the whole database. Fails if the file is shorter than LMDB's header says, before an
    /// access would raise SIGBUS.
    pub(super) fn read_through(&self, directory: &Path) -> Result<(), Unusable> {
        let file = std::fs::metadata(directory.join(DATA))?;
        let pages = self.environment.info().last_page_number as u64 + 1;
        if file.len() < pages * u64::from(self.environment.stat().page_size) {
            return Err(Unusable::CutOff);
        }
        self.entries(usize::MAX, |_| false)?;
        Ok(())
    }

    /// The inodes that may have entries. Costs no system call while nothing is written: LMDB's map
    /// contains the id of the last transaction.
    pub(super) fn holds(&self) -> Holds {
        const ALL: [Holds; 3] = [Holds::Nothing, Holds::Special, Holds::FullOnes];
        let transaction = self.environment.info().last_txn_id as u64;
        let known = self.seen.load(Ordering::Relaxed);
        if known >> 2 == transaction
            && let Some(holds) = ALL.iter().find(|holds| **holds as u64 == known & 3)
        {
            return *holds;
        }
        let _patience = Patience::begin();
        // `last_txn_id` may be newer than the snapshot: a writer that waits for the disk has its
        // transaction there before readers see it. So the result is stored with the snapshot's id.
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

    /// Returns the value of `key`, if there is one.
    pub(super) fn get(&self, key: &[u8]) -> heed::Result<Option<Vec<u8>>> {
        let snapshot = self.environment.read_txn()?;
        Ok(self.owners.get(&snapshot, key)?.map(<[u8]>::to_vec))
    }

    /// Runs `change` in a write transaction, which is committed if it succeeds.
    pub(super) fn change<T>(
        &self,
        change: impl FnOnce(&heed::Database<Bytes, Bytes>, &mut heed::RwTxn) -> heed::Result<T>,
    ) -> heed::Result<T> {
        self.ensure_writable()?;
        let mut transaction = self.environment.write_txn()?;
        let result = change(&self.owners, &mut transaction)?;
        transaction.commit()?;
        Ok(result)
    }

    /// Returns at most `most` entries whose values are `wanted`.
    pub(super) fn entries(
        &self,
        most: usize,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> heed::Result<Vec<Entry>> {
        let snapshot = self.environment.read_txn()?;
        let entries = self.owners.iter(&snapshot)?;
        entries
            .filter(|entry| entry.as_ref().map_or(true, |(_, value)| wanted(value)))
            .take(most)
            .map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())))
            .collect()
    }
}

/// The files with which an environment was opened. Holds the directory open, because its path may
/// lead elsewhere once the worker has joined a container.
#[derive(Debug)]
struct Files {
    directory: OwnedFd,
    /// Device and inode number of [`DATA`] and [`LOCK`] at the time of opening.
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

    /// Device and inode number of the files now; `None` for a missing one.
    fn identities(&self) -> io::Result<[Option<(u64, u64)>; 2]> {
        let identity = |name| match fstatat(&self.directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some((stat.st_dev, stat.st_ino))),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno),
        };
        Ok([identity(DATA)?, identity(LOCK)?])
    }
}

/// Allocates the lock file's blocks. LMDB writes its table of readers through a map, which would
/// raise SIGBUS on a full disk.
fn reserve_lock_file(directory: &Path) -> io::Result<()> {
    /// The reader slots of `sys::open_lmdb`, one cache line each, and a header.
    const SIZE: i64 = 1024 * 64 + 4096;
    let path = directory.join(LOCK);
    rundir::examine_own(&path)?;
    if std::fs::symlink_metadata(&path).is_ok_and(|file| file.blocks() * 512 >= SIZE.unsigned_abs())
    {
        return Ok(());
    }
    let file = rundir::open_own(&path, File::options().write(true).create(true))?;
    match posix_fallocate(&file, 0, SIZE) {
        // The file system cannot reserve blocks.
        Err(Errno::EOPNOTSUPP) => Ok(()),
        result => Ok(result?),
    }
}
