//! `owners gc`: removes from the side store what belongs to inodes that are no more.
//!
//! The kernel tells an unprivileged program of no inode whether it still exists: a file handle
//! cannot be opened, and what is not found in one place may lie in another. Two things are certain,
//! though. Where an inode's number belongs to another inode now, the first one is gone, wherever it
//! was. And what was in none of some directories at one moment is gone, if there is nothing outside
//! of them; whether that is so, only the user can say.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fstat};
use nix::sys::statfs::{self, FsType, fstatfs};

use crate::error::{Context, Error};
use crate::owner::Version;
use crate::store::Places;
use crate::store::{InodeNumber, Key, StoredEntry};

/// Their handles are an inode's number and its generation.
const LOCAL: [FsType; 3] = [
    statfs::EXT4_SUPER_MAGIC,
    statfs::XFS_SUPER_MAGIC,
    statfs::BTRFS_SUPER_MAGIC,
];

/// What is to be done.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) store: Option<PathBuf>,
    pub(crate) directories: Vec<PathBuf>,
    /// Remove the entries of what is not in the directories, too: the user says that it is nowhere.
    pub(crate) missing: bool,
    /// Remove nothing.
    pub(crate) dry_run: bool,
}

/// What is known of an entry's inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is in one of the directories.
    Found,
    /// Its number belongs to another inode.
    Replaced,
    /// It is in none of the directories, and on the file system of one of them.
    Missing,
    /// It is on another file system, or its entry does not say where.
    Elsewhere,
}

/// What was found, and what was removed.
#[derive(Debug)]
pub(crate) struct Swept {
    pub(crate) entries: Vec<(StoredEntry, Fate)>,
    /// Directories that could not be read, and why.
    pub(crate) unread: Vec<Error>,
    pub(crate) removed: usize,
}

impl Swept {
    pub(crate) fn count(&self, fate: Fate) -> usize {
        self.entries.iter().filter(|(_, its)| *its == fate).count()
    }
}

/// Removes entries of inodes that are gone.
///
/// The entries are listed first: what is made while this goes on is not among them.
pub(crate) fn sweep(wish: &Wish) -> Result<Swept, Error> {
    let places = Places::prepare(wish.store.clone());
    let store = places.open()?;
    let database =
        |error: heed::Error| Error::doing("sweeping the side store", io::Error::other(error));
    // First what is still on its way, or it would come back.
    while store.settle().map_err(database)? > 0 {}
    let entries = store.lasting_entries().map_err(database)?;
    let is_exact = wish.missing && !wish.dry_run;
    let mut seen = Seen {
        is_exact,
        ..Seen::default()
    };
    for directory in &wish.directories {
        seen.walk(directory)?;
    }
    if is_exact {
        // Whoever knows of nothing else must have seen all there is.
        if !seen.unread.is_empty() {
            return Err(seen.unread.swap_remove(0));
        }
        seen.ensure_unchanged()?;
    }
    let known = seen.inodes.values().chain(&seen.without_number);
    let known: HashSet<&[u8]> = known.map(Key::own).collect();
    let mut judged = Vec::with_capacity(entries.len());
    let mut gone = HashMap::new();
    for entry in entries {
        let fate = seen.fate(&known, &entry);
        if fate == Fate::Replaced || (wish.missing && fate == Fate::Missing) {
            gone.extend(entry.of_same_inode().into_iter().map(|same| (same, fate)));
        }
        judged.push((entry, fate));
    }
    // An entry by birth does not say which file system it is of; that by handle does.
    for (entry, fate) in &mut judged {
        *fate = gone.get(entry).copied().unwrap_or(*fate);
    }
    let removed = match wish.dry_run {
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

/// What is in the directories.
#[derive(Debug, Default)]
struct Seen {
    inodes: HashMap<InodeNumber, Key>,
    /// What has a handle, and no known time of birth.
    without_number: HashSet<Key>,
    file_systems: HashSet<Vec<u8>>,
    /// Those that are known to give a handle to one inode only.
    local: HashSet<Vec<u8>>,
    /// The directories, as they were before they were read.
    directories: Vec<(PathBuf, Option<Version>)>,
    unread: Vec<Error>,
    /// What is not seen counts as well: it must be known that nothing changes meanwhile.
    is_exact: bool,
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

    /// Whether another inode with this number was seen, where handles last as long as inodes and
    /// are not made anew.
    fn replaces(&self, number: &InodeNumber) -> bool {
        let is_local = |key: &Key| {
            key.file_system()
                .is_some_and(|file_system| self.local.contains(file_system))
        };
        self.inodes.get(number).is_some_and(is_local)
    }

    /// Everything below `top` that is on its file system.
    fn walk(&mut self, top: &Path) -> Result<(), Error> {
        let failed = |path: &Path, errno: Errno| Error::at(path, errno);
        let device = look(top)
            .and_then(|file| self.note(&file, top, true))
            .map_err(|errno| failed(top, errno))?;
        let mut pending = vec![top.to_owned()];
        while let Some(directory) = pending.pop() {
            let entries = match fs::read_dir(&directory) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => {
                    self.unread.push(Error::at(directory, source));
                    continue;
                }
            };
            for entry in entries {
                let path = entry.at(&directory)?.path();
                match look(&path).and_then(|file| {
                    let stat = fstat(&file)?;
                    if stat.st_dev != device {
                        return Ok(false);
                    }
                    let is_directory = stat.st_mode & libc::S_IFMT == libc::S_IFDIR;
                    self.note(&file, &path, is_directory).map(|_| is_directory)
                }) {
                    Ok(true) => pending.push(path),
                    // Another file system's, or gone meanwhile.
                    Ok(false) | Err(Errno::ENOENT) => {}
                    Err(errno) => self.unread.push(failed(&path, errno)),
                }
            }
        }
        Ok(())
    }

    /// The number of the file's device.
    fn note(&mut self, file: &OwnedFd, path: &Path, is_directory: bool) -> Result<u64, Errno> {
        if is_directory && self.is_exact {
            let version = settled(file)?;
            self.directories.push((path.to_owned(), version));
        }
        let key = Key::of(file.as_fd())?;
        if let Some(file_system) = key.file_system()
            && !self.file_systems.contains(file_system)
        {
            self.file_systems.insert(file_system.to_vec());
            if LOCAL.contains(&fstatfs(file)?.filesystem_type()) {
                self.local.insert(file_system.to_vec());
            }
        }
        if let Some(number) = key.number() {
            self.inodes.insert(number, key);
        } else {
            self.without_number.insert(key);
        }
        Ok(fstat(file)?.st_dev)
    }

    /// An error if a name was made, removed or moved in any of the directories since it was read.
    ///
    /// A rename changes two directories. If none has changed until this begins, at that moment
    /// everything was where it was seen.
    fn ensure_unchanged(&self) -> Result<(), Error> {
        for (path, version) in &self.directories {
            let now = look(path).and_then(|directory| fstat(&directory));
            if now.is_ok_and(|now| Some(Version::of(&now)) == *version) {
                continue;
            }
            return Err(Error::at(
                path,
                io::Error::other(
                    "something was made, removed or moved there meanwhile, so nothing is removed \
                     from the side store: try again when nothing changes these directories",
                ),
            ));
        }
        Ok(())
    }
}

/// The directory's version, once a later change would have another one; `None`: it is being changed
/// all the time.
fn settled(directory: &OwnedFd) -> Result<Option<Version>, Errno> {
    const PERIOD: Duration = Duration::from_millis(5);
    // ext3 keeps whole seconds.
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

fn look(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    open(path, flags, Mode::empty())
}
