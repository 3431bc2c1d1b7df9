//! `subuidless owners`.

pub(super) mod console;
mod gc;
pub(super) mod job;
mod list;
mod set;
mod transfer;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::error::Error;
use crate::linux::limits;
use crate::owners::{Outside, Walk};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List files with the owners that containers see
    Ls(list::Arguments),
    /// Change owners, as chown(1) in a container would
    Set(set::Arguments),
    /// Export what a copy of a tree to another machine loses: owners, devices, attributes
    Export(transfer::ExportArguments),
    /// Import what `export` wrote
    Import(transfer::ImportArguments),
    /// Remove the owners of symlinks, fifos, sockets and devices that no longer exist
    Gc(gc::Arguments),
}

impl Command {
    fn store(&self) -> Option<PathBuf> {
        let store = match self {
            Self::Ls(arguments) => &arguments.looking.store,
            Self::Set(arguments) => &arguments.looking.store,
            Self::Export(arguments) => &arguments.looking.store,
            Self::Import(arguments) => &arguments.looking.store,
            Self::Gc(arguments) => &arguments.store,
        };
        store.clone()
    }
}

pub(super) fn run(command: Command) -> Result<(), Error> {
    super::warn_plainly();
    // A walk holds every directory on its way down open. If the limit cannot be raised, very deep
    // trees end in EMFILE.
    limits::raise();
    if !job::is_one() {
        return job::run(command.store());
    }
    job::end_with_caller();
    match command {
        Command::Ls(arguments) => list::run(&arguments),
        Command::Set(arguments) => set::run(&arguments),
        Command::Export(arguments) => transfer::export(&arguments),
        Command::Import(arguments) => transfer::import(&arguments),
        Command::Gc(arguments) => gc::run(arguments),
    }
}

/// Options of the commands that work on trees.
#[derive(Debug, Args)]
struct Looking {
    /// Directory of the store, as for `serve` [default: $XDG_STATE_HOME/subuidless]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,

    /// Stay on one file system
    #[arg(short = 'x', long)]
    one_file_system: bool,
}

impl Looking {
    fn outside(&self) -> Result<Outside, Error> {
        let outside = Outside::new(self.store.clone());
        // Entering a user namespace clears it.
        job::end_with_caller();
        outside
    }

    fn walk(&self) -> Walk {
        let mut walk = Walk::default();
        walk.one_file_system = self.one_file_system;
        walk
    }
}
