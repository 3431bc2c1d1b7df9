//! The command line: argv in, output and exit codes out. No emulation.

mod bundle;
mod check;
mod dockerd;
mod engine;
mod fakeroot;
mod generate;
mod inside;
mod install;
mod internal;
mod notes;
mod owners;
mod profile;
mod replaced;
mod run;
mod runtime;
mod serve;
mod status;
mod trace;

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, Command, CommandFactory, Parser, Subcommand};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber, error};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::error::Error;
use crate::log;
use crate::run::EngineKind;
use crate::wire::forked;
use crate::wire::mode::Mode;

/// Runs OCI containers whose user has no range in /etc/subuid.
///
/// subuidless is an OCI seccomp receiver: a container runtime sends it the seccomp listener of a
/// container, and it answers chown, stat and their like as a kernel with all ids mapped would.
#[derive(Debug, Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    arg_required_else_help = true,
    after_long_help = notes::help("")
)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Subcommands>,

    #[command(flatten)]
    serve: serve::Arguments,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Listen for container runtimes and serve their containers (also: `subuidless SOCKET`)
    Serve(serve::Arguments),
    /// Run a command or a container that can change owners and ids; owners persist
    #[command(after_long_help = notes::help("run"))]
    Run(Box<crate::run::Options>),
    /// Run a command as fakeroot(1) does, with its options (also: this program called as
    /// `fakeroot`)
    ///
    /// It is like `subuidless run --others root`: owners last in the files, with and without -s.
    Fakeroot(fakeroot::Arguments),
    /// Run a command in a container started by `run`
    Exec(crate::run::ExecOptions),
    /// List the containers started by `run`
    Ps(inside::PsArguments),
    /// Print what a container has printed that `run --detach` has started
    ///
    /// The last MiB of it at least, and 2 MiB at most. That of the last 16 containers that have
    /// ended is kept until the next one of their name, or the end of the login session.
    Logs(inside::LogsArguments),
    /// Send a signal to a container started by `run`
    Kill(inside::KillArguments),
    /// Run Docker's daemon, and its containers, with all ids: what follows are its own options
    Dockerd(dockerd::Arguments),
    /// Run podman, and its containers, with all ids: what follows are podman's own arguments
    Podman(engine::Arguments),
    /// Run buildah, and its containers, with all ids: what follows are buildah's own arguments
    Buildah(engine::Arguments),
    /// Print a seccomp profile that notifies subuidless
    Profile(profile::Arguments),
    /// Put the seccomp profile into a bundle's config.json
    Bundle(bundle::Arguments),
    /// Check whether this host can do the job, and what to change
    Check(check::Arguments),
    /// Show the containers that are being served, and statistics of their calls
    Status(status::Arguments),
    /// Show calls as they are answered
    Trace(trace::Arguments),
    /// Run crun or runc with everything set up for subuidless (also: this program called as
    /// `subuidless-crun` or `subuidless-runc`)
    Runtime(runtime::Arguments),
    /// Install systemd user units and podman settings, so that containers need no options
    Install(install::Arguments),
    /// Remove what `install` installed
    Uninstall(install::UndoArguments),
    /// Print shell completions
    Completions(generate::CompletionsArguments),
    /// Print the manual page, or write one for each command
    Man(generate::ManArguments),
    /// List, change, export and import owners from outside a container
    #[command(subcommand)]
    Owners(owners::Command),
}

/// The program.
#[must_use]
pub fn main() -> ExitCode {
    forked::allow(|mode| {
        let is_done = internal::run(mode)
            .map_err(|failure| report(&failure))
            .is_ok();
        log::say_all();
        std::process::exit(if is_done { 0 } else { 1 })
    });
    let line = engine::spelled_out(std::env::args_os().collect());
    let words = line.get(1..).unwrap_or_default();
    if let Some(mode) = Mode::from_words(words) {
        return exit_code(internal::run(mode));
    }
    if let Some(options) = runtime::called_by_name() {
        return exit_code(Err(runtime::run_by_name(options)));
    }
    if let Some(options) = run::parse_alone(words) {
        return failure_of(&run::run(&options));
    }
    if let Some(code) = fakeroot::called(words) {
        return code;
    }
    let CommandLine { command, serve } =
        CommandLine::try_parse_from(&line).unwrap_or_else(|error| {
            // A socket in front of a command.
            if error.kind() == ErrorKind::ArgumentConflict {
                refuse_misspelled(words.first().map(OsString::as_os_str));
            }
            error.exit()
        });
    if command.is_none() {
        refuse_misspelled(serve.socket());
    }
    exit_code(match command.unwrap_or(Subcommands::Serve(serve)) {
        Subcommands::Serve(arguments) => serve::run(arguments),
        Subcommands::Profile(arguments) => profile::run(&arguments),
        Subcommands::Bundle(arguments) => bundle::run(&arguments),
        Subcommands::Check(arguments) => check::run(&arguments),
        Subcommands::Status(arguments) => status::run(&arguments),
        Subcommands::Trace(arguments) => trace::run(arguments),
        Subcommands::Runtime(arguments) => Err(runtime::run(arguments)),
        Subcommands::Owners(command) => owners::run(command),
        Subcommands::Install(arguments) => install::run(&arguments),
        Subcommands::Uninstall(arguments) => install::undo(&arguments),
        Subcommands::Completions(arguments) => generate::completions(&arguments),
        Subcommands::Man(arguments) => generate::man(&arguments),
        Subcommands::Run(arguments) => return failure_of(&run::run(&arguments)),
        Subcommands::Fakeroot(arguments) => return fakeroot::run(&arguments),
        Subcommands::Exec(arguments) => return failure_of(&inside::exec(&arguments)),
        Subcommands::Dockerd(arguments) => return failure_of(&dockerd::run(arguments)),
        Subcommands::Podman(arguments) => {
            return failure_of(&engine::run(EngineKind::Podman, arguments.arguments));
        }
        Subcommands::Buildah(arguments) => {
            return failure_of(&engine::run(EngineKind::Buildah, arguments.arguments));
        }
        Subcommands::Ps(arguments) => inside::ps(&arguments),
        Subcommands::Logs(arguments) => inside::logs(&arguments),
        Subcommands::Kill(arguments) => inside::kill(&arguments),
    })
}

/// A single word without a slash is a misspelled command, not a socket.
fn refuse_misspelled(word: Option<&OsStr>) {
    let Some(word) = word.filter(|word| !word.as_encoded_bytes().contains(&b'/')) else {
        return;
    };
    // The error that clap would give if `subuidless SOCKET` did not exist.
    let commands = Command::new("subuidless")
        .subcommand_required(true)
        .subcommands(CommandLine::command().get_subcommands().cloned());
    let error = match commands.try_get_matches_from([OsStr::new("subuidless"), word]) {
        Err(error) => error,
        Ok(_) => CommandLine::command().error(ErrorKind::InvalidSubcommand, "unknown command"),
    };
    error.exit()
}

/// Reports wrong options of a command as clap does, and exits.
fn wrong_usage(command: &str, kind: ErrorKind, reason: &str) -> ! {
    let mut line = CommandLine::command();
    line.build();
    match line.find_subcommand_mut(command) {
        Some(command) => command.error(kind, reason).exit(),
        None => line.error(kind, reason).exit(),
    }
}

/// The exit code of `run` and `exec`, which fail like env(1).
fn failure_of(failure: &Error) -> ExitCode {
    report(failure);
    ExitCode::from(crate::run::exit_code(failure))
}

fn exit_code(result: Result<(), Error>) -> ExitCode {
    log::say_all();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report(&failure);
            ExitCode::FAILURE
        }
    }
}

/// Warnings and errors as plain sentences, for commands that have no log.
fn warn_plainly() {
    tracing_subscriber::fmt()
        .with_max_level(LevelFilter::WARN)
        .log_internal_errors(false)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .event_format(Plain)
        .init();
}

/// Like [`report`] without a log.
struct Plain;

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        write!(writer, "subuidless: ")?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// Writes to standard output.
fn print(bytes: &[u8]) -> Result<(), Error> {
    let mut output = std::io::stdout().lock();
    output
        .write_all(bytes)
        .and_then(|()| output.flush())
        .map_err(not_written)
}

fn not_written(source: std::io::Error) -> Error {
    Error::doing("writing to standard output", source)
}

/// Reports an error: in the log if there is one, else as a plain sentence. No other place does.
fn report(failure: &Error) {
    if tracing::dispatcher::has_been_set() {
        error!("{failure}");
    } else {
        tell(&failure.to_string());
    }
}

fn tell(sentence: &str) {
    // Standard error may be closed.
    let _ = writeln!(std::io::stderr(), "subuidless: {sentence}");
}

/// `--socket`, for commands that ask a daemon.
#[derive(Debug, Args)]
struct Asking {
    /// The daemon's socket [default: $XDG_RUNTIME_DIR/subuidless.sock, and those of `subuidless
    /// run`]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

/// `--base`, `--runtime` and `--listener-path`, which `profile` and `bundle` share.
#[derive(Debug, Args)]
struct Weaving {
    /// The profile to which the rules are added
    #[arg(long, value_enum)]
    base: Option<crate::front::bundle::Base>,

    /// The runtime that loads the profile: runc rejects filter flags
    #[arg(long, value_enum, default_value_t = crate::syscalls::profile::Runtime::Crun)]
    runtime: crate::syscalls::profile::Runtime,

    /// Which permissions users other than root are held to [default: full, or what the annotation
    /// io.subuidless.permissions of config.json says]
    #[arg(long, value_name = "LEVEL", value_enum)]
    permissions: Option<crate::wire::permissions::Permissions>,

    /// The daemon's socket, as an absolute path, for runtimes that do not read
    /// RUN_OCI_SECCOMP_RECEIVER
    #[arg(long, value_name = "SOCKET", value_parser = crate::run::absolute)]
    listener_path: Option<String>,
}

impl Weaving {
    fn options(&self) -> crate::front::bundle::ProfileOptions<'_> {
        crate::front::bundle::ProfileOptions {
            base: self.base,
            runtime: self.runtime,
            listener_path: self.listener_path.as_deref(),
            is_denied: false,
            scope: crate::syscalls::Scope {
                is_fast: !crate::front::library::is_turned_off(),
                permissions: self.permissions.unwrap_or_default(),
            },
        }
    }
}
