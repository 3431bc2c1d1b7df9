//! Looks after the side store for the daemon: moves recent entries to disk, and handles damage.
//!
//! The daemon itself never maps a database file: another process could truncate the file, and the
//! access would end in SIGBUS. Short-lived processes do that work.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use tracing::{error, info, warn};

use crate::store::{DATA, Marker, Places, is_suspect, mend, recent_directory, result_of};
use crate::wire::mode::Mode;
use crate::wire::rundir;

/// The time between two moves to disk, which bounds what a power failure loses. File systems write
/// extended attributes back later than that.
const PERIOD: Duration = Duration::from_secs(1);
/// The time limit for the last move, when the daemon exits.
const PATIENCE: Duration = Duration::from_secs(5);

/// Looks after the side store for a daemon.
#[derive(Debug)]
pub(super) struct Keeper {
    places: RefCell<Places>,
    is_failing: Cell<bool>,
    /// The number of moves in a row that ended with signs of damage.
    crashes: Cell<u32>,
    /// The database files at the last check.
    seen: RefCell<HashMap<PathBuf, Seen>>,
    /// Held while the store is repaired: several workers may have ended because of one damage.
    mending: tokio::sync::Mutex<()>,
}

/// The identity and size of a database file, which never shrinks and is never replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    device: u64,
    inode: u64,
    size: u64,
}

impl Seen {
    fn of(database: &Path) -> Option<Self> {
        let file = fs::metadata(database.join(DATA)).ok()?;
        Some(Self {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
        })
    }

    fn may_become(self, later: Option<Self>) -> bool {
        later.is_some_and(|later| {
            (later.device, later.inode) == (self.device, self.inode) && later.size >= self.size
        })
    }
}

impl Keeper {
    pub(super) fn new(places: Places) -> Self {
        Self {
            places: RefCell::new(places),
            is_failing: Cell::new(false),
            crashes: Cell::new(0),
            mending: tokio::sync::Mutex::default(),
            seen: RefCell::default(),
        }
    }

    /// The places of the store, for a worker that is about to start.
    pub(super) fn places_for_worker(&self) -> Places {
        self.ensure_recent();
        self.watch();
        self.places()
    }

    fn places(&self) -> Places {
        self.places.borrow().clone()
    }

    /// Moves recent entries to disk once a second, for ever.
    pub(super) async fn keep(&self) {
        loop {
            tokio::time::sleep(PERIOD).await;
            self.settle().await;
        }
    }

    /// Moves recent entries to disk a last time, with a time limit.
    pub(super) async fn stop(&self) {
        if tokio::time::timeout(PATIENCE, self.settle()).await.is_err() {
            warn!(
                "the disk does not respond: the next daemon moves the remaining entries of the \
                 side store"
            );
        }
    }

    /// Logs that a database file was removed, replaced or truncated. No other process may notice:
    /// to LMDB an empty file is a new database, and a missing one is created again.
    fn watch(&self) {
        let places = self.places();
        let mut seen = self.seen.borrow_mut();
        for database in [places.recent, places.lasting].into_iter().flatten() {
            let now = Seen::of(&database);
            if seen
                .get(&database)
                .is_some_and(|seen| !seen.may_become(now))
            {
                error!(
                    directory = %database.display(),
                    "data.mdb of the side store was removed, replaced or truncated while in use: \
                     owners in it are lost"
                );
            }
            match now {
                Some(now) => drop(seen.insert(database, now)),
                None => drop(seen.remove(&database)),
            }
        }
    }

    async fn settle(&self) {
        self.watch();
        let Places {
            recent: Some(recent),
            lasting,
            ..
        } = self.places()
        else {
            return;
        };
        // Two system calls if there is nothing to move.
        if !recent.join(DATA).exists() || Marker::Settled.fits(&recent, &recent) {
            return;
        }
        let Some(lasting) = lasting else {
            self.places.borrow_mut().warn();
            return;
        };
        let mover = Mode::SettleStore { recent, lasting }.command("subuidless");
        let ended = tokio::process::Command::from(mover).output().await;
        let (damaged, result) = match ended {
            Ok(ended) => (
                is_suspect(ended.status),
                result_of(&ended).map_err(|failure| failure.reason),
            ),
            Err(error) => (false, Err(error.to_string())),
        };
        match result {
            Ok(()) => {
                self.crashes.set(0);
                if self.is_failing.take() {
                    info!("the side store can be written to disk again");
                }
            }
            Err(_) if damaged => {
                self.crashes.set(self.crashes.get() + 1);
                self.mend(self.crashes.get()).await;
            }
            Err(reason) if !self.is_failing.replace(true) => error!(
                reason,
                "cannot write the side store to disk: new owners are kept in memory, trying again \
                 every second"
            ),
            Err(_) => {}
        }
    }

    /// Must be called when a worker has died before its targets. `others` is the number of workers
    /// before it that died in a row without having answered a call.
    pub(super) async fn worker_ended(&self, status: ExitStatus, others: u32) {
        if is_suspect(status) {
            self.mend(others).await;
        }
    }

    /// Creates the directory of the recent part again if it was removed, for instance by systemd
    /// after the user has logged out.
    fn ensure_recent(&self) {
        let Some(recent) = self.places().recent else {
            return;
        };
        if fs::symlink_metadata(&recent).is_ok() && rundir::own(&recent).is_ok() {
            return;
        }
        let found = recent_directory(recent.file_name().unwrap_or_default());
        warn!(
            directory = %found.as_deref().unwrap_or(Path::new("none")).display(),
            "the directory of the recent side store was removed: the owners in it are lost, \
             another directory is used"
        );
        self.places.borrow_mut().recent = found;
    }

    async fn mend(&self, crashes: u32) {
        let _one_at_a_time = self.mending.lock().await;
        self.ensure_recent();
        let places = self.places();
        let mended = tokio::task::spawn_blocking(move || mend(&places, crashes)).await;
        let Ok(mended) = mended else {
            return;
        };
        mended.tell(&self.places.borrow());
        if mended.recent.is_some() {
            // `tell` has reported that already.
            self.seen.borrow_mut().clear();
        }
        if mended.lasting.is_some() {
            self.places.borrow_mut().lasting = None;
        }
    }
}
