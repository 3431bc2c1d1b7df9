//! The processes that this program starts itself, which are no commands for users (see
//! `crate::wire::mode`).

use crate::daemon::guard;
use crate::error::Error;
use crate::host::check::steps;
use crate::wire::mode::{self, Mode};
use crate::{run, store, worker};

pub(super) fn run(mode: Mode) -> Result<(), Error> {
    // Without it, ps(1) and top(1) would show "exe", the last part of /proc/self/exe.
    let _ = nix::sys::prctl::set_name(c"subuidless");
    match mode {
        Mode::Worker(setup) => {
            setup.log.start();
            worker::run(&setup)
        }
        Mode::Guard(setup) => {
            setup.log.start();
            guard::run(&setup)
        }
        Mode::Daemon(daemon) => listen(daemon),
        Mode::Supervise(setup) => run::be_supervisor(setup, super::report),
        Mode::NetworkKeeper {
            program,
            creator,
            ports,
        } => run::keep_network(&program, creator, &ports),
        Mode::NetworkHook { socket } => run::network_hook(&socket),
        Mode::ReadStore {
            part,
            seconds,
            directory,
        } => store::read_through(part, seconds, &directory),
        Mode::SettleStore { recent, lasting } => store::settle(&recent, &lasting),
        Mode::CheckTarget => steps::target(),
        Mode::CheckSupervisor => steps::supervisor(),
        Mode::CheckCommand => steps::command(),
    }
}

/// A daemon in the background. It works in /, so as not to keep any file system busy.
fn listen(daemon: mode::Daemon) -> Result<(), Error> {
    daemon.log.start();
    let _ = nix::unistd::chdir("/");
    crate::daemon::run(crate::daemon::Options {
        socket: Some(daemon.socket),
        store: daemon.store,
        log: daemon.log,
        idle: daemon.idle.map(std::time::Duration::from_secs),
        for_one: daemon.for_one,
        says_ready: true,
        ..crate::daemon::Options::default()
    })
    .inspect_err(mode::say_not_ready)
}
