//! `owners ls`, `set`, `export` and `import`: reads and changes the owners in a tree of files from
//! outside any container.
//!
//! This process enters a user namespace with one mapped id, like that of a container: there the
//! user's files belong to root, all of them can be read, and files of other users stay read-only.
//! `walk` visits the files of a tree, `apply` changes one file. An [`Entry`] describes one file;
//! each format has a file of its own here; `inodes` is for `fakeroot -i` and `-s`. `gc` removes
//! stale entries from the side store.

mod apply;
mod entry;
mod fakeroot;
pub(crate) mod gc;
mod inodes;
mod json;
mod lines;
mod mtree;
mod override_stat;
mod tar;
mod text;
mod transfer;
mod walk;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{FileStat, Mode, fstat};
use nix::unistd::{Uid, chdir};

use crate::error::{Context, Error};
use crate::linux::lock::Locks;
use crate::linux::memfd;
use crate::linux::userns;
use crate::owner::{FileOwners, attributes, file_type};
use crate::store::Places;
pub(crate) use apply::OwnerChange;
pub(crate) use entry::{Entry, Kind, device_number, major_minor, parse_id};
pub(crate) use inodes::Saved;
pub(crate) use json::line as json_line;
pub(crate) use text::escape_for_terminal;
pub(crate) use transfer::{Format, export, import};
pub(crate) use walk::{TreeFile, Walk, join};

/// Receives the progress and the failures of a job.
pub(crate) trait Progress {
    /// Counts one more file as done.
    fn step(&mut self);
    /// Reports one failure. The job goes on with the next file.
    fn problem(&mut self, what: &str);
}

/// A view of trees as containers see them.
#[derive(Debug)]
pub(crate) struct Outside {
    owners: FileOwners,
    locks: Locks,
    /// The caller's working directory, for relative paths: the current one is procfs.
    start: OwnedFd,
    /// This process is in a user namespace with one mapped id: files of other users show the
    /// overflow uid.
    is_alone: bool,
}

impl Outside {
    /// Opens the side store and moves this process, which must have a single thread, into a new
    /// user namespace and to /proc. The caller opens other files before this, or by
    /// [`Outside::open`].
    pub(crate) fn new(store: Option<PathBuf>) -> Result<Self, Error> {
        let places = Places::prepare(store);
        let side = places.open()?;
        let memory = memfd::create(c"locks").doing("memory for locks")?;
        let mut locks = Locks::new(memory.into());
        if let Some(recent) = &places.recent {
            locks.share_files(recent);
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let start = open(c".", flags, Mode::empty()).doing("the working directory")?;
        chdir(c"/proc").doing("/proc")?;
        let is_alone = !Uid::effective().is_root();
        if is_alone {
            userns::enter()?;
        }
        Ok(Self {
            owners: FileOwners::new(Ok(side)),
            locks,
            start,
            is_alone,
        })
    }

    /// Opens a file with O_PATH.
    pub(crate) fn open(&self, path: &Path, follow: bool) -> Result<OwnedFd, Error> {
        let mut flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        flags.set(OFlag::O_NOFOLLOW, !follow);
        openat(&self.start, path, flags, Mode::empty()).at(path)
    }

    /// Opens a directory with O_PATH, following symbolic links. Fails with ENOTDIR for other files.
    pub(crate) fn open_directory(&self, path: &Path) -> Result<OwnedFd, Error> {
        let directory = self.open(path, true)?;
        match fstat(&directory) {
            Ok(stat) if Kind::of(stat.st_mode) == Some(Kind::Directory) => Ok(directory),
            stat => Err(Error::at(path, stat.err().unwrap_or(Errno::ENOTDIR))),
        }
    }

    /// The entry of a file, as a container sees it.
    pub(crate) fn look(
        &self,
        path: &[u8],
        file: BorrowedFd,
        stat: &FileStat,
    ) -> Result<Entry, Errno> {
        let kind = file_type(stat.st_mode);
        let owner = self.owners.load(file, kind)?.unwrap_or_default();
        Ok(Entry {
            attributes: attributes(&self.owners, file, stat.st_mode)?,
            ..Entry::new(path, stat, owner)
        })
    }

    /// Moves recent entries of the side store to disk.
    pub(crate) fn settle(&self) -> Result<(), Error> {
        self.owners.settle().doing(
            "writing the side store to disk: the new owners are kept in memory until the next \
             boot, and the next daemon tries again",
        )
    }

    /// Whether `id` is mapped in this user namespace, as it is in a container.
    fn is_mapped(&self, id: u32) -> bool {
        !self.is_alone || id == 0
    }
}

/// The target of the symbolic link `file`.
pub(crate) fn link_text(file: BorrowedFd) -> Result<Vec<u8>, Errno> {
    nix::fcntl::readlinkat(file, c"").map(OsStringExt::into_vec)
}
