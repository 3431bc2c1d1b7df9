//! Finds the real runtime.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::linux::programs;
use crate::syscalls::profile::Runtime;

/// The names to search for, in order of preference.
pub(super) fn names(asked: &OsStr) -> [&'static str; 2] {
    match asked.as_encoded_bytes() {
        b"runc" | b"subuidless-runc" => ["runc", "crun"],
        _ => ["crun", "runc"],
    }
}

/// The first executable file with one of the `names` that is not this program.
pub(super) fn find(names: [&'static str; 2]) -> Result<PathBuf, Error> {
    let inode = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    let own = inode(Path::new("/proc/self/exe"));
    names
        .into_iter()
        .flat_map(|name| programs::all(Path::new(name)))
        .find(|path| own.is_none() || inode(path) != own)
        .ok_or(Error::NoRuntime { names })
}

/// The path of a runtime given by the user: a path, or a name to search for on PATH.
pub(super) fn named(runtime: &Path) -> Result<PathBuf, Error> {
    if runtime.as_os_str().as_encoded_bytes().contains(&b'/') {
        return Ok(runtime.to_owned());
    }
    programs::find(runtime).ok_or_else(|| {
        let reason = "there is no such runtime on PATH";
        Error::at(runtime, io::Error::new(ErrorKind::NotFound, reason))
    })
}

/// The kind of a runtime, by its file name. Unknown runtimes count as runc, which rejects all
/// seccomp flags.
pub(crate) fn kind(runtime: &Path) -> Runtime {
    let name = runtime.file_name().unwrap_or_default().to_string_lossy();
    if name.contains("crun") || name.contains("krun") {
        Runtime::Crun
    } else {
        Runtime::Runc
    }
}
