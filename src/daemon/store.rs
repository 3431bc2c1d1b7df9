//! The daemon's care of the side store: what takes a map of its files is done by other processes,
//! which may end by it.

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

/// So much may be lost with the power; extended attributes wait longer for the disk.
const PERIOD: Duration = Duration::from_secs(1);
/// For the last move, when the daemon ends.
const PATIENCE: Duration = Duration::from_secs(5);

/// Looks after the side store for a daemon, which maps none of its files: whoever may write them
/// could end it so. What takes a map is done by processes that may end.
#[derive(Debug)]
pub(super) struct Keeper {
    places: RefCell<Places>,
    is_failing: Cell<bool>,
    /// How often in a row moving has ended in damage.
    crashes: Cell<u32>,
    /// The databases' files when they were last looked at.
    seen: RefCell<HashMap<PathBuf, Seen>>,
}

/// A file that never becomes smaller, nor another one.
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
            seen: RefCell::default(),
        }
    }

    /// Where a worker that is about to start finds the store.
    pub(super) fn places_for_worker(&self) -> Places {
        self.ensure_recent();
        self.watch();
        self.places()
    }

    fn places(&self) -> Places {
        self.places.borrow().clone()
    }

    /// Moves what is recent to the disk, every second, for ever.
    pub(super) async fn keep(&self) {
        loop {
            tokio::time::sleep(PERIOD).await;
            self.settle().await;
        }
    }

    /// Moves what there is, and waits for it, but not for ever.
    pub(super) async fn stop(&self) {
        if tokio::time::timeout(PATIENCE, self.settle()).await.is_err() {
            warn!("the disk does not answer: the next daemon moves what is left in the side store");
        }
    }

    /// Says what nobody else may notice: an empty file is a new database, and what was removed is
    /// made anew.
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
                    "data.mdb of the side store was removed, replaced or cut off while in use: \
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
        // Two system calls, where nothing has happened.
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
                    info!("the side store can be written again");
                }
            }
            Err(_) if damaged => {
                self.crashes.set(self.crashes.get() + 1);
                self.mend(self.crashes.get()).await;
            }
            Err(reason) if !self.is_failing.replace(true) => error!(
                reason,
                "the side store cannot be written to disk: what is new in it is kept in memory, \
                 and tried again every second"
            ),
            Err(_) => {}
        }
    }

    /// To be called when a worker has ended before its targets, as others had in a row without
    /// having served anything.
    pub(super) async fn worker_ended(&self, status: ExitStatus, others: u32) {
        if is_suspect(status) {
            self.mend(others).await;
        }
    }

    /// Makes the directory of what is recent, if it has been removed: systemd removes that of a
    /// user who has logged out, for one.
    fn ensure_recent(&self) {
        let places = self.places();
        if places.recent.is_none_or(|recent| {
            fs::symlink_metadata(&recent).is_ok() && rundir::own(&recent).is_ok()
        }) {
            return;
        }
        let found = recent_directory();
        warn!(
            directory = %found.as_deref().unwrap_or(Path::new("none")).display(),
            "the directory of the recent side store was removed: what was in it is lost, another \
             one is used"
        );
        self.places.borrow_mut().recent = found;
    }

    async fn mend(&self, crashes: u32) {
        self.ensure_recent();
        let places = self.places();
        let mended = tokio::task::spawn_blocking(move || mend(&places, crashes)).await;
        let Ok(mended) = mended else {
            return;
        };
        mended.tell(&self.places.borrow());
        if mended.recent.is_some() {
            // That much has been said.
            self.seen.borrow_mut().clear();
        }
        if mended.lasting.is_some() {
            self.places.borrow_mut().lasting = None;
        }
    }
}
