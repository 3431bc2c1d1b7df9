//! Removes from the side store what belongs to inodes that are no more.
//!
//! A file handle cannot be opened without privileges, so whether an inode still exists is found out by looking at all
//! there are: whoever asks says where.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use crate::daemon::store::Places;
use crate::error::Error;
use crate::owner::Key;

/// What was found, and what was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Swept {
    pub(crate) entries: usize,
    pub(crate) removed: usize,
}

/// Removes the entries of the file systems of `directories` that are of nothing below them. A directory that cannot be
/// read is an error, and nothing is removed.
pub(crate) fn sweep(
    store: Option<PathBuf>,
    directories: &[PathBuf],
    dry_run: bool,
) -> Result<Swept, Error> {
    let places = Places::prepare(store);
    let store = places.open().ok_or(Error::Io {
        what: "opening the side store (the reason is above)",
        source: io::ErrorKind::NotFound.into(),
    })?;
    let database = |error: heed::Error| Error::Io {
        what: "sweeping the side store",
        source: io::Error::other(error),
    };
    // First what is still on its way, or it would come back.
    while store.settle().map_err(database)? > 0 {}
    let mut present = Present::default();
    for directory in directories {
        present.walk(directory)?;
    }
    let (entries, removed) = store
        .sweep(&present.file_systems, &present.inodes, dry_run)
        .map_err(database)?;
    Ok(Swept { entries, removed })
}

#[derive(Debug, Default)]
struct Present {
    file_systems: HashSet<Vec<u8>>,
    inodes: HashSet<Key>,
}

impl Present {
    fn walk(&mut self, top: &Path) -> Result<(), Error> {
        let mut pending = vec![top.to_owned()];
        while let Some(directory) = pending.pop() {
            let failed = |source| Error::File {
                path: directory.clone(),
                source,
            };
            let key = key(&directory).map_err(failed)?;
            self.file_systems.insert(key.file_system().to_vec());
            for entry in fs::read_dir(&directory).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let kind = entry.file_type().map_err(failed)?;
                if kind.is_dir() {
                    pending.push(entry.path());
                }
                if let Ok(key) = self::key(&entry.path()) {
                    self.inodes.insert(key);
                }
            }
        }
        Ok(())
    }
}

fn key(path: &Path) -> io::Result<Key> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = open(path, flags, Mode::empty())?;
    Ok(Key::of(file.as_fd())?)
}
