//! Locks between threads and processes, so that concurrent changes do not undo each other.
//!
//! chown(2) holds the inode's lock in the kernel; extended attributes have no compare-and-set. So a
//! change of a file's owner holds a lock from the load to the end of the store. Threads of a worker
//! exclude each other with a mutex. Workers of all containers of a user, and `subuidless owners`,
//! lock a byte of the file `locks` in the directory of the recent side store, one byte for each
//! inode, so that a container that hangs in its own FUSE does not delay the others. Without that
//! file, the workers of one container lock a byte of a memfd that the daemon gives to all of them,
//! as they do for the container's table of identities.

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

/// The number of mutexes (and bytes of the memfd) for files. Two files rarely share one.
const STRIPES: usize = 512;
/// The stripe of the container's table of identities.
const IDENTITIES: usize = STRIPES;

/// The time between two attempts to lock a file's byte.
const PERIOD: Duration = Duration::from_millis(2);
/// The number of attempts. A process that holds the lock for longer is stopped, or hostile.
const PERIODS: u32 = 1000;

/// The locks of a worker, or of `subuidless owners`.
#[derive(Debug)]
pub(crate) struct Locks {
    memfd: OwnedFd,
    /// The file `locks`, which all containers of the user share.
    files: Option<OwnedFd>,
    stripes: Vec<Mutex<()>>,
    /// Whether the warning about a held lock has been logged.
    is_told: AtomicBool,
}

impl Locks {
    /// `memfd` must be an open file description that no other process has. Its locks are released
    /// with its last file descriptor (fcntl(2), F_OFD_SETLK), so also when this process is killed.
    pub(crate) fn new(memfd: OwnedFd) -> Self {
        Self {
            memfd,
            files: None,
            is_told: AtomicBool::new(false),
            stripes: (0..=IDENTITIES).map(|_| Mutex::new(())).collect(),
        }
    }

    /// From now on [`Locks::lock_file`] uses the file `locks` in `directory`, that of the recent
    /// side store.
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

    /// Locks the owner of the file with this `stat`, against all other threads and processes. Waits
    /// for at most two seconds; then it goes on with the mutex only.
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
                "the lock of a file has been held for seconds: going on without it (logged once). \
                 The holder is a stopped process, or a program that locks `locks` in the directory \
                 of the recent side store"
            );
        }
        // Dropping the guard unlocks only locks of this open file description: there is none.
        Ok(Guard {
            file: files.as_fd(),
            byte,
            _thread: thread,
        })
    }

    /// Locks the table of identities for adding a record.
    pub(crate) fn lock_identities(&self) -> Result<Guard<'_>, Errno> {
        self.lock(IDENTITIES)
    }

    /// Locks a stripe's byte of the memfd. Waits without a time limit: only workers of one
    /// container lock it.
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

    /// Locks the stripe's mutex: all threads share the open file description, and so its locks.
    fn exclude_threads(&self, stripe: usize) -> MutexGuard<'_, ()> {
        // A panic leaves no broken state behind: the mutex protects files, and table records that
        // count only once they are complete.
        self.stripes[stripe]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The offset of an inode's byte in the file `locks`. Two inodes practically never share one.
fn byte(device: u64, inode: u64) -> i64 {
    // An offset, including the end of the locked range, is at most i64::MAX.
    (hash::of_inode(device, inode) >> 2).cast_signed()
}

/// A held lock of [`Locks`].
#[derive(Debug)]
pub(crate) struct Guard<'a> {
    file: BorrowedFd<'a>,
    byte: i64,
    _thread: MutexGuard<'a, ()>,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        // Cannot fail: an unlock of a whole lock allocates nothing.
        let _ = set(self.file, libc::F_UNLCK, self.byte, Wait::No);
    }
}

/// A lock on a byte of a file, which one process at a time holds until it exits.
#[derive(Debug)]
pub(crate) struct Claim {
    file: OwnedFd,
    byte: usize,
}

impl Claim {
    /// `file` must be an open file description that no other process has.
    pub(crate) fn new(file: OwnedFd, byte: usize) -> Self {
        Self { file, byte }
    }

    /// Takes the lock if it is free. Returns whether it is held now; it is until `self` is dropped.
    pub(crate) fn take(&self) -> Result<bool, Errno> {
        let lock = description(libc::F_WRLCK, place(self.byte)?)?;
        match fcntl(&self.file, FcntlArg::F_OFD_SETLK(&lock)) {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
            Err(errno) => Err(errno),
        }
    }
}

/// Whether the byte is locked through another open file description than `file`.
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
        // Another open file description, as another worker has after `reopened`.
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
        // A process that locks all bytes does not block the others forever.
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
