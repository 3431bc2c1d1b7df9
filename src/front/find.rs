//! Which program is the real runtime.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::linux::programs;
use crate::syscalls::profile::Runtime;

/// The names to look for, the better one first.
pub(super) fn names(asked: &OsStr) -> [&'static str; 2] {
    match asked.as_encoded_bytes() {
        b"runc" | b"subuidless-runc" => ["runc", "crun"],
        _ => ["crun", "runc"],
    }
}

/// The first of `names` that is a program and not this one, under whatever name this one stands
/// there.
pub(super) fn find(names: [&'static str; 2]) -> Result<PathBuf, Error> {
    let inode = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    let own = inode(Path::new("/proc/self/exe"));
    names
        .into_iter()
        .flat_map(|name| programs::all(Path::new(name)))
        .find(|path| own.is_none() || inode(path) != own)
        .ok_or(Error::NoRuntime { names })
}

/// A runtime that was named by the user: a path, or a name on PATH.
pub(super) fn named(runtime: &Path) -> Result<PathBuf, Error> {
    if runtime.as_os_str().as_encoded_bytes().contains(&b'/') {
        return Ok(runtime.to_owned());
    }
    programs::find(runtime).ok_or_else(|| {
        let reason = "there is no such runtime on PATH";
        Error::at(runtime, io::Error::new(ErrorKind::NotFound, reason))
    })
}

/// What a runtime takes, by its file's name: flags of any kind are an error for runc, and unknown
/// ones may be like it.
pub(crate) fn kind(runtime: &Path) -> Runtime {
    let name = runtime.file_name().unwrap_or_default().to_string_lossy();
    if name.contains("crun") || name.contains("krun") {
        Runtime::Crun
    } else {
        Runtime::Runc
    }
}
