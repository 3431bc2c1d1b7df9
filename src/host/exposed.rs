//! Set-user-ID programs in root file systems. What is root's in an image is this user's to the
//! kernel, so whoever can execute such a program there becomes this user.

use std::fs::{self, File, Metadata};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

use crate::wire::rundir;

/// A program that other users of this host can execute.
#[derive(Debug)]
pub(crate) struct Exposed {
    program: PathBuf,
    directory: PathBuf,
}

impl Exposed {
    pub(crate) fn reason(&self) -> String {
        let program = self.program.display();
        format!("other users of this host can execute {program}, which then runs as you")
    }

    pub(crate) fn change(&self) -> String {
        let directory = self.directory.display();
        format!("chmod 700 {directory}, or a directory above it")
    }
}

/// Looks in the tree `directory`, or that of a bundle.
pub(crate) fn find(directory: &Path) -> Option<Exposed> {
    find_below(reachable(directory)?)
}

/// Of a directory that others can reach.
fn find_below(directory: PathBuf) -> Option<Exposed> {
    let roots = [directory.clone(), directory.join("rootfs")];
    let program = roots.iter().find_map(|root| program(root))?;
    Some(Exposed { program, directory })
}

/// As [`find`], but tells of each directory only once until the user logs out.
pub(crate) fn find_new(directory: &Path) -> Option<Exposed> {
    let directory = reachable(directory)?;
    let found = fs::metadata(&directory).ok()?;
    let mark = format!("{}-{}", found.dev(), found.ino());
    let mark = rundir::room_for("exposed").ok()?.join(mark);
    if mark.exists() {
        return None;
    }
    let exposed = find_below(directory)?;
    // If two find it at once, one of them tells.
    File::create_new(mark).ok().map(|_| exposed)
}

/// The path without links, if others can reach what is in the directory.
fn reachable(directory: &Path) -> Option<PathBuf> {
    let directory = fs::canonicalize(directory).ok()?;
    directory.ancestors().all(is_open).then_some(directory)
}

fn is_open(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o001 != 0)
}

fn program(root: &Path) -> Option<PathBuf> {
    const PLACES: [&str; 4] = ["bin", "sbin", "usr/bin", "usr/sbin"];
    let entries = PLACES
        .map(|place| root.join(place))
        .into_iter()
        // Links lead to the others.
        .filter(|place| !place.is_symlink())
        .flat_map(|place| fs::read_dir(place).into_iter().flatten().flatten());
    let programs = entries
        .filter(|entry| entry.metadata().is_ok_and(|found| is_set_user_id(&found)))
        .filter_map(|entry| fs::canonicalize(entry.path()).ok());
    programs
        .into_iter()
        .find(|path| path.ancestors().all(is_open))
}

fn is_set_user_id(found: &Metadata) -> bool {
    let is_own = found.uid() == Uid::effective().as_raw();
    found.is_file() && is_own && found.mode() & 0o4000 != 0
}
