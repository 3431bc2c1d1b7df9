//! `subuidless owners export DIR` and `subuidless owners import DIR`

use std::fs::File;
use std::io::{BufReader, BufWriter, IsTerminal, Read, Write, empty, sink, stdin, stdout};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use clap::error::ErrorKind;
use tempfile::NamedTempFile;

use super::Looking;
use super::console::Console;
use crate::error::Error;
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

fn of(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    |source| Error::at(path, source)
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

/// A file that is replaced once everything is written: it may hold the only copy of the owners.
struct Replaced {
    path: PathBuf,
    /// `None` if the output is not a regular file: then it is written directly.
    new: Option<NamedTempFile>,
}

impl Replaced {
    fn new(path: &Path) -> Result<Self, Error> {
        let path = std::path::absolute(path).map_err(of(path))?;
        let path = path.canonicalize().unwrap_or(path);
        let directory = path.parent().unwrap_or(Path::new("/"));
        let is_plain = std::fs::metadata(&path).map_or(true, |found| found.is_file());
        let new = is_plain.then(|| {
            // The mode that open(2) would give it: with the umask.
            let mode = std::fs::Permissions::from_mode(0o666);
            tempfile::Builder::new()
                .permissions(mode)
                .tempfile_in(directory)
        });
        let new = new.transpose().map_err(of(&path))?;
        Ok(Self { path, new })
    }

    fn writer(&self) -> Result<File, Error> {
        let file = match &self.new {
            Some(new) => new.as_file().try_clone(),
            None => File::create(&self.path),
        };
        file.map_err(of(&self.path))
    }

    fn done(self) -> Result<(), Error> {
        let path = self.path;
        match self.new.map(|new| new.persist(&path)) {
            Some(Err(error)) => Err(of(&path)(error.error)),
            _ => Ok(()),
        }
    }
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
        Some(path) => Box::new(File::open(path).map_err(of(path))?),
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
