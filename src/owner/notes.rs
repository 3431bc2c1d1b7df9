//! The files whose owners or names change, by their paths, for `fakeroot -s`: a file in the runtime
//! directory, to which the workers of a command append.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::readlink;
use nix::unistd::getppid;
use tracing::error;

use crate::error::{Context, Error};
use crate::linux::procfs::Stat;
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

const PREFIX: &str = "notes-";

/// The file for the command with this name.
fn place(id: &str) -> Result<PathBuf, Error> {
    Ok(rundir::room()?.join(format!("{PREFIX}{id}")))
}

/// Removes files whose reader has been killed, and whose command has ended since.
fn sweep() -> Result<(), Error> {
    let room = rundir::room()?;
    for entry in fs::read_dir(&room).at(&room)?.flatten() {
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else {
            continue;
        };
        let command = id.rsplit('-').next().unwrap_or_default();
        // Of a file that its command is about to write, nothing is known, but that command lives.
        let reader = reader_of(&entry.path()).unwrap_or_default();
        if !is_alive(command) && !is_alive(&reader) {
            // Another process may have removed it meanwhile.
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

/// The pid that a file begins with.
fn reader_of(place: &Path) -> io::Result<String> {
    /// As long as a pid can be.
    const LONGEST: u64 = 10;
    let file = rundir::open_own(place, File::options().read(true))?;
    let mut start = Vec::new();
    file.take(LONGEST).read_to_end(&mut start)?;
    let digits = start.into_iter().take_while(u8::is_ascii_digit);
    Ok(digits.map(char::from).collect())
}

fn is_alive(pid: &str) -> bool {
    let Ok(pid) = pid.parse::<u32>() else {
        return false;
    };
    // One that nobody has waited for has ended, too.
    let stat = Stat::of(format_args!("/proc/{pid}"));
    stat.is_ok_and(|stat| stat.field(3) != Some('Z'))
}

impl Notes {
    /// Creates the file, which begins with the pid of this process's parent, who will read it. One
    /// that is there was left by a process with the same pid, and is emptied.
    pub(crate) fn create(id: &str) -> Result<(), Error> {
        sweep()?;
        let place = place(id)?;
        rundir::write_own(&place, format!("{}\0", getppid()).as_bytes()).at(&place)
    }

    /// Reads the file, and removes it. The paths in it are ended by NULs, and so is the pid.
    pub(crate) fn take(id: &str) -> Result<Vec<u8>, Error> {
        let place = place(id)?;
        let mut paths = Vec::new();
        match rundir::open_own(&place, File::options().read(true)) {
            // The command was not even started.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(paths),
            file => io::copy(&mut file.at(&place)?, &mut paths).at(&place)?,
        };
        fs::remove_file(&place).at(&place)?;
        let end = paths.iter().position(|byte| *byte == 0);
        Ok(paths.split_off(end.unwrap_or(paths.len())))
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
