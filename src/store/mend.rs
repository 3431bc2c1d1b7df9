//! What is done about a damaged side store.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use tracing::{error, warn};

use super::environment::{DATA, LOCK};
use super::places::Places;
use super::settle::{NOT_LASTING, SHORT, SHORTEST, read_elsewhere};
use crate::wire::mode::Part;
use crate::wire::rundir;

/// What was done about a damaged store.
#[derive(Debug, Default)]
pub(crate) struct Mended {
    /// The recent database has been begun anew, for this reason.
    pub(crate) recent: Option<String>,
    /// The lasting one is to be left alone, for this reason.
    pub(crate) lasting: Option<String>,
    /// The lasting one has new locks, for this reason.
    pub(crate) locks: Option<String>,
}

/// Looks after a store that has ended a process: begins the recent database anew if it is damaged.
/// Where nothing is to be found in them, both are given up after so many `crashes` in a row.
pub(crate) fn mend(places: &Places, crashes: u32) -> Mended {
    const FEW: u32 = 3;
    let kept_ending = || "processes that use it keep ending".to_owned();
    let mut mended = Mended::default();
    let Some(recent) = &places.recent else {
        return mended;
    };
    if let Some(lasting) = &places.lasting {
        // Where it was removed, there is nothing in it to be lost.
        let _ = rundir::own(lasting);
        match read_elsewhere(lasting, Part::Lasting, SHORT) {
            Ok(()) => mended.lasting = (crashes >= 2 * FEW).then(kept_ending),
            Err(failure) if renew_locks(recent, lasting) => mended.locks = Some(failure.reason),
            // The disk may answer again.
            Err(failure) if failure.hangs => {}
            Err(failure) => mended.lasting = Some(failure.reason),
        }
    }
    let damage = || match read_elsewhere(recent, Part::Recent, SHORTEST) {
        Err(failure) => Some(failure.reason),
        Ok(()) => (crashes >= FEW && mended.lasting.is_none()).then(kept_ending),
    };
    if damage().is_none() {
        return mended;
    }
    // Others may see the same, and begin it anew at the same time.
    let Ok(_alone) = lock_alone(recent) else {
        return mended;
    };
    if let Some(reason) = damage() {
        match begin_anew(recent) {
            Ok(()) => mended.recent = Some(reason),
            Err(error) => {
                error!(directory = %recent.display(), %error, "cannot begin the recent side \
                    store anew");
            }
        }
    }
    mended
}

/// The lock that is held while entries are moved. Whoever holds it and is stopped must not stop us.
fn lock_alone(recent: &Path) -> io::Result<Flock<File>> {
    const TRIES: usize = 100;
    const PERIOD: Duration = Duration::from_millis(20);
    let mut directory = File::open(recent)?;
    for _ in 0..TRIES {
        match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => return Ok(locked),
            Err((file, Errno::EWOULDBLOCK)) => directory = file,
            Err((_, errno)) => return Err(errno.into()),
        }
        std::thread::sleep(PERIOD);
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Whether the lasting database can be read with new locks: nothing but locks is in that file.
fn renew_locks(recent: &Path, lasting: &Path) -> bool {
    let lock = lasting.join(LOCK);
    lock_alone(recent).is_ok_and(|_alone| {
        fs::remove_file(&lock).is_ok() && read_elsewhere(lasting, Part::Lasting, SHORT).is_ok()
    })
}

/// Who has the old files open goes on with them until it notices.
fn begin_anew(recent: &Path) -> io::Result<()> {
    for name in [DATA, LOCK, "settled", "read"] {
        match fs::remove_file(recent.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

impl Mended {
    /// Logs it.
    pub(crate) fn tell(&self, places: &Places) {
        let shown = |directory: &Option<PathBuf>| {
            let directory = directory.as_deref().unwrap_or(Path::new(""));
            directory.display().to_string()
        };
        if let Some(reason) = &self.lasting {
            error!(directory = shown(&places.lasting), reason, "{NOT_LASTING}");
        }
        if let Some(reason) = &self.locks {
            warn!(
                directory = shown(&places.lasting),
                reason, "the locks of the lasting side store were damaged and have been made anew"
            );
        }
        if let Some(reason) = &self.recent {
            error!(
                directory = shown(&places.recent),
                reason,
                "the recent side store was damaged and has been begun anew: owners of symlinks, \
                 fifos, sockets and devices \
                 that were set in the last second, or in memory (tmpfs), are lost"
            );
        }
    }
}
