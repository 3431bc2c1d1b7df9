//! `subuidless check`.

use std::path::PathBuf;

use clap::Args;

use super::print;
use crate::error::Error;
use crate::host::check;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Directory for containers: checks whether its files can carry owners
    #[arg(value_name = "DIR", default_value = ".")]
    directory: PathBuf,

    /// Print one JSON document instead of lines
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
