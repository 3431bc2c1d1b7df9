//! What tests of `subuidless owners` do outside of containers, and what a container sees of it.

use std::path::Path;

use super::bundle::Bundle;
use super::daemon::Daemon;
use super::place::Place;
use super::run::{Ran, run};

/// What all formats have of them.
pub(crate) const LISTING: &str =
    "find . | LC_ALL=C sort | while read -r f; do stat -c '%n %F %u:%g %a %t:%T' \"$f\"; done";

/// `subuidless owners` by the user, in her home.
#[track_caller]
pub(crate) fn owners<S: AsRef<std::ffi::OsStr>>(
    place: &Place,
    arguments: impl IntoIterator<Item = S>,
) -> Ran {
    let mut command = place.subuidless(["owners"]);
    run(command.args(arguments))
}

/// A shell script by the user, in her home.
#[track_caller]
pub(crate) fn sh(place: &Place, script: &str) -> Ran {
    let mut command = place.as_user("bash");
    run(command.args(["-euc", script]).env(
        "PATH",
        format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", place.path("").display()),
    ))
}

/// Runs `script` in a container of busybox that has `directory` as /tree.
#[track_caller]
pub(crate) fn inside(place: &Place, daemon: &Daemon, directory: &Path, script: &str) -> String {
    Bundle::new(place, daemon)
        .with_mount(directory, "/tree", &["bind"])
        .sh(&format!("cd /tree\n{script}"))
}
