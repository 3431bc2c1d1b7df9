//! `subuidless serve [SOCKET]` and `subuidless SOCKET`.

use std::path::PathBuf;

use clap::Args;

use super::Logging;
use crate::daemon;
use crate::error::Error;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where to listen [default: $XDG_RUNTIME_DIR/subuidless.sock]
    socket: Option<PathBuf>,

    /// Where owners lie that files cannot carry, on a local disk [default: $XDG_STATE_HOME/subuidless]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,

    #[command(flatten)]
    logging: Logging,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Error> {
    arguments.logging.start();
    let (log_level, log_format) = arguments.logging.words();
    daemon::run(daemon::Options {
        socket: arguments.socket,
        store: arguments.store,
        log_level,
        log_format,
    })
}
