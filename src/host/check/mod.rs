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
pub(crate) mod steps;
mod trial;
mod uses;

use std::path::Path;

use serde::Serialize;

use uses::Suitability;
pub(crate) use uses::Use;

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

    fn has_failed(&self) -> bool {
        self.result == Verdict::Fail
    }

    /// Whether it says that containers do not work, though commands may.
    fn forbids_containers(&self) -> bool {
        let is_theirs = [proof::PROCFS, trial::CONTAINER].contains(&self.name.as_str());
        is_theirs && self.result != Verdict::Ok
    }
}

/// All checks.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    ok: bool,
    checks: Vec<Check>,
    uses: Vec<Suitability>,
}

/// Checks this host, and whether `directory` can hold containers.
pub(crate) fn check(directory: &Path) -> Report {
    let mut checks = vec![host::user(), kernel::version()];
    checks.extend(proof::namespace_and_notification());
    checks.extend(kernel::features());
    checks.extend(files::attributes(directory));
    checks.extend(files::programs(directory));
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
    // Only where nothing else has found a cause, so that each one is named once.
    if !checks.iter().any(Check::has_failed) {
        checks.push(trial::command());
    }
    checks.extend(programs::all());
    let forbids = |check: &Check| check.has_failed() || check.forbids_containers();
    if !checks.iter().any(forbids) {
        checks.extend(trial::container());
    }
    Report {
        ok: !checks.iter().any(Check::has_failed),
        uses: uses::judge(&checks),
        checks,
    }
}

impl Report {
    /// The number of failed checks.
    pub(crate) fn failures(&self) -> usize {
        let failed = self.checks.iter().filter(|check| check.has_failed());
        failed.count()
    }

    /// What is missing for a use.
    pub(crate) fn missing(&self, wanted: Use) -> Vec<String> {
        let uses = self.uses.iter().filter(|it| it.name == wanted);
        uses.flat_map(|it| it.missing.clone()).collect()
    }

    /// The report as text: a line for each check, and how to improve it below; then the verdicts.
    /// Lines are wrapped to `columns`.
    pub(crate) fn text(&self, columns: Option<usize>) -> String {
        let width = self.checks.iter().map(|check| check.name.chars().count());
        let width = width.max().unwrap_or(0);
        let mut text = String::new();
        for check in &self.checks {
            let result = match check.result {
                Verdict::Ok => "ok  ",
                Verdict::Warn => "warn",
                Verdict::Fail => "FAIL",
            };
            let start = format!("{result}  {:<width$}  ", check.name);
            let indent = " ".repeat(width + 8);
            text += &wrapped(&start, &check.reason, &indent, columns);
            if let Some(change) = &check.change {
                let start = format!("{indent}→ ");
                text += &wrapped(&start, change, &format!("{indent}  "), columns);
            }
        }
        text += "\n";
        text + &self.uses.iter().map(Suitability::text).collect::<String>()
    }
}

/// `start` and `words`, in lines of `columns`, of which all but the first one begin with `indent`.
fn wrapped(start: &str, words: &str, indent: &str, columns: Option<usize>) -> String {
    /// A column of words that is narrower is harder to read than broken lines.
    const LEAST: usize = 20;
    let room = columns.and_then(|columns| columns.checked_sub(indent.chars().count() + LEAST));
    let Some(room) = room.map(|room| room + LEAST) else {
        return format!("{start}{words}\n");
    };
    let mut text = start.to_owned();
    let mut used = 0;
    for word in words.split(' ') {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > room {
            text += &format!("\n{indent}");
            used = 0;
        } else if used > 0 {
            text.push(' ');
            used += 1;
        }
        text += word;
        used += length;
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words() {
        let words = "a word, another word, and more words than there is room for";
        let text = wrapped("ok    name  ", words, &" ".repeat(12), Some(40));
        assert!(text.lines().count() > 1);
        assert!(
            text.lines().all(|line| line.chars().count() <= 40),
            "{text}"
        );
        let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(joined, format!("ok name {words}"));
        assert_eq!(wrapped("x ", words, "", None), format!("x {words}\n"));
    }
}
