//! `subuidless run` without a container.
//!
//! This process enters a user namespace, loads the filter, sends the listener to a supervisor and
//! executes the command. So exit codes, signals, job control and the terminal need no forwarding.
//! The supervisor is in a session of its own and exits with the last process under the filter.

use std::convert::Infallible;
use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;

use super::options::Options;
use super::supervisor::Supervisor;
use super::user::{Login, Names};
use crate::error::{Context, Error};
use crate::front::library;
use crate::linux::programs;
use crate::linux::sys;
use crate::linux::userns;
use crate::syscalls::{Scope, profile};
use crate::wire::fast::FastPath;
use crate::wire::handover::Service;
use crate::wire::mode::SupervisorOf;

/// Becomes the command. Returns only on failure.
pub(super) fn run(options: &Options) -> Result<Infallible, Error> {
    // Before anything is changed: name services (NSS) may use sockets and other programs.
    let login = options
        .user
        .as_deref()
        .map(|user| Login::find(user, &Names::Host))
        .transpose()?;
    let mut command = command(options)?;
    let fast = fast_path(options, &mut command);
    let permissions = options.permissions.unwrap_or_default();
    let filter = profile::program(Scope {
        is_fast: fast.is_on(),
        permissions,
    });
    let of = match options.keep_id {
        true => SupervisorOf::Namespaces { permissions },
        false => SupervisorOf::Command {
            service: Service { fast, permissions },
        },
    };
    // Started outside the new user namespace: only a process of the parent namespace can join it
    // and inspect every process in it.
    let supervisor = Supervisor::start(options.store.as_deref(), of, &options.log)?;
    match options.keep_id {
        false => userns::enter()?,
        // seccomp(2): without CAP_SYS_ADMIN, a filter requires no_new_privs.
        true => nix::sys::prctl::set_no_new_privs().doing("prctl(PR_SET_NO_NEW_PRIVS)")?,
    }
    supervisor.send_listener(load(&filter)?)?;
    if let Some(login) = login {
        login.become_it()?;
    }
    execute(options, command)
}

fn command(options: &Options) -> Result<Command, Error> {
    let (program, arguments) = options.command.split_first().ok_or(Error::NoCommand)?;
    // Each execve(2) is notified, so no program is tried that does not exist.
    let mut command = Command::new(
        found(program, options)
            .as_deref()
            .unwrap_or(program.as_ref()),
    );
    command.arg0(program).args(arguments);
    for variable in &options.env {
        match variable.split_once('=') {
            Some((name, value)) => command.env(name, value),
            None => command.env_remove(variable),
        };
    }
    Ok(command)
}

/// The file that execvp(3) will find for a program. `None`: it is not certain.
fn found(program: &OsStr, options: &Options) -> Option<PathBuf> {
    let has_own_path = options
        .env
        .iter()
        .any(|variable| variable.starts_with("PATH"));
    if has_own_path || options.user.is_some() {
        return None;
    }
    let path = std::env::var_os("PATH")?;
    let candidates = programs::candidates(program.as_ref(), Some(&path));
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
fn load(filter: &[u8]) -> Result<std::os::fd::OwnedFd, Error> {
    let wait_killable = sys::seccomp_knows_wait_killable();
    sys::seccomp_load(filter, wait_killable).map_err(|errno| match errno {
        Errno::EBUSY => Error::SecondListener,
        errno => Error::doing("loading the seccomp filter", errno),
    })
}

fn execute(options: &Options, mut command: Command) -> Result<Infallible, Error> {
    if let Some(directory) = &options.cwd {
        std::env::set_current_dir(directory).at(directory)?;
    }
    let source = command.exec();
    if source.raw_os_error() == Some(libc::ENOSYS) {
        // The kernel's answer once no process holds the listener.
        return Err(Error::NoSupervisor);
    }
    Err(Error::Execute {
        program: PathBuf::from(command.get_program()),
        source,
    })
}
