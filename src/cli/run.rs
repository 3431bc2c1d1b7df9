//! `subuidless run`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use tracing::level_filters::LevelFilter;

use super::Logging;
use crate::daemon;
use crate::error::Error;
use crate::launch;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Who the command is to be; a group alone leaves no supplementary ones [default: root]
    #[arg(long, short, value_name = "UID[:GID]|NAME")]
    user: Option<String>,

    /// Stay yourself: only what the command does in user namespaces that it makes (podman, buildah, unshare) is emulated
    #[arg(long, conflicts_with = "user")]
    keep_id: bool,

    /// Set an environment variable, or remove one; may be given several times
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    env: Vec<String>,

    /// Where the command runs [default: here]
    #[arg(long, short = 'w', value_name = "DIR")]
    cwd: Option<PathBuf>,

    /// Where owners lie that files cannot carry, on a local disk [default: $XDG_STATE_HOME/subuidless]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,

    #[command(flatten)]
    log: Log,

    /// The command and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    command: Vec<OsString>,
}

/// How a supervisor logs.
#[derive(Debug, Args)]
struct Log {
    /// Append the log to this file [default: standard error if that is a terminal, else nowhere]
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,

    /// Log lines of this level and above: error, warn, info, debug, trace or off
    #[arg(long, value_name = "LEVEL", default_value = "warn")]
    log_level: LevelFilter,
}

impl Log {
    fn wish(self) -> launch::Log {
        launch::Log {
            file: self.log_file,
            options: vec!["--log-level".into(), self.log_level.to_string().into()],
        }
    }
}

/// Never returns if all goes well: this process becomes the command.
pub(super) fn run(arguments: Arguments) -> Error {
    let options = launch::Options {
        command: arguments.command,
        user: arguments.user,
        keep_id: arguments.keep_id,
        environment: arguments.env,
        directory: arguments.cwd,
        store: arguments.store,
        log: arguments.log.wish(),
    };
    match launch::run(options) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

/// What `run` starts for the listener that comes on standard input: no command for people.
#[derive(Debug, Args)]
pub(super) struct Supervise {
    #[arg(long)]
    store: Option<PathBuf>,

    #[arg(long)]
    keep_id: bool,

    #[command(flatten)]
    logging: Logging,
}

pub(super) fn supervise(arguments: Supervise) -> Result<(), Error> {
    arguments.logging.start();
    let (log_level, log_format) = arguments.logging.words();
    let options = daemon::Options {
        socket: None,
        store: arguments.store,
        log_level,
        log_format,
        idle: None,
    };
    daemon::supervise(options, arguments.keep_id)
}
