//! `subuidless run`, and what it starts.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;
use tracing::level_filters::LevelFilter;

use super::Logging;
use crate::daemon;
use crate::error::Error;
use crate::launch::{self, Bind, ContainerOptions, Holder, Network, Root};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Who the command is to be; with a group there are no supplementary ones [default: root, or the bundle's user]
    #[arg(long, short, value_name = "UID[:GID]|NAME")]
    user: Option<String>,

    /// Stay yourself: only what the command does in user namespaces that it makes (podman, buildah, unshare) is emulated
    #[arg(long, conflicts_with_all = ["user", "rootfs", "bundle"])]
    keep_id: bool,

    /// Set an environment variable; NAME alone removes it, or passes it on to a container. May be given several times
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    env: Vec<String>,

    /// Where the command runs [default: here; / in a container]
    #[arg(long, short = 'w', value_name = "DIR")]
    cwd: Option<PathBuf>,

    /// Where owners lie that files cannot carry, on a local disk [default: $XDG_STATE_HOME/subuidless]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,

    #[command(flatten)]
    log: Log,

    #[command(flatten)]
    container: Container,

    /// The command and its arguments
    #[arg(
        required_unless_present_any = ["rootfs", "bundle"],
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    command: Vec<OsString>,
}

/// What is for containers only.
#[derive(Debug, Args)]
#[command(next_help_heading = "Containers")]
struct Container {
    /// Run in a container with this directory as its root, made by crun or runc
    #[arg(long, value_name = "DIR", conflicts_with = "bundle")]
    rootfs: Option<PathBuf>,

    /// Run the container of this OCI bundle, whose config.json stays as it is
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,

    /// What `exec`, `kill` and `ps` call it; its host name, too [default: run-PID]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Come back once the container has started
    #[arg(long, short)]
    detach: bool,

    /// As it is always: when a container has ended, nothing is left of it but what it has changed in its root file system
    #[arg(long)]
    rm: bool,

    /// Its network [default: host, or as the bundle has it]
    #[arg(long, value_name = "KIND", value_enum)]
    net: Option<Network>,

    /// Show a directory or file of the host in the container; may be given several times
    #[arg(long, short, value_name = "SRC:DST[:ro]")]
    bind: Vec<Bind>,

    /// The root file system cannot be written to
    #[arg(long)]
    read_only: bool,

    /// Make a directory of the root file system writable, by copies in memory; may be given several times
    #[arg(long, value_name = "DIR", value_parser = super::absolute)]
    copy_up: Vec<String>,

    /// Its host name [default: its name]
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,

    /// A capability that its root has beside the usual ones, as CAP_SYS_ADMIN; may be given several times
    #[arg(long, value_name = "CAP", value_parser = capability)]
    cap_add: Vec<String>,

    /// crun or runc, a path or a name [default: crun, or runc where crun is missing]
    #[arg(long, value_name = "PATH")]
    runtime: Option<PathBuf>,
}

/// How a supervisor logs.
#[derive(Debug, Args)]
struct Log {
    /// Append the log to this file [default: standard error, if that is no terminal until COMMAND has ended]
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

fn capability(name: &str) -> Result<String, String> {
    let upper = name.to_ascii_uppercase();
    let upper = upper.strip_prefix("CAP_").unwrap_or(&upper);
    match upper.is_empty() || !upper.bytes().all(|b| b.is_ascii_uppercase() || b == b'_') {
        true => Err("a name of capabilities(7) is wanted, as CAP_SYS_ADMIN".to_owned()),
        false => Ok(format!("CAP_{upper}")),
    }
}

/// Whether somebody sits at a terminal, before which the container's is to stand.
pub(super) fn is_interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// Never returns if all goes well: this process becomes the command, or the container's runtime.
pub(super) fn run(arguments: Arguments) -> Error {
    let container = arguments.container;
    let root = match (container.rootfs, container.bundle) {
        (Some(rootfs), _) => Root::Rootfs(rootfs),
        (None, Some(bundle)) => Root::Bundle(bundle),
        (None, None) => {
            let result = launch::run(launch::Options {
                command: arguments.command,
                user: arguments.user,
                keep_id: arguments.keep_id,
                environment: arguments.env,
                directory: arguments.cwd,
                store: arguments.store,
                log: arguments.log.wish(),
            });
            return only_error(result);
        }
    };
    only_error(launch::run_container(ContainerOptions {
        root,
        name: container.name,
        runtime: container.runtime,
        detach: container.detach,
        command: arguments.command,
        user: arguments.user,
        environment: arguments.env,
        directory: arguments
            .cwd
            .map(|path| path.to_string_lossy().into_owned()),
        terminal: is_interactive(),
        binds: container.bind,
        read_only: container.read_only,
        copy_up: container.copy_up,
        hostname: container.hostname,
        network: container.net,
        capabilities: container.cap_add,
        store: arguments.store,
        log: arguments.log.wish(),
    }))
}

pub(super) fn only_error(result: Result<std::convert::Infallible, Error>) -> Error {
    match result {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

/// What `run` starts: no command for people.
#[derive(Debug, Args)]
pub(super) struct Supervise {
    #[arg(long)]
    store: Option<PathBuf>,

    /// In user namespaces below our own only.
    #[arg(long)]
    keep_id: bool,

    /// The process that a container ends with.
    #[arg(long, requires = "directory")]
    holder: Option<u32>,

    #[arg(long)]
    directory: Option<PathBuf>,

    /// The process that standard error is lent by.
    #[arg(long)]
    stderr_until: Option<u32>,

    #[command(flatten)]
    logging: Logging,
}

pub(super) fn supervise(arguments: Supervise) -> Result<(), Error> {
    let lent = arguments.stderr_until.and_then(launch::lend_stderr);
    arguments.logging.start();
    let result = supervise_alone(arguments);
    if let Some(lent) = lent {
        if let Err(error) = &result {
            super::report(error);
        }
        lent.give_back();
    }
    result
}

fn supervise_alone(arguments: Supervise) -> Result<(), Error> {
    let (log_level, log_format) = arguments.logging.words();
    let options = daemon::Options {
        socket: None,
        store: arguments.store,
        log_level,
        log_format,
        idle: None,
        for_one: false,
        until: None,
    };
    match (arguments.holder, arguments.directory) {
        (Some(pid), Some(directory)) => {
            let result = Holder::new(pid, &directory).and_then(|holder| hold(options, holder));
            result.inspect_err(Holder::tell_failure)
        }
        _ => daemon::supervise(options, arguments.keep_id),
    }
}

/// Serves a container, and removes what was made for it.
fn hold(options: daemon::Options, holder: Holder) -> Result<(), Error> {
    let holder = std::rc::Rc::new(holder);
    let process = holder.process().map_err(|source| Error::Io {
        what: "waiting for the container",
        source,
    })?;
    let at_end = std::rc::Rc::clone(&holder);
    let result = daemon::run(daemon::Options {
        socket: Some(holder.socket()),
        until: Some(daemon::Until {
            process,
            ready: Box::new(Holder::tell_ready),
            ended: Box::new(move || at_end.end_container()),
        }),
        ..options
    });
    holder.clean_up();
    result
}

/// The keeper of a container's network, or the hook that tells it of the container: no command for people.
#[derive(Debug, Args)]
pub(super) struct NetworkArguments {
    /// The keeper, as long as this process lives.
    #[arg(long)]
    holder: Option<u32>,

    /// The program that makes the network, or the keeper's socket.
    path: PathBuf,
}

pub(super) fn network(arguments: &NetworkArguments) -> Result<(), Error> {
    match arguments.holder {
        Some(pid) => launch::keep_network(&arguments.path, pid),
        None => launch::network_hook(&arguments.path),
    }
}
