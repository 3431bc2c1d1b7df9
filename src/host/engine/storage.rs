//! Which storage driver podman and buildah use, see containers-storage.conf(5).
//!
//! Without a setting podman may choose vfs, which copies all files of an image for each layer, and
//! keeps to its choice. This module sees what was chosen, and whether overlay can be chosen.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::linux::{sys, userns};

/// Overrides settings, and what podman would choose.
pub(crate) const VARIABLE: &str = "STORAGE_DRIVER";
pub(crate) const OVERLAY: &str = "overlay";
const VFS: &str = "vfs";

/// Names another file in place of the usual ones.
const SETTINGS_VARIABLE: &str = "CONTAINERS_STORAGE_CONF";

/// Whether overlay has to be asked for, and works: nobody has configured a driver, and no other one
/// is in use.
pub(crate) fn wants_overlay() -> bool {
    if is_set(VARIABLE) || settings().iter().any(|file| file.exists()) {
        return false;
    }
    let Some(place) = place() else {
        return false;
    };
    match chosen(&place) {
        Some(driver) => driver == OVERLAY,
        None => {
            let existing = place.ancestors().find(|directory| directory.is_dir());
            existing.is_some_and(mounts_overlay)
        }
    }
}

/// The images, containers and volumes of this user, if they are kept by the driver vfs.
pub(crate) fn of_vfs() -> Option<PathBuf> {
    place().filter(|place| chosen(place) == Some(VFS))
}

/// The files that may configure a driver.
fn settings() -> Vec<PathBuf> {
    if let Some(file) = path(SETTINGS_VARIABLE) {
        return vec![file];
    }
    let own = path("XDG_CONFIG_HOME").or_else(|| Some(path("HOME")?.join(".config")));
    let directories = own.into_iter().chain(["/etc".into(), "/usr/share".into()]);
    let file = |directory: PathBuf| directory.join("containers/storage.conf");
    directories.map(file).collect()
}

/// The directory of all images, where no file names another one.
fn place() -> Option<PathBuf> {
    let data = path("XDG_DATA_HOME").or_else(|| Some(path("HOME")?.join(".local/share")))?;
    Some(data.join("containers/storage"))
}

fn is_set(variable: &str) -> bool {
    env::var_os(variable).is_some_and(|value| !value.is_empty())
}

fn path(variable: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env::var_os(variable)?);
    path.is_absolute().then_some(path)
}

/// The driver that has been used in this directory.
fn chosen(place: &Path) -> Option<&'static str> {
    [OVERLAY, VFS].into_iter().find(|driver| {
        let images = place.join(format!("{driver}-images"));
        images.is_dir()
    })
}

/// Whether root of a user namespace can mount an overlay in `directory`: not on NFS, for instance.
fn mounts_overlay(directory: &Path) -> bool {
    let tried = sys::in_fork(|| {
        let is_entered = userns::enter_with_mounts().is_ok();
        i32::from(!(is_entered && try_overlay(directory).is_ok()))
    });
    tried.is_ok_and(|code| code == 0)
}

fn try_overlay(directory: &Path) -> std::io::Result<()> {
    let place = tempfile::Builder::new()
        .prefix(".subuidless-")
        .tempdir_in(directory)?;
    env::set_current_dir(place.path())?;
    for name in ["lower", "upper", "work", "merged"] {
        fs::create_dir(name)?;
    }
    mount(
        Some("overlay"),
        "merged",
        Some("overlay"),
        MsFlags::empty(),
        Some("lowerdir=lower,upperdir=upper,workdir=work,userxattr"),
    )?;
    let written = fs::write("merged/file", "");
    umount2("merged", MntFlags::empty())?;
    written?;
    env::set_current_dir("/")?;
    place.close()
}
