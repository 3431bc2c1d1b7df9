//! `subuidless completions` and `subuidless man`: generated from the definitions of the options,
//! for packages.

use std::io;
use std::path::PathBuf;

use clap::{Arg, Args, Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::{CommandLine, notes, print};
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
    // zsh would take a command for the SOCKET of `subuidless SOCKET`, and then wait for a command.
    let mut command = command(|argument| !argument.is_positional());
    clap_complete::generate(arguments.shell, &mut command, NAME, &mut script);
    match arguments.shell {
        Shell::Bash => script.extend_from_slice(include_bytes!("names.bash")),
        Shell::Fish => script.extend_from_slice(include_bytes!("names.fish")),
        Shell::Zsh => script = with_names(&script),
        _ => {}
    }
    print(&script)
}

/// The script for zsh with the names of containers, in place of files, where one is asked for.
fn with_names(script: &[u8]) -> Vec<u8> {
    const FIRST: &str = "\n_subuidless() {";
    let script = String::from_utf8_lossy(script);
    let names = concat!("\n", include_str!("names.zsh"));
    script
        .replace("'\\''s name:_default'", "'\\''s name:_subuidless_names'")
        .replacen(FIRST, &(names.to_owned() + FIRST.trim_start()), 1)
        .into_bytes()
}

pub(super) fn man(arguments: &ManArguments) -> Result<(), Error> {
    const WHAT: &str = "making the manual pages";
    let mut command = command(|_| true).disable_help_subcommand(true);
    command.build();
    let Some(directory) = &arguments.directory else {
        return print(&page(&command).doing(WHAT)?);
    };
    let mut rest = vec![&command];
    while let Some(command) = rest.pop() {
        rest.extend(command.get_subcommands());
        let file = directory.join(format!("{}.1", name(command)));
        std::fs::write(&file, page(command).doing(WHAT)?).at(&file)?;
    }
    Ok(())
}

/// `subuidless-owners-ls`
fn name(command: &Command) -> &str {
    command.get_display_name().unwrap_or(NAME)
}

fn page(command: &Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    // What would be there is in the sections that follow.
    Man::new(command.clone().after_long_help(None)).render(&mut page)?;
    let words = name(command).trim_start_matches(NAME).replace('-', " ");
    notes::page(words.trim()).to_writer(&mut page)?;
    Ok(page)
}

/// The command line without hidden commands, which clap_complete would offer. `is_told`: which
/// arguments it has without a command.
fn command(is_told: fn(&Arg) -> bool) -> Command {
    let full = CommandLine::command();
    let visible = full
        .get_subcommands()
        .filter(|command| !command.is_hide_set());
    let visible = visible.cloned().map(with_aliases);
    Command::new(NAME)
        .version(env!("CARGO_PKG_VERSION"))
        .about(full.get_about().cloned().unwrap_or_default())
        .long_about(full.get_long_about().cloned().unwrap_or_default())
        .args_conflicts_with_subcommands(true)
        .args(full.get_arguments().filter(|argument| is_told(argument)))
        .subcommands(visible)
}

/// The other names of options in their help texts: manual pages leave them out.
fn with_aliases(command: Command) -> Command {
    command.mut_args(|option| {
        let short = option.get_visible_short_aliases().unwrap_or_default();
        let long = option.get_visible_aliases().unwrap_or_default();
        let names: Vec<String> = short
            .iter()
            .map(|name| format!("-{name}"))
            .chain(long.iter().map(|name| format!("--{name}")))
            .collect();
        match option.get_help() {
            Some(help) if !names.is_empty() => {
                let help = format!("{help} [also: {}]", names.join(", "));
                option.help(help)
            }
            _ => option,
        }
    })
}
