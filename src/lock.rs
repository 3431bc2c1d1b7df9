//! Locks that the workers of one container share: two changes of one thing at once must not undo each other.
//!
//! The kernel holds the inode's lock over chown(2); an extended attribute has no compare-and-set. Threads of a worker
//! exclude each other by a mutex, workers of one container (run and exec) by a lock on a byte of a memfd that the daemon
//! gives to all of them. Not workers of different containers: one that hangs in its own FUSE must hold up nobody else.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::stat::FileStat;

/// Files share a lock by chance only.
const STRIPES: usize = 512;
/// The container's table of identities.
const IDENTITIES: usize = STRIPES;

#[derive(Debug)]
pub(crate) struct Locks {
    memfd: OwnedFd,
    stripes: Vec<Mutex<()>>,
}

impl Locks {
    /// `memfd` must be an open file description that nobody else has: locks last as long as it does, so that a killed
    /// worker's are gone with it.
    pub(crate) fn new(memfd: OwnedFd) -> Self {
        Self {
            memfd,
            stripes: (0..=IDENTITIES).map(|_| Mutex::new(())).collect(),
        }
    }

    /// Excludes all others from the owner of the file that `stat` is of.
    pub(crate) fn lock_file(&self, stat: &FileStat) -> Result<Guard<'_>, Errno> {
        self.lock(spread(stat.st_dev, stat.st_ino) % STRIPES)
    }

    /// Excludes all others from adding to the table of identities.
    pub(crate) fn lock_identities(&self) -> Result<Guard<'_>, Errno> {
        self.lock(IDENTITIES)
    }

    fn lock(&self, stripe: usize) -> Result<Guard<'_>, Errno> {
        // Nothing can be half done under this mutex: what it protects is on disk, or counts once it is complete.
        let thread = self.stripes[stripe]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // An open file description has one lock for all threads; the mutex tells them apart.
        set(self.memfd.as_fd(), libc::F_WRLCK, stripe)?;
        Ok(Guard {
            memfd: self.memfd.as_fd(),
            stripe,
            _thread: thread,
        })
    }
}

/// A number for a place in a table that inodes of all devices spread over evenly.
pub(crate) fn spread(device: u64, inode: u64) -> usize {
    let mixed = (inode ^ device.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as usize
}
/// Held from the load to the end of the store.
#[derive(Debug)]
pub(crate) struct Guard<'a> {
    memfd: BorrowedFd<'a>,
    stripe: usize,
    _thread: MutexGuard<'a, ()>,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        // Unlocking what is locked cannot fail.
        let _ = set(self.memfd, libc::F_UNLCK, self.stripe);
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
        let lock = description(libc::F_WRLCK, self.byte)?;
        match fcntl(&self.file, FcntlArg::F_OFD_SETLK(&lock)) {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
            Err(errno) => Err(errno),
        }
    }
}

/// Whether the byte is held through another open file description than `file`.
pub(crate) fn is_taken(file: BorrowedFd, byte: usize) -> Result<bool, Errno> {
    let mut lock = description(libc::F_WRLCK, byte)?;
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

fn set(memfd: BorrowedFd, kind: i32, byte: usize) -> Result<(), Errno> {
    let lock = description(kind, byte)?;
    loop {
        match fcntl(memfd, FcntlArg::F_OFD_SETLKW(&lock)) {
            Err(Errno::EINTR) => {}
            result => return result.map(drop),
        }
    }
}

fn description(kind: i32, byte: usize) -> Result<libc::flock, Errno> {
    Ok(libc::flock {
        l_type: i16::try_from(kind).map_err(|_| Errno::EINVAL)?,
        l_whence: i16::try_from(libc::SEEK_SET).map_err(|_| Errno::EINVAL)?,
        l_start: i64::try_from(byte).map_err(|_| Errno::EINVAL)?,
        l_len: 1,
        l_pid: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn neither_threads_nor_a_second_opener_get_in_between() {
        let directory = tempfile::tempdir().unwrap();
        let file = File::create(directory.path().join("file")).unwrap();
        let stat = nix::sys::stat::fstat(&file).unwrap();
        let memfd = nix::sys::memfd::memfd_create(c"locks", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)
            .unwrap();
        // A description of its own, as another worker has that opens the memfd anew.
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&memfd));
        let again = File::options().read(true).write(true).open(path).unwrap();
        let openers = [Locks::new(memfd), Locks::new(again.into())];
        let inside = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for locks in openers.iter().cycle().take(4) {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        let _guard = locks.lock_file(&stat).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
    }
}
