//! Failures of the side store: their log lines, their errnos for targets, and when a process exits
//! so that another one takes over.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use heed::MdbError;
use nix::errno::Errno;
use tracing::{error, warn};

/// Logs a failure of the side store, and returns the errno that chown(2) has for a full or broken
/// disk. May exit: see [`end_where_damaged`].
pub(crate) fn store_failed(error: heed::Error) -> Errno {
    end_if_damaged(&error);
    tell_once(&error.to_string());
    errno_to_tell(&error)
}

/// The exit code of a process that exits because the side store is damaged.
const DAMAGED: i32 = 74;

/// Whether a process has ended in a way that a damaged side store causes: with [`DAMAGED`]; by a
/// signal for access to a truncated or corrupt map, or LMDB's own assertions; or by the SIGALRM of
/// [`Patience`](super::patience::Patience).
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

/// Whether this process may exit because of a damaged side store: another one continues its work.
static IS_REPLACEABLE: AtomicBool = AtomicBool::new(false);

/// From now on this process exits with [`DAMAGED`] when it finds the side store damaged, just as
/// SIGBUS ends it when the files are truncated.
pub(crate) fn end_where_damaged() {
    IS_REPLACEABLE.store(true, Ordering::Relaxed);
}

/// Exits if `error` shows damage, and this process may exit: see [`end_where_damaged`].
pub(super) fn end_if_damaged(error: &heed::Error) {
    let is_damaged = match error {
        // Errors of an intact store that is full or has too many users.
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
        // ESTALE: the files have been replaced (`Environment::ensure_in_place`). The others: the
        // mutexes in the lock file are invalid.
        heed::Error::Io(error) => matches!(
            error.raw_os_error(),
            Some(libc::ESTALE | libc::EINVAL | libc::ENOTRECOVERABLE | libc::EOWNERDEAD)
        ),
        _ => false,
    };
    if is_damaged && IS_REPLACEABLE.load(Ordering::Relaxed) {
        warn!(%error, "the side store's files are damaged or replaced: the next worker takes over");
        std::process::exit(DAMAGED);
    }
}

/// The errno for a target whose owner cannot be stored or looked up.
pub(super) fn errno_to_tell(error: &heed::Error) -> Errno {
    match error {
        heed::Error::Mdb(MdbError::MapFull) => Errno::ENOSPC,
        heed::Error::Io(error) => match Errno::from_raw(error.raw_os_error().unwrap_or(0)) {
            // LMDB returns EIO for a short write, which is the first sign of a full disk.
            Errno::EIO => Errno::ENOSPC,
            errno @ (Errno::ENOSPC | Errno::EDQUOT | Errno::EROFS | Errno::ENOMEM) => errno,
            _ => Errno::EIO,
        },
        _ => Errno::EIO,
    }
}

/// Logs the reason of a failure, each reason once: a container may repeat the call forever.
pub(crate) fn tell_once(reason: &str) {
    const MOST: usize = 32;
    static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if told.len() < MOST && told.insert(reason.to_owned()) {
        error!(
            reason,
            "the side store of owners failed, and the call with it (logged once for each reason)"
        );
    }
}

/// Whether a process may have ended because of a damaged store: as in [`ended_by_damage`], or with
/// success where none was due.
pub(crate) fn is_suspect(status: ExitStatus) -> bool {
    status.code() == Some(0) || ended_by_damage(status)
}
