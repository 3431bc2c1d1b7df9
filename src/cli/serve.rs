//! `subuidless serve [SOCKET]` and `subuidless SOCKET`.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::Logging;
use crate::daemon;
use crate::error::Error;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where to listen [default: $XDG_RUNTIME_DIR/subuidless.sock]
    socket: Option<PathBuf>,

    /// Where owners lie that files cannot carry, on a local disk [default:
    /// $XDG_STATE_HOME/subuidless]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,

    /// End after so many seconds without any container
    #[arg(long, value_name = "SECONDS")]
    idle: Option<u64>,

    /// End with the container that comes first, and those processes that are put into it
    #[arg(long, hide = true)]
    for_one: bool,

    /// Start in the background, and come back once it listens. The log is `subuidless.log` beside
    /// the socket
    #[arg(long)]
    background: bool,

    #[command(flatten)]
    logging: Logging,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Error> {
    if arguments.background {
        let words = arguments.words();
        return daemon::background::start(arguments.socket, words);
    }
    arguments.logging.start();
    let (log_level, log_format) = arguments.logging.words();
    daemon::run(daemon::Options {
        socket: arguments.socket,
        store: arguments.store,
        log_level,
        log_format,
        idle: arguments.idle.map(Duration::from_secs),
        for_one: arguments.for_one,
        until: None,
    })
}

impl Arguments {
    /// The socket, where it could be a misspelled command.
    pub(super) fn bare_word(&self) -> Option<&OsStr> {
        let word = self.socket.as_ref()?.as_os_str();
        (!word.as_encoded_bytes().contains(&b'/')).then_some(word)
    }

    /// The same in the foreground, but for the socket.
    fn words(&self) -> Vec<OsString> {
        let (level, format) = self.logging.words();
        let mut words: Vec<OsString> = vec!["serve".into()];
        words.extend(["--log-level".into(), level.into()]);
        words.extend(["--log-format".into(), format.into()]);
        if let Some(idle) = self.idle {
            words.extend(["--idle".into(), idle.to_string().into()]);
        }
        if self.for_one {
            words.push("--for-one".into());
        }
        if let Some(store) = &self.store {
            // The working directory will be another one.
            let store = std::path::absolute(store).unwrap_or_else(|_| store.clone());
            words.extend(["--store".into(), store.into()]);
        }
        words
    }
}
