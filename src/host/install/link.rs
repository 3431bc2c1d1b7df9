//! Symbolic links: the names under which this program is a runtime front.
//!
//! A link has no room for a mark. Those that were made are noted down in the file that names them.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::file;
use super::{Act, Report};
use crate::error::{Context, Error};

/// A link that was made here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Made {
    pub(super) path: PathBuf,
    pub(super) target: PathBuf,
    /// How many directories were made for it.
    pub(super) directories: usize,
}

/// Whether `path` leads to the program `binary`.
pub(super) fn leads_to(path: &Path, binary: &Path) -> bool {
    let identity = |path| fs::metadata(path).map(|file| (file.dev(), file.ino()));
    matches!((identity(path), identity(binary)), (Ok(a), Ok(b)) if a == b)
}

impl Made {
    /// Whether it is there as it was made.
    pub(super) fn is_present(&self) -> bool {
        fs::read_link(&self.path).is_ok_and(|target| target == self.target)
    }

    /// Makes the link, in the place of an older one of ours.
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
            // Gone already, or somebody else's by now.
            if fs::symlink_metadata(&self.path).is_ok() {
                report.leave_alone(
                    &self.path,
                    "it no longer leads where subuidless had it lead",
                );
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

/// In one step, as a file is replaced.
fn replace(path: &Path, target: &Path) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let beside = path.with_file_name(name);
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(target, &beside)?;
    fs::rename(&beside, path)
}
