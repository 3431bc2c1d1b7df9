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

    /// Exit with 0 if this use works, and with 1 if not, whatever else does
    #[arg(long = "for", value_name = "USE", value_enum)]
    wanted: Option<check::Use>,

    /// Print one JSON document instead of lines
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Error> {
    let report = check::check(&arguments.directory);
    let text = if arguments.json {
        serde_json::to_string_pretty(&report).unwrap_or_default() + "\n"
    } else {
        report.text(terminal_size::terminal_size().map(|(width, _)| width.0.into()))
    };
    print(text.as_bytes())?;
    if let Some(wanted) = arguments.wanted {
        let missing = report.missing(wanted).join(", ");
        return match missing.is_empty() {
            true => Ok(()),
            false => Err(Error::UnfitFor { missing }),
        };
    }
    match report.failures() {
        0 => Ok(()),
        failures => Err(Error::Unfit { failures }),
    }
}
