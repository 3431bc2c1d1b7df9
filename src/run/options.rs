//! The options of `subuidless run` and `subuidless exec`.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};
use tracing::level_filters::LevelFilter;

use super::environment::variable;
use super::network::Network;
use super::spec::{Bind, Propagation};
use crate::credentials::CAPABILITY_NAMES;
use crate::linux::programs;
use crate::wire::others::Others;
use crate::wire::permissions::Permissions;
use crate::wire::published::Published;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// User, and group, of the command; a group given here is the only one [default: root, or the
    /// bundle's user]
    #[arg(long, short, value_name = "UID[:GID]|NAME")]
    pub(super) user: Option<String>,

    /// Keep your own ids, and emulate only in user namespaces that the command creates (podman,
    /// buildah, unshare)
    #[arg(long, conflicts_with_all = ["user", "rootfs", "bundle"])]
    #[arg(conflicts_with = ISOLATION)]
    pub(super) keep_id: bool,

    /// Set an environment variable; NAME alone removes it, or passes it on to a container.
    /// Repeatable
    #[arg(long, short, value_name = "NAME[=VALUE]", value_parser = variable)]
    pub(super) env: Vec<String>,

    /// Set the variables of a file, before those of --env: lines NAME=VALUE, or NAME for its value
    /// here. Repeatable
    #[arg(long, value_name = "FILE")]
    pub(super) env_file: Vec<PathBuf>,

    /// Working directory of the command [default: this one; / in a container]
    #[arg(long, visible_alias = "workdir", short = 'w', value_name = "DIR")]
    pub(super) cwd: Option<PathBuf>,

    /// Directory, on a local disk, for owners that files cannot carry [default:
    /// $XDG_STATE_HOME/subuidless]
    #[arg(long, value_name = "DIR")]
    pub(super) store: Option<PathBuf>,

    /// Do not preload the library with which dynamic programs answer calls themselves [also:
    /// SUBUIDLESS_FAST=0]
    #[arg(long)]
    pub(super) no_fast: bool,

    /// Which permissions users other than root are held to [default: full, or what the annotation
    /// io.subuidless.permissions of a bundle says]
    #[arg(long, value_name = "LEVEL", value_enum)]
    pub(super) permissions: Option<Permissions>,

    /// Whom files of other host users, root included, belong to: image makers that copy from the
    /// host need root
    #[arg(
        long,
        value_name = "WHO",
        value_enum,
        default_value_t,
        conflicts_with_all = ["keep_id", ROOT]
    )]
    pub(super) others: Others,

    /// Note the files whose owners change, for `fakeroot -s`.
    #[arg(skip)]
    pub(crate) notes: bool,

    #[command(flatten)]
    pub(super) log: Log,

    #[command(flatten)]
    pub(super) isolation: Isolation,

    #[command(flatten)]
    pub(super) container: Container,

    #[command(flatten)]
    pub(crate) console: Console,

    /// The command and its arguments [default: $SHELL, or /bin/sh; in a container /bin/sh, or what
    /// the bundle says]
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    pub(super) command: Vec<OsString>,
}

/// The id of clap's group of --rootfs and --bundle.
const ROOT: &str = "root";

/// The id of clap's group of all options of [`Isolation`].
const ISOLATION: &str = "isolation";

/// Options for namespaces: what a command, or a container, does not share with the host.
#[derive(Debug, Args)]
#[command(next_help_heading = "Namespaces", group = ArgGroup::new(ISOLATION).multiple(true).args([
    "name", "net", "publish", "bind", "read_only", "copy_up", "pid", "uts", "hostname", "ipc",
    "cgroup", "propagation",
]))]
pub(crate) struct Isolation {
    /// Name for `exec`, `kill` and `ps`, and host name of a container [default: run-PID]
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<String>,

    /// Network [default: host, or that of the bundle]
    #[arg(long, visible_alias = "network", value_name = "KIND", value_enum)]
    pub(super) net: Option<Network>,

    /// Forward a port of the host to one of a network of pasta or slirp4netns. Repeatable
    #[arg(long, short, value_name = "[IP:]PORT:PORT[/udp]")]
    pub(super) publish: Vec<Published>,

    /// Bind-mount a directory or file of the host at another place. Repeatable
    #[arg(long, short, visible_alias = "volume", visible_short_alias = 'v')]
    #[arg(value_name = "SRC:DST[:ro]")]
    pub(super) bind: Vec<Bind>,

    /// Make the root file system read-only; without a container, all file systems but /proc, /dev
    /// and what --bind and --copy-up mount
    #[arg(long)]
    pub(super) read_only: bool,

    /// Make a directory writable; changes go to copies in memory. Repeatable
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    pub(super) copy_up: Vec<String>,

    /// A process namespace, with a /proc of its own [containers always have one]
    #[arg(long)]
    pub(super) pid: bool,

    /// A namespace for the host name [containers of --rootfs always have one]
    #[arg(long)]
    pub(super) uts: bool,

    /// Host name [default: the host's; in a container of --rootfs its name]
    #[arg(long, value_name = "NAME", value_parser = host_name)]
    pub(super) hostname: Option<String>,

    /// A namespace for System V IPC and POSIX message queues [containers of --rootfs always have
    /// one]
    #[arg(long)]
    pub(super) ipc: bool,

    /// A cgroup namespace
    #[arg(long)]
    pub(super) cgroup: bool,

    /// Which mounts are passed on between the host and the command, or the container [default:
    /// slave, in a container private]
    #[arg(long, value_name = "KIND", value_enum)]
    pub(super) propagation: Option<Propagation>,
}

/// Options for containers: an error without --rootfs or --bundle.
#[derive(Debug, Args)]
#[command(next_help_heading = "Containers", group = ArgGroup::new(ROOT).args(["rootfs", "bundle"]))]
pub(crate) struct Container {
    /// Run in a container, created by crun or runc, with this directory as its root
    #[arg(long, value_name = "DIR", conflicts_with = "bundle")]
    pub(super) rootfs: Option<PathBuf>,

    /// Run the container of this OCI bundle; its config.json is not changed
    #[arg(long, value_name = "DIR")]
    pub(super) bundle: Option<PathBuf>,

    /// Return once the container has started. `subuidless logs` prints its output
    #[arg(long, short, requires = ROOT)]
    pub(super) detach: bool,

    /// Accepted for compatibility: nothing but changes to the root file system outlives a
    /// container, with or without it
    #[arg(long, requires = ROOT)]
    pub(super) rm: bool,

    /// Add a capability, such as CAP_SYS_ADMIN, to those of the container's root. Repeatable
    #[arg(long, requires = ROOT, value_name = "CAP", value_parser = capability)]
    pub(super) cap_add: Vec<String>,

    /// Path or name of crun or runc [default: crun, or runc if there is no crun]
    #[arg(long, requires = ROOT, value_name = "PATH")]
    pub(super) runtime: Option<PathBuf>,
}

/// What people type out of habit.
#[derive(Debug, Args)]
pub(crate) struct Console {
    /// Accepted for compatibility: standard input is always the command's
    #[arg(long, short)]
    interactive: bool,

    /// Say so if there is no terminal: where standard input and output are one, the command has it,
    /// with or without this
    #[arg(long, short)]
    tty: bool,
}

impl Console {
    /// What is to be said about a terminal that is asked for, and that the command will not have.
    pub(crate) fn complaint(&self, is_detached: bool) -> Option<&'static str> {
        match self.tty {
            true if is_detached => Some("--tty has no effect with --detach"),
            true if !is_interactive() => Some(
                "--tty: standard input and output are not both a terminal, so the command has none",
            ),
            _ => None,
        }
    }
}

/// Logging of the supervisor.
#[derive(Debug, Args)]
pub(crate) struct Log {
    /// Append the log to this file [default: standard error; unless that is a terminal, only until
    /// COMMAND exits]
    #[arg(long = "log-file", value_name = "FILE")]
    pub(super) file: Option<PathBuf>,

    /// Log lines of this level and above: error, warn, info, debug, trace or off
    #[arg(long = "log-level", value_name = "LEVEL", default_value = "warn")]
    pub(super) level: LevelFilter,
}

/// Where a container's files come from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Root<'a> {
    Rootfs(&'a Path),
    Bundle(&'a Path),
}

impl<'a> Root<'a> {
    /// The directory that was named.
    pub(crate) fn path(self) -> &'a Path {
        let (Self::Rootfs(path) | Self::Bundle(path)) = self;
        path
    }
}

impl Options {
    /// Returns `None` if the command runs without a container.
    pub(crate) fn root(&self) -> Option<Root<'_>> {
        let Container { rootfs, bundle, .. } = &self.container;
        let rootfs = rootfs.as_deref().map(Root::Rootfs);
        rootfs.or_else(|| bundle.as_deref().map(Root::Bundle))
    }

    /// The command, which for a container may be empty.
    pub(super) fn command(&self) -> Vec<OsString> {
        match self.command.is_empty() && self.root().is_none() {
            true => vec![programs::shell()],
            false => self.command.clone(),
        }
    }

    pub(crate) fn is_detached(&self) -> bool {
        self.container.detach
    }

    /// Whether the command has namespaces of its own, or a name, which a container always has.
    pub(crate) fn is_isolated(&self) -> bool {
        let Isolation {
            name,
            net,
            publish,
            bind,
            read_only,
            copy_up,
            pid,
            uts,
            hostname,
            ipc,
            cgroup,
            propagation,
        } = &self.isolation;
        let has_values = [!publish.is_empty(), !bind.is_empty(), !copy_up.is_empty()];
        let has_one = [
            name.is_some(),
            net.is_some(),
            hostname.is_some(),
            propagation.is_some(),
        ];
        let flags = [*read_only, *pid, *uts, *ipc, *cgroup];
        has_values
            .into_iter()
            .chain(has_one)
            .chain(flags)
            .any(|it| it)
    }

    /// Whether the command starts as a user other than root.
    pub(crate) fn changes_ids(&self) -> bool {
        self.user.is_some()
    }

    /// The reason why a port cannot be published.
    pub(crate) fn refusal(&self) -> Option<String> {
        let network = self.isolation.net.unwrap_or(Network::Host);
        let mut ports = self.isolation.publish.iter();
        ports.find_map(|port| network.can_forward(port).err())
    }

    /// Whether more log lines were requested, with no place for them to go.
    pub(crate) fn logs_to_nobody(&self) -> bool {
        self.log.level > LevelFilter::WARN && self.log.borrows()
    }
}

impl Isolation {
    /// The network, if it is not the host's.
    pub(super) fn own_network(&self) -> Option<Network> {
        self.net.filter(|network| *network != Network::Host)
    }

    /// The types of namespaces that are asked for, in the words of the OCI runtime spec, but for
    /// that of the network.
    pub(super) fn namespaces(&self) -> Vec<&'static str> {
        let has_name = self.uts || self.hostname.is_some();
        let all = [
            (self.pid, "pid"),
            (has_name, "uts"),
            (self.ipc, "ipc"),
            (self.cgroup, "cgroup"),
        ];
        let asked = all.into_iter().filter(|(asked, _)| *asked);
        asked.map(|(_, kind)| kind).collect()
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            file: None,
            level: LevelFilter::WARN,
        }
    }
}

impl Log {
    /// Whether the log goes to the caller's standard error, and that is not a terminal. It is then
    /// used only until the command exits (see [`super::stderr`]).
    pub(super) fn borrows(&self) -> bool {
        self.file.is_none() && !io::stderr().is_terminal()
    }
}

#[derive(Debug, Args)]
pub(crate) struct ExecOptions {
    /// User, and group, of the command [default: the container's user]
    #[arg(long, short, value_name = "UID[:GID]|NAME")]
    pub(super) user: Option<String>,

    /// Set an environment variable; NAME alone passes it on. Repeatable
    #[arg(long, short, value_name = "NAME[=VALUE]", value_parser = variable)]
    pub(super) env: Vec<String>,

    /// Set the variables of a file, before those of --env: lines NAME=VALUE, or NAME for its value
    /// here. Repeatable
    #[arg(long, value_name = "FILE")]
    pub(super) env_file: Vec<PathBuf>,

    /// Working directory in the container
    #[arg(long, visible_alias = "workdir", short = 'w', value_name = "DIR")]
    #[arg(value_parser = absolute)]
    pub(super) cwd: Option<String>,

    #[command(flatten)]
    pub(crate) console: Console,

    /// The container's name
    pub(super) name: String,

    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub(super) command: Vec<OsString>,
}

/// Whether standard input and output are terminals: then the container gets one of its own.
pub(super) fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
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

pub(crate) fn absolute(path: &str) -> Result<String, String> {
    if PathBuf::from(path).is_absolute() {
        Ok(path.to_owned())
    } else {
        Err("an absolute path is wanted, as /etc".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
