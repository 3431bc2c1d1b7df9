//! Files that a process which has restricted itself (landlock(7)) is about to create.
//!
//! The kernel creates them, because the rules do not apply to a worker, and so they belong to root.
//! The worker notes what the call is to create, and gives it its owner before it answers any later
//! call, of whatever process.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{AccessFlags, access};

use crate::credentials::{EmulatedGid, EmulatedUid};
use crate::linux::name::Name;
use crate::linux::procfs;
use crate::linux::sys;
use crate::owner::{FileOwners, Owner, file_type};

/// So many files are expected at a time; the oldest are given up.
const MOST: usize = 256;

/// A file that did not exist when its creation was noted.
#[derive(Debug)]
pub(crate) struct Expected {
    /// The thread that creates it.
    pub(crate) tid: u32,
    pub(crate) directory: OwnedFd,
    pub(crate) name: Name,
    /// A time not after the file's birth, in nanoseconds of Unix time.
    pub(crate) since: u64,
    pub(crate) uid: EmulatedUid,
    pub(crate) gid: EmulatedGid,
}

/// All of a container.
#[derive(Debug, Default)]
pub(crate) struct ExpectedFiles {
    files: Mutex<Vec<Expected>>,
    are_any: AtomicBool,
}

impl ExpectedFiles {
    fn lock(&self) -> MutexGuard<'_, Vec<Expected>> {
        // A panic leaves nothing inconsistent.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a file.
    pub(crate) fn add(&self, file: Expected) {
        let mut files = self.lock();
        if files.len() >= MOST {
            files.remove(0);
        }
        files.push(file);
        self.are_any.store(true, Ordering::Release);
    }

    /// Gives the files that have been created since their owners. `tid` is the thread whose call is
    /// answered next: the one that it made before has ended.
    pub(crate) fn own(&self, owners: &FileOwners, tid: u32) {
        if !self.are_any.load(Ordering::Acquire) {
            // Nearly always.
            return;
        }
        let mut files = self.lock();
        files.retain(|file| {
            let is_through = file.tid == tid
                || access(&procfs::target(file.tid, "stat"), AccessFlags::F_OK).is_err();
            // Whether it is through was asked first: what it created is there by now.
            file.own(owners) != Ok(true) && !is_through
        });
        self.are_any.store(!files.is_empty(), Ordering::Release);
    }
}

impl Expected {
    /// Gives the file its owner. Returns whether it is there.
    fn own(&self, owners: &FileOwners) -> Result<bool, Errno> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = match openat(&self.directory, &self.name, flags, Mode::empty()) {
            Err(Errno::ENOENT) => return Ok(false),
            file => file?,
        };
        let found = sys::statx(file.as_fd(), c"", libc::AT_EMPTY_PATH, libc::STATX_BTIME)?;
        let birth = [
            found.stx_btime.tv_sec.unsigned_abs(),
            found.stx_btime.tv_nsec.into(),
        ];
        // Not every file system stores it.
        let is_new = found.stx_mask & libc::STATX_BTIME == 0
            || birth[0] * 1_000_000_000 + birth[1] >= self.since;
        let stat = fstat(&file)?;
        let is_owned = || owners.load(file.as_fd(), file_type(stat.st_mode));
        if is_new && is_owned()?.is_none() {
            let owner = Owner::shown_as(self.uid, self.gid, &stat);
            owners.record(file.as_fd(), &stat, owner)?;
        }
        Ok(true)
    }
}
