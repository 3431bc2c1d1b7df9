//! `subuidless completions` and `subuidless man`: generated from the definitions of the options,
//! for packages.

use std::path::PathBuf;

use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::{CommandLine, print};
use crate::error::{Context, Error};

const NAME: &str = "subuidless";

#[derive(Debug, Args)]
pub(super) struct CompletionsArguments {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct ManArguments {
    /// Write subuidless.1 and a page for each command into this directory [default: print
    /// subuidless.1]
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

pub(super) fn completions(arguments: &CompletionsArguments) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command(), NAME, &mut script);
    print(&script)
}

pub(super) fn man(arguments: &ManArguments) -> Result<(), Error> {
    if let Some(directory) = &arguments.directory {
        return clap_mangen::generate_to(command(), directory).at(directory);
    }
    let mut page = Vec::new();
    let command = command().disable_help_subcommand(true);
    Man::new(command)
        .render(&mut page)
        .doing("making the manual page")?;
    print(&page)
}

/// The command line without hidden commands, which clap_complete would offer.
fn command() -> Command {
    let full = CommandLine::command();
    let visible = full
        .get_subcommands()
        .filter(|command| !command.is_hide_set());
    Command::new(NAME)
        .version(env!("CARGO_PKG_VERSION"))
        .about(full.get_about().cloned().unwrap_or_default())
        .long_about(full.get_long_about().cloned().unwrap_or_default())
        .args_conflicts_with_subcommands(true)
        .args(full.get_arguments())
        .subcommands(visible)
}
