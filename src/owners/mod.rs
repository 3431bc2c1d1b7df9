//! The owners in a tree of files, seen and changed from outside of any container: `owners ls`,
//! `set`, `export`, `import`.
//!
//! A tree is looked at from a user namespace of one's own with one mapped id, as every container of
//! ours has one: there the user's files are root's, all of them can be read, and nobody else's
//! become writable. `walk` goes through it, `apply` changes one file; an [`Entry`] is what is known
//! of one, and each format has a file for how it is written.

mod apply;
mod entry;
mod fakeroot;
pub(crate) mod gc;
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

use crate::credentials::Id;
use crate::error::{Context, Error};
use crate::linux::lock::Locks;
use crate::linux::memfd;
use crate::linux::userns;
use crate::owner::{Device, Owners, attributes, file_type};
use crate::store::Places;
pub(crate) use apply::OwnerChange;
pub(crate) use entry::{Entry, Kind, device_number, major_minor, parse_id};
pub(crate) use json::line as json_line;
pub(crate) use text::escape_for_terminal;
pub(crate) use transfer::{Format, export, import};
pub(crate) use walk::{TreeFile, Walk};

/// Who is told how far a job is, and what could not be done.
pub(crate) trait Progress {
    /// One more file is done.
    fn step(&mut self);
    /// Something could not be done; the rest is.
    fn problem(&mut self, what: &str);
}

/// A place from which trees can be seen as containers see them.
#[derive(Debug)]
pub(crate) struct Outside {
    owners: Owners,
    locks: Locks,
    /// Where relative paths begin: the working directory is procfs.
    start: OwnedFd,
    /// In a user namespace of our own: all other users' files show the overflow uid.
    is_alone: bool,
}

impl Outside {
    /// Opens the side store and moves this process, which must have one thread only, into a user
    /// namespace of its own. What it has to open by other paths than through [`Outside::open`] it
    /// opens before.
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
            owners: Owners::new(Ok(side)),
            locks,
            start,
            is_alone,
        })
    }

    /// A file, to be looked at.
    pub(crate) fn open(&self, path: &Path, follow: bool) -> Result<OwnedFd, Error> {
        let mut flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        flags.set(OFlag::O_NOFOLLOW, !follow);
        openat(&self.start, path, flags, Mode::empty()).at(path)
    }

    /// A directory, with all that is in it.
    pub(crate) fn open_directory(&self, path: &Path) -> Result<OwnedFd, Error> {
        let directory = self.open(path, true)?;
        match fstat(&directory) {
            Ok(stat) if Kind::of(stat.st_mode) == Some(Kind::Directory) => Ok(directory),
            stat => Err(Error::at(path, stat.err().unwrap_or(Errno::ENOTDIR))),
        }
    }

    /// What a container sees of a file.
    pub(crate) fn look(
        &self,
        path: &[u8],
        file: BorrowedFd,
        stat: &FileStat,
    ) -> Result<Entry, Errno> {
        let kind = file_type(stat.st_mode);
        let owner = self.owners.load(file, kind)?.unwrap_or_default();
        let mut entry = Entry {
            path: path.to_vec(),
            kind: Kind::of(stat.st_mode),
            mode: Some(stat.st_mode & 0o7777),
            uid: Some(owner.uid.map_or(stat.st_uid, Id::as_raw)),
            gid: Some(owner.gid.map_or(stat.st_gid, Id::as_raw)),
            device: None,
            attributes: Vec::new(),
        };
        match owner.device {
            Some(Device { kind, number }) => {
                entry.kind = Kind::of(kind.bits());
                entry.device = Some(number);
            }
            None if entry.kind.is_some_and(Kind::is_device) => {
                entry.device = u32::try_from(stat.st_rdev).ok();
            }
            None => {}
        }
        entry.attributes = attributes(&self.owners, file, stat.st_mode)?;
        Ok(entry)
    }

    /// What is new in the side store goes to the disk.
    pub(crate) fn settle(&self) -> Result<(), Error> {
        self.owners.settle().doing("writing the side store to disk: what was set is kept until the next boot, and the next daemon tries again")
    }

    /// Whether the kernel knows `id` here, as it does in a container.
    fn is_mapped(&self, id: u32) -> bool {
        !self.is_alone || id == 0
    }
}

/// The text of the symbolic link behind `file`.
pub(crate) fn link_text(file: BorrowedFd) -> Result<Vec<u8>, Errno> {
    nix::fcntl::readlinkat(file, c"").map(OsStringExt::into_vec)
}
