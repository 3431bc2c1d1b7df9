//! The options of `subuidless run` and `subuidless exec`.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};
use tracing::level_filters::LevelFilter;

use super::network::Network;
use super::spec::Bind;
use crate::credentials::CAPABILITY_NAMES;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Who the command is to be; with a group there are no supplementary ones [default: root, or
    /// the bundle's user]
    #[arg(long, short, value_name = "UID[:GID]|NAME")]
    pub(super) user: Option<String>,

    /// Stay yourself: only what the command does in user namespaces that it makes (podman, buildah,
    /// unshare) is emulated
    #[arg(long, conflicts_with_all = ["user", "rootfs", "bundle"])]
    pub(super) keep_id: bool,

    /// Set an environment variable; NAME alone removes it, or passes it on to a container. May be
    /// given several times
    #[arg(long, short, value_name = "NAME[=VALUE]", value_parser = variable)]
    pub(super) env: Vec<String>,

    /// Where the command runs [default: here; / in a container]
    #[arg(long, short = 'w', value_name = "DIR")]
    pub(super) cwd: Option<PathBuf>,

    /// Where owners lie that files cannot carry, on a local disk [default:
    /// $XDG_STATE_HOME/subuidless]
    #[arg(long, value_name = "DIR")]
    pub(super) store: Option<PathBuf>,

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

/// Where a container comes from, as clap calls it.
const ROOT: &str = "root";

/// What is for containers only: without one, each is an error.
#[derive(Debug, Args)]
#[command(next_help_heading = "Containers", group = ArgGroup::new(ROOT).args(["rootfs", "bundle"]))]
pub(crate) struct Container {
    /// Run in a container with this directory as its root, made by crun or runc
    #[arg(long, value_name = "DIR", conflicts_with = "bundle")]
    pub(super) rootfs: Option<PathBuf>,

    /// Run the container of this OCI bundle, whose config.json stays as it is
    #[arg(long, value_name = "DIR")]
    pub(super) bundle: Option<PathBuf>,

    /// What `exec`, `kill` and `ps` call it; its host name, too [default: run-PID]
    #[arg(long, requires = ROOT, value_name = "NAME")]
    pub(super) name: Option<String>,

    /// Come back once the container has started
    #[arg(long, short, requires = ROOT)]
    pub(super) detach: bool,

    /// As it is always: when a container has ended, nothing is left of it but what it has changed
    /// in its root file system
    #[arg(long, requires = ROOT)]
    pub(super) rm: bool,

    /// Its network [default: host, or as the bundle has it]
    #[arg(long, requires = ROOT, value_name = "KIND", value_enum)]
    pub(super) net: Option<Network>,

    /// Show a directory or file of the host in the container; may be given several times
    #[arg(long, short, requires = ROOT, value_name = "SRC:DST[:ro]")]
    pub(super) bind: Vec<Bind>,

    /// The root file system cannot be written to
    #[arg(long, requires = ROOT)]
    pub(super) read_only: bool,

    /// Make a directory of the root file system writable, by copies in memory; may be given several
    /// times
    #[arg(long, requires = ROOT, value_name = "DIR", value_parser = absolute)]
    pub(super) copy_up: Vec<String>,

    /// Its host name [default: its name]
    #[arg(long, requires = ROOT, value_name = "NAME", value_parser = host_name)]
    pub(super) hostname: Option<String>,

    /// A capability that its root has beside the usual ones, as CAP_SYS_ADMIN; may be given several
    /// times
    #[arg(long, requires = ROOT, value_name = "CAP", value_parser = capability)]
    pub(super) cap_add: Vec<String>,

    /// crun or runc, a path or a name [default: crun, or runc where crun is missing]
    #[arg(long, requires = ROOT, value_name = "PATH")]
    pub(super) runtime: Option<PathBuf>,
}

/// How a supervisor logs.
#[derive(Debug, Args)]
pub(crate) struct Log {
    /// Append the log to this file [default: standard error, if that is no terminal until COMMAND
    /// has ended]
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
    /// `None`: the command runs without a container.
    pub(crate) fn root(&self) -> Option<Root<'_>> {
        let Container { rootfs, bundle, .. } = &self.container;
        let rootfs = rootfs.as_deref().map(Root::Rootfs);
        rootfs.or_else(|| bundle.as_deref().map(Root::Bundle))
    }

    /// Whether the command begins as another user than root.
    pub(crate) fn changes_ids(&self) -> bool {
        self.user.is_some()
    }

    /// Whether log lines are asked for that nobody would see.
    pub(crate) fn logs_to_nobody(&self) -> bool {
        self.log.level > LevelFilter::WARN && self.log.borrows()
    }
}

impl Log {
    /// Whether the log goes to the caller's standard error, which is no terminal: then until the
    /// command ends (see [`super::stderr`]).
    pub(super) fn borrows(&self) -> bool {
        self.file.is_none() && !io::stderr().is_terminal()
    }
}

#[derive(Debug, Args)]
pub(crate) struct ExecOptions {
    /// Who the command is to be [default: the container's user]
    #[arg(long, short, value_name = "UID[:GID]|NAME")]
    pub(super) user: Option<String>,

    /// Set an environment variable; NAME alone passes it on. May be given several times
    #[arg(long, short, value_name = "NAME[=VALUE]", value_parser = variable)]
    pub(super) env: Vec<String>,

    /// Where the command runs, in the container
    #[arg(long, short = 'w', value_name = "DIR", value_parser = absolute)]
    pub(super) cwd: Option<String>,

    /// The container's name
    pub(super) name: String,

    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub(super) command: Vec<OsString>,
}

/// Whether somebody sits at a terminal, before which the container's is to stand.
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
