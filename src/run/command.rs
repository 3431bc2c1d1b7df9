//! `subuidless run` without a container.
//!
//! This process enters a user namespace, loads the filter, sends the listener to a supervisor and
//! executes the command. So exit codes, signals, job control and the terminal need no forwarding.
//! The supervisor is in a session of its own and exits with the last process under the filter.

use std::convert::Infallible;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;

use super::options::Options;
use super::supervisor::Supervisor;
use super::user::{Login, Names};
use crate::error::{Context, Error};
use crate::front::library;
use crate::linux::sys;
use crate::linux::userns;
use crate::syscalls::profile;
use crate::wire::mode::SupervisorOf;

/// Becomes the command. Returns only on failure.
pub(super) fn run(options: &Options) -> Result<Infallible, Error> {
    // Before anything is changed: name services (NSS) may use sockets and other programs.
    let login = options
        .user
        .as_deref()
        .map(|user| Login::find(user, &Names::Host))
        .transpose()?;
    let library = library(options)?;
    let is_fast = library.is_some();
    let filter = profile::program(is_fast);
    let of = match options.keep_id {
        true => SupervisorOf::Namespaces,
        false => SupervisorOf::Command { is_fast },
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
    execute(options, library.as_deref())
}

/// The preloaded library, if the fast path is on. It is an error only for `--fast` that there is
/// none: the variable is a preference.
fn library(options: &Options) -> Result<Option<PathBuf>, Error> {
    // `--keep-id`: in namespaces that the command creates, other workers answer.
    if options.keep_id || !(options.fast || library::is_requested()) {
        return Ok(None);
    }
    match library::place() {
        Err(absence) if options.fast => Err(absence.into_error()),
        placed => Ok(placed.ok()),
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

fn execute(options: &Options, library: Option<&Path>) -> Result<Infallible, Error> {
    let (program, arguments) = options.command.split_first().ok_or(Error::NoCommand)?;
    if let Some(directory) = &options.cwd {
        std::env::set_current_dir(directory).at(directory)?;
    }
    let mut command = Command::new(program);
    command.args(arguments);
    for variable in &options.env {
        match variable.split_once('=') {
            Some((name, value)) => command.env(name, value),
            None => command.env_remove(variable),
        };
    }
    if let Some(library) = library {
        library::add_to_command(&mut command, library);
    }
    let source = command.exec();
    if source.raw_os_error() == Some(libc::ENOSYS) {
        // The kernel's answer once no process holds the listener.
        return Err(Error::NoSupervisor);
    }
    Err(Error::Execute {
        program: PathBuf::from(program),
        source,
    })
}
