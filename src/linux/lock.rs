//! Locks: two changes of one thing at once must not undo each other.
//!
//! The kernel holds the inode's lock over chown(2); an extended attribute has no compare-and-set.
//! Threads of a worker exclude each other by a mutex; workers of all containers of a user, and
//! `subuidless owners`, by a lock on a byte of a file beside the recent side store, one for each
//! inode, so that a container that hangs in its own FUSE holds up nobody else. Where there is no
//! such file, workers of one container exclude each other by a memfd that the daemon gives to all
//! of them, as they do for the container's table of identities.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::stat::{FileStat, Mode};
use tracing::warn;

use crate::linux::hash;

/// Files share a lock by chance only.
const STRIPES: usize = 512;
/// The container's table of identities.
const IDENTITIES: usize = STRIPES;

/// Whoever holds a file's lock for longer than a thousand of these is stopped, or means harm.
const PERIOD: Duration = Duration::from_millis(2);
const PERIODS: u32 = 1000;

#[derive(Debug)]
pub(crate) struct Locks {
    memfd: OwnedFd,
    /// Of all containers of the user.
    files: Option<OwnedFd>,
    stripes: Vec<Mutex<()>>,
    is_told: AtomicBool,
}

impl Locks {
    /// `memfd` must be an open file description that nobody else has: locks last as long as it
    /// does, so that a killed worker's are gone with it.
    pub(crate) fn new(memfd: OwnedFd) -> Self {
        Self {
            memfd,
            files: None,
            is_told: AtomicBool::new(false),
            stripes: (0..=IDENTITIES).map(|_| Mutex::new(())).collect(),
        }
    }

    /// For files: those in the `directory` of the recent side store, shared by all who have one
    /// there.
    pub(crate) fn share_files(&mut self, directory: &Path) {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = open(
            &directory.join("locks"),
            flags,
            Mode::S_IRUSR | Mode::S_IWUSR,
        );
        match file {
            Ok(file) => self.files = Some(file),
            Err(errno) => warn!(
                directory = %directory.display(), %errno,
                "no file to lock: changes of the same file's owner by several containers at once \
                 may undo each other"
            ),
        }
    }

    /// Excludes all others from the owner of the file that `stat` is of.
    pub(crate) fn lock_file(&self, stat: &FileStat) -> Result<Guard<'_>, Errno> {
        let stripe = hash::spread(stat.st_dev, stat.st_ino) % STRIPES;
        let Some(files) = &self.files else {
            return self.lock(stripe);
        };
        let thread = self.exclude_threads(stripe);
        let byte = byte(stat.st_dev, stat.st_ino);
        for _ in 0..PERIODS {
            match set(files.as_fd(), libc::F_WRLCK, byte, Wait::No) {
                Err(Errno::EAGAIN | Errno::EACCES) => std::thread::sleep(PERIOD),
                result => {
                    result?;
                    return Ok(Guard {
                        file: files.as_fd(),
                        byte,
                        _thread: thread,
                    });
                }
            }
        }
        if !self.is_told.swap(true, Ordering::Relaxed) {
            warn!(
                "somebody holds the lock of a file for seconds: going on without it (told once); \
                 a process that is stopped, or one \
                 that locks `locks` in the directory of the recent side store"
            );
        }
        // Unlocking what others hold does nothing.
        Ok(Guard {
            file: files.as_fd(),
            byte,
            _thread: thread,
        })
    }

    /// Excludes all others from adding to the table of identities.
    pub(crate) fn lock_identities(&self) -> Result<Guard<'_>, Errno> {
        self.lock(IDENTITIES)
    }

    fn lock(&self, stripe: usize) -> Result<Guard<'_>, Errno> {
        let thread = self.exclude_threads(stripe);
        let byte = place(stripe)?;
        set(self.memfd.as_fd(), libc::F_WRLCK, byte, Wait::Yes)?;
        Ok(Guard {
            file: self.memfd.as_fd(),
            byte,
            _thread: thread,
        })
    }

    /// An open file description has one lock for all threads; this tells them apart.
    fn exclude_threads(&self, stripe: usize) -> MutexGuard<'_, ()> {
        // Nothing can be half done under this mutex: what it protects is on disk, or counts once it
        // is complete.
        self.stripes[stripe]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The byte of an inode in the file of all locks: so many that no two inodes share one but by a
/// very rare chance.
fn byte(device: u64, inode: u64) -> i64 {
    // A place in a file is no more than i64::MAX, the last byte included.
    (hash::of_inode(device, inode) >> 2).cast_signed()
}

/// Held from the load to the end of the store.
#[derive(Debug)]
pub(crate) struct Guard<'a> {
    file: BorrowedFd<'a>,
    byte: i64,
    _thread: MutexGuard<'a, ()>,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        // Unlocking what is locked cannot fail.
        let _ = set(self.file, libc::F_UNLCK, self.byte, Wait::No);
    }
}

/// A byte of a file that one process at a time can hold, until it ends.
#[derive(Debug)]
pub(crate) struct Claim {
    file: OwnedFd,
    byte: usize,
}

impl Claim {
    /// `file` must be an open file description that nobody else has.
    pub(crate) fn new(file: OwnedFd, byte: usize) -> Self {
        Self { file, byte }
    }

    /// Takes it, if nobody has it; held as long as this lives.
    pub(crate) fn take(&self) -> Result<bool, Errno> {
        let lock = description(libc::F_WRLCK, place(self.byte)?)?;
        match fcntl(&self.file, FcntlArg::F_OFD_SETLK(&lock)) {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
            Err(errno) => Err(errno),
        }
    }
}

/// Whether the byte is held through another open file description than `file`.
pub(crate) fn is_taken(file: BorrowedFd, byte: usize) -> Result<bool, Errno> {
    let mut lock = description(libc::F_WRLCK, place(byte)?)?;
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

fn place(byte: usize) -> Result<i64, Errno> {
    i64::try_from(byte).map_err(|_| Errno::EINVAL)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    Yes,
    No,
}

fn set(file: BorrowedFd, kind: i32, byte: i64, wait: Wait) -> Result<(), Errno> {
    let lock = description(kind, byte)?;
    loop {
        let command = match wait {
            Wait::Yes => FcntlArg::F_OFD_SETLKW(&lock),
            Wait::No => FcntlArg::F_OFD_SETLK(&lock),
        };
        match fcntl(file, command) {
            Err(Errno::EINTR) => {}
            result => return result.map(drop),
        }
    }
}

fn description(kind: i32, byte: i64) -> Result<libc::flock, Errno> {
    Ok(libc::flock {
        l_type: i16::try_from(kind).map_err(|_| Errno::EINVAL)?,
        l_whence: i16::try_from(libc::SEEK_SET).map_err(|_| Errno::EINVAL)?,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::memfd;
    use std::fs::File;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn neither_threads_nor_a_second_opener_get_in_between() {
        let directory = tempfile::tempdir().unwrap();
        let file = File::create(directory.path().join("file")).unwrap();
        let stat = nix::sys::stat::fstat(&file).unwrap();
        let memfd = memfd::create(c"locks").unwrap();
        // A description of its own, as another worker has that opens the memfd anew.
        let again = memfd::reopened(&memfd).unwrap();
        exclude_each_other(&[Locks::new(memfd.into()), Locks::new(again)], &stat);
    }

    #[test]
    fn nor_does_a_worker_of_another_container() {
        let directory = tempfile::tempdir().unwrap();
        let file = File::create(directory.path().join("file")).unwrap();
        let stat = nix::sys::stat::fstat(&file).unwrap();
        let openers = [0; 2].map(|_| {
            let mut locks = Locks::new(memfd::create(c"locks").unwrap().into());
            locks.share_files(directory.path());
            locks
        });
        exclude_each_other(&openers, &stat);
        // Whoever locks everything holds up nobody for ever.
        let all = File::options()
            .write(true)
            .open(directory.path().join("locks"))
            .unwrap();
        let everything = libc::flock {
            l_type: libc::F_WRLCK.try_into().unwrap(),
            l_whence: 0,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        fcntl(&all, FcntlArg::F_OFD_SETLK(&everything)).unwrap();
        drop(openers[0].lock_file(&stat).unwrap());
    }

    fn exclude_each_other(openers: &[Locks; 2], stat: &FileStat) {
        let inside = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for locks in openers.iter().cycle().take(4) {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        let _guard = locks.lock_file(stat).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
    }
}
