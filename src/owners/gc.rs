//! `owners gc`: removes the entries of deleted inodes from the side store.
//!
//! The kernel does not tell an unprivileged program whether an inode exists: it may not open file
//! handles, and a file that is not found in one place may be in another. Two things are certain,
//! though. If the number of an inode belongs to another inode now, the first one was deleted. And
//! an inode that is in none of the given directories was deleted if no file exists outside of them;
//! only the user knows whether that is so.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::sys::statfs::{self, FsType};

use super::walk::{TreeFile, Walk, join};
use crate::error::{Context, Error};
use crate::linux;
use crate::owner::{Version, file_type};
use crate::store::Places;
use crate::store::{FileSystem, InodeNumber, Key, StoredEntry};

/// File systems whose handles are an inode's number and its generation.
const LOCAL: [FsType; 3] = [
    statfs::EXT4_SUPER_MAGIC,
    statfs::XFS_SUPER_MAGIC,
    statfs::BTRFS_SUPER_MAGIC,
];

/// The options of `owners gc`.
#[derive(Debug)]
pub(crate) struct GcOptions {
    pub(crate) store: Option<PathBuf>,
    pub(crate) directories: Vec<PathBuf>,
    /// Also remove entries of inodes that are in none of the directories: the user says that they
    /// do not exist.
    pub(crate) missing: bool,
    /// List only, remove nothing.
    pub(crate) dry_run: bool,
}

/// What is known about the inode of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The inode is in one of the directories.
    Found,
    /// Its number belongs to another inode now.
    Replaced,
    /// It is in none of the directories, but on the file system of one of them.
    Missing,
    /// It is on another file system, or the entry does not name its file system.
    Elsewhere,
}

/// The result of [`sweep`].
#[derive(Debug)]
pub(crate) struct Swept {
    pub(crate) entries: Vec<(StoredEntry, Fate)>,
    /// The directories that could not be read.
    pub(crate) unread: Vec<Error>,
    pub(crate) removed: usize,
}

impl Swept {
    pub(crate) fn count(&self, fate: Fate) -> usize {
        self.entries.iter().filter(|(_, its)| *its == fate).count()
    }
}

/// Removes the entries of deleted inodes.
///
/// Lists the entries first: those of files created meanwhile are not among them.
pub(crate) fn sweep(options: &GcOptions) -> Result<Swept, Error> {
    let places = Places::prepare(options.store.clone());
    let store = places.open()?;
    let database =
        |error: heed::Error| Error::doing("sweeping the side store", io::Error::other(error));
    // Recent entries first: one that is moved to disk later would reappear.
    while store.settle().map_err(database)? > 0 {}
    let entries = store.lasting_entries().map_err(database)?;
    let is_exact = options.missing && !options.dry_run;
    let mut seen = Seen {
        is_exact,
        ..Seen::default()
    };
    for directory in &options.directories {
        seen.walk(directory)?;
    }
    if is_exact {
        // An inode that was not seen counts as deleted, so everything must have been seen.
        if !seen.unread.is_empty() {
            return Err(seen.unread.swap_remove(0));
        }
        for directory in &options.directories {
            seen.ensure_unchanged(directory)?;
        }
    }
    let known = seen.inodes.values().chain(&seen.without_number);
    let known: HashSet<&[u8]> = known.flat_map(Key::exact).collect();
    let mut judged = Vec::with_capacity(entries.len());
    let mut gone = HashMap::new();
    for entry in entries {
        let fate = seen.fate(&known, &entry);
        if fate == Fate::Replaced || (options.missing && fate == Fate::Missing) {
            gone.extend(entry.of_same_inode().into_iter().map(|same| (same, fate)));
        }
        judged.push((entry, fate));
    }
    // An entry by time of birth does not name its file system; the entry of the same inode by
    // handle does.
    for (entry, fate) in &mut judged {
        *fate = gone.get(entry).copied().unwrap_or(*fate);
    }
    let removed = match options.dry_run {
        true => 0,
        false => store
            .remove_lasting(&gone.keys().collect::<Vec<_>>())
            .map_err(database)?,
    };
    Ok(Swept {
        entries: judged,
        unread: seen.unread,
        removed,
    })
}

/// The inodes in the directories.
#[derive(Debug, Default)]
struct Seen {
    inodes: HashMap<InodeNumber, Key>,
    /// Inodes that have a handle, but no time of birth.
    without_number: HashSet<Key>,
    file_systems: HashSet<Vec<u8>>,
    /// File systems that never give one handle to two inodes.
    local: HashSet<Vec<u8>>,
    /// The version of each directory before it was read.
    directories: HashMap<(u64, u64), Option<Version>>,
    unread: Vec<Error>,
    /// Inodes that are not seen are removed: no directory may change meanwhile.
    is_exact: bool,
    /// Where the walk is, if inodes there do not say so.
    file_system: Option<FileSystem>,
}

impl Seen {
    fn fate(&self, known: &HashSet<&[u8]>, entry: &StoredEntry) -> Fate {
        if known.contains(entry.key()) {
            return Fate::Found;
        }
        match entry.number() {
            Some(number) if self.replaces(&number) => Fate::Replaced,
            _ if self.file_systems.contains(entry.file_system()) => Fate::Missing,
            _ => Fate::Elsewhere,
        }
    }

    /// Whether another inode with this number was seen, on a file system where an inode's handle
    /// never changes.
    fn replaces(&self, number: &InodeNumber) -> bool {
        let is_local = |key: &Key| {
            key.file_system()
                .is_some_and(|file_system| self.local.contains(file_system))
        };
        self.inodes.get(number).is_some_and(is_local)
    }

    /// Notes everything below `top` that is on its file system.
    fn walk(&mut self, top: &Path) -> Result<(), Error> {
        // A fifo would be waited for.
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        self.file_system = open(top, flags, Mode::empty())
            .ok()
            .and_then(|directory| FileSystem::of(directory.as_fd()));
        walk(top, false, |found| {
            match found {
                Ok(found) => {
                    if let Err(errno) = self.note(found) {
                        self.unread.push(file_error(top, found.path, errno));
                    }
                }
                Err((path, errno)) => self.unread.push(file_error(top, path, errno)),
            }
            Ok(())
        })
    }

    /// Notes one file.
    fn note(&mut self, found: TreeFile) -> Result<(), Errno> {
        if self.is_exact && is_directory(&found) {
            let version = settled(found.file)?;
            self.directories.insert(place_of(&found), version);
        }
        let key = Key::of(found.file)?.on(self.file_system);
        if let Some(file_system) = key.file_system()
            && !self.file_systems.contains(file_system)
        {
            self.file_systems.insert(file_system.to_vec());
            if LOCAL.contains(&linux::file_system(found.file)?) {
                self.local.insert(file_system.to_vec());
            }
        }
        if let Some(number) = key.number() {
            self.inodes.insert(number, key);
        } else {
            self.without_number.insert(key);
        }
        Ok(())
    }

    /// Fails if a name was created, removed or moved in any of the directories since it was read.
    ///
    /// A rename changes two directories. If none has changed by the time this starts, every file
    /// was where it was seen at that moment.
    fn ensure_unchanged(&self, top: &Path) -> Result<(), Error> {
        walk(top, true, |found| match found {
            Ok(found) if !is_directory(&found) => Ok(()),
            Ok(found)
                if self.directories.get(&place_of(&found))
                    == Some(&Some(Version::of(found.stat))) =>
            {
                Ok(())
            }
            Ok(TreeFile { path, .. }) | Err((path, _)) => Err(file_error(
                top,
                path,
                io::Error::other(
                    "a file was created, removed or moved there meanwhile, so nothing was removed \
                     from the side store: try again when nothing changes these directories",
                ),
            )),
        })
    }
}

/// Visits `top` and everything, or all directories, below it that is on its file system.
fn walk(
    top: &Path,
    directories_only: bool,
    visit: impl FnMut(Result<TreeFile, (&[u8], Errno)>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut walk = Walk::default();
    walk.one_file_system = true;
    walk.directories_only = directories_only;
    let directory = open(top, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).at(top)?;
    walk.run(directory, visit)
}

fn is_directory(found: &TreeFile) -> bool {
    file_type(found.stat.st_mode) == SFlag::S_IFDIR
}

/// Device and inode number.
fn place_of(found: &TreeFile) -> (u64, u64) {
    (found.stat.st_dev, found.stat.st_ino)
}

fn file_error(top: &Path, path: &[u8], source: impl Into<io::Error>) -> Error {
    Error::at(OsString::from_vec(join(top, path)), source)
}

/// The directory's version, once a later change is certain to have another one. Returns `None` if
/// the directory is being changed all the time.
fn settled(directory: BorrowedFd) -> Result<Option<Version>, Errno> {
    const PERIOD: Duration = Duration::from_millis(5);
    // ext3 stores times in whole seconds.
    const MOST: usize = 500;
    const USUAL: usize = 20;
    for tried in 0..MOST {
        let version = Version::of(&fstat(directory)?);
        if version.is_settled() {
            return Ok(Some(version));
        }
        if tried > USUAL && !version.is_in_seconds() {
            break;
        }
        std::thread::sleep(PERIOD);
    }
    Ok(None)
}
