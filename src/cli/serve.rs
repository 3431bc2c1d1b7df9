//! `subuidless serve [SOCKET]` and `subuidless SOCKET`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use crate::daemon::{self, background};
use crate::error::{Context, Error};
use crate::log;
use crate::wire::{mode, rundir};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where to listen [default: $XDG_RUNTIME_DIR/subuidless.sock]
    socket: Option<PathBuf>,

    /// Directory, on a local disk, for owners that files cannot carry [default:
    /// $XDG_STATE_HOME/subuidless]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,

    /// Exit after this many seconds without a container
    #[arg(long, value_name = "SECONDS")]
    idle: Option<u64>,

    /// Start in the background, and return once it listens. The log is `subuidless.log` in the
    /// socket's directory
    #[arg(long)]
    background: bool,

    #[command(flatten)]
    log: log::Settings,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Error> {
    if arguments.background {
        return background::start(mode::Daemon {
            log: arguments.log,
            socket: match arguments.socket {
                Some(socket) => socket,
                None => rundir::control_socket()?,
            },
            // The daemon's working directory will be another one.
            store: arguments
                .store
                .map(|store| std::path::absolute(&store).at(store))
                .transpose()?,
            idle: arguments.idle,
            for_one: false,
        });
    }
    arguments.log.start();
    daemon::run(daemon::Options {
        socket: arguments.socket,
        store: arguments.store,
        log: arguments.log,
        idle: arguments.idle.map(Duration::from_secs),
        ..daemon::Options::default()
    })
}

impl Arguments {
    /// The socket's path.
    pub(super) fn socket(&self) -> Option<&OsStr> {
        self.socket.as_deref().map(Path::as_os_str)
    }
}
