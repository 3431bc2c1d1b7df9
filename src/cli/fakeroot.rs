//! `subuidless fakeroot`, also called as `fakeroot`: `run`, with the options and habits of
//! fakeroot(1).

use std::collections::BTreeSet;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};

use clap::{Args, Command, FromArgMatches};

use super::owners::console::Console;
use super::owners::job;
use super::replaced::Replaced;
use crate::error::{Context, Error};
use crate::front;
use crate::linux::limits;
use crate::linux::programs;
use crate::linux::sys;
use crate::owner::Notes;
use crate::owners::{Outside, Saved};
use crate::run::{Half, Options, executed, id_of, split};

/// Set in the environment of the command; build scripts look for it.
const KEY: &str = "FAKEROOTKEY";
const VALUE: &str = "subuidless";

#[derive(Debug, Args)]
#[command(args_override_self = true, infer_long_args = true)]
pub(super) struct Arguments {
    /// First give the files below the working directory the owners that FILE, written by an earlier
    /// -s, has for them
    #[arg(short = 'i', value_name = "FILE")]
    load: Option<PathBuf>,

    /// Afterwards save the owners that the command has given to files, and those of -i; without the
    /// fast path
    #[arg(short = 's', value_name = "FILE")]
    save: Option<PathBuf>,

    /// Not possible here: files that nobody has given to anybody belong to root
    #[arg(short, long)]
    unknown_is_real: bool,

    /// Accepted without effect: there is no such library
    #[arg(short, long, value_name = "LIBRARY")]
    lib: Option<OsString>,

    /// Accepted without effect: there is no such daemon
    #[arg(short, long, value_name = "PROGRAM")]
    faked: Option<OsString>,

    /// Accepted without effect: there is no such descriptor
    #[arg(short = 'b', long, value_name = "FD")]
    fd_base: Option<OsString>,

    /// Print the version
    #[arg(short = 'v', long)]
    version: bool,

    /// The command and its arguments [default: $SHELL, or /bin/sh]
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Runs the command line if it is one of fakeroot, by the name of this program or by `words`, its
/// arguments.
pub(super) fn called(words: &[OsString]) -> Option<ExitCode> {
    let name = env::args_os().next().unwrap_or_default();
    let name = Path::new(&name).file_name().unwrap_or_default();
    let rest = match name.as_bytes() {
        b"fakeroot" | b"fakeroot-subuidless" => words,
        _ => {
            words
                .split_first()
                .filter(|(first, _)| *first == "fakeroot")?
                .1
        }
    };
    let line = Arguments::augment_args(Command::new("fakeroot"));
    let words = [OsStr::new("fakeroot")]
        .into_iter()
        .chain(rest.iter().map(OsString::as_os_str));
    let parsed = line.try_get_matches_from(words);
    Some(
        match parsed.and_then(|found| Arguments::from_arg_matches(&found)) {
            Ok(arguments) => run(&arguments),
            Err(error) => {
                // Standard output or error may be closed.
                let _ = error.print();
                ExitCode::from(u8::from(error.use_stderr()))
            }
        },
    )
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    if arguments.version {
        let version = format!("fakeroot (subuidless) {}\n", env!("CARGO_PKG_VERSION"));
        return super::exit_code(super::print(version.as_bytes()));
    }
    if let Some(reason) = refusal(arguments) {
        say(&reason);
        return ExitCode::FAILURE;
    }
    match front::emulates() {
        Ok(true) => return run_inside(arguments),
        Ok(false) => {}
        Err(error) => return super::failure_of(&error),
    }
    let options = match options(arguments) {
        Ok(options) => options,
        Err(error) => return super::failure_of(&error),
    };
    if arguments.load.is_none() && arguments.save.is_none() {
        return super::failure_of(&super::run::run(&options));
    }
    match run_with_files(arguments, options) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)),
        Err(error) => super::exit_code(Err(error)),
    }
}

fn say(sentences: &str) {
    for sentence in sentences.lines() {
        // Standard error may be closed.
        let _ = writeln!(std::io::stderr(), "fakeroot: {sentence}");
    }
}

fn refusal(arguments: &Arguments) -> Option<String> {
    if arguments.unknown_is_real {
        return Some(
            "-u is not possible here: the kernel does not tell whom files of other users belong to"
                .to_owned(),
        );
    }
    let key = env::var_os(KEY).filter(|key| !key.is_empty())?;
    Some(format!(
        "{KEY} set to {}\nnested operation not yet supported",
        key.display()
    ))
}

/// Becomes the command, below `subuidless run` or in a container of its kind, where owners are
/// emulated already.
fn run_inside(arguments: &Arguments) -> ExitCode {
    if arguments.load.is_some() || arguments.save.is_some() {
        say("-i and -s are not possible within subuidless: call it outside, or leave them out");
        return ExitCode::FAILURE;
    }
    // Of another host user, unless this is a container.
    if std::fs::metadata("/").is_ok_and(|root| root.uid() != 0) {
        say("within subuidless run: files of other users of the host are not shown as root's");
    }
    let words = words(arguments);
    let mut command = process::Command::new(&words[0]);
    command.args(&words[1..]).env(KEY, VALUE);
    super::failure_of(&executed(command))
}

/// The command and its arguments.
fn words(arguments: &Arguments) -> Vec<OsString> {
    if arguments.command.iter().any(|word| !word.is_empty()) {
        return arguments.command.clone();
    }
    vec![programs::shell()]
}

/// The options of `run` that are meant.
fn options(arguments: &Arguments) -> Result<Options, Error> {
    let key = format!("{KEY}={VALUE}");
    let mut words: Vec<OsString> = ["run", "--others", "root", "--env", &key]
        .map(OsString::from)
        .to_vec();
    if arguments.save.is_some() {
        // The library would not tell of its changes.
        words.push("--no-fast".into());
    }
    words.push("--".into());
    words.extend(self::words(arguments));
    let mut options = super::run::parse_alone(&words).ok_or(Error::NoCommand)?;
    options.notes = arguments.save.is_some();
    Ok(options)
}

/// What is known between the loading and the saving.
struct Between {
    /// Lines of inodes that were not found.
    kept: File,
    /// Paths of the others, each ended by a NUL.
    places: File,
}

fn run_with_files(arguments: &Arguments, options: Options) -> Result<i32, Error> {
    // Otherwise there would be no exit codes of children.
    sys::heed_children();
    let file = || tempfile::tempfile().doing("creating a temporary file");
    let between = Between {
        kept: file()?,
        places: file()?,
    };
    // Whether it can be written; it is gone again when the command looks for files.
    drop(arguments.save.as_deref().map(Replaced::new).transpose()?);
    match &arguments.load {
        Some(path) if !path.is_file() => {
            say(&format!(
                "database file `{}' does not exist.",
                path.display()
            ));
        }
        Some(path) => {
            let code = in_job(|| load(path, &between, arguments.save.is_some()))?;
            if code != 0 {
                return Ok(code);
            }
        }
        None => {}
    }
    let mut command = match split()? {
        Half::Waits(command) => command,
        Half::Command => {
            let error = super::run::run(&options);
            super::report(&error);
            process::exit(crate::run::exit_code(&error).into())
        }
    };
    let code = job::code(command.end()?);
    let saved = match &arguments.save {
        Some(path) => save_to(path, command.pid(), &between),
        None => Ok(0),
    };
    match saved {
        Err(error) if code != 0 => super::report(&error),
        saved if code == 0 => return saved,
        _ => {}
    }
    Ok(code)
}

/// Saves what the command with this pid has done, and returns an exit code.
fn save_to(path: &Path, pid: u32, between: &Between) -> Result<i32, Error> {
    let notes = Notes::take(&id_of(pid))?;
    let replaced = Replaced::new(path)?;
    let code = in_job(|| save(&notes, between, &replaced))?;
    if code == 0 {
        replaced.done()?;
    }
    Ok(code)
}

/// Runs a job in a child, because it enters a user namespace, and because a damaged store may kill
/// it. Returns its exit code.
fn in_job(job: impl FnOnce() -> Result<(), Error>) -> Result<i32, Error> {
    const WHAT: &str = "starting a process for the owners";
    let Some(pid) = sys::fork_both().doing(WHAT)? else {
        super::warn_plainly();
        limits::raise();
        job::end_with_caller();
        let done = job().inspect_err(super::report);
        process::exit(i32::from(done.is_err()))
    };
    job::outcome(sys::wait_for(pid).doing(WHAT)?, None)
}

fn outside() -> Result<Outside, Error> {
    let outside = Outside::new(None);
    // Entering a user namespace clears it.
    job::end_with_caller();
    outside
}

fn load(path: &Path, between: &Between, is_saved: bool) -> Result<(), Error> {
    const WHAT: &str = "writing a temporary file";
    let mut saved = Saved::read(path, &mut BufReader::new(File::open(path).at(path)?))?;
    let here = env::current_dir().doing("finding the working directory")?;
    let outside = outside()?;
    let mut console = Console::new();
    let paths = saved.apply(&outside, outside.open_directory(&here)?, &mut console)?;
    outside.settle()?;
    if saved.len() > 0 {
        say(&format!(
            "{} names files ({}) that are not below the working directory: their owners are not \
             set{}",
            path.display(),
            saved.len(),
            if is_saved { ", only saved again" } else { "" }
        ));
    }
    let mut places = BufWriter::new(&between.places);
    for path in paths {
        for part in [here.as_os_str().as_bytes(), b"/", &path, b"\0"] {
            places.write_all(part).doing(WHAT)?;
        }
    }
    places.flush().doing(WHAT)?;
    saved
        .write(&mut BufWriter::new(&between.kept))
        .doing(WHAT)?;
    console.end()
}

fn save(notes: &[u8], between: &Between, replaced: &Replaced) -> Result<(), Error> {
    const WHAT: &str = "reading a temporary file";
    let [mut kept, mut places] = [&between.kept, &between.places];
    kept.rewind().doing(WHAT)?;
    places.rewind().doing(WHAT)?;
    let mut saved = Saved::read(replaced.path(), &mut BufReader::new(kept))?;
    let mut loaded = Vec::new();
    places.read_to_end(&mut loaded).doing(WHAT)?;
    let places = loaded
        .split(|byte| *byte == 0)
        .chain(notes.split(|byte| *byte == 0));
    let places: BTreeSet<&[u8]> = places.filter(|place| !place.is_empty()).collect();
    let output = replaced.writer()?;
    let outside = outside()?;
    let mut console = Console::new();
    saved.add(&outside, &places, &mut console);
    saved
        .write(&mut BufWriter::new(output))
        .at(replaced.path())?;
    console.end()
}
