//! `subuidless run`: a command, or a container, that needs no daemon to be started before; and what
//! can be done with such containers while they run.

mod command;
mod container;
mod inside;
mod namespace;
mod network;
mod place;
mod program;
mod spec;
mod stderr;
mod supervisor;
mod user;

use std::io;

pub(crate) use command::{Options, run};
pub(crate) use container::{ContainerOptions, Root, run as run_container};
pub(crate) use inside::{ExecOptions, Row, exec, list, signal};
pub(crate) use namespace::enter as enter_user_namespace;
pub(crate) use network::{Network, hook as network_hook, keep as keep_network};
pub(crate) use spec::Bind;
pub(crate) use supervisor::{Log, supervise};

use crate::error::Error;

/// The exit code of a command that could not be run, as env(1) and timeout(1) have them.
pub(crate) fn exit_code(error: &Error) -> u8 {
    match error {
        Error::Execute { source, .. } if source.kind() == io::ErrorKind::NotFound => 127,
        Error::Execute { .. } => 126,
        _ => 125,
    }
}
