//! `subuidless run` without a container.
//!
//! This process enters a user namespace, loads the filter, sends the listener to a supervisor and
//! executes the command. So exit codes, signals, job control and the terminal need no forwarding.
//! The supervisor is in a session of its own and exits with the last process under the filter.

use std::convert::Infallible;
use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;

use super::environment::variables;
use super::options::{ExecOptions, Options};
use super::supervisor::{Supervisor, id_of};
use super::user::{Login, Names};
use crate::error::{Context, Error};
use crate::front::library;
use crate::linux::programs;
use crate::linux::sys;
use crate::linux::userns;
use crate::owner::Notes;
use crate::syscalls::{Scope, profile};
use crate::wire::fast::FastPath;
use crate::wire::handover::{Origin, Service};
use crate::wire::mode::SupervisorOf;

/// Becomes the command. Returns only on failure.
pub(super) fn run(options: &Options) -> Result<Infallible, Error> {
    let command = HostCommand::new(options)?;
    let service = command.service;
    let of = match options.keep_id {
        true => SupervisorOf::Namespaces {
            permissions: service.permissions,
        },
        false => SupervisorOf::Command { service },
    };
    if options.notes {
        Notes::create(&id_of(std::process::id()))?;
    }
    // Started outside the new user namespace: only a process of the parent namespace can join it
    // and inspect every process in it.
    let supervisor = Supervisor::start(options.store.as_deref(), of, &options.log)?;
    match options.keep_id {
        false => userns::enter_with_mounts()?,
        // seccomp(2): without CAP_SYS_ADMIN, a filter requires no_new_privs.
        true => nix::sys::prctl::set_no_new_privs().doing("prctl(PR_SET_NO_NEW_PRIVS)")?,
    }
    command.begin(supervisor)
}

/// A command of the host that is about to run under a filter.
#[derive(Debug)]
pub(super) struct HostCommand {
    command: Command,
    /// `None`: root.
    pub(super) login: Option<Login>,
    pub(super) service: Service,
    /// `None`: the working directory of this process.
    pub(super) directory: Option<PathBuf>,
}

impl HostCommand {
    pub(super) fn new(options: &Options) -> Result<Self, Error> {
        // Before anything is changed: name services (NSS) may use sockets and other programs.
        let login = options
            .user
            .as_deref()
            .map(|user| Login::find(user, &Names::Host))
            .transpose()?;
        let is_plain = login.is_none() && !options.is_isolated();
        let variables = variables(&options.env_file, &options.env)?;
        let path = search_path(login.as_ref()).filter(|_| !options.keep_id);
        let mut command = command(&options.command(), path, &variables, is_plain)?;
        let service = Service {
            fast: fast_path(options, &mut command),
            permissions: options.permissions.unwrap_or_default(),
            others: options.others,
            notes: options.notes,
            origin: match options.is_isolated() {
                true => Origin::Namespaces,
                false => Origin::Host,
            },
        };
        Ok(Self {
            command,
            login,
            service,
            directory: options.cwd.clone(),
        })
    }

    /// A command beside one that runs already, which is served in the same way.
    pub(super) fn beside(
        options: &ExecOptions,
        login: Option<Login>,
        service: Service,
    ) -> Result<Self, Error> {
        // Without a value, a variable stays what it is.
        let has_value = |variable: &&String| variable.contains('=');
        let all = variables(&options.env_file, &options.env)?;
        let variables: Vec<_> = all.iter().filter(has_value).cloned().collect();
        let path = search_path(login.as_ref());
        let mut command = command(&options.command, path, &variables, false)?;
        if service.fast.is_on() {
            library::add_to_command(&mut command, Path::new("."));
        }
        Ok(Self {
            command,
            login,
            service,
            directory: options.cwd.as_ref().map(PathBuf::from),
        })
    }

    /// Loads the filter, and becomes the command.
    pub(super) fn begin(self, supervisor: Supervisor) -> Result<Infallible, Error> {
        let filter = profile::program(Scope {
            is_fast: self.service.fast.is_on(),
            permissions: self.service.permissions,
        });
        supervisor.send_listener(load(&filter)?)?;
        if let Some(login) = self.login {
            login.become_it()?;
        }
        if let Some(directory) = &self.directory {
            env::set_current_dir(directory).at(directory)?;
        }
        Err(executed(self.command))
    }
}

/// PATH for a command, if it is not the caller's: root expects the programs of administrators.
fn search_path(login: Option<&Login>) -> Option<OsString> {
    login.is_none_or(Login::is_root).then(programs::search_path)
}

/// `path` replaces PATH; `certain`: nothing will change what the name of the program leads to.
fn command(
    words: &[OsString],
    path: Option<OsString>,
    variables: &[String],
    certain: bool,
) -> Result<Command, Error> {
    let path = path.or_else(|| env::var_os("PATH"));
    let (program, arguments) = words.split_first().ok_or(Error::NoCommand)?;
    // Each execve(2) is notified, so no program is tried that does not exist.
    let has_own_path = variables
        .iter()
        .any(|variable| variable.starts_with("PATH"));
    let found = match certain && !has_own_path {
        true => found(program, path.as_deref()),
        false => None,
    };
    let mut command = Command::new(found.as_deref().unwrap_or(program.as_ref()));
    command.arg0(program).args(arguments);
    command.envs(path.map(|path| ("PATH", path)));
    for variable in variables {
        match variable.split_once('=') {
            Some((name, value)) => command.env(name, value),
            None => command.env_remove(variable),
        };
    }
    Ok(command)
}

/// The file that execvp(3) will find for a program. `None`: it is not certain.
fn found(program: &OsStr, path: Option<&OsStr>) -> Option<PathBuf> {
    let candidates = programs::candidates(program.as_ref(), Some(path?));
    let mut candidates = candidates.into_iter().take_while(|path| path.is_absolute());
    candidates.find(|path| programs::is_program(path))
}

/// Lets the command load the preloaded library, if the fast path is on.
fn fast_path(options: &Options, command: &mut Command) -> FastPath {
    match options {
        Options { keep_id: true, .. } => FastPath::KeepId,
        Options { no_fast: true, .. } => FastPath::TurnedOff,
        Options { cwd, .. } => {
            library::add_to_command(command, cwd.as_deref().unwrap_or(Path::new(".")))
        }
    }
}

/// Loads the filter and returns its listener.
pub(super) fn load(filter: &[u8]) -> Result<std::os::fd::OwnedFd, Error> {
    let wait_killable = sys::seccomp_knows_wait_killable();
    sys::seccomp_load(filter, wait_killable).map_err(|errno| match errno {
        Errno::EBUSY => Error::SecondListener,
        errno => Error::doing("loading the seccomp filter", errno),
    })
}

/// Becomes the command, under a filter that is loaded. Returns only on failure.
pub(crate) fn executed(mut command: Command) -> Error {
    let source = command.exec();
    if source.raw_os_error() == Some(libc::ENOSYS) {
        // The kernel's answer once no process holds the listener.
        return Error::NoSupervisor;
    }
    Error::Execute {
        program: PathBuf::from(command.get_program()),
        source,
    }
}
