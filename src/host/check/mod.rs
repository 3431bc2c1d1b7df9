//! `subuidless check`: whether this host can do the job.
//!
//! What can be tried is tried, by processes of this program that end afterwards (see [`steps`]):
//! version numbers and settings say less than the kernel does, and are read to name what is to
//! blame. Nothing is changed, and nothing is left behind.

mod files;
mod host;
mod kernel;
mod programs;
mod proof;
mod settings;
pub(crate) mod steps;

use std::path::Path;

use serde::Serialize;

/// How one check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Ok,
    /// Something is slower, or less than it could be.
    Warn,
    /// Without it nothing works.
    Fail,
}

/// One line.
#[derive(Debug, Serialize)]
pub(crate) struct Check {
    pub(crate) name: String,
    pub(crate) result: Verdict,
    pub(crate) reason: String,
    /// What to do about it.
    pub(crate) change: Option<String>,
}

impl Check {
    fn ok(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            result: Verdict::Ok,
            reason: reason.into(),
            change: None,
        }
    }

    fn warn(name: impl Into<String>, reason: impl Into<String>, change: impl Into<String>) -> Self {
        Self {
            result: Verdict::Warn,
            change: Some(change.into()),
            ..Self::ok(name, reason)
        }
    }

    fn fail(name: impl Into<String>, reason: impl Into<String>, change: impl Into<String>) -> Self {
        Self {
            result: Verdict::Fail,
            ..Self::warn(name, reason, change)
        }
    }
}

/// Everything that is checked.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    ok: bool,
    checks: Vec<Check>,
}

/// Checks this host, for work in `directory`.
pub(crate) fn check(directory: &Path) -> Report {
    let mut checks = vec![host::user(), kernel::version()];
    checks.extend(proof::namespace_and_notification());
    checks.extend(kernel::features());
    checks.extend(files::attributes(directory));
    checks.extend([files::side_store(), files::runtime_directory()]);
    checks.extend([
        host::limits(),
        host::range(),
        host::procfs(),
        host::filters(),
        host::io_uring(),
    ]);
    checks.push(host::cgroups());
    checks.extend(programs::all());
    Report {
        ok: checks.iter().all(|check| check.result != Verdict::Fail),
        checks,
    }
}

impl Report {
    /// How many things are missing that are needed.
    pub(crate) fn failures(&self) -> usize {
        let failed = |check: &&Check| check.result == Verdict::Fail;
        self.checks.iter().filter(failed).count()
    }

    /// For people: a line each, and what to do below it.
    pub(crate) fn text(&self) -> String {
        let width = self.checks.iter().map(|check| check.name.chars().count());
        let width = width.max().unwrap_or(0);
        let mut text = String::new();
        for check in &self.checks {
            let result = match check.result {
                Verdict::Ok => "ok  ",
                Verdict::Warn => "warn",
                Verdict::Fail => "FAIL",
            };
            text += &format!("{result}  {:<width$}  {}\n", check.name, check.reason);
            if let Some(change) = &check.change {
                text += &format!("      {:<width$}  → {change}\n", "");
            }
        }
        text
    }
}
