//! Which program is the real runtime.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::syscalls::profile::Runtime;

/// Where PATH does not lead: conmon's and a CI job's may be short.
const USUAL: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

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
    let own = fs::metadata("/proc/self/exe").map(|own| (own.dev(), own.ino()));
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = || env::split_paths(&path).chain(env::split_paths(USUAL));
    let is_runtime = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|file| {
            file.is_file()
                && file.permissions().mode() & 0o111 != 0
                && !own
                    .as_ref()
                    .is_ok_and(|own| *own == (file.dev(), file.ino()))
        })
    };
    names
        .into_iter()
        .flat_map(|name| directories().map(move |directory| directory.join(name)))
        .filter(|path| path.is_absolute())
        .find(is_runtime)
        .ok_or(Error::NoRuntime { names })
}

/// Whether there is a program of this name.
pub(crate) fn is_on_path(name: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_else(|| OsString::from(USUAL));
    env::split_paths(&path).any(|directory| directory.join(name).is_file())
}

/// A runtime that was named by the user: a path, or a name on PATH.
pub(super) fn named(runtime: &Path) -> Result<PathBuf, Error> {
    if runtime.as_os_str().as_encoded_bytes().contains(&b'/') {
        return Ok(runtime.to_owned());
    }
    let path = env::var_os("PATH").unwrap_or_else(|| OsString::from(USUAL));
    env::split_paths(&path)
        .map(|directory| directory.join(runtime))
        .find(|path| path.is_file())
        .ok_or_else(|| {
            Error::at(
                runtime,
                std::io::Error::new(
                    std::io::ErrorKind::NotFound,
                    "there is no such runtime on PATH",
                ),
            )
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
