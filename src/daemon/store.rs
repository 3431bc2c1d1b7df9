//! Where the side store of owners lies (see `crate::owner`).
//!
//! `$XDG_RUNTIME_DIR/subuidless`, or `/dev/shm/subuidless-UID` for users without a runtime directory: both are on this node
//! and gone after a boot, as a store that runs without fsync has to be. Home directories may be neither (NFS).

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::Uid;
use tracing::warn;

/// The directory, made if it is missing; `None`, with a log line, when there can be none.
pub(super) fn directory() -> Option<PathBuf> {
    let uid = Uid::effective();
    let directory = match std::env::var_os("XDG_RUNTIME_DIR").filter(|value| !value.is_empty()) {
        Some(runtime) => Path::new(&runtime).join("subuidless"),
        None => PathBuf::from(format!("/dev/shm/subuidless-{uid}")),
    };
    prepare(&directory, uid)
        .inspect_err(|error| {
            warn!(
                directory = %directory.display(), %error,
                "no place for the side store: owners of symlinks, fifos, sockets and devices are not kept; set \
                 XDG_RUNTIME_DIR to a directory of your own"
            );
        })
        .ok()
        .map(|()| directory)
}

fn prepare(directory: &Path, uid: Uid) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // /dev/shm is everybody's: somebody else may have been there first.
    let found = fs::symlink_metadata(directory)?;
    if !found.is_dir() || found.uid() != uid.as_raw() || found.mode() & 0o077 != 0 {
        return Err(io::Error::other(
            "exists, but is not a directory of mode 0700 of this user",
        ));
    }
    Ok(())
}
