//! `subuidless owners`.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::error::Error;
use crate::sweep;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Remove what is kept of symlinks, fifos, sockets and devices that are no more
    Gc(GcArguments),
}

#[derive(Debug, Args)]
pub(super) struct GcArguments {
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

pub(super) fn run(command: Command) -> Result<(), Error> {
    let Command::Gc(arguments) = command;
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
    .map_err(|source| Error::Io {
        what: "writing to standard output",
        source,
    })
}
