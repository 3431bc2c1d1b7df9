//! The files whose owners or names change, by their paths, for `fakeroot -s`: a file in the runtime
//! directory, to which the workers of a command append.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::readlink;
use tracing::error;

use crate::error::{Context, Error};
use crate::linux::{errno_of, procfs};
use crate::wire::rundir;

thread_local! {
    /// Open files, and names in open directories, whose paths this thread has yet to write.
    static WAITING: RefCell<Vec<(OwnedFd, Option<Vec<u8>>)>> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug)]
pub(crate) struct Notes {
    file: File,
    /// A failure is in the log already.
    is_reported: AtomicBool,
}

/// The file for the command with this name.
fn place(id: &str) -> Result<PathBuf, Error> {
    Ok(rundir::room()?.join(format!("notes-{id}")))
}

impl Notes {
    /// Creates the file. One that is there was left by a process with the same pid, and is emptied.
    pub(crate) fn create(id: &str) -> Result<(), Error> {
        let place = place(id)?;
        rundir::write_own(&place, b"").at(&place)
    }

    /// Reads the file, and removes it. The paths in it are ended by NULs.
    pub(crate) fn take(id: &str) -> Result<Vec<u8>, Error> {
        let place = place(id)?;
        let mut paths = Vec::new();
        match rundir::open_own(&place, File::options().read(true)) {
            // The command was not even started.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(paths),
            file => io::copy(&mut file.at(&place)?, &mut paths).at(&place)?,
        };
        std::fs::remove_file(&place).at(&place)?;
        Ok(paths)
    }

    pub(crate) fn open(id: &str) -> Result<Self, Error> {
        let place = place(id)?;
        let file = rundir::open_own(&place, File::options().append(true)).at(&place)?;
        Ok(Self {
            file,
            is_reported: AtomicBool::new(false),
        })
    }

    /// Notes an open file.
    pub(crate) fn add(&self, file: BorrowedFd) -> Result<(), Errno> {
        push(file, None)
    }

    /// Notes a file by its directory, where it may not be yet.
    pub(crate) fn add_entry(&self, directory: BorrowedFd, name: &[u8]) -> Result<(), Errno> {
        push(directory, Some(name.to_owned()))
    }

    /// Writes the paths of what this thread has noted. To be called while it has the root directory
    /// of the worker: with that of a target, paths would begin there.
    pub(crate) fn write(&self) -> Result<(), Errno> {
        let waiting = WAITING.take();
        if waiting.is_empty() {
            return Ok(());
        }
        // In one piece, because several threads append.
        let written = paths(&waiting).and_then(|paths| (&self.file).write_all(&paths));
        written.map_err(|error| {
            if !self.is_reported.swap(true, Ordering::Relaxed) {
                error!(
                    %error,
                    "cannot note for fakeroot -s which files have new owners, and the call fails \
                     (logged once)"
                );
            }
            Errno::EIO
        })
    }
}

fn push(file: BorrowedFd, name: Option<Vec<u8>>) -> Result<(), Errno> {
    let file = file.try_clone_to_owned().map_err(errno_of)?;
    WAITING.with_borrow_mut(|waiting| waiting.push((file, name)));
    Ok(())
}

/// Each between two NULs: the one before it may have been cut short on a full disk.
fn paths(waiting: &[(OwnedFd, Option<Vec<u8>>)]) -> io::Result<Vec<u8>> {
    let mut paths = vec![0];
    for (file, name) in waiting {
        let path = readlink(&procfs::own_fd(file.as_fd()))?;
        paths.extend(path.as_bytes());
        if let Some(name) = name {
            paths.push(b'/');
            paths.extend(name);
            // All of a directory that comes there.
            paths.push(b'/');
        }
        paths.push(0);
    }
    Ok(paths)
}
