//! What the daemon starts for each listener: no command for people.

use std::ffi::OsString;

use super::Logging;
use crate::error::Error;
use crate::handover::Setup;
use crate::worker;

/// The set-up, if this process was started as a worker.
pub(super) fn setup() -> Option<Setup> {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    Setup::from_arguments(&arguments)
}

pub(super) fn run(setup: &Setup) -> Result<(), Error> {
    Logging::of_worker(setup).start();
    worker::run(setup)
}
