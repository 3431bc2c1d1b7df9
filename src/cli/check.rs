//! `subuidless check`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::print;
use crate::error::Error;
use crate::host::check;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where containers are to lie: can files there carry their owners?
    #[arg(value_name = "DIR", default_value = ".")]
    directory: PathBuf,

    /// One JSON document instead of lines
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Error> {
    let report = check::check(&arguments.directory);
    let text = if arguments.json {
        serde_json::to_string_pretty(&report).unwrap_or_default() + "\n"
    } else {
        report.text()
    };
    print(text.as_bytes())?;
    match report.failures() {
        0 => Ok(()),
        failures => Err(Error::Unfit { failures }),
    }
}

/// What `check` tries in a process of its own: no command for people.
#[derive(Debug, Args)]
pub(super) struct Step {
    what: Try,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Try {
    Target,
    Supervisor,
}

pub(super) fn step(step: &Step) -> Result<(), Error> {
    match step.what {
        Try::Target => check::steps::target(),
        Try::Supervisor => check::steps::supervisor(),
    }
}
