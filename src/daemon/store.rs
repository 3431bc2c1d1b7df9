//! Where the side store of owners lies (see `crate::owner`), and how what is recent comes to last.
//!
//! The recent part is in the runtime directory (see `crate::wire::rundir`), or in /dev/shm for users
//! without one that can be used: both are on this node and gone after a boot, as a store that runs
//! without fsync has to be. The lasting part is in
//! `$XDG_STATE_HOME/subuidless`, or wherever `--store` says, which must be on a disk of this node.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statfs::{self, FsType};
use nix::unistd::alarm;
use tracing::{debug, error, info, warn};

use crate::error::Error;
use crate::owner::{DATA, LOCK, SideStore, ended_by_damage};
use crate::wire::rundir;

/// So much may be lost with the power; extended attributes wait longer for the disk.
const PERIOD: Duration = Duration::from_secs(1);
/// For the last move, when the daemon ends.
const PATIENCE: Duration = Duration::from_secs(5);

/// File systems of several nodes, on which LMDB's locks and memory maps do not work.
const SHARED: [(FsType, &str); 8] = [
    (statfs::NFS_SUPER_MAGIC, "NFS"),
    (FsType(0xff53_4d42), "CIFS"),
    (FsType(0xfe53_4d42), "SMB"),
    (FsType(0x5346_414f), "AFS"),
    (FsType(0x00c3_6400), "Ceph"),
    (FsType(0x0bd0_0bd0), "Lustre"),
    (FsType(0x4750_4653), "GPFS"),
    (FsType(0x0102_1997), "9p"),
];

/// The directories of the side store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Places {
    pub(crate) recent: Option<PathBuf>,
    pub(crate) lasting: Option<PathBuf>,
    /// Why there is no lasting part, until that has been told.
    not_lasting: Option<String>,
}

impl Places {
    /// Made if they are missing; a log line says where there can be none. `wish` is `--store`.
    pub(crate) fn prepare(wish: Option<PathBuf>) -> Self {
        let mut places = Self::prepare_quietly(wish);
        places.warn();
        places
    }

    /// As [`Places::prepare`], but for a lasting part: whether one is needed is not known yet.
    pub(crate) fn prepare_quietly(wish: Option<PathBuf>) -> Self {
        let recent = recent_directory();
        let (lasting, not_lasting) = match lasting_directory(wish) {
            Ok(directory) => (Some(directory), None),
            Err(reason) => (None, Some(reason)),
        };
        Self {
            lasting: lasting.filter(|directory| can_be_read(directory, recent.as_deref())),
            recent,
            not_lasting,
        }
    }

    /// Says once why nothing lasts.
    fn warn(&mut self) {
        if let Some(reason) = self.not_lasting.take() {
            warn!(reason, "no lasting side store: {UNTIL_BOOT}");
        }
    }

    /// Both parts, as far as they can be opened.
    pub(crate) fn open(&self) -> Result<SideStore, Error> {
        crate::owner::open_side_store(self.recent.as_deref(), self.lasting.as_deref())
            .map_err(|_| Error::NoSideStore)
    }
}

/// The first of the places that can be used; a log line says why there is none.
fn recent_directory() -> Option<PathBuf> {
    let mut reasons = Vec::new();
    for directory in rundir::recent_stores() {
        match rundir::own(&directory) {
            Ok(_) => return Some(directory),
            Err(error) => reasons.push(format!("{}: {error}", directory.display())),
        }
    }
    warn!(
        reasons = reasons.join("; "),
        "no place for the side store: setting owners of symlinks, fifos, sockets and devices \
         fails; set XDG_RUNTIME_DIR \
         to a directory of your own"
    );
    None
}

/// Where the lasting part is to be, if anybody says.
pub(crate) fn lasting_place(wish: Option<PathBuf>) -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let state = || match (variable("XDG_STATE_HOME"), variable("HOME")) {
        (Some(state), _) => Some(PathBuf::from(state)),
        (None, Some(home)) => Some(Path::new(&home).join(".local/state")),
        (None, None) => None,
    };
    wish.or_else(|| Some(state()?.join("subuidless")))
}

fn lasting_directory(wish: Option<PathBuf>) -> Result<PathBuf, String> {
    let directory = lasting_place(wish).ok_or("neither XDG_STATE_HOME nor HOME is set")?;
    let made = directory
        .parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| rundir::own(&directory))
        .and_then(|_| refuse_shared(&directory));
    made.map_err(|error| format!("{}: {error}", directory.display()))?;
    Ok(directory)
}

const UNTIL_BOOT: &str = "owners of symlinks, fifos, sockets and devices are kept until the next boot; --store DIR keeps \
                          them in a directory on a local disk";

/// Whether reading all of the store goes well, as another process finds out: a damaged one may end
/// who does that. Once for each boot is enough, unless the file has been changed by anybody but us.
fn can_be_read(directory: &Path, recent: Option<&Path>) -> bool {
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

const NOT_LASTING: &str = "cannot open the lasting side store: owners in it are not seen, new \
    ones are kept until the next boot";

/// One of the two databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    Recent,
    Lasting,
}

/// What came of what another process was to do.
#[derive(Debug)]
struct Failure {
    reason: String,
    /// It has not come to an end: its locks are held for ever, or the disk does not answer.
    hangs: bool,
}

/// How long reading may take, in seconds: from a disk that is busy, when nobody waits for it.
const LONG: &str = "120";
/// When somebody does; then what hangs is not given up, but locks are made anew.
const SHORT: &str = "20";
/// From memory.
const SHORTEST: &str = "10";

/// Lets another process read all of a database.
fn read_elsewhere(directory: &Path, part: Part, seconds: &str) -> Result<(), Failure> {
    let part = match part {
        Part::Recent => "recent",
        Part::Lasting => "lasting",
    };
    elsewhere(&[
        READ_STORE.as_ref(),
        part.as_ref(),
        seconds.as_ref(),
        directory.as_os_str(),
    ])
}

/// What another process of this program says that it failed with, or that it is killed by damage.
fn elsewhere(arguments: &[&OsStr]) -> Result<(), Failure> {
    let ended = Command::new("/proc/self/exe")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Failure {
            reason: error.to_string(),
            hangs: false,
        })?;
    result_of(&ended)
}

fn result_of(ended: &Output) -> Result<(), Failure> {
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

/// The commands that read a database, and that move what is recent to the disk.
const READ_STORE: &str = "read-store";
const SETTLE_STORE: &str = "settle-store";

/// Reads all of a database. Damage may end this process.
pub(crate) fn read_through(part: Part, seconds: u32, directory: &Path) -> Result<(), Error> {
    alarm::set(seconds);
    let read = match part {
        Part::Recent => SideStore::read_recent(directory),
        Part::Lasting => SideStore::read_lasting(directory),
    };
    read.map_err(|reason| Error::Io {
        what: "reading the side store",
        source: io::Error::other(reason),
    })
}

/// Moves what is recent to the disk. Damage may end this process.
pub(crate) fn settle(recent: &Path, lasting: &Path) -> Result<(), Error> {
    let failed = |source| Error::Io {
        what: "writing the side store",
        source,
    };
    // What is done until then stays done.
    alarm::set(120);
    for directory in [recent, lasting] {
        rundir::own(directory).map_err(failed)?;
    }
    let mut store = SideStore::open(recent).map_err(|error| failed(io::Error::other(error)))?;
    store
        .open_lasting(lasting)
        .map_err(|error| failed(io::Error::other(error)))?;
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
            Err(error) => return Err(failed(io::Error::other(error))),
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
enum Marker {
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

    fn fits(self, recent: &Path, directory: &Path) -> bool {
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

/// An error for a directory on a file system of several machines.
pub(crate) fn refuse_shared(directory: &Path) -> io::Result<()> {
    let found = statfs::statfs(directory)?.filesystem_type();
    match SHARED.iter().find(|(shared, _)| *shared == found) {
        None => Ok(()),
        Some((_, name)) => Err(io::Error::other(format!(
            "it lies on {name}, where several machines could write at the same time"
        ))),
    }
}

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
        let ended = tokio::process::Command::new("/proc/self/exe")
            .arg(SETTLE_STORE)
            .args([&recent, &lasting])
            .stdin(Stdio::null())
            .output()
            .await;
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

/// Whether a process has ended as one does whose store is damaged, or in a way that nobody knows.
pub(crate) fn is_suspect(status: ExitStatus) -> bool {
    status.code() == Some(0) || ended_by_damage(status)
}
