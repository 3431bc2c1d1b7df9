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
    /// The names of the checks that say what is missing.
    pub(crate) missing: Vec<String>,
    /// The names of the checks that say what it has to do without.
    pub(crate) without: Vec<String>,
}

/// The verdicts for all uses.
pub(super) fn judge(checks: &[Check]) -> Vec<Suitability> {
    let names = |of_runtimes: bool| {
        let all = checks.iter().filter(|check| check.has_failed());
        all.map(|check| check.name.clone())
            .filter(move |name| programs::RUNTIMES.contains(&name.as_str()) == of_runtimes)
    };
    let of_containers = checks
        .iter()
        .filter(|check| check.forbids_containers())
        .map(|check| check.name.clone());
    let base: Vec<String> = names(false).collect();
    let container: Vec<String> = base
        .iter()
        .cloned()
        .chain(names(true))
        .chain(of_containers)
        .collect();
    let with = |program: &str, is_there: bool| {
        let absent = (!is_there).then(|| program.to_owned());
        container.iter().cloned().chain(absent).collect()
    };
    let has_warning = |name: &str| {
        checks
            .iter()
            .any(|check| check.name == name && check.result == Verdict::Warn)
    };
    // The default networks of both engines lead out.
    let network = has_warning(programs::NETWORK).then(|| programs::NETWORK.to_owned());
    let engine = |name, missing| (name, missing, network.iter().cloned().collect());
    let all = [
        (Use::Run, base.clone(), Vec::new()),
        (Use::Container, container.clone(), Vec::new()),
        engine(Use::Podman, with("podman", programs::has_podman())),
        engine(Use::Docker, with("dockerd", programs::has_docker())),
    ];
    all.map(|(name, missing, without)| Suitability {
        name,
        works: missing.is_empty(),
        missing,
        without,
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
            true if self.without.is_empty() => "yes".to_owned(),
            true => format!("yes, but see {}", self.without.join(", ")),
            false => format!("no, see {}", self.missing.join(", ")),
        };
        format!("{words:<26} {verdict}\n")
    }
}
