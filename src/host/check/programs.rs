//! Checks the runtimes, and the programs that call them.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::Check;
use super::kernel::parse;
use super::proof::output;
use crate::host::engine::{self, storage};
use crate::linux::programs;

const PATIENCE: Duration = Duration::from_secs(10);

/// A program's path, and the output of its --version.
#[derive(Debug)]
struct Program {
    path: PathBuf,
    on_path: bool,
    said: String,
}

impl Program {
    fn find(name: &str) -> Option<Self> {
        programs::find(name).map(Self::at)
    }

    fn at(path: PathBuf) -> Self {
        let said = version(&path).map_or_else(
            |error| error.to_string(),
            |text| String::from_utf8_lossy(&text).into_owned(),
        );
        Self {
            on_path: programs::is_on_path(&path),
            path,
            said,
        }
    }

    /// The word behind `version` in the output.
    fn version(&self) -> Option<&str> {
        let mut words = self.said.split_ascii_whitespace();
        words.find(|word| *word == "version")?;
        words.next()
    }

    fn is_at_least(&self, least: (u32, u32)) -> bool {
        self.version().and_then(parse) >= Some(least)
    }

    /// The version and path, for messages.
    fn shown(&self) -> String {
        let version = self.version().unwrap_or("unknown version");
        let place = if self.on_path {
            ""
        } else {
            ", which is not on PATH"
        };
        format!("{version}, {}{place}", self.path.display())
    }
}

/// The output of --version. crun and podman create directories even then, so HOME and
/// XDG_RUNTIME_DIR are temporary.
fn version(program: &Path) -> io::Result<Vec<u8>> {
    let place = tempfile::tempdir()?;
    let mut command = Command::new(program);
    command
        .arg("--version")
        .env("HOME", place.path())
        .env("XDG_RUNTIME_DIR", place.path());
    output(&mut command, PATIENCE).map(|(_, text)| text)
}

/// Checks all programs.
pub(super) fn all() -> Vec<Check> {
    let mut runtimes = [crun(), runc()];
    let usable = |check: &Check| check.result != super::Verdict::Fail;
    // One runtime is enough.
    if runtimes.iter().any(usable) {
        for check in &mut runtimes {
            if !usable(check) {
                check.result = super::Verdict::Warn;
            }
        }
    }
    let [crun, runc] = runtimes;
    vec![crun, runc, podman(), caller("buildah")]
}

fn crun() -> Check {
    const NAME: &str = "crun";
    const CHANGE: &str = "install crun 0.19 or newer, built with libseccomp";
    match Program::find(NAME) {
        None => Check::fail(NAME, "missing: it creates the containers", CHANGE),
        Some(found) if !found.said.contains("+SECCOMP") => Check::fail(
            NAME,
            format!("{}, built without seccomp", found.shown()),
            CHANGE,
        ),
        Some(found) if !found.is_at_least((0, 19)) => Check::warn(
            NAME,
            format!("{}: it does not send container ids", found.shown()),
            CHANGE,
        ),
        Some(found) => Check::ok(NAME, found.shown()),
    }
}

fn runc() -> Check {
    const NAME: &str = "runc";
    const CHANGE: &str = "install runc 1.1 or newer, built with libseccomp, or use crun";
    match Program::find(NAME) {
        None => Check::fail(
            NAME,
            "missing: it creates the containers where there is no crun",
            CHANGE,
        ),
        Some(found) if !found.said.contains("libseccomp:") => Check::fail(
            NAME,
            format!("{}, built without seccomp", found.shown()),
            CHANGE,
        ),
        Some(found) if !found.is_at_least((1, 1)) => Check::fail(
            NAME,
            format!(
                "{}: it does not support seccomp notification",
                found.shown()
            ),
            CHANGE,
        ),
        Some(found) => Check::ok(NAME, found.shown()),
    }
}

/// podman, and the storage driver that it has chosen.
fn podman() -> Check {
    let mut check = caller("podman");
    if let (Some(place), Some(_)) = (storage::of_vfs(), engine::find("podman")) {
        check.result = super::Verdict::Warn;
        check.reason += &format!(
            "; its storage driver is vfs, which copies all files of an image for each layer ({})",
            place.display()
        );
        check.change = Some(
            "`subuidless podman system reset` deletes all images, containers and volumes; then \
             `subuidless podman` chooses overlay, unless a storage.conf says vfs"
                .to_owned(),
        );
    }
    check
}

pub(super) fn has_podman() -> bool {
    engine::find("podman").is_some()
}

pub(super) fn has_docker() -> bool {
    programs::find("dockerd").is_some()
}

/// Reports a program that is optional, and works if its runtime does.
fn caller(name: &str) -> Check {
    // Not our link of this name, which would start processes that stay.
    match engine::find(name).map(Program::at) {
        None => Check::ok(name, "not installed, and not needed"),
        Some(found) => Check::ok(name, found.shown()),
    }
}
