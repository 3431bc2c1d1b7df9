//! Symbolic links: the names under which this program is a runtime front.
//!
//! A link has no room for a mark: the settings file that refers to the links also lists those that
//! this program created.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::file;
use super::{Act, Report};
use crate::error::{Context, Error};

/// A link that this program created.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Made {
    pub(super) path: PathBuf,
    pub(super) target: PathBuf,
    /// The number of directories that were created for it.
    pub(super) directories: usize,
}

/// Whether `path` is the file `binary`, or a link to it.
pub(super) fn leads_to(path: &Path, binary: &Path) -> bool {
    let identity = |path| fs::metadata(path).map(|file| (file.dev(), file.ino()));
    matches!((identity(path), identity(binary)), (Ok(a), Ok(b)) if a == b)
}

impl Made {
    /// Whether the link exists and is unchanged.
    pub(super) fn is_present(&self) -> bool {
        fs::read_link(&self.path).is_ok_and(|target| target == self.target)
    }

    /// Creates the link. Replaces `before` if that is unchanged.
    pub(super) fn make(
        path: &Path,
        target: &Path,
        before: Option<&Self>,
        report: &mut Report,
    ) -> Result<Self, Error> {
        let mut made = Self {
            path: path.to_owned(),
            target: target.to_owned(),
            directories: before.map_or(0, |before| before.directories),
        };
        if made.is_present() {
            report.did(Act::Keep, path);
            return Ok(made);
        }
        let is_replaced = before.is_some_and(Self::is_present);
        if !report.dry_run {
            made.directories += file::make_directories(path)?;
            match is_replaced {
                true => replace(path, target),
                false => symlink(target, path),
            }
            .at(path)?;
        }
        report.did(
            if is_replaced {
                Act::Replace
            } else {
                Act::Write
            },
            path,
        );
        Ok(made)
    }

    pub(super) fn remove(&self, report: &mut Report) -> Result<(), Error> {
        if !self.is_present() {
            // Removed already, or changed since.
            if fs::symlink_metadata(&self.path).is_ok() {
                report.leave_alone(&self.path, "it was changed since subuidless created it");
            }
            return Ok(());
        }
        if !report.dry_run {
            fs::remove_file(&self.path).at(&self.path)?;
            file::remove_directories(&self.path, self.directories);
        }
        report.did(Act::Remove, &self.path);
        Ok(())
    }
}

/// Replaces a link atomically.
fn replace(path: &Path, target: &Path) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let temporary = path.with_file_name(name);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(target, &temporary)?;
    fs::rename(&temporary, path)
}
