//! Output files that are not lost when writing them fails.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::error::{Context, Error};

/// A file that is replaced once everything is written: it may hold the only copy of the owners.
pub(super) struct Replaced {
    path: PathBuf,
    /// `None` if the output is not a regular file: then it is written directly.
    new: Option<NamedTempFile>,
}

impl Replaced {
    pub(super) fn new(path: &Path) -> Result<Self, Error> {
        let path = std::path::absolute(path).at(path)?;
        let path = path.canonicalize().unwrap_or(path);
        let directory = path.parent().unwrap_or(Path::new("/"));
        let is_plain = std::fs::metadata(&path).map_or(true, |found| found.is_file());
        let new = is_plain.then(|| {
            // The mode that open(2) would give it: with the umask.
            let mode = std::fs::Permissions::from_mode(0o666);
            tempfile::Builder::new()
                .permissions(mode)
                .tempfile_in(directory)
        });
        let new = new.transpose().at(&path)?;
        Ok(Self { path, new })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn writer(&self) -> Result<File, Error> {
        let file = match &self.new {
            Some(new) => new.as_file().try_clone(),
            None => File::create(&self.path),
        };
        file.at(&self.path)
    }

    pub(super) fn done(self) -> Result<(), Error> {
        let path = self.path;
        match self.new.map(|new| new.persist(&path)) {
            Some(Err(error)) => Err(Error::at(path, error.error)),
            _ => Ok(()),
        }
    }
}
