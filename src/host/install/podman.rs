//! Settings of podman and buildah: the runtime front in place of crun and runc.
//!
//! The runtimes keep the names `crun` and `runc`: podman decides by name what a runtime can do, and
//! stores the name with each container, which must still start when the settings were removed.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::file::{self, Present};
use super::link::{self, Made};
use super::{Places, Report};
use crate::error::{Context, Error};
use crate::host::engine;

/// The names of the runtimes in podman, and of their fronts.
const FRONTS: [(&str, &str); 2] = [("crun", "subuidless-crun"), ("runc", "subuidless-runc")];
const LINKS: &str = "# Links made for it: ";

/// The drop-in file, which podman reads after the user's containers.conf.
pub(super) fn settings(places: &Places) -> PathBuf {
    let names = ["containers", "containers.conf.d", "50-subuidless.conf"];
    file::below(&places.settings, &names)
}

pub(super) fn is_installed() -> bool {
    engine::find("podman").is_some()
}

pub(super) fn install(places: &Places, report: &mut Report) -> Result<(), Error> {
    let path = settings(places);
    let before = match file::look(&path)? {
        Present::Mine(mine) => links(&mine.body),
        Present::Nothing => Vec::new(),
        present => {
            report.leave_alone(&path, file::reason(&present));
            return Ok(());
        }
    };
    if std::env::var_os("CONTAINERS_CONF").is_some_and(|file| !file.is_empty()) {
        report
            .say("podman: while CONTAINERS_CONF is set, as it is now, podman reads only that file");
    }
    let Some((fronts, engines)) = names(places, &before, report) else {
        return Ok(());
    };
    let all: Vec<PathBuf> = engines.iter().chain(&fronts).cloned().collect();
    let made = make(places, &all, &before, report)?;
    let written = body(&fronts, &made).and_then(|body| file::write(&path, body, report));
    if written.is_err() {
        // No file lists them, so uninstall would not remove them.
        for link in made.iter().filter(|link| !before.contains(link)) {
            link.remove(report)?;
        }
    }
    for link in &engines {
        warn_of_path(link, report);
    }
    written.map(|_| ())
}

/// The paths of the fronts, and of the links that stand for the installed engines. Returns `None`
/// if another file has one of the names.
fn names(
    places: &Places,
    before: &[Made],
    report: &mut Report,
) -> Option<(Vec<PathBuf>, Vec<PathBuf>)> {
    let mut fronts = Vec::new();
    for (_, name) in FRONTS {
        // In the directory of the program if it is there (from a package).
        let packaged = places.binary.with_file_name(name);
        let is_packaged = link::leads_to(&packaged, &places.binary)
            && before.iter().all(|made| made.path != packaged);
        fronts.push(match is_packaged {
            true => packaged,
            false => in_bin(places, name, before, report)?,
        });
    }
    let installed = engine::NAMES
        .into_iter()
        .filter(|name| engine::find(name).is_some());
    let mut engines = Vec::new();
    for name in installed {
        engines.push(in_bin(places, name, before, report)?);
    }
    Some((fronts, engines))
}

/// The path of a link in ~/.local/bin.
fn in_bin(places: &Places, name: &str, before: &[Made], report: &mut Report) -> Option<PathBuf> {
    let path = file::below(&places.home, &[".local", "bin", name]);
    let is_ours = before
        .iter()
        .any(|made| made.path == path && made.is_present());
    let is_free = path.symlink_metadata().is_err();
    if is_ours || is_free || link::leads_to(&path, &places.binary) {
        return Some(path);
    }
    report.leave_alone(
        &path,
        "it is not this program, so podman is not changed; remove it, and try again",
    );
    None
}

/// Says so if a shell would find the engine itself before the link.
fn warn_of_path(link: &Path, report: &mut Report) {
    let name = link.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let (Some(directory), Some(engine)) = (link.parent(), engine::find(name)) else {
        return;
    };
    let search_path = env::var_os("PATH").unwrap_or_default();
    let first = env::split_paths(&search_path)
        .find(|place| place == directory || Some(place.as_path()) == engine.parent());
    if first.as_deref() != Some(directory) {
        report.say(&format!(
            "{name}: {} is not before {} on PATH: until it is, as after the next login, only \
             `subuidless {name}` is served",
            directory.display(),
            engine.display()
        ));
    }
}

/// Creates or updates the links that `names` needs, and removes older ones. Returns those that this
/// program has created, now or before.
fn make(
    places: &Places,
    names: &[PathBuf],
    before: &[Made],
    report: &mut Report,
) -> Result<Vec<Made>, Error> {
    let mut made = Vec::new();
    for path in names {
        let ours = before.iter().find(|made| made.path == *path);
        if ours.is_none() && link::leads_to(path, &places.binary) {
            continue;
        }
        made.push(Made::make(path, &places.binary, ours, report)?);
    }
    // Links that are no longer needed, for instance because a package has its own.
    for link in before.iter().filter(|link| !names.contains(&link.path)) {
        link.remove(report)?;
    }
    Ok(made)
}

fn body(names: &[PathBuf], made: &[Made]) -> Result<String, Error> {
    let mut body = String::from(
        "\n\
         # podman and buildah run these in place of crun and runc. Each runs the real one, from\n\
         # PATH. `podman --runtime /usr/bin/crun` still runs crun itself.\n\
         [engine.runtimes]\n",
    );
    for ((runtime, _), path) in FRONTS.iter().zip(names) {
        body += &format!("{runtime} = [{}]\n", file::quoted(path)?);
    }
    let links = serde_json::to_string(made).doing("listing the links that were created")?;
    Ok(format!("{LINKS}{links}\n{body}"))
}

/// The links that the settings file lists.
fn links(body: &str) -> Vec<Made> {
    let line = body.lines().find_map(|line| line.strip_prefix(LINKS));
    line.and_then(|line| serde_json::from_str(line).ok())
        .unwrap_or_default()
}

pub(super) fn uninstall(places: &Places, report: &mut Report) -> Result<(), Error> {
    let path = settings(places);
    let links = match file::look(&path)? {
        Present::Mine(mine) => links(&mine.body),
        _ => Vec::new(),
    };
    // The settings first: they must never name a missing program.
    file::remove(&path, report)?;
    for link in links.iter().rev() {
        link.remove(report)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_that_were_made_are_found_in_the_settings_again() {
        let made = vec![Made {
            path: "/home/a b/.local/bin/subuidless-crun".into(),
            target: "/opt/\"x\"/subuidless".into(),
            directories: 2,
        }];
        let names = [Path::new("/x/subuidless-crun").to_owned(), "/y".into()];
        let body = body(&names, &made).unwrap();
        assert_eq!(links(&body), made);
        assert!(
            body.ends_with("\ncrun = [\"/x/subuidless-crun\"]\nrunc = [\"/y\"]\n"),
            "{body}"
        );
    }
}
