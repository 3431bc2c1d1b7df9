//! `install --user` and `uninstall --user`: systemd units, and podman's settings.
//!
//! Never overwrites or removes a file that this program did not write, or that was changed since:
//! the first line of each file has a mark and a checksum. Directories and links that were created
//! with a file are recorded in it and removed with it.

mod file;
mod link;
mod podman;
mod systemd;

use std::env;
use std::path::{Path, PathBuf};

use crate::error::{Context, Error};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// Make podman and buildah use the runtime front.
    pub(crate) podman: bool,
    /// Only print what would be done.
    pub(crate) dry_run: bool,
}

/// Installs for this user; calls `tell` with a line for each step.
pub(crate) fn install(options: Options, tell: &mut dyn FnMut(&str)) -> Result<(), Error> {
    let places = Places::of_user()?;
    let mut report = Report::new(options.dry_run, tell);
    systemd::install(&places, &mut report)?;
    if options.podman {
        podman::install(&places, &mut report)?;
    } else if !file::is_mine(&podman::settings(&places)) && podman::is_installed() {
        report.say("podman is not changed: --podman makes it use subuidless");
    }
    report.end()
}

/// Removes what [`install`] created.
pub(crate) fn uninstall(dry_run: bool, tell: &mut dyn FnMut(&str)) -> Result<(), Error> {
    let places = Places::of_user()?;
    let mut report = Report::new(dry_run, tell);
    podman::uninstall(&places, &mut report)?;
    systemd::uninstall(&places, &mut report)?;
    report.end()
}

/// The program, and the user's directories.
#[derive(Debug)]
struct Places {
    /// This program.
    binary: PathBuf,
    home: PathBuf,
    /// $XDG_CONFIG_HOME, or its default.
    settings: PathBuf,
}

impl Places {
    fn of_user() -> Result<Self, Error> {
        let absolute = |name: &str| {
            env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let home = absolute("HOME").ok_or(Error::NoHome)?;
        let binary = env::current_exe().at("/proc/self/exe")?;
        Ok(Self {
            binary,
            settings: absolute("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config")),
            home,
        })
    }
}

/// Prints what is done, or what a dry run would do.
struct Report<'a> {
    dry_run: bool,
    tell: &'a mut dyn FnMut(&str),
    left_alone: usize,
    failure: Option<Error>,
}

impl<'a> Report<'a> {
    fn new(dry_run: bool, tell: &'a mut dyn FnMut(&str)) -> Self {
        Self {
            dry_run,
            tell,
            left_alone: 0,
            failure: None,
        }
    }

    fn say(&mut self, line: &str) {
        (self.tell)(line);
    }

    fn did(&mut self, act: Act, path: &Path) {
        let word = match (act, self.dry_run) {
            (Act::Write, false) => "wrote",
            (Act::Write, true) => "would write",
            (Act::Replace, false) => "replaced",
            (Act::Replace, true) => "would replace",
            (Act::Remove, false) => "removed",
            (Act::Remove, true) => "would remove",
            (Act::Keep, _) => "unchanged:",
        };
        self.say(&format!("{word} {}", path.display()));
    }

    fn leave_alone(&mut self, path: &Path, reason: &str) {
        self.left_alone += 1;
        self.say(&format!("left alone {}: {reason}", path.display()));
    }

    /// Makes the command fail with this error at its end. The first one counts.
    fn fail(&mut self, failure: Error) {
        self.failure.get_or_insert(failure);
    }

    fn end(self) -> Result<(), Error> {
        match (self.failure, self.left_alone) {
            (Some(failure), _) => Err(failure),
            (None, 0) => Ok(()),
            (None, count) => Err(Error::LeftAlone { count }),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Write,
    Replace,
    Remove,
    Keep,
}
