//! Where the side store of owners lies (see `crate::owner`), and how what is recent comes to last.
//!
//! The recent part is in `$XDG_RUNTIME_DIR/subuidless-recent`, or `/dev/shm/subuidless-recent-UID` for users without a runtime directory that can be used:
//! both are on this node and gone after a boot, as a store that runs without fsync has to be. The lasting part is in
//! `$XDG_STATE_HOME/subuidless`, or wherever `--store` says, which must be on a disk of this node.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use nix::sys::statfs::{self, FsType};
use nix::unistd::Uid;
use tracing::{debug, error, info, warn};

use crate::error::Error;
use crate::owner::SideStore;

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
}

impl Places {
    /// Made if they are missing; a log line says where there can be none. `wish` is `--store`.
    pub(crate) fn prepare(wish: Option<PathBuf>) -> Self {
        Self {
            recent: recent_directory(),
            lasting: lasting_directory(wish).filter(|directory| can_be_read(directory)),
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
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|value| !value.is_empty());
    let places = [
        runtime.map(|runtime| Path::new(&runtime).join("subuidless-recent")),
        Some(format!("/dev/shm/subuidless-recent-{}", host_uid()).into()),
    ];
    let mut reasons = Vec::new();
    for directory in places.into_iter().flatten() {
        match create(&directory) {
            Ok(()) => return Some(directory),
            Err(error) => reasons.push(format!("{}: {error}", directory.display())),
        }
    }
    warn!(
        reasons = reasons.join("; "),
        "no place for the side store: setting owners of symlinks, fifos, sockets and devices fails; set XDG_RUNTIME_DIR \
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

/// What the user is called outside of this user namespace: in it everybody is 0.
pub(crate) fn host_uid() -> u32 {
    let uid = Uid::effective().as_raw();
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.lines()
        .filter_map(|line| {
            let mut numbers = line.split_ascii_whitespace().map(str::parse::<u32>);
            let (inside, outside) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
            let count = numbers.next()?.ok()?;
            let offset = uid.checked_sub(inside).filter(|offset| *offset < count)?;
            outside.checked_add(offset)
        })
        .next()
        .unwrap_or(uid)
}

fn lasting_directory(wish: Option<PathBuf>) -> Option<PathBuf> {
    let Some(directory) = lasting_place(wish) else {
        warn!("neither XDG_STATE_HOME nor HOME is set: {UNTIL_BOOT}");
        return None;
    };
    let made = directory
        .parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| create(&directory))
        .and_then(|()| refuse_shared(&directory));
    match made {
        Ok(()) => Some(directory),
        Err(error) => {
            warn!(directory = %directory.display(), %error, "no lasting side store: {UNTIL_BOOT}");
            None
        }
    }
}

const UNTIL_BOOT: &str = "owners of symlinks, fifos, sockets and devices are kept until the next boot; --store DIR keeps \
                          them in a directory on a local disk";

/// Whether reading all of the store goes well, as another process finds out: a damaged one may end who does that.
fn can_be_read(directory: &Path) -> bool {
    let reading = Command::new("/proc/self/exe")
        .arg(READ_STORE)
        .arg(directory)
        .stdin(Stdio::null())
        .output();
    let reason = match reading {
        Ok(read) if read.status.success() => return true,
        Ok(read) if read.status.signal().is_some() => {
            format!(
                "it is damaged (moving the directory away begins a new one): reading it ends with {}",
                read.status
            )
        }
        Ok(read) => String::from_utf8_lossy(&read.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    error!(
        directory = %directory.display(), reason,
        "cannot open the lasting side store: owners in it are not seen, new ones are kept until the next boot"
    );
    false
}

/// The command that reads a store.
const READ_STORE: &str = "read-store";

/// Reads all of the lasting store.
pub(crate) fn read_through(directory: &Path) -> Result<(), Error> {
    SideStore::read_through(directory).map_err(|reason| Error::Io {
        what: "reading the side store",
        source: io::Error::other(reason),
    })
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

fn create(directory: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // /dev/shm is everybody's: somebody else may have been there first.
    let found = fs::symlink_metadata(directory)?;
    let uid = Uid::effective().as_raw();
    if !found.is_dir() || found.uid() != uid || found.mode() & 0o077 != 0 {
        return Err(io::Error::other(
            "exists, but is not a directory of mode 0700 of this user",
        ));
    }
    Ok(())
}

/// Moves what is recent to where it lasts, in a thread of its own: fsync(2) may take its time.
#[derive(Debug)]
pub(super) struct Keeper {
    stop: Sender<()>,
    stopped: Receiver<()>,
}

impl Keeper {
    /// `None` where there is nothing to move, or nowhere to move it to.
    pub(super) fn start(places: &Places) -> Option<Self> {
        places.lasting.as_ref()?;
        let store = places.open().ok()?;
        let (stop, stops) = channel();
        let (tell, stopped) = channel();
        std::thread::Builder::new()
            .name("keeper".to_owned())
            .spawn(move || {
                keep(&store, &stops);
                // Nobody may be waiting any more.
                let _ = tell.send(());
            })
            .inspect_err(|error| warn!(%error, "cannot start a thread: {UNTIL_BOOT}"))
            .ok()?;
        Some(Self { stop, stopped })
    }

    /// Moves what there is, and waits for it, but not for ever.
    pub(super) fn stop(self) {
        let _ = self.stop.send(());
        if self.stopped.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            warn!("the disk does not answer: the next daemon moves what is left in the side store");
        }
    }
}

fn keep(store: &SideStore, stops: &Receiver<()>) {
    let mut failing = false;
    loop {
        let goes_on = stops.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout);
        match store.settle() {
            Ok(0) => {}
            Ok(moved) => {
                debug!(moved, "entries of the side store are on disk");
                if std::mem::take(&mut failing) {
                    info!("the side store can be written again");
                }
            }
            Err(error) if !failing => {
                failing = true;
                error!(%error, "the side store cannot be written to disk: what is new in it is kept in memory, and tried again every second");
            }
            Err(_) => {}
        }
        if !goes_on {
            // It moves so many at a time.
            while matches!(store.settle(), Ok(1..)) {}
            return;
        }
    }
}
