//! Settling: recent entries of the side store are moved to disk.
//!
//! A process that maps a database may crash if other programs have written to it. So separate
//! processes read and settle databases, and a [`Marker`] records the result.

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

/// Whether the lasting database in `directory` can be read. Another process reads all of it,
/// because a damaged one may crash the reader; only once per boot, unless another program has
/// changed the file since.
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

pub(super) const NOT_LASTING: &str = "cannot open the lasting side store: owners in it are not \
                                      seen, new ones are kept until the next boot; --store DIR \
                                      names another place";

/// The failure of another process.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    /// It ran into the time limit: a lock seems to be held forever, or the disk does not respond.
    pub(super) hangs: bool,
}

/// The time limit for reading from disk, in seconds. Generous: the disk may be busy.
const LONG: u32 = 120;
/// The time limit, in seconds, while containers wait for it. A database that takes longer is not
/// given up, but its locks are replaced.
pub(super) const SHORT: u32 = 20;
/// The time limit for reading from tmpfs, in seconds.
pub(super) const SHORTEST: u32 = 10;

/// Lets another process read all of a database. Fails with the reason that it prints, or because
/// damage has ended it.
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

/// The result of a process that reads or settles a database.
pub(crate) fn result_of(ended: &Output) -> Result<(), Failure> {
    let reason = match ended.status {
        status if status.success() => return Ok(()),
        status if status.signal().is_some() && ended_by_damage(status) => format!(
            "it is damaged (move the directory away to begin with an empty one): reading it ends \
             with {status}"
        ),
        status if status.signal().is_some() => {
            format!("the process that reads it has ended with {status}")
        }
        _ => String::from_utf8_lossy(&ended.stderr).trim().to_owned(),
    };
    Err(Failure {
        reason,
        hangs: ended.status.signal() == Some(libc::SIGALRM),
    })
}

/// Reads all of a database, within `seconds`. Damage may crash this process.
pub(crate) fn read_through(part: Part, seconds: u32, directory: &Path) -> Result<(), Error> {
    alarm::set(seconds);
    let read = match part {
        Part::Recent => SideStore::read_recent(directory),
        Part::Lasting => SideStore::read_lasting(directory),
    };
    read.map_err(|reason| Error::doing("reading the side store", io::Error::other(reason)))
}

/// Settles all recent entries. Damage may crash this process.
pub(crate) fn settle(recent: &Path, lasting: &Path) -> Result<(), Error> {
    const WHAT: &str = "writing the side store";
    // SIGALRM loses nothing: each batch is complete, or is settled again.
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
                // Only if the last change is older than a clock tick: a later one then changes
                // mtime, and with it the marker's state.
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

/// Twice the longest tick of a Linux clock (HZ=100).
const CLOCK_TICK: Duration = Duration::from_millis(20);

/// A file in the directory of the recent store, in which the state of a database is recorded. It
/// does not survive a boot, like the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Marker {
    /// All of the lasting database could be read.
    Read,
    /// The recent database has no entries to be settled.
    Settled,
}

impl Marker {
    fn file(self, recent: &Path) -> PathBuf {
        recent.join(match self {
            Self::Read => "read",
            Self::Settled => "settled",
        })
    }

    /// The present state of the database in `directory`, and the time since its last change.
    fn now(self, directory: &Path) -> Option<(String, Duration)> {
        let data = fs::symlink_metadata(directory.join(DATA)).ok()?;
        // Only the lasting database has this file.
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

    /// Whether the recorded state is the present one.
    pub(crate) fn fits(self, recent: &Path, directory: &Path) -> bool {
        let known = rundir::read_own(&self.file(recent));
        known.is_ok_and(|known| self.now(directory).is_some_and(|(now, _)| now == known))
    }

    /// Records the present state.
    fn set(self, recent: &Path, directory: &Path) {
        // A failure is harmless: without the marker the work is done again.
        match self.now(directory) {
            Some((now, _)) => drop(rundir::write_own(&self.file(recent), now.as_bytes())),
            None => drop(fs::remove_file(self.file(recent))),
        }
    }
}
