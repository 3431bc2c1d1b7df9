//! What the daemon starts for each listener, and for itself: no command for people.

use std::ffi::OsString;

use super::Logging;
use crate::daemon::guard;
use crate::error::Error;
use crate::wire::handover::Setup;
use crate::worker;

/// The set-up, if this process was started as a worker.
pub(super) fn setup() -> Option<Setup> {
    Setup::from_arguments(&arguments())
}

/// The set-up, if this process was started as a guard.
pub(super) fn guards_setup() -> Option<Setup> {
    Setup::from_guards_arguments(&arguments())
}

fn arguments() -> Vec<OsString> {
    std::env::args_os().skip(1).collect()
}

pub(super) fn run(setup: &Setup) -> Result<(), Error> {
    Logging::of_worker(setup).start();
    worker::run(setup)
}

pub(super) fn run_guard(setup: &Setup) -> Result<(), Error> {
    Logging::of_worker(setup).start();
    guard::run(setup)
}
