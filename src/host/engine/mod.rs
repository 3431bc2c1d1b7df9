//! podman and buildah, which `subuidless podman` and `subuidless buildah` run, and their storage.

pub(crate) mod storage;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::linux::programs;

/// The names of the engines.
pub(crate) const NAMES: [&str; 2] = ["podman", "buildah"];

/// The first program `name` on PATH that is not this one, nor another copy of it, under that name.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let own = inode(Path::new("/proc/self/exe"));
    programs::all(Path::new(name)).find(|path| {
        let is_own = own.is_some() && inode(path) == own;
        !is_own && !is_copy(path)
    })
}

/// The variable that says how often this program has called an engine already, on the way here.
pub(crate) const CALLS: &str = "SUBUIDLESS_CALLS";

/// More than any shell within a shell of podman needs.
const MOST_CALLS: u32 = 20;

/// The number for the next call. `None`: what has the engine's name calls this program again: a
/// script, or a copy.
pub(crate) fn count_call() -> Option<u32> {
    let calls = std::env::var(CALLS).ok();
    let calls = calls.and_then(|calls| calls.parse().ok()).unwrap_or(0);
    (calls < MOST_CALLS).then_some(calls + 1)
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    let file = fs::metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}

/// Two copies that take each other for podman would execute each other for ever.
fn is_copy(path: &Path) -> bool {
    fs::canonicalize(path).is_ok_and(|file| file.file_name() == Some("subuidless".as_ref()))
}
