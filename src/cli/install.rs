//! `subuidless install --user` and `subuidless uninstall --user`.

use std::io::Write;

use clap::Args;

use crate::error::Error;
use crate::host::install::{self, Options};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Install for this user, in $XDG_CONFIG_HOME; packages and `make install` do it for all users
    #[arg(long, required = true)]
    user: bool,

    /// Make `podman` and `buildah` mean `subuidless podman` and `subuidless buildah`, and call
    /// subuidless-crun where they are called by their path
    #[arg(long)]
    podman: bool,

    /// Only print what would be done
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
pub(super) struct UndoArguments {
    /// Remove what was installed for this user
    #[arg(long, required = true)]
    user: bool,

    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Error> {
    let options = Options {
        podman: arguments.podman,
        dry_run: arguments.dry_run,
    };
    install::install(options, &mut tell)
}

pub(super) fn undo(arguments: &UndoArguments) -> Result<(), Error> {
    install::uninstall(arguments.dry_run, &mut tell)
}

/// Half an installation is no better because nobody reads about it.
fn tell(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
