//! Mount points that a runtime makes in a root file system, because they are missing there. They
//! are removed after the container, unless another one of the same root file system runs.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{SFlag, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// Which of the mount points `destinations`, with the directories above them, are missing in
/// `rootfs`, or are there only because of other containers (`borrowed`); the outer ones first.
pub(super) fn missing<'a>(
    rootfs: &Path,
    destinations: impl Iterator<Item = &'a str>,
    borrowed: &[PathBuf],
) -> Vec<PathBuf> {
    let Ok(root) = File::open(rootfs) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = Vec::new();
    for destination in destinations {
        let below = Path::new(destination.trim_start_matches('/'));
        let mut above: Vec<&Path> = below.ancestors().collect();
        above.retain(|path| !path.as_os_str().is_empty());
        for point in above.into_iter().rev() {
            let is_missing = matches!(inside(&root, point), Err(Errno::ENOENT));
            let is_new = is_missing || borrowed.iter().any(|it| it == point);
            if is_new && !found.iter().any(|it| it == point) {
                found.push(point.to_owned());
            }
        }
    }
    found
}

/// Removes those that are still empty, but for `kept`.
pub(super) fn remove(rootfs: &Path, points: &[PathBuf], kept: &[PathBuf]) {
    let Ok(root) = File::open(rootfs) else {
        return;
    };
    let points = points.iter().rev();
    for point in points.filter(|point| !kept.contains(point)) {
        // What cannot be removed stays, as an empty file or directory.
        let _ = remove_one(&root, point);
    }
}

fn remove_one(root: &File, point: &Path) -> nix::Result<()> {
    let parent = point.parent().filter(|it| !it.as_os_str().is_empty());
    let parent = inside(root, parent.unwrap_or(Path::new(".")))?;
    let name = point.file_name().ok_or(Errno::EINVAL)?;
    let stat = fstatat(&parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
    match kind {
        SFlag::S_IFDIR => unlinkat(&parent, name, UnlinkatFlags::RemoveDir),
        SFlag::S_IFREG if stat.st_size == 0 => unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir),
        _ => Err(Errno::EEXIST),
    }
}

/// A file of the root file system, out of which no link leads.
fn inside(root: &File, path: &Path) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(root, path, how)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_was_missing_is_removed_and_nothing_outside_or_of_use() {
        let directory = tempfile::tempdir().unwrap();
        let (rootfs, outside) = (directory.path().join("r"), directory.path().join("out"));
        fs::create_dir_all(rootfs.join("etc")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("f"), "").unwrap();
        fs::write(rootfs.join("etc/there"), "").unwrap();
        let destinations = ["/etc/hosts", "/etc/there", "/a/b/c", "/etc/used", "/way/f"];
        let found = missing(&rootfs, destinations.into_iter(), &[]);
        let names = ["etc/hosts", "a", "a/b", "a/b/c", "etc/used", "way", "way/f"];
        assert_eq!(found, names.map(PathBuf::from));
        fs::create_dir_all(rootfs.join("a/b/c")).unwrap();
        fs::write(rootfs.join("etc/hosts"), "").unwrap();
        fs::write(rootfs.join("etc/used"), "x").unwrap();
        symlink(&outside, rootfs.join("way")).unwrap();
        // Another container borrows it.
        let hosts = PathBuf::from("etc/hosts");
        let other = missing(
            &rootfs,
            ["/etc/hosts"].into_iter(),
            std::slice::from_ref(&hosts),
        );
        assert_eq!(other, [hosts]);
        remove(&rootfs, &found, &other);
        let is_there = |name: &str| fs::symlink_metadata(rootfs.join(name)).is_ok();
        assert!(is_there("etc/hosts") && is_there("etc/there") && is_there("etc/used"));
        assert!(!is_there("a") && is_there("way") && outside.join("f").exists());
        remove(&rootfs, &other, &[]);
        assert!(!is_there("etc/hosts"));
    }
}
