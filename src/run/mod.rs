//! `subuidless run`: a command, or a container, that needs no daemon to be started before; and what
//! can be done with such containers while they run.

mod boot;
mod command;
mod container;
mod copy_up;
mod engine;
mod environment;
mod family;
mod inside;
mod isolated;
mod keeper;
mod mounts;
mod namespace;
mod network;
mod options;
mod output;
mod place;
mod points;
mod program;
mod spec;
mod stderr;
mod supervisor;
mod user;

use std::convert::Infallible;
use std::io;

pub(crate) use command::executed;
pub(crate) use engine::{Engine, Kind as EngineKind};
pub(crate) use family::{Half, split};
pub(crate) use inside::{Row, exec, list, logs, signal};
pub(crate) use keeper::keep as keep_network;
pub(crate) use network::hook as network_hook;
pub(crate) use options::{ExecOptions, Options, absolute};
pub(crate) use supervisor::{be_supervisor, id_of};

use crate::error::Error;

/// Becomes the command, or the runtime of its container. Returns only if that cannot be done.
pub(crate) fn run(options: &Options) -> Result<Infallible, Error> {
    match options.root() {
        Some(root) => container::run(options, root),
        None if options.is_isolated() => isolated::run(options),
        None => command::run(options),
    }
}

/// The exit code of a command that could not be run: the same as that of env(1) and timeout(1).
pub(crate) fn exit_code(error: &Error) -> u8 {
    match error {
        Error::Execute { source, .. } if source.kind() == io::ErrorKind::NotFound => 127,
        Error::NoEngine { .. } => 127,
        Error::Execute { .. } => 126,
        _ => 125,
    }
}
