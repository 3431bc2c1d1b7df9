//! `subuidless status`.

use clap::Args;

use super::{Asking, print, report};
use crate::error::Error;
use crate::host::look::status;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    asking: Asking,

    /// Print one JSON document instead of tables
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Error> {
    let status = status::ask(arguments.asking.socket.as_deref(), &mut report)?;
    let text = if arguments.json {
        serde_json::to_string_pretty(&status).unwrap_or_default() + "\n"
    } else {
        let width = terminal_size::terminal_size().map(|(width, _)| width.0.into());
        status.text(width)
    };
    print(text.as_bytes())
}
