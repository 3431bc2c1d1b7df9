//! Programs of the host, found by name.

use std::env;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

/// Searched after PATH: that of an unprivileged user, of conmon and of CI jobs is often short.
const USUAL: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Every executable file named `name` in the directories of PATH and then in the usual ones.
pub(crate) fn all(name: &Path) -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories: Vec<PathBuf> = env::split_paths(&path)
        .chain(env::split_paths(USUAL))
        .collect();
    directories
        .into_iter()
        .map(move |directory| directory.join(name))
        // What an empty or relative entry of PATH leads to depends on the working directory.
        .filter(|path| path.is_absolute() && is_program(path))
}

pub(crate) fn find(name: impl AsRef<Path>) -> Option<PathBuf> {
    all(name.as_ref()).next()
}

/// Whether `program` lies in a directory that PATH names.
pub(crate) fn is_on_path(program: &Path) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|directory| program.parent() == Some(&directory))
}

fn is_program(path: &Path) -> bool {
    path.is_file() && access(path, AccessFlags::X_OK).is_ok()
}
