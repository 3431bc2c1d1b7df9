//! `subuidless worker`: what the daemon starts for each listener.

use std::path::PathBuf;

use clap::Args;

use super::Logging;
use crate::error::Error;
use crate::worker;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Directory of the side store
    #[arg(long)]
    store: Option<PathBuf>,

    /// The daemon's socket
    #[arg(long)]
    socket: Option<PathBuf>,

    #[command(flatten)]
    logging: Logging,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Error> {
    arguments.logging.start();
    worker::run(&worker::Options {
        store: arguments.store,
        socket: arguments.socket,
    })
}
