//! `subuidless run`, and what it starts.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{ArgGroup, Args};
use tracing::level_filters::LevelFilter;

use crate::credentials::CAPABILITY_NAMES;
use crate::error::Error;
use crate::linux::limits::{self, Loss};
use crate::run::{self, Bind, ContainerOptions, Network, Root};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Who the command is to be; with a group there are no supplementary ones [default: root, or
    /// the bundle's user]
    #[arg(long, short, value_name = "UID[:GID]|NAME")]
    user: Option<String>,

    /// Stay yourself: only what the command does in user namespaces that it makes (podman, buildah,
    /// unshare) is emulated
    #[arg(long, conflicts_with_all = ["user", "rootfs", "bundle"])]
    keep_id: bool,

    /// Set an environment variable; NAME alone removes it, or passes it on to a container. May be
    /// given several times
    #[arg(long, short, value_name = "NAME[=VALUE]", value_parser = super::variable)]
    env: Vec<String>,

    /// Where the command runs [default: here; / in a container]
    #[arg(long, short = 'w', value_name = "DIR")]
    cwd: Option<PathBuf>,

    /// Where owners lie that files cannot carry, on a local disk [default:
    /// $XDG_STATE_HOME/subuidless]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,

    #[command(flatten)]
    log: Log,

    #[command(flatten)]
    container: Container,

    /// The command and its arguments
    #[arg(
        required_unless_present = ROOT,
        trailing_var_arg = true,
        value_name = "COMMAND"
    )]
    command: Vec<OsString>,
}

/// Where a container comes from, as clap calls it.
const ROOT: &str = "root";

/// What is for containers only: without one, each is an error.
#[derive(Debug, Args)]
#[command(next_help_heading = "Containers", group = ArgGroup::new(ROOT).args(["rootfs", "bundle"]))]
struct Container {
    /// Run in a container with this directory as its root, made by crun or runc
    #[arg(long, value_name = "DIR", conflicts_with = "bundle")]
    rootfs: Option<PathBuf>,

    /// Run the container of this OCI bundle, whose config.json stays as it is
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,

    /// What `exec`, `kill` and `ps` call it; its host name, too [default: run-PID]
    #[arg(long, requires = ROOT, value_name = "NAME")]
    name: Option<String>,

    /// Come back once the container has started
    #[arg(long, short, requires = ROOT)]
    detach: bool,

    /// As it is always: when a container has ended, nothing is left of it but what it has changed
    /// in its root file system
    #[arg(long, requires = ROOT)]
    rm: bool,

    /// Its network [default: host, or as the bundle has it]
    #[arg(long, requires = ROOT, value_name = "KIND", value_enum)]
    net: Option<Network>,

    /// Show a directory or file of the host in the container; may be given several times
    #[arg(long, short, requires = ROOT, value_name = "SRC:DST[:ro]")]
    bind: Vec<Bind>,

    /// The root file system cannot be written to
    #[arg(long, requires = ROOT)]
    read_only: bool,

    /// Make a directory of the root file system writable, by copies in memory; may be given several
    /// times
    #[arg(long, requires = ROOT, value_name = "DIR", value_parser = super::absolute)]
    copy_up: Vec<String>,

    /// Its host name [default: its name]
    #[arg(long, requires = ROOT, value_name = "NAME", value_parser = host_name)]
    hostname: Option<String>,

    /// A capability that its root has beside the usual ones, as CAP_SYS_ADMIN; may be given several
    /// times
    #[arg(long, requires = ROOT, value_name = "CAP", value_parser = capability)]
    cap_add: Vec<String>,

    /// crun or runc, a path or a name [default: crun, or runc where crun is missing]
    #[arg(long, requires = ROOT, value_name = "PATH")]
    runtime: Option<PathBuf>,
}

/// How a supervisor logs.
#[derive(Debug, Args)]
struct Log {
    /// Append the log to this file [default: standard error, if that is no terminal until COMMAND
    /// has ended]
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,

    /// Log lines of this level and above: error, warn, info, debug, trace or off
    #[arg(long, value_name = "LEVEL", default_value = "warn")]
    log_level: LevelFilter,
}

impl Log {
    fn wish(self) -> run::Log {
        let log = run::Log {
            file: self.log_file,
            level: self.log_level,
        };
        if self.log_level > LevelFilter::WARN && log.borrows() {
            let reason = "--log-level: the log goes nowhere where standard error is no terminal: \
                          add --log-file FILE";
            super::wrong_usage("run", ErrorKind::MissingRequiredArgument, reason);
        }
        log
    }
}

/// sethostname(2)
fn host_name(name: &str) -> Result<String, String> {
    match (1..=64).contains(&name.len()) {
        true => Ok(name.to_owned()),
        false => Err("a host name has 1 to 64 bytes".to_owned()),
    }
}

fn capability(name: &str) -> Result<String, String> {
    let upper = name.to_ascii_uppercase();
    let upper = upper.strip_prefix("CAP_").unwrap_or(&upper);
    match CAPABILITY_NAMES.contains(&upper) {
        false => Err("a name of capabilities(7) is wanted, as CAP_SYS_ADMIN".to_owned()),
        true => Ok(format!("CAP_{upper}")),
    }
}

/// Whether somebody sits at a terminal, before which the container's is to stand.
pub(super) fn is_interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// Never returns if all goes well: this process becomes the command, or the container's runtime.
pub(super) fn run(arguments: Arguments) -> Error {
    let container = arguments.container;
    let is_container = container.rootfs.is_some() || container.bundle.is_some();
    let vital: &[Loss] = match is_container || arguments.user.is_some() {
        true => &[Loss::All, Loss::Ids],
        false => &[Loss::All],
    };
    if let Err(error) = limits::require(vital, &mut super::tell) {
        return error;
    }
    let root = match (container.rootfs, container.bundle) {
        (Some(rootfs), _) => Root::Rootfs(rootfs),
        (None, Some(bundle)) => Root::Bundle(bundle),
        (None, None) => {
            let result = run::run(run::Options {
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
    only_error(run::run_container(ContainerOptions {
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

#[cfg(test)]
mod tests {
    use clap::{Arg, CommandFactory, Parser};

    use super::*;
    use crate::cli::CommandLine;

    /// What is said of a command line, if it is wrong.
    fn complaint(words: &[&str]) -> Option<clap::Error> {
        let line = [&["subuidless", "run"], words, &["--", "true"]].concat();
        CommandLine::try_parse_from(line).err()
    }

    fn value(option: &Arg) -> &'static str {
        match option.get_id().as_str() {
            "net" => "none",
            "bind" => "/:/mnt",
            "copy_up" => "/etc",
            "cap_add" => "CAP_CHOWN",
            _ => "x",
        }
    }

    #[test]
    fn options_for_containers_are_errors_without_one_and_no_other_option_is_left_out() {
        /// Those that are obeyed without a container.
        const OF_ALL: [&str; 8] = [
            "user",
            "keep_id",
            "env",
            "cwd",
            "store",
            "log_file",
            "log_level",
            "help",
        ];
        let mut line = CommandLine::command();
        line.build();
        let run = line.find_subcommand("run").unwrap();
        let mut tried = 0;
        for option in run.get_arguments().filter(|option| !option.is_positional()) {
            let id = option.get_id().as_str();
            if OF_ALL.contains(&id) || ["rootfs", "bundle"].contains(&id) {
                continue;
            }
            let name = format!("--{}", option.get_long().unwrap());
            let takes_value = option.get_action().takes_values();
            let mut words = vec![name.as_str()];
            words.extend(takes_value.then(|| value(option)));
            let error = complaint(&words).unwrap_or_else(|| panic!("{name} is ignored"));
            assert_eq!(error.kind(), ErrorKind::MissingRequiredArgument, "{error}");
            assert_eq!(error.exit_code(), 2);
            let said = error.to_string();
            assert!(
                said.contains("--rootfs") && said.contains("--bundle"),
                "{said}"
            );
            words.extend(["--rootfs", "/"]);
            assert!(complaint(&words).is_none(), "{name}");
            tried += 1;
        }
        assert!(tried >= 10);
    }

    #[test]
    fn only_capabilities_that_exist_can_be_added() {
        assert_eq!(capability("sys_admin").as_deref(), Ok("CAP_SYS_ADMIN"));
        assert_eq!(
            capability("CAP_CHECKPOINT_RESTORE").as_deref(),
            Ok("CAP_CHECKPOINT_RESTORE")
        );
        for wrong in ["", "CAP_", "CAP_FOO", "ALL"] {
            assert!(capability(wrong).is_err(), "{wrong}");
        }
    }
}
