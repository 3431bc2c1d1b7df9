//! Failures of the side store: what the log says, what the target is told, and when a process ends so
//! that another one takes over.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use heed::MdbError;
use nix::errno::Errno;
use tracing::{error, warn};

/// The side store's own failures: the target gets what chown(2) has for a full or broken disk.
pub(crate) fn store_failed(error: heed::Error) -> Errno {
    end_if_damaged(&error);
    tell_once(&error.to_string());
    errno_to_tell(&error)
}

/// The exit code of a process that ends because the side store is damaged.
const DAMAGED: i32 = 74;

/// Whether a process has ended as one does whose side store is damaged.
pub(crate) fn ended_by_damage(status: ExitStatus) -> bool {
    let signal = matches!(
        status.signal(),
        Some(
            libc::SIGBUS
                | libc::SIGSEGV
                | libc::SIGABRT
                | libc::SIGFPE
                | libc::SIGILL
                | libc::SIGALRM
        )
    );
    signal || status.code() == Some(DAMAGED)
}

/// Whether this process may end where the side store is damaged: another one begins where it has
/// stopped.
static IS_REPLACEABLE: AtomicBool = AtomicBool::new(false);

/// From now on this process ends with [`DAMAGED`] where the side store turns out to be damaged, as
/// it does anyway by SIGBUS where the store's files are cut off.
pub(crate) fn end_where_damaged() {
    IS_REPLACEABLE.store(true, Ordering::Relaxed);
}

pub(super) fn end_if_damaged(error: &heed::Error) {
    let is_damaged = match error {
        // What a whole store says when it is full, or used by too many.
        heed::Error::Mdb(error) => !matches!(
            error,
            MdbError::MapFull
                | MdbError::ReadersFull
                | MdbError::TlsFull
                | MdbError::DbsFull
                | MdbError::TxnFull
                | MdbError::BadValSize
                | MdbError::Other(_)
        ),
        // The files have been removed, or their locks are none.
        heed::Error::Io(error) => matches!(
            error.raw_os_error(),
            Some(libc::ESTALE | libc::EINVAL | libc::ENOTRECOVERABLE | libc::EOWNERDEAD)
        ),
        _ => false,
    };
    if is_damaged && IS_REPLACEABLE.load(Ordering::Relaxed) {
        warn!(%error, "the side store's files are damaged, or others by now: the next worker \
            takes over");
        std::process::exit(DAMAGED);
    }
}

pub(super) fn errno_to_tell(error: &heed::Error) -> Errno {
    match error {
        heed::Error::Mdb(MdbError::MapFull) => Errno::ENOSPC,
        heed::Error::Io(error) => match Errno::from_raw(error.raw_os_error().unwrap_or(0)) {
            // LMDB's word for a write that came to a part of its bytes only, which is how a disk
            // begins to be full.
            Errno::EIO => Errno::ENOSPC,
            errno @ (Errno::ENOSPC | Errno::EDQUOT | Errno::EROFS | Errno::ENOMEM) => errno,
            _ => Errno::EIO,
        },
        _ => Errno::EIO,
    }
}

/// Logs why something cannot be kept or looked up, each reason once: a container may ask again and
/// again.
pub(crate) fn tell_once(reason: &str) {
    const MOST: usize = 32;
    static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if told.len() < MOST && told.insert(reason.to_owned()) {
        error!(
            reason,
            "the side store of owners failed, and the call with it (told once for each reason)"
        );
    }
}

/// Whether a process has ended as one does whose store is damaged, or in a way that nobody knows.
pub(crate) fn is_suspect(status: ExitStatus) -> bool {
    status.code() == Some(0) || ended_by_damage(status)
}
