//! `subuidless exec`, `ps`, `kill`: for containers that `run` has started.

use clap::Args;
use nix::sys::signal::Signal;

use super::print;
use crate::error::Error;
use crate::run::{self, ExecOptions, Row};

/// Returns only on failure: on success this process becomes the runtime.
pub(super) fn exec(options: &ExecOptions) -> Error {
    if let Some(complaint) = options.console.complaint(false) {
        super::tell(complaint);
    }
    match run::exec(options) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

#[derive(Debug, Args)]
pub(super) struct PsArguments {
    /// Print one JSON document, a list of objects
    #[arg(long)]
    json: bool,
}

pub(super) fn ps(arguments: &PsArguments) -> Result<(), Error> {
    let rows = run::list()?;
    let text = match arguments.json {
        true => serde_json::to_string_pretty(&rows).unwrap_or_default() + "\n",
        false => table(&rows),
    };
    print(text.as_bytes())
}

fn table(rows: &[Row]) -> String {
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    let width = width.max("NAME".len());
    let mut text = format!("{:width$}  {:>7}  COMMAND\n", "NAME", "PID");
    for row in rows {
        let pid = row
            .pid
            .map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        // A command may contain control characters, and this may be a terminal.
        let command = row.about.command.join(" ").escape_debug().to_string();
        text += &format!("{:width$}  {pid:>7}  {command}\n", row.name);
    }
    text
}

#[derive(Debug, Args)]
pub(super) struct LogsArguments {
    /// The container's name
    name: String,

    /// Go on until the container ends
    #[arg(long, short)]
    follow: bool,
}

pub(super) fn logs(arguments: &LogsArguments) -> Result<(), Error> {
    let mut output = std::io::stdout().lock();
    run::logs(&arguments.name, arguments.follow, &mut output)
}

#[derive(Debug, Args)]
pub(super) struct KillArguments {
    /// The container's name
    name: String,

    /// Signal name or number. The kernel drops all but KILL and STOP if the container's first
    /// process has no handler
    #[arg(default_value = "KILL", value_parser = signal)]
    signal: Signal,
}

fn signal(text: &str) -> Result<Signal, String> {
    let unknown = || "no signal of signal(7): a name as TERM is wanted, or a number".to_owned();
    if let Ok(number) = text.parse::<i32>() {
        return Signal::try_from(number).map_err(|_| unknown());
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    format!("SIG{name}").parse().map_err(|_| unknown())
}

pub(super) fn kill(arguments: &KillArguments) -> Result<(), Error> {
    run::signal(&arguments.name, arguments.signal)
}
