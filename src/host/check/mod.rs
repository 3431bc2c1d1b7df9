//! `subuidless check`: tests whether this host can run containers.
//!
//! Wherever possible it tries things out, in short-lived processes (see [`steps`]), rather than
//! trust version numbers and settings; those are read to name the cause of a failure. It changes
//! nothing, and leaves nothing behind.

mod files;
mod host;
mod kernel;
mod programs;
mod proof;
mod settings;
pub(crate) mod steps;

use std::path::Path;

use serde::Serialize;

/// The result of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Ok,
    /// Something is slower, or does not work completely.
    Warn,
    /// Nothing works until this passes.
    Fail,
}

/// One line of the report.
#[derive(Debug, Serialize)]
pub(crate) struct Check {
    pub(crate) name: String,
    pub(crate) result: Verdict,
    pub(crate) reason: String,
    /// How to improve it.
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

/// All checks.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    ok: bool,
    checks: Vec<Check>,
}

/// Checks this host, and whether `directory` can hold containers.
pub(crate) fn check(directory: &Path) -> Report {
    let mut checks = vec![host::user(), kernel::version()];
    checks.extend(proof::namespace_and_notification());
    checks.extend(kernel::features());
    checks.extend(files::attributes(directory));
    checks.extend([
        files::side_store(),
        files::runtime_directory(),
        files::fast_path(),
    ]);
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
    /// The number of failed checks.
    pub(crate) fn failures(&self) -> usize {
        let failed = |check: &&Check| check.result == Verdict::Fail;
        self.checks.iter().filter(failed).count()
    }

    /// The report as text: a line for each check, and how to improve it below.
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
