//! `subuidless owners export DIR` and `subuidless owners import DIR`

use std::fs::File;
use std::io::{BufReader, BufWriter, IsTerminal, Read, Write, empty, sink, stdin, stdout};
use std::path::PathBuf;

use clap::Args;
use clap::error::ErrorKind;

use super::Looking;
use super::console::Console;
use crate::cli::replaced::Replaced;
use crate::error::{Context, Error};
use crate::owners::{self, Format};

#[derive(Debug, Args)]
pub(in crate::cli) struct ExportArguments {
    /// The top of the tree
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    /// File to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Format of the output
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,

    #[command(flatten)]
    pub(super) looking: Looking,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ImportArguments {
    /// The top of the tree
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    /// File to read [default: standard input]
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,

    /// Format of the input
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,

    #[command(flatten)]
    pub(super) looking: Looking,
}

/// override-stat is kept in attributes: there is no file to name.
fn check(format: Format, file: Option<&PathBuf>, option: &'static str) -> Result<(), Error> {
    match file {
        Some(_) if format == Format::OverrideStat => Err(Error::NoFileForAttributes { option }),
        _ => Ok(()),
    }
}

pub(super) fn export(arguments: &ExportArguments) -> Result<(), Error> {
    check(arguments.format, arguments.output.as_ref(), "-o")?;
    if arguments.format == Format::Tar {
        return Err(Error::NoTarExport);
    }
    let mut is_terminal = false;
    // Before the working directory changes.
    let replaced = arguments.output.as_deref().map(Replaced::new).transpose()?;
    let output: Box<dyn Write> = match &replaced {
        Some(replaced) => Box::new(replaced.writer()?),
        None if arguments.format == Format::OverrideStat => Box::new(sink()),
        None => {
            is_terminal = stdout().is_terminal();
            Box::new(stdout().lock())
        }
    };
    let outside = arguments.looking.outside()?;
    let top = outside.open_directory(&arguments.directory)?;
    let mut console = Console::beside(is_terminal);
    owners::export(
        &outside,
        top,
        arguments.format,
        arguments.looking.walk(),
        &mut BufWriter::new(output),
        &mut console,
    )?;
    replaced.map_or(Ok(()), Replaced::done)?;
    console.end()
}

pub(super) fn import(arguments: &ImportArguments) -> Result<(), Error> {
    check(arguments.format, arguments.input.as_ref(), "-i")?;
    if arguments.looking.one_file_system
        && matches!(arguments.format, Format::Json | Format::Mtree | Format::Tar)
    {
        let reason =
            "-x: what is read names its files, and nobody walks through the tree: leave it out";
        crate::cli::wrong_usage("owners", ErrorKind::ArgumentConflict, reason);
    }
    let input: Box<dyn Read> = match &arguments.input {
        Some(path) => Box::new(File::open(path).at(path)?),
        None if arguments.format == Format::OverrideStat => Box::new(empty()),
        None => Box::new(stdin().lock()),
    };
    let outside = arguments.looking.outside()?;
    let top = outside.open_directory(&arguments.directory)?;
    let mut console = Console::new();
    let imported = owners::import(
        &outside,
        top,
        arguments.format,
        arguments.looking.walk(),
        &mut BufReader::new(input),
        &mut console,
    );
    // The changes made so far stay.
    outside.settle()?;
    imported?;
    console.end()
}
