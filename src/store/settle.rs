//! How what is recent in the side store comes to last.
//!
//! Whoever maps a database may be ended by what others have written into it. So other processes of
//! this program read and move it, and what is known of it is noted in a [`Marker`].

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use nix::unistd::alarm;
use tracing::{debug, error};

use super::SideStore;
use super::damage::ended_by_damage;
use super::environment::DATA;
use crate::error::{Context, Error};
use crate::wire::mode::{Mode, Part};
use crate::wire::rundir;

/// Whether reading all of the store goes well, as another process finds out: a damaged one may end
/// who does that. Once for each boot is enough, unless the file has been changed by anybody but us.
pub(crate) fn can_be_read(directory: &Path, recent: Option<&Path>) -> bool {
    if recent.is_some_and(|recent| Marker::Read.fits(recent, directory)) {
        return true;
    }
    match read_elsewhere(directory, Part::Lasting, LONG) {
        Ok(()) => {
            if let Some(recent) = recent {
                Marker::Read.set(recent, directory);
            }
            true
        }
        Err(failure) => {
            error!(directory = %directory.display(), reason = failure.reason, "{NOT_LASTING}");
            false
        }
    }
}

pub(super) const NOT_LASTING: &str = "cannot open the lasting side store: owners in it are not seen, new \
    ones are kept until the next boot";

/// What came of what another process was to do.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    /// It has not come to an end: its locks are held for ever, or the disk does not answer.
    pub(super) hangs: bool,
}

/// How long reading may take, in seconds: from a disk that is busy, when nobody waits for it.
const LONG: u32 = 120;
/// When somebody does; then what hangs is not given up, but locks are made anew.
pub(super) const SHORT: u32 = 20;
/// From memory.
pub(super) const SHORTEST: u32 = 10;

/// Lets another process read all of a database: what it says that it failed with, or that damage
/// has ended it.
pub(super) fn read_elsewhere(directory: &Path, part: Part, seconds: u32) -> Result<(), Failure> {
    let mode = Mode::ReadStore {
        part,
        seconds,
        directory: directory.to_owned(),
    };
    let ended = mode
        .command("subuidless")
        .output()
        .map_err(|error| Failure {
            reason: error.to_string(),
            hangs: false,
        })?;
    result_of(&ended)
}

pub(crate) fn result_of(ended: &Output) -> Result<(), Failure> {
    let reason = match ended.status {
        status if status.success() => return Ok(()),
        status if status.signal().is_some() && ended_by_damage(status) => format!(
            "it is damaged (moving the directory away begins a new one): reading it ends with \
             {status}"
        ),
        status if status.signal().is_some() => format!("what reads it has ended with {status}"),
        _ => String::from_utf8_lossy(&ended.stderr).trim().to_owned(),
    };
    Err(Failure {
        reason,
        hangs: ended.status.signal() == Some(libc::SIGALRM),
    })
}

/// Reads all of a database. Damage may end this process.
pub(crate) fn read_through(part: Part, seconds: u32, directory: &Path) -> Result<(), Error> {
    alarm::set(seconds);
    let read = match part {
        Part::Recent => SideStore::read_recent(directory),
        Part::Lasting => SideStore::read_lasting(directory),
    };
    read.map_err(|reason| Error::doing("reading the side store", io::Error::other(reason)))
}

/// Moves what is recent to the disk. Damage may end this process.
pub(crate) fn settle(recent: &Path, lasting: &Path) -> Result<(), Error> {
    const WHAT: &str = "writing the side store";
    // What is done until then stays done.
    alarm::set(120);
    for directory in [recent, lasting] {
        rundir::own(directory).doing(WHAT)?;
    }
    let mut store = SideStore::open(recent)
        .map_err(io::Error::other)
        .doing(WHAT)?;
    store
        .open_lasting(lasting)
        .map_err(io::Error::other)
        .doing(WHAT)?;
    let was_read = Marker::Read.fits(recent, lasting);
    let mut moved = 0;
    loop {
        let before = Marker::Settled.now(recent);
        match store.settle() {
            Ok(0) => {
                // What is written later must show by its time.
                if before.is_some_and(|(_, age)| age > CLOCK_TICK) {
                    Marker::Settled.set(recent, recent);
                }
                break;
            }
            Ok(count) => moved += count,
            Err(error) => return Err(Error::doing(WHAT, io::Error::other(error))),
        }
    }
    if was_read {
        Marker::Read.set(recent, lasting);
    }
    debug!(moved, "entries of the side store are on disk");
    Ok(())
}

/// Twice the coarsest tick of a Linux clock.
const CLOCK_TICK: Duration = Duration::from_millis(20);

/// A file beside the recent store that says which state of a database is known. It is gone after a
/// boot, with the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Marker {
    /// All of the lasting one could be read.
    Read,
    /// Nothing is in the recent one that is to be moved.
    Settled,
}

impl Marker {
    fn file(self, recent: &Path) -> PathBuf {
        recent.join(match self {
            Self::Read => "read",
            Self::Settled => "settled",
        })
    }

    /// The state of the database in `directory`, and for how long it has not changed.
    fn now(self, directory: &Path) -> Option<(String, Duration)> {
        let data = fs::symlink_metadata(directory.join(DATA)).ok()?;
        // Only the lasting one has a format.
        let format = rundir::read_own(&directory.join("format")).unwrap_or_default();
        let state = format!(
            "{} {} {:o} {} {} {} {format}",
            data.dev(),
            data.ino(),
            data.mode(),
            data.size(),
            data.mtime(),
            data.mtime_nsec()
        );
        Some((state, data.modified().ok()?.elapsed().unwrap_or_default()))
    }

    pub(crate) fn fits(self, recent: &Path, directory: &Path) -> bool {
        let known = rundir::read_own(&self.file(recent));
        known.is_ok_and(|known| self.now(directory).is_some_and(|(now, _)| now == known))
    }

    fn set(self, recent: &Path, directory: &Path) {
        // Without it the work is done once more.
        match self.now(directory) {
            Some((now, _)) => drop(rundir::write_own(&self.file(recent), now.as_bytes())),
            None => drop(fs::remove_file(self.file(recent))),
        }
    }
}
