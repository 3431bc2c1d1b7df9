//! `subuidless trace`.

use clap::Args;

use super::Asking;
use crate::error::Error;
use crate::host::look::trace;
use crate::wire::ask::Filter;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The container's id [default: all containers]
    name: Option<String>,

    #[command(flatten)]
    asking: Asking,

    /// Show only these calls
    #[arg(short, long, value_name = "NAME,...", value_delimiter = ',', value_parser = syscall)]
    calls: Vec<String>,

    /// Also show calls that are left to the kernel
    #[arg(long)]
    continued: bool,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Error> {
    let filter = Filter {
        calls: arguments.calls,
        continued: arguments.continued,
    };
    let socket = arguments.asking.socket.as_deref();
    trace::trace(socket, arguments.name.as_deref(), &filter, &mut super::tell)
}

fn syscall(name: &str) -> Result<String, String> {
    if trace::is_traceable(name) {
        Ok(name.to_owned())
    } else {
        Err("no system call that subuidless answers: docs/syscalls.md lists them".to_owned())
    }
}
