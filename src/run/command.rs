//! `subuidless run` without a container: a command of the host under a filter of ours, without
//! daemon or runtime.
//!
//! The process that was called becomes the command: it enters a user namespace, loads the filter,
//! hands the listener to a supervisor, and executes the command. So exit codes, signals, job
//! control and the terminal need nobody to pass them on. The supervisor is a daemon for this one
//! listener, nobody's child and in nobody's session, and ends with the last process that has the
//! filter.

use std::convert::Infallible;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use nix::errno::Errno;

use super::namespace;
use super::options::Options;
use super::supervisor::Supervisor;
use super::user::{Login, Names};
use crate::error::{Context, Error};
use crate::linux::sys;
use crate::syscalls::profile;

/// Becomes the command. Returns only if that cannot be done.
pub(super) fn run(options: &Options) -> Result<Infallible, Error> {
    // Names are those of the host, asked for where it can be reached in the usual ways.
    let login = options
        .user
        .as_deref()
        .map(|user| Login::find(user, &Names::Host))
        .transpose()?;
    let filter = profile::program().doing("making the filter")?;
    // Born outside: only a process of the namespace above can join ours, and look at every process
    // in it.
    let supervisor = Supervisor::start(options.store.as_deref(), options.keep_id, &options.log)?;
    match options.keep_id {
        false => namespace::enter(&[])?,
        // seccomp(2): without a capability, a filter is for those who can gain none.
        true => nix::sys::prctl::set_no_new_privs().doing("prctl(PR_SET_NO_NEW_PRIVS)")?,
    }
    supervisor.supervise(load(&filter)?)?;
    if let Some(login) = login {
        login.become_it()?;
    }
    execute(options)
}

/// Loads the filter; the result is its listener.
fn load(filter: &[u8]) -> Result<std::os::fd::OwnedFd, Error> {
    let wait_killable = sys::seccomp_knows_wait_killable();
    sys::seccomp_load(filter, wait_killable).map_err(|errno| match errno {
        Errno::EBUSY => Error::SecondListener,
        errno => Error::doing("loading the seccomp filter", errno),
    })
}

fn execute(options: &Options) -> Result<Infallible, Error> {
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
    let source = command.exec();
    if source.raw_os_error() == Some(libc::ENOSYS) {
        // What calls get whose listener nobody holds any more.
        return Err(Error::NoSupervisor);
    }
    Err(Error::Execute {
        program: PathBuf::from(program),
        source,
    })
}
