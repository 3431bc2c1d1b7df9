//! Checks the places of owners and of running containers: extended attributes, the side store, the
//! runtime directory.

use std::env;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::Check;
use crate::front::library;
use crate::host::exposed;
use crate::linux::sys;
use crate::store;
use crate::wire::rundir;

/// Checks whether files can carry the attribute: in `directory`, in HOME, and in /dev/shm.
pub(super) fn attributes(directory: &Path) -> Vec<Check> {
    let home = env::var_os("HOME").filter(|home| !home.is_empty());
    let places = [
        Some(directory.to_owned()),
        home.map(PathBuf::from),
        Some(PathBuf::from("/dev/shm")),
    ];
    let mut seen: Vec<PathBuf> = Vec::new();
    for place in places.into_iter().flatten() {
        let place = fs::canonicalize(&place).unwrap_or(place);
        if !seen.contains(&place) {
            seen.push(place);
        }
    }
    seen.iter().map(|place| carries_attributes(place)).collect()
}

fn carries_attributes(directory: &Path) -> Check {
    let name = format!("attributes in {}", directory.display());
    let file = match tempfile::tempfile_in(directory) {
        Ok(file) => file,
        Err(error) => {
            let change = "name a directory that you can write to: `subuidless check DIR`";
            return Check::warn(name, format!("cannot create a file there: {error}"), change);
        }
    };
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap_or_default();
    match sys::setxattr(&path, c"user.subuidless.check", b"1", 0) {
        Ok(()) => Check::ok(name, "files carry their owners"),
        Err(errno) => Check::warn(
            name,
            format!(
                "user.* attributes: {}: owners are kept in the side store, on this machine only",
                errno.desc()
            ),
            match errno {
                Errno::EOPNOTSUPP => {
                    "keep containers on ext4, XFS, btrfs, or tmpfs of Linux 6.6 or newer; NFS \
                     needs version 4.2 on both sides"
                }
                _ => "keep containers in a directory where such attributes can be set",
            },
        ),
    }
}

/// Whether other users of this host can execute set-user-ID files of this one in a tree.
pub(super) fn programs(directory: &Path) -> Option<Check> {
    let exposed = exposed::find(directory)?;
    let name = format!("programs in {}", directory.display());
    Some(Check::warn(name, exposed.reason(), exposed.change()))
}

/// Checks whether the side store has a place on a local disk.
pub(super) fn side_store() -> Check {
    const NAME: &str = "side store";
    const CHANGE: &str = "set `serve --store DIR` or XDG_STATE_HOME to a directory on a disk of \
                          this machine; otherwise the owners of symbolic links, fifos, sockets and \
                          devices are kept only until the next boot";
    let Some(directory) = store::lasting_place(None) else {
        return Check::warn(NAME, "neither XDG_STATE_HOME nor HOME is set", CHANGE);
    };
    let shown = directory.display();
    let Some(existing) = directory.ancestors().find(|ancestor| ancestor.is_dir()) else {
        return Check::warn(NAME, format!("{shown} cannot be created"), CHANGE);
    };
    if let Err(error) = store::refuse_shared(existing) {
        return Check::warn(NAME, format!("{shown}: {error}"), CHANGE);
    }
    match try_store(existing) {
        Ok(()) => Check::ok(NAME, format!("{shown}, on a disk of this machine")),
        Err(error) => Check::warn(NAME, format!("{shown}: {error}"), CHANGE),
    }
}

/// Creates a store in `directory`, and removes it.
fn try_store(directory: &Path) -> io::Result<()> {
    let place = tempfile::Builder::new()
        .prefix(".subuidless-check-")
        .tempdir_in(directory)?;
    store::try_in(place.path()).map_err(io::Error::other)
}

/// Checks the runtime directory.
pub(super) fn runtime_directory() -> Check {
    const NAME: &str = "XDG_RUNTIME_DIR";
    const CHANGE: &str = "log in through PAM (ssh, machinectl shell, loginctl enable-linger), or: \
                          mkdir -m 700 /tmp/run-$USER; export XDG_RUNTIME_DIR=/tmp/run-$USER";
    match rundir::look() {
        Err(error) => Check::fail(NAME, error.to_string(), CHANGE),
        Ok(found) if found.passed_over.is_empty() => {
            let reason = format!("{}, writable by this user alone", found.path.display());
            Check::ok(NAME, reason)
        }
        Ok(found) => Check::warn(
            NAME,
            format!(
                "{}: {} is used instead",
                found.passed_over.join("; "),
                found.path.display()
            ),
            CHANGE,
        ),
    }
}

/// Checks whether dynamic programs can answer calls themselves.
pub(super) fn fast_path() -> Check {
    const NAME: &str = "fast path";
    match library::look() {
        _ if library::is_turned_off() => Check::ok(NAME, "off (SUBUIDLESS_FAST=0)"),
        Ok(()) => Check::ok(
            NAME,
            "on: dynamic programs answer stat and the like themselves",
        ),
        Err(absence) => Check::warn(NAME, format!("off: {absence}"), absence.way_out()),
    }
}
