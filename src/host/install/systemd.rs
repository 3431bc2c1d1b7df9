//! The user's systemd units: writes, enables, starts, stops and removes them.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::file::{self, Present};
use super::{Act, Places, Report};
use crate::error::Error;

const SOCKET: &str = "subuidless.socket";
const SERVICE: &str = "subuidless.service";

/// The directories in which packages install user units (systemd.unit(5)).
const OF_PACKAGES: [&str; 4] = [
    "/etc/systemd/user",
    "/usr/local/share/systemd/user",
    "/usr/local/lib/systemd/user",
    "/usr/lib/systemd/user",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Socket,
    Service,
}

impl Unit {
    const ALL: [Self; 2] = [Self::Socket, Self::Service];

    fn name(self) -> &'static str {
        match self {
            Self::Socket => SOCKET,
            Self::Service => SERVICE,
        }
    }
}

/// The text of a unit for the program at `binary`.
fn render(unit: Unit, binary: &Path) -> Result<String, Error> {
    let template = match unit {
        Unit::Socket => include_str!("../../../dist/systemd/subuidless.socket.in"),
        Unit::Service => include_str!("../../../dist/systemd/subuidless.service.in"),
    };
    // % starts a specifier. A plain path is not quoted, so that the text equals a packaged unit.
    let quoted = file::quoted(binary)?.replace('%', "%%");
    let is_plain = quoted[1..quoted.len() - 1]
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"/._-+".contains(&byte));
    let word = match is_plain {
        true => &quoted[1..quoted.len() - 1],
        false => &quoted,
    };
    Ok(template.replace("@BINARY@", word))
}

fn path(places: &Places, unit: Unit) -> PathBuf {
    file::below(&places.settings, &["systemd", "user", unit.name()])
}

pub(super) fn install(places: &Places, report: &mut Report) -> Result<(), Error> {
    let mut acts = Vec::new();
    for unit in Unit::ALL {
        let path = path(places, unit);
        let text = render(unit, &places.binary)?;
        if let (Some(packaged), Present::Nothing) = (packaged(unit, &text), file::look(&path)?) {
            report.did(Act::Keep, &packaged);
            acts.push(Act::Keep);
            continue;
        }
        acts.extend(file::write(&path, text, report)?);
    }
    if acts.len() < Unit::ALL.len() {
        report.say(
            "systemd: nothing was enabled or started, because a unit was not written by subuidless \
             or was changed",
        );
        return Ok(());
    }
    let has_changed = |act: &Act| *act != Act::Keep;
    start(
        acts.iter().any(has_changed),
        acts.contains(&Act::Replace),
        report,
    );
    Ok(())
}

/// The path of the unit that a package has installed, if it has the same text.
fn packaged(unit: Unit, text: &str) -> Option<PathBuf> {
    let mut paths = OF_PACKAGES
        .iter()
        .map(|directory| Path::new(directory).join(unit.name()));
    paths.find(|path| fs::read_to_string(path).is_ok_and(|found| found == text))
}

fn start(has_changed: bool, was_replaced: bool, report: &mut Report) {
    if report.dry_run {
        report.say("would enable and start subuidless.socket");
        return;
    }
    let manager = Manager::find();
    let mut commands: Vec<&[&str]> = Vec::new();
    if has_changed && manager == Manager::Runs {
        commands.push(&["daemon-reload"]);
    }
    match manager {
        Manager::Runs => commands.push(&["enable", "--now", SOCKET]),
        Manager::Sleeps => commands.push(&["enable", SOCKET]),
        Manager::Missing => {}
    }
    if was_replaced && manager == Manager::Runs {
        commands.push(&["try-restart", SERVICE]);
    }
    for command in commands {
        if let Err(failure) = manager.run(command) {
            return report.fail(failure);
        }
    }
    report.say(match manager {
        Manager::Runs => "systemd: subuidless.socket is enabled, and listens",
        Manager::Sleeps => {
            "systemd: cannot reach a user manager (no login session?), so nothing was started; \
             subuidless.socket is enabled and will listen from the next login on"
        }
        Manager::Missing => {
            "systemd: there is no systemctl here, so nothing was enabled; subuidless-crun and \
             `subuidless run` start what they need themselves"
        }
    });
}

pub(super) fn uninstall(places: &Places, report: &mut Report) -> Result<(), Error> {
    let socket = file::look(&path(places, Unit::Socket))?;
    let service = file::look(&path(places, Unit::Service))?;
    let is_ours = |present: &Present| matches!(present, Present::Mine(_) | Present::Changed);
    let was_packaged = socket == Present::Nothing
        && render(Unit::Socket, &places.binary)
            .is_ok_and(|text| packaged(Unit::Socket, &text).is_some());
    if is_ours(&socket) || was_packaged {
        stop(report);
    }
    // Unit::ALL[0] was written first and records the directories of both, so it is removed last.
    for unit in Unit::ALL.into_iter().rev() {
        file::remove(&path(places, unit), report)?;
    }
    let manager = Manager::find();
    if (is_ours(&socket) || is_ours(&service))
        && !report.dry_run
        && manager == Manager::Runs
        && let Err(failure) = manager.run(&["daemon-reload"])
    {
        report.fail(failure);
    }
    Ok(())
}

/// Stops and disables the socket and the daemon. Workers go on until their containers end.
fn stop(report: &mut Report) {
    if report.dry_run {
        report.say("would stop and disable subuidless.socket");
        return;
    }
    let manager = Manager::find();
    let result = match manager {
        Manager::Runs => manager
            .run(&["disable", "--now", SOCKET])
            .and_then(|()| manager.run(&["stop", SERVICE]))
            .map(|()| "systemd: subuidless.socket is stopped and disabled"),
        Manager::Sleeps => manager
            .run(&["disable", SOCKET])
            .map(|()| "systemd: subuidless.socket is disabled"),
        Manager::Missing => return,
    };
    match result {
        Ok(sentence) => report.say(sentence),
        Err(failure) => report.fail(failure),
    }
}

/// The user's service manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manager {
    Runs,
    /// It does not run, as without a login session, but systemctl(1) can still enable units.
    Sleeps,
    Missing,
}

impl Manager {
    fn find() -> Self {
        let mut command = systemctl(&["show", "--property=Version"]);
        match command.stdout(Stdio::null()).stderr(Stdio::null()).status() {
            Ok(status) if status.success() => Self::Runs,
            Err(error) if error.kind() == ErrorKind::NotFound => Self::Missing,
            _ => Self::Sleeps,
        }
    }

    fn run(self, arguments: &[&str]) -> Result<(), Error> {
        let mut command = systemctl(arguments);
        if self == Self::Sleeps {
            command.env("SYSTEMD_OFFLINE", "1");
        }
        let failed = |reason: String| Error::Systemctl {
            command: arguments.join(" "),
            reason,
        };
        let output = command
            .output()
            .map_err(|error| failed(error.to_string()))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(failed(match said.trim().lines().last() {
            Some(line) => line.to_owned(),
            None => output.status.to_string(),
        }))
    }
}

fn systemctl(arguments: &[&str]) -> Command {
    let mut command = Command::new("systemctl");
    command.arg("--user").args(arguments).stdin(Stdio::null());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_path_stands_in_the_unit_as_systemd_reads_it() {
        let line = |path: &str| {
            let text = render(Unit::Service, Path::new(path)).unwrap();
            let line = text.lines().find(|line| line.starts_with("ExecStart="));
            line.unwrap().to_owned()
        };
        assert_eq!(
            line("/usr/bin/subuidless"),
            "ExecStart=/usr/bin/subuidless serve"
        );
        assert_eq!(line("/a b/100%/s"), "ExecStart=\"/a b/100%%/s\" serve");
    }
}
