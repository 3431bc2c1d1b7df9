//! The options of `subuidless run` and `subuidless exec`.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};
use tracing::level_filters::LevelFilter;

use super::network::Network;
use super::spec::Bind;
use crate::credentials::CAPABILITY_NAMES;
use crate::wire::permissions::Permissions;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// User, and group, of the command; a group given here is the only one [default: root, or the
    /// bundle's user]
    #[arg(long, short, value_name = "UID[:GID]|NAME")]
    pub(super) user: Option<String>,

    /// Keep your own ids, and emulate only in user namespaces that the command creates (podman,
    /// buildah, unshare)
    #[arg(long, conflicts_with_all = ["user", "rootfs", "bundle"])]
    pub(super) keep_id: bool,

    /// Set an environment variable; NAME alone removes it, or passes it on to a container.
    /// Repeatable
    #[arg(long, short, value_name = "NAME[=VALUE]", value_parser = variable)]
    pub(super) env: Vec<String>,

    /// Working directory of the command [default: this one; / in a container]
    #[arg(long, short = 'w', value_name = "DIR")]
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

    #[command(flatten)]
    pub(super) log: Log,

    #[command(flatten)]
    pub(super) container: Container,

    /// The command and its arguments
    #[arg(
        required_unless_present = ROOT,
        trailing_var_arg = true,
        value_name = "COMMAND"
    )]
    pub(super) command: Vec<OsString>,
}

/// The id of clap's group of --rootfs and --bundle.
const ROOT: &str = "root";

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

    /// Name for `exec`, `kill` and `ps`, and host name [default: run-PID]
    #[arg(long, requires = ROOT, value_name = "NAME")]
    pub(super) name: Option<String>,

    /// Return once the container has started
    #[arg(long, short, requires = ROOT)]
    pub(super) detach: bool,

    /// Accepted for compatibility: nothing but changes to the root file system outlives a
    /// container, with or without it
    #[arg(long, requires = ROOT)]
    pub(super) rm: bool,

    /// Network of the container [default: host, or that of the bundle]
    #[arg(long, requires = ROOT, value_name = "KIND", value_enum)]
    pub(super) net: Option<Network>,

    /// Bind-mount a directory or file of the host in the container. Repeatable
    #[arg(long, short, requires = ROOT, value_name = "SRC:DST[:ro]")]
    pub(super) bind: Vec<Bind>,

    /// Mount the root file system read-only
    #[arg(long, requires = ROOT)]
    pub(super) read_only: bool,

    /// Make a directory of the root file system writable; changes go to copies in memory.
    /// Repeatable
    #[arg(long, requires = ROOT, value_name = "DIR", value_parser = absolute)]
    pub(super) copy_up: Vec<String>,

    /// Host name of the container [default: its name]
    #[arg(long, requires = ROOT, value_name = "NAME", value_parser = host_name)]
    pub(super) hostname: Option<String>,

    /// Add a capability, such as CAP_SYS_ADMIN, to those of the container's root. Repeatable
    #[arg(long, requires = ROOT, value_name = "CAP", value_parser = capability)]
    pub(super) cap_add: Vec<String>,

    /// Path or name of crun or runc [default: crun, or runc if there is no crun]
    #[arg(long, requires = ROOT, value_name = "PATH")]
    pub(super) runtime: Option<PathBuf>,
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

impl Options {
    /// Returns `None` if the command runs without a container.
    pub(crate) fn root(&self) -> Option<Root<'_>> {
        let Container { rootfs, bundle, .. } = &self.container;
        let rootfs = rootfs.as_deref().map(Root::Rootfs);
        rootfs.or_else(|| bundle.as_deref().map(Root::Bundle))
    }

    /// Whether the command starts as a user other than root.
    pub(crate) fn changes_ids(&self) -> bool {
        self.user.is_some()
    }

    /// Whether more log lines were requested, with no place for them to go.
    pub(crate) fn logs_to_nobody(&self) -> bool {
        self.log.level > LevelFilter::WARN && self.log.borrows()
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

    /// Working directory in the container
    #[arg(long, short = 'w', value_name = "DIR", value_parser = absolute)]
    pub(super) cwd: Option<String>,

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

fn variable(text: &str) -> Result<String, String> {
    match text.is_empty() || text.starts_with('=') {
        true => Err("a variable needs a name".to_owned()),
        false => Ok(text.to_owned()),
    }
}

pub(crate) fn absolute(path: &str) -> Result<String, String> {
    if PathBuf::from(path).is_absolute() {
        Ok(path.to_owned())
    } else {
        Err("runtimes take an absolute path only".to_owned())
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
