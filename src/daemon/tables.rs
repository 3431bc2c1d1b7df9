//! The memory that supervisors share with `--keep-id`: commands that enter the same user namespace,
//! as podman's do, see each other's processes, so the cookies of all of them must refer to one
//! table.
//!
//! A directory for each user namespace has a file for each supervisor with its table, which names
//! the supervisor's descriptor. Whoever comes next opens that in procfs. So the memory lives as
//! long as one of them does, and no process has to be asked.

use std::fmt::Display;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::fstat;

use tracing::warn;

use super::router::Identity;
use crate::error::is_shortage;
use crate::identity::Table;
use crate::syscalls::fingerprint;
use crate::wire::rundir;

/// How long the lock may be another's.
const PATIENCE: Duration = Duration::from_secs(5);

/// The table of a user namespace.
#[derive(Debug)]
pub(super) struct SharedTable {
    pub(super) memory: Rc<OwnedFd>,
    /// Tells the next supervisors about it.
    _entry: Option<Entry>,
}

/// The file of this process, removed when the table is dropped.
#[derive(Debug)]
struct Entry(PathBuf);

impl SharedTable {
    /// Takes the table that others have for this user namespace, or creates it. Fails for lack of
    /// memory or descriptors only.
    pub(super) fn of(namespace: Identity) -> io::Result<Self> {
        Self::known(namespace).or_else(|error| match error.raw_os_error() {
            Some(raw) if is_shortage(Errno::from_raw(raw)) => Err(error),
            _ => {
                let room = rundir::room_for(rundir::NAMESPACES).unwrap_or_default();
                warn!(
                    %error, directory = %room.display(),
                    "commands that enter the same user namespace do not see each other's emulated \
                     ids"
                );
                Ok(Self {
                    memory: Rc::new(Table::create(Vec::new())?),
                    _entry: None,
                })
            }
        })
    }

    fn known(namespace: Identity) -> io::Result<Self> {
        let (room, _alone) = lock_room()?;
        sweep(&room)?;
        let directory = room.join(format!("{}-{}", namespace.0, namespace.1));
        rundir::own(&directory)?;
        let memory = match entries(&directory)?.find_map(|entry| open(&entry)) {
            Some(memory) => memory,
            None => Table::create(Vec::new())?,
        };
        let path = directory.join(std::process::id().to_string());
        rundir::write_own(&path, named(&memory)?.to_string().as_bytes())?;
        Ok(Self {
            memory: Rc::new(memory),
            _entry: Some(Entry(path)),
        })
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // What is left is swept by the next one.
        let _ = fs::remove_file(&self.0);
        if let Some(room) = self.0.ancestors().nth(2)
            && let Ok(_alone) = lock(room)
        {
            let _ = sweep(room).and_then(|()| fs::remove_dir(room));
        }
    }
}

/// The directory of all of them, created if it is missing, and its lock.
fn lock_room() -> io::Result<(PathBuf, Flock<File>)> {
    loop {
        let room = rundir::room_for(rundir::NAMESPACES).map_err(io::Error::other)?;
        // The last supervisor may have removed it meanwhile.
        let locked = match lock(&room) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            result => result?,
        };
        let inode = |found: io::Result<Metadata>| found.map(|it| it.ino()).ok();
        if inode(fs::metadata(&room)) == inode(locked.metadata()) {
            return Ok((room, locked));
        }
    }
}

fn lock(room: &Path) -> io::Result<Flock<File>> {
    lock_within(PATIENCE, room)
}

/// Another supervisor holds the lock for a moment only, unless it is stopped.
fn lock_within(patience: Duration, room: &Path) -> io::Result<Flock<File>> {
    let start = Instant::now();
    let mut room = File::open(room)?;
    loop {
        room = match Flock::lock(room, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => return Ok(locked),
            Err((room, Errno::EWOULDBLOCK)) if start.elapsed() < patience => room,
            Err((_, Errno::EWOULDBLOCK)) => {
                return Err(io::Error::other(
                    "it stays locked: is another process of subuidless stopped?",
                ));
            }
            Err((_, errno)) => return Err(errno.into()),
        };
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn entries(directory: &Path) -> io::Result<impl Iterator<Item = PathBuf>> {
    let entries = fs::read_dir(directory)?;
    Ok(entries.flatten().map(|entry| entry.path()))
}

/// Removes what killed supervisors have left, and leaves what is none of ours.
fn sweep(room: &Path) -> io::Result<()> {
    for directory in entries(room)? {
        for entry in entries(&directory).into_iter().flatten() {
            if path_of(&entry).is_none() {
                let _ = fs::remove_file(&entry);
            }
        }
        // ENOTEMPTY: in use.
        let _ = fs::remove_dir(&directory);
    }
    Ok(())
}

/// What an entry says of a table: the descriptor, its inode, and by which program it was created.
/// Numbers of processes and descriptors are used again, inodes in memory are not.
fn named(memory: &OwnedFd) -> io::Result<impl Display> {
    let fd = memory.as_raw_fd();
    let found = fstat(memory)?;
    let rest = identity(found.st_dev, found.st_ino);
    Ok(format!("{fd} {rest}"))
}

fn identity(device: u64, inode: u64) -> String {
    format!("{device}:{inode} {:x}", fingerprint())
}

/// The path in procfs of the table that an entry names, if that is still there.
fn path_of(entry: &Path) -> Option<PathBuf> {
    let pid: u32 = entry.file_name()?.to_str()?.parse().ok()?;
    let text = rundir::read_own(entry).ok()?;
    let (fd, rest) = text.split_once(' ')?;
    let fd: u32 = fd.parse().ok()?;
    let path = PathBuf::from(format!("/proc/{pid}/fd/{fd}"));
    let found = fs::metadata(&path).ok()?;
    (rest == identity(found.dev(), found.ino())).then_some(path)
}

/// Opens it, if it is a table of this version of the program.
fn open(entry: &Path) -> Option<OwnedFd> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    let file = options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let memory = OwnedFd::from(file.open(path_of(entry)?).ok()?);
    Table::open(memory.as_fd()).is_ok().then_some(memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_put_there_or_hold_is_no_hindrance() {
        let place = tempfile::tempdir().unwrap();
        let room = place.path();
        fs::write(room.join("file"), "").unwrap();
        fs::create_dir_all(room.join("4-1/directory")).unwrap();
        fs::create_dir(room.join("4-2")).unwrap();
        fs::write(room.join("4-2/1"), "of a killed one").unwrap();
        sweep(room).unwrap();
        assert!(!room.join("4-2").exists());
        let held = lock(room).unwrap();
        let error = lock_within(Duration::ZERO, room).unwrap_err();
        assert!(error.to_string().contains("stays locked"), "{error}");
        drop(held);
        lock_within(Duration::ZERO, room).unwrap();
    }

    #[test]
    fn an_entry_leads_to_its_table_and_to_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let entry = directory.path().join(std::process::id().to_string());
        let memory = Table::create(Vec::new()).unwrap();
        let text = named(&memory).unwrap().to_string();
        rundir::write_own(&entry, text.as_bytes()).unwrap();
        let opened = open(&entry).unwrap();
        let inode = |memory: &OwnedFd| fstat(memory).unwrap().st_ino;
        assert_eq!(inode(&opened), inode(&memory));
        // The number of the descriptor is another file's by now.
        drop(memory);
        let other = Table::create(Vec::new()).unwrap();
        assert_ne!(inode(&other), inode(&opened));
        assert!(open(&entry).is_none());
        for text in ["", "7", "x 1:2 3", "-1 1:2 3"] {
            rundir::write_own(&entry, text.as_bytes()).unwrap();
            assert!(path_of(&entry).is_none(), "{text}");
        }
    }
}
