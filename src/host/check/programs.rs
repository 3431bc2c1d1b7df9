//! Checks the runtimes, and the programs that call them.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use super::proof::output;
use super::{Check, Verdict};
use crate::host::engine::{self, storage};
use crate::linux::{kernel, programs, tun};

const PATIENCE: Duration = Duration::from_secs(10);

/// A program's path, and the output of its --version, or why there is none.
#[derive(Debug)]
struct Program {
    path: PathBuf,
    on_path: bool,
    said: Result<String, String>,
}

impl Program {
    fn find(name: &str) -> Option<Self> {
        programs::find(name).map(Self::at)
    }

    fn at(path: PathBuf) -> Self {
        let said = match version(&path) {
            Ok((status, text)) if status.success() => {
                Ok(String::from_utf8_lossy(&text).into_owned())
            }
            Ok((status, _)) => Err(status.to_string()),
            Err(error) => Err(error.to_string()),
        };
        Self {
            on_path: programs::is_on_path(&path),
            path,
            said,
        }
    }

    /// The word behind `version` in the output.
    fn version(&self) -> Option<&str> {
        let mut words = self.said.as_ref().ok()?.split_ascii_whitespace();
        words.find(|word| *word == "version")?;
        words.next()
    }

    fn is_at_least(&self, least: (u32, u32)) -> bool {
        self.version().and_then(kernel::version) >= Some(least)
    }

    fn says(&self, word: &str) -> bool {
        self.said.as_ref().is_ok_and(|said| said.contains(word))
    }

    /// The failure of a program that cannot be executed here.
    fn failure(&self, name: &'static str) -> Option<Check> {
        let reason = self.said.as_ref().err()?;
        Some(Check::fail(
            name,
            format!("`{} --version` fails: {reason}", self.path.display()),
            "run that: what forbids it, such as a limit or a seccomp filter, forbids containers",
        ))
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

/// What --version does and prints. crun and podman create directories even then, so HOME and
/// XDG_RUNTIME_DIR are temporary, where there can be a temporary directory.
fn version(program: &Path) -> io::Result<(ExitStatus, Vec<u8>)> {
    let place = tempfile::tempdir();
    let mut command = Command::new(program);
    command.arg("--version").stderr(Stdio::null());
    if let Ok(place) = &place {
        for name in ["HOME", "XDG_RUNTIME_DIR"] {
            command.env(name, place.path());
        }
    }
    output(&mut command, PATIENCE)
}

/// Checks all programs.
pub(super) fn all() -> Vec<Check> {
    let mut checks = runtimes();
    checks.extend([network(), podman(), caller("buildah")]);
    checks
}

/// The names of the checks of runtimes, of which one is enough.
pub(super) const RUNTIMES: [&str; 2] = ["crun", "runc"];

fn runtimes() -> Vec<Check> {
    let [crun, runc] = RUNTIMES;
    let checked = |name, check: fn(Program) -> Check| {
        let found = Program::find(name);
        found.map(|found| found.failure(name).unwrap_or_else(|| check(found)))
    };
    let found = [
        (crun, checked(crun, self::crun)),
        (runc, checked(runc, self::runc)),
    ];
    if found.iter().all(|(_, check)| check.is_none()) {
        return vec![Check::fail(
            crun,
            "missing, and so is runc: one of them creates the containers",
            "install crun 0.19 or newer, or runc 1.1 or newer",
        )];
    }
    let is_usable = |check: &Check| !check.has_failed();
    let one_is_usable = found
        .iter()
        .any(|(_, check)| check.as_ref().is_some_and(is_usable));
    let told = found.into_iter().map(|(name, check)| match check {
        None => Check::ok(name, "not installed: the other runtime is enough"),
        Some(check) if one_is_usable && !is_usable(&check) => Check {
            result: Verdict::Warn,
            ..check
        },
        Some(check) => check,
    });
    told.collect()
}

fn crun(found: Program) -> Check {
    const NAME: &str = RUNTIMES[0];
    const CHANGE: &str = "install crun 0.19 or newer, built with libseccomp";
    let shown = found.shown();
    if !found.says("+SECCOMP") {
        return Check::fail(NAME, format!("{shown}, built without seccomp"), CHANGE);
    }
    match found.is_at_least((0, 19)) {
        true => Check::ok(NAME, shown),
        false => Check::warn(
            NAME,
            format!("{shown}: it does not send container ids"),
            CHANGE,
        ),
    }
}

fn runc(found: Program) -> Check {
    const NAME: &str = RUNTIMES[1];
    const CHANGE: &str = "install runc 1.1 or newer, built with libseccomp, or use crun";
    let shown = found.shown();
    if !found.says("libseccomp:") {
        return Check::fail(NAME, format!("{shown}, built without seccomp"), CHANGE);
    }
    match found.is_at_least((1, 1)) {
        true => Check::ok(NAME, shown),
        false => Check::fail(
            NAME,
            format!("{shown}: it does not support seccomp notification"),
            CHANGE,
        ),
    }
}

/// The name of the check of [`network`].
pub(super) const NETWORK: &str = "network";

/// What a network of a container's own takes that leads out.
fn network() -> Check {
    let mut names = tun::PROGRAMS.into_iter();
    let found = names.find(|name| programs::find(name).is_some());
    let without = "without it a container has the host's network, or none";
    match (tun::open(), found) {
        (Err(error), _) => Check::warn(
            NETWORK,
            format!("{}: {error}", tun::PATH),
            format!("as root: modprobe tun, chmod 666 {}; {without}", tun::PATH),
        ),
        (Ok(()), None) => Check::warn(
            NETWORK,
            format!(
                "{} is open, but {} are missing",
                tun::PATH,
                tun::PROGRAMS.join(" and ")
            ),
            format!("install one of them; {without}"),
        ),
        (Ok(()), Some(name)) => Check::ok(NETWORK, format!("{name}, and {} is open", tun::PATH)),
    }
}

/// podman, and the storage driver that it has chosen.
fn podman() -> Check {
    let mut check = caller("podman");
    if let (Some(place), Some(_)) = (storage::of_vfs(), engine::find("podman")) {
        check.result = Verdict::Warn;
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
        None => Check::ok(
            name,
            format!("not installed: only `subuidless {name}` needs it"),
        ),
        Some(found) => Check::ok(name, found.shown()),
    }
}
