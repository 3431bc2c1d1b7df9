//! `subuidless owners gc DIR...`

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use crate::cli::not_written;
use crate::error::Error;
use crate::sweep;

#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    /// Directories below which all files of yours are that containers have seen. Of their file systems, what is kept
    /// of anything else is removed
    #[arg(required = true, value_name = "DIR")]
    directories: Vec<PathBuf>,

    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,

    /// Where the store lies, as for `serve` [default: $XDG_STATE_HOME/subuidless]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Error> {
    let swept = sweep::sweep(arguments.store, &arguments.directories, arguments.dry_run)?;
    let verb = if arguments.dry_run {
        "would be removed"
    } else {
        "removed"
    };
    writeln!(
        std::io::stdout(),
        "{} entries, {} {verb}, {} kept",
        swept.entries,
        swept.removed,
        swept.entries - swept.removed
    )
    .map_err(not_written)
}
