//! An LMDB environment of the side store: a directory with a database, its locks, and for the lasting
//! one the format that it is written in.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use heed::types::Bytes;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, posix_fallocate};
use nix::sys::stat::{Mode, fstatat};
use nix::unistd::{SysconfVar, sysconf};

use super::patience::Patience;
use crate::linux::sys::{self, Durability};
use crate::wire::rundir;

/// Address space only; the file grows as entries come. The smaller ones are for who is limited
/// (`ulimit -v`).
const MAP_SIZES: [usize; 3] = [1 << 30, 1 << 27, 1 << 24];

/// The form of keys and values in the lasting store.
const FORMAT: &str = "1\n";

/// LMDB's names for its files.
pub(crate) const DATA: &str = "data.mdb";
pub(crate) const LOCK: &str = "lock.mdb";

/// The key that is there from the first entry on of an inode that carries attributes, but had no
/// room for one.
pub(crate) const FULL_ONES: &[u8] = b"full inodes";

/// What has to be looked up in a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holds {
    Nothing,
    /// What carries no attributes.
    Special,
    /// Files and directories as well.
    FullOnes,
}

/// A key and a value.
pub(crate) type Entry = (Vec<u8>, Vec<u8>);

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

pub(super) fn open_lasting(directory: &Path) -> Result<Environment, Unusable> {
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
pub(super) struct Environment {
    environment: heed::Env<heed::WithoutTls>,
    owners: heed::Database<Bytes, Bytes>,
    files: Files,
    /// The last transaction seen, shifted left by two, and what it has left: a [`Holds`].
    seen: AtomicU64,
}

impl Environment {
    pub(super) fn open(directory: &Path, durability: Durability) -> heed::Result<Self> {
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
    pub(super) fn ensure_in_place(&self) -> heed::Result<()> {
        match self.files.identities()? == self.files.found {
            true => Ok(()),
            false => Err(heed::Error::Io(Errno::ESTALE.into())),
        }
    }

    pub(super) fn read_through(&self, directory: &Path) -> Result<(), Unusable> {
        let file = std::fs::metadata(directory.join(DATA))?;
        let pages = self.environment.info().last_page_number as u64 + 1;
        if file.len() < pages * page_size() {
            return Err(Unusable::CutOff);
        }
        self.entries(usize::MAX, |_| false)?;
        Ok(())
    }

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

    pub(super) fn get(&self, key: &[u8]) -> heed::Result<Option<Vec<u8>>> {
        let snapshot = self.environment.read_txn()?;
        Ok(self.owners.get(&snapshot, key)?.map(<[u8]>::to_vec))
    }

    pub(super) fn change<T>(
        &self,
        change: impl FnOnce(&heed::Database<Bytes, Bytes>, &mut heed::RwTxn) -> heed::Result<T>,
    ) -> heed::Result<T> {
        let mut transaction = self.environment.write_txn()?;
        let result = change(&self.owners, &mut transaction)?;
        transaction.commit()?;
        Ok(result)
    }

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
