//! Memory shared with other processes: sealed memfds and LMDB's maps.

use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use libc::c_void;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::stat::fstat;

/// A shared mapping of a memfd, accessed as atomic words only.
#[derive(Debug)]
pub(crate) struct SharedWords {
    address: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the mapping lives as long as the value, and atomics may be used from any thread.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// Maps `words` words of `memfd`. EINVAL if it is shorter, or not sealed against shrinking:
    /// access beyond its end would raise SIGBUS.
    pub(crate) fn map(memfd: BorrowedFd, words: usize) -> Result<Self, Errno> {
        let bytes = words * size_of::<AtomicU64>();
        let seals = SealFlag::from_bits_retain(fcntl(memfd, FcntlArg::F_GET_SEALS)?);
        let has_them = usize::try_from(fstat(memfd)?.st_size).is_ok_and(|length| length >= bytes);
        if !seals.contains(SealFlag::F_SEAL_SHRINK) || !has_them {
            return Err(Errno::EINVAL);
        }
        // SAFETY: the kernel chooses the address, so no other mapping is touched.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                memfd.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        let address = NonNull::new(address.cast()).ok_or(Errno::ENOMEM)?;
        Ok(Self { address, words })
    }

    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has this many words, is page-aligned and lives as long as `self`;
        // only atomics see it.
        unsafe { std::slice::from_raw_parts(self.address.as_ptr(), self.words) }
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        let length = self.words * size_of::<AtomicU64>();
        // SAFETY: exactly the mapping made in `map`; slices that `words` returned cannot outlive
        // `self`.
        unsafe { libc::munmap(self.address.as_ptr().cast::<c_void>(), length) };
    }
}

/// What remains of an LMDB environment after a crash of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Nothing, and its files may be corrupt: for a directory that does not survive a boot.
    None,
    /// Every committed transaction.
    Full,
    /// The environment is not written: for a read-only file system.
    ReadOnly,
}

/// Opens the LMDB environment in `directory`.
pub(crate) fn open_lmdb(
    directory: &Path,
    map_size: usize,
    durability: Durability,
) -> heed::Result<heed::Env<heed::WithoutTls>> {
    let mut options = heed::EnvOpenOptions::new().read_txn_without_tls();
    options.map_size(map_size).max_readers(1024);
    if durability == Durability::None {
        // SAFETY: NO_SYNC affects only what a crash of the machine leaves on disk, and the
        // directory does not survive one. It does not affect memory.
        unsafe { options.flags(heed::EnvFlags::NO_SYNC) };
    }
    if durability == Durability::ReadOnly {
        // SAFETY: NO_LOCK requires that no process writes; on a read-only file system none can.
        unsafe { options.flags(heed::EnvFlags::READ_ONLY | heed::EnvFlags::NO_LOCK) };
    }
    // SAFETY: only LMDB may change the mapped file. The directory is private to this user
    // (`wire::rundir`), but other programs of the user could write to the file. LMDB's own code
    // then at worst crashes the process. So only processes that may crash open an environment, and
    // the others let such a process read it first (`store::damage`).
    unsafe { options.open(directory) }
}
