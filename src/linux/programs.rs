//! Programs of the host, found by name.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

/// Directories searched after PATH, which is often short for unprivileged users, conmon and CI
/// jobs.
pub(crate) const USUAL: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// PATH with the usual directories that it lacks.
pub(crate) fn search_path() -> OsString {
    let Some(path) = env::var_os("PATH").filter(|path| !path.is_empty()) else {
        return USUAL.into();
    };
    let known: Vec<PathBuf> = env::split_paths(&path).collect();
    let missing = env::split_paths(USUAL).filter(|directory| !known.contains(directory));
    // None of them has a colon.
    env::join_paths(known.iter().cloned().chain(missing)).unwrap_or(path)
}

/// Returns every executable file `name` in the directories of PATH, then in the usual ones.
pub(crate) fn all(name: &Path) -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories: Vec<PathBuf> = env::split_paths(&path)
        .chain(env::split_paths(USUAL))
        .collect();
    directories
        .into_iter()
        .map(move |directory| directory.join(name))
        // Empty and relative entries of PATH depend on the working directory.
        .filter(|path| path.is_absolute() && is_program(path))
}

/// Returns the first result of [`all`].
pub(crate) fn find(name: impl AsRef<Path>) -> Option<PathBuf> {
    all(name.as_ref()).next()
}

/// Whether the directory of `program` is in PATH.
pub(crate) fn is_on_path(program: &Path) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|directory| program.parent() == Some(&directory))
}

/// Whether this process may execute a file.
pub(crate) fn is_program(path: &Path) -> bool {
    path.is_file() && access(path, AccessFlags::X_OK).is_ok()
}

/// The user's shell.
pub(crate) fn shell() -> OsString {
    let shell = env::var_os("SHELL").filter(|shell| !shell.is_empty());
    shell.unwrap_or_else(|| "/bin/sh".into())
}

/// The paths that execvp(3) tries for a program.
pub(crate) fn candidates(program: &Path, search_path: Option<&OsStr>) -> Vec<PathBuf> {
    if program.as_os_str().as_bytes().contains(&b'/') {
        return vec![program.to_owned()];
    }
    let directories = search_path.map(std::env::split_paths);
    let directories = directories.into_iter().flatten();
    directories
        .map(|directory| directory.join(program))
        .collect()
}
