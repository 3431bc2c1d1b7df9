//! Checks beforehand whether a container has the program that it is to run, so that `run` exits
//! with 127 (not found) or 126 (not executable) as it does without a container. The runtime's own
//! exit code for this could be mistaken for the program's.
//!
//! Paths below mounts other than bind mounts, or that cannot be read from here, are left to the
//! runtime.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::Error;
use crate::linux::programs::candidates;

/// A container's root file system, seen from the host.
#[derive(Debug)]
pub(super) struct Root {
    directory: PathBuf,
    /// Mounts that do not exist yet, in the order in which they will be made.
    mounts: Vec<Mount>,
}

#[derive(Debug)]
struct Mount {
    /// The container's path, without symbolic links.
    at: PathBuf,
    /// Of a bind mount, the host's path.
    source: Option<PathBuf>,
}

/// Why a program was not found, or was not looked for.
enum Obstacle {
    Unknown,
    Missing,
    Forbidden,
}

/// The program of `process`, a path of the container without symbolic links; `None` if it is not
/// found.
pub(super) fn resolved(rootfs: &Path, process: &Map<String, Value>) -> Option<PathBuf> {
    let root = Root::new(rootfs.to_owned());
    let mut candidates = candidates_of(process).into_iter();
    candidates.find_map(|candidate| root.walk(&candidate).ok())
}

/// Returns an error if the program of `process` does not exist or is not executable.
pub(super) fn require(root: &Root, process: &Map<String, Value>) -> Result<(), Error> {
    let Some(program) = program_of(process) else {
        return Ok(());
    };
    let candidates = candidates_of(process);
    let mut kind = ErrorKind::NotFound;
    for candidate in &candidates {
        match root.program(candidate) {
            Ok(()) | Err(Obstacle::Unknown) => return Ok(()),
            Err(Obstacle::Missing) => {}
            Err(Obstacle::Forbidden) => kind = ErrorKind::PermissionDenied,
        }
    }
    let reason = match kind {
        ErrorKind::NotFound => "no such program in the container",
        _ => "it cannot be executed in the container",
    };
    let source = io::Error::new(kind, reason);
    match candidates.is_empty() {
        true => Ok(()),
        false => Err(Error::Execute { program, source }),
    }
}

fn program_of(process: &Map<String, Value>) -> Option<PathBuf> {
    let words = process.get("args")?;
    words.get(0)?.as_str().map(PathBuf::from)
}

/// The paths at which the program may be.
fn candidates_of(process: &Map<String, Value>) -> Vec<PathBuf> {
    let directory = process.get("cwd").and_then(Value::as_str).unwrap_or("/");
    let search_path = search_path(process);
    let program = program_of(process).unwrap_or_default();
    candidates(&program, search_path.map(OsStr::new))
        .iter()
        .map(|candidate| Path::new(directory).join(candidate))
        .collect()
}

fn search_path(process: &Map<String, Value>) -> Option<&str> {
    let environment = process.get("env").and_then(Value::as_array);
    environment
        .into_iter()
        .flatten()
        .find_map(|variable| variable.as_str()?.strip_prefix("PATH="))
}

impl Root {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            mounts: Vec::new(),
        }
    }

    /// Adds a mount at a path of the container; `source`: of a bind mount.
    pub(super) fn mount(&mut self, destination: &Path, source: Option<PathBuf>) {
        let parent = destination.parent().unwrap_or(destination);
        let at = match (self.walk(parent), destination.file_name()) {
            (Ok(parent), Some(name)) => parent.join(name),
            _ => destination.to_owned(),
        };
        self.mounts.push(Mount { at, source });
    }

    fn program(&self, path: &Path) -> Result<(), Obstacle> {
        let (file, found) = self.resolve(path)?;
        if !found.is_file() || found.permissions().mode() & 0o111 == 0 {
            return Err(Obstacle::Forbidden);
        }
        // execve(2) fails like this for a script as well. An unreadable program can be executed.
        let mut bytes = [0; 256];
        let length = File::open(file).and_then(|mut file| file.read(&mut bytes));
        let line = bytes[..length.unwrap_or(0)].split(|byte| *byte == b'\n');
        let line = line.map(String::from_utf8_lossy).next().unwrap_or_default();
        match line.strip_prefix("#!").map(str::split_ascii_whitespace) {
            Some(mut words) => match words.next() {
                Some(interpreter) => self.resolve(Path::new(interpreter)).map(drop),
                None => Ok(()),
            },
            None => Ok(()),
        }
    }

    /// Resolves a path of the container; returns the host's path and the file's metadata.
    fn resolve(&self, path: &Path) -> Result<(PathBuf, Metadata), Obstacle> {
        let inside = self.walk(path)?;
        Ok((self.outside(&inside)?, self.look(&inside)?))
    }

    /// Resolves the symbolic links in a path of the container.
    fn walk(&self, path: &Path) -> Result<PathBuf, Obstacle> {
        /// The kernel's limit (ELOOP).
        const MOST_LINKS: u32 = 40;
        let mut left = parts(path);
        let mut inside = PathBuf::from("/");
        let mut links = 0;
        while let Some(part) = left.pop_front() {
            if part == ".." {
                inside.pop();
                continue;
            }
            inside.push(&part);
            if !self.look(&inside)?.is_symlink() {
                continue;
            }
            links += 1;
            let target = fs::read_link(self.outside(&inside)?).map_err(|_| Obstacle::Unknown)?;
            if links > MOST_LINKS {
                return Err(Obstacle::Unknown);
            }
            match target.is_absolute() {
                true => inside = PathBuf::from("/"),
                false => drop(inside.pop()),
            }
            for part in parts(&target).into_iter().rev() {
                left.push_front(part);
            }
        }
        Ok(inside)
    }

    fn look(&self, inside: &Path) -> Result<Metadata, Obstacle> {
        fs::symlink_metadata(self.outside(inside)?).map_err(|error| match error.kind() {
            ErrorKind::NotFound => Obstacle::Missing,
            ErrorKind::NotADirectory => Obstacle::Forbidden,
            _ => Obstacle::Unknown,
        })
    }

    /// The host's path of a resolved one.
    fn outside(&self, inside: &Path) -> Result<PathBuf, Obstacle> {
        let mut mounts = self.mounts.iter().rev();
        let covered = mounts.find_map(|mount| Some((mount, inside.strip_prefix(&mount.at).ok()?)));
        match covered {
            Some((Mount { source, .. }, rest)) => match source {
                // Without a slash at the end, which a file must not have.
                Some(source) if rest.as_os_str().is_empty() => Ok(source.clone()),
                Some(source) => Ok(source.join(rest)),
                None => Err(Obstacle::Unknown),
            },
            None => {
                let below = inside.strip_prefix("/").unwrap_or(inside);
                Ok(self.directory.join(below))
            }
        }
    }
}

fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(part) => Some(part.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}
