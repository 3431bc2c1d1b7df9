//! What this host is good for: a verdict for each use, from the checks.

use clap::ValueEnum;
use serde::Serialize;

use super::{Check, Verdict, programs};

/// What people use this program for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Use {
    /// `subuidless run -- COMMAND`
    Run,
    /// `subuidless run --rootfs` and `--bundle`
    Container,
    /// `subuidless podman` and `subuidless buildah`
    Podman,
    /// `subuidless dockerd`
    Docker,
}

/// Whether one of them works.
#[derive(Debug, Serialize)]
pub(crate) struct Suitability {
    pub(crate) name: Use,
    pub(crate) works: bool,
    /// The names of what is missing.
    pub(crate) missing: Vec<String>,
}

/// Programs, which a command needs none of.
const RUNTIMES: [&str; 2] = ["crun", "runc"];

/// The verdicts for all uses.
pub(super) fn judge(checks: &[Check]) -> Vec<Suitability> {
    let failed = |check: &&Check| check.result == Verdict::Fail;
    let names = |of_runtimes: bool| {
        let all = checks.iter().filter(failed);
        all.map(|check| check.name.clone())
            .filter(move |name| RUNTIMES.contains(&name.as_str()) == of_runtimes)
    };
    let procfs = checks
        .iter()
        .filter(|check| check.name == super::proof::PROCFS && check.result != Verdict::Ok)
        .map(|check| check.name.clone());
    let base: Vec<String> = names(false).collect();
    let container: Vec<String> = base
        .iter()
        .cloned()
        .chain(names(true))
        .chain(procfs)
        .collect();
    let with = |program: &str, is_there: bool| {
        let absent = (!is_there).then(|| program.to_owned());
        container.iter().cloned().chain(absent).collect()
    };
    let all = [
        (Use::Run, base.clone()),
        (Use::Container, container.clone()),
        (Use::Podman, with("podman", programs::has_podman())),
        (Use::Docker, with("dockerd", programs::has_docker())),
    ];
    all.map(|(name, missing)| Suitability {
        name,
        works: missing.is_empty(),
        missing,
    })
    .into()
}

impl Suitability {
    /// A line for people.
    pub(super) fn text(&self) -> String {
        let words = match self.name {
            Use::Run => "commands (subuidless run)",
            Use::Container => "containers (run --rootfs)",
            Use::Podman => "podman, buildah",
            Use::Docker => "docker",
        };
        let verdict = match self.works {
            true => "yes".to_owned(),
            false => format!("no, see {}", self.missing.join(", ")),
        };
        format!("{words:<26} {verdict}\n")
    }
}
