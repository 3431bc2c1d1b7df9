//! Repairs a damaged side store.

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

/// What was done about a damaged store, each with the reason.
#[derive(Debug, Default)]
pub(crate) struct Mended {
    /// The recent database has been replaced by an empty one.
    pub(crate) recent: Option<String>,
    /// The lasting one must not be used any more.
    pub(crate) lasting: Option<String>,
    /// The lasting one has new locks.
    pub(crate) locks: Option<String>,
}

/// Checks a store that has ended a process, and replaces the recent database if it is damaged.
/// `crashes`: the number of such ends in a row. If no damage can be found, the recent database is
/// replaced after three, and the lasting one given up after six.
pub(crate) fn mend(places: &Places, crashes: u32) -> Mended {
    const FEW: u32 = 3;
    let kept_ending = || "processes that use it keep ending".to_owned();
    let mut mended = Mended::default();
    let Some(recent) = &places.recent else {
        return mended;
    };
    if let Some(lasting) = &places.lasting {
        // Creates the directory if it was removed: nothing in it can be lost.
        let _ = rundir::own(lasting);
        match read_elsewhere(lasting, Part::Lasting, SHORT) {
            Ok(()) => mended.lasting = (crashes >= 2 * FEW).then(kept_ending),
            Err(failure) if renew_locks(recent, lasting) => mended.locks = Some(failure.reason),
            // The disk may respond later.
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
    // Another process may find the damage at the same time. Under the lock, only one replaces a
    // damaged database; the others then find it intact.
    let Ok(_alone) = lock_alone(recent) else {
        return mended;
    };
    if let Some(reason) = damage() {
        match begin_anew(recent) {
            Ok(()) => mended.recent = Some(reason),
            Err(error) => {
                error!(
                    directory = %recent.display(), %error,
                    "cannot replace the recent side store by an empty one"
                );
            }
        }
    }
    mended
}

/// Takes the lock that settling holds. Gives up after two seconds: its holder may be stopped.
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

/// Replaces the lasting database's lock file, which contains nothing but locks. Returns whether the
/// database can be read afterwards.
fn renew_locks(recent: &Path, lasting: &Path) -> bool {
    let lock = lasting.join(LOCK);
    lock_alone(recent).is_ok_and(|_alone| {
        fs::remove_file(&lock).is_ok() && read_elsewhere(lasting, Part::Lasting, SHORT).is_ok()
    })
}

/// Removes the files of the recent database, so that the next process creates new ones. Processes
/// that have the old ones open use them until `Environment::ensure_in_place` fails.
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
    /// Logs what was done.
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
                reason, "the locks of the lasting side store were damaged and have been replaced"
            );
        }
        if let Some(reason) = &self.recent {
            error!(
                directory = shown(&places.recent),
                reason,
                "the recent side store was damaged and has been replaced by an empty one: owners \
                 of symlinks, fifos, sockets and devices that were set in the last second, or that \
                 are on tmpfs, are lost"
            );
        }
    }
}
