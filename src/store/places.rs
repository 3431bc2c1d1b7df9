//! The directories of the two parts of the side store.
//!
//! The recent part is in the runtime directory (see `crate::wire::rundir`), or in /dev/shm if the
//! user has no usable one. Both are local and do not survive a boot, which a store without fsync
//! requires. Each lasting part has one of its own there. The lasting part is in
//! `$XDG_STATE_HOME/subuidless` or the directory of `--store`, which must be on a local disk.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::statfs::{self, FsType};
use tracing::{error, warn};

use super::SideStore;
use super::damage::{end_if_damaged, errno_to_tell};
use super::environment::Unusable;
use super::settle::{NOT_LASTING, can_be_read};
use crate::error::Error;
use crate::wire::rundir;

/// File systems shared by several machines, on which LMDB's locks and maps do not work.
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
    /// The reason why there is no lasting part, until it has been logged.
    not_lasting: Option<String>,
}

impl Places {
    /// Creates the directories if necessary. Logs why a part is not available. `store_option` is
    /// the value of `--store`.
    pub(crate) fn prepare(store_option: Option<PathBuf>) -> Self {
        let mut places = Self::prepare_quietly(store_option);
        places.warn();
        places
    }

    /// As [`Places::prepare`], but does not log why there is no lasting part; [`Places::warn`] does
    /// so once it turns out to be needed.
    pub(crate) fn prepare_quietly(store_option: Option<PathBuf>) -> Self {
        let (lasting, not_lasting) = match lasting_directory(store_option) {
            Ok(directory) => (Some(directory), None),
            Err(reason) => (None, Some(reason)),
        };
        let recent = recent_directory(&name_of(lasting.as_deref()));
        Self {
            lasting: lasting.filter(|directory| can_be_read(directory, recent.as_deref())),
            recent,
            not_lasting,
        }
    }

    /// Logs, once, why there is no lasting part.
    pub(crate) fn warn(&mut self) {
        if let Some(reason) = self.not_lasting.take() {
            warn!(reason, "no lasting side store: {UNTIL_BOOT}");
        }
    }

    /// Opens both parts; the lasting one is optional.
    pub(crate) fn open(&self) -> Result<SideStore, Error> {
        open_side_store(self.recent.as_deref(), self.lasting.as_deref())
            .map_err(|_| Error::NoSideStore)
    }
}

/// The name of the recent part that belongs to a lasting part: device and inode number of that.
fn name_of(lasting: Option<&Path>) -> OsString {
    let found = lasting.and_then(|directory| fs::metadata(directory).ok());
    found.map_or_else(
        || "passing".into(),
        |found| format!("{:x}-{:x}", found.dev(), found.ino()).into(),
    )
}

/// Returns the first usable directory for the recent part of that name. Logs the reasons if there
/// is none.
pub(crate) fn recent_directory(name: &OsStr) -> Option<PathBuf> {
    let mut reasons = Vec::new();
    for parent in rundir::recent_stores() {
        let directory = parent.join(name);
        match rundir::own(&parent).and_then(|_| rundir::own(&directory)) {
            Ok(_) => return Some(directory),
            Err(error) => reasons.push(format!("{}: {error}", directory.display())),
        }
    }
    warn!(
        reasons = reasons.join("; "),
        "no place for the side store: setting owners of symlinks, fifos, sockets and devices \
         fails; set XDG_RUNTIME_DIR to a directory of your own"
    );
    None
}

/// The intended directory of the lasting part: `store_option`, or below XDG_STATE_HOME or HOME.
/// Returns `None` if none of them is set.
pub(crate) fn lasting_place(store_option: Option<PathBuf>) -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let state = || match (variable("XDG_STATE_HOME"), variable("HOME")) {
        (Some(state), _) => Some(PathBuf::from(state)),
        (None, Some(home)) => Some(Path::new(&home).join(".local/state")),
        (None, None) => None,
    };
    store_option.or_else(|| Some(state()?.join("subuidless")))
}

/// Creates the lasting part's directory. The error is the reason why there is none.
fn lasting_directory(store_option: Option<PathBuf>) -> Result<PathBuf, String> {
    let directory = lasting_place(store_option).ok_or("neither XDG_STATE_HOME nor HOME is set")?;
    let made = directory
        .parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| rundir::own(&directory))
        .and_then(|_| refuse_shared(&directory));
    made.map_err(|error| format!("{}: {error}", directory.display()))?;
    Ok(directory)
}

pub(super) const UNTIL_BOOT: &str = "owners of symlinks, fifos, sockets and devices are kept until \
                                     the next boot; --store DIR keeps them in a directory on a \
                                     local disk";

/// Opens the side store; without the lasting part if that cannot be opened. Logs failures. An error
/// is the errno for calls that need the store.
pub(crate) fn open_side_store(
    recent: Option<&Path>,
    lasting: Option<&Path>,
) -> Result<SideStore, Errno> {
    // There is no directory, and the daemon has logged the reason.
    let recent = recent.ok_or(Errno::EIO)?;
    let mut store = SideStore::open(recent).map_err(|error| {
        end_if_damaged(&error);
        error!(
            directory = %recent.display(), %error,
            "cannot open the side store: setting owners of symlinks, fifos, sockets and devices \
             fails"
        );
        errno_to_tell(&error)
    })?;
    if let Some(directory) = lasting
        && let Err(error) = store.open_lasting(directory)
    {
        if let Unusable::Database(error) = &error {
            end_if_damaged(error);
        }
        error!(
            directory = %directory.display(), %error,
            "{NOT_LASTING}"
        );
    }
    Ok(store)
}

/// Fails for a directory on a file system that several machines share.
pub(crate) fn refuse_shared(directory: &Path) -> io::Result<()> {
    let found = statfs::statfs(directory)?.filesystem_type();
    match SHARED.iter().find(|(shared, _)| *shared == found) {
        None => Ok(()),
        Some((_, name)) => Err(io::Error::other(format!(
            "it is on {name}, to which several machines could write at the same time"
        ))),
    }
}
