//! `subuidless runtime`, also called as `subuidless-crun` and `subuidless-runc`: sets everything up
//! and then becomes the real runtime.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::error::Error;
use crate::front::{self, Options};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The real runtime, a path or a name [default: crun, or runc where crun is missing]
    #[arg(long, value_name = "PATH")]
    runtime: Option<PathBuf>,

    /// The daemon's socket [default: that of the user's daemon, which is started if needed]
    #[arg(long, value_name = "SOCKET", value_parser = crate::run::absolute)]
    socket: Option<String>,

    /// The runtime's own arguments
    #[arg(
        value_name = "ARGUMENTS",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    arguments: Vec<OsString>,
}

pub(super) fn run(arguments: Arguments) -> Error {
    front::run(Options {
        name: "subuidless".into(),
        runtime: arguments.runtime,
        socket: arguments.socket.map(PathBuf::from),
        arguments: arguments.arguments,
        no_fast: false,
        permissions: None,
    })
}

/// The arguments, if this program was called as `subuidless-crun` or `subuidless-runc`.
pub(super) fn called_by_name() -> Option<Options> {
    let mut arguments = env::args_os();
    let program = arguments.next()?;
    let name = Path::new(&program).file_name().map(OsStr::to_owned)?;
    front::is_front(&name).then(|| Options {
        name,
        runtime: None,
        socket: None,
        arguments: arguments.collect(),
        no_fast: false,
        permissions: None,
    })
}

pub(super) fn run_by_name(options: Options) -> Error {
    front::run(options)
}
