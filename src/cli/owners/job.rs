//! Runs `subuidless owners` in a child process: a store that is damaged meanwhile kills the child,
//! and the parent reports it.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, exit};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use crate::error::{Context, Error};
use crate::store::{Places, is_suspect, mend};

/// Set in the environment of the child.
const JOB: &str = "SUBUIDLESS_OWNERS_JOB";

pub(super) fn is_one() -> bool {
    std::env::var_os(JOB).is_some()
}

/// Lets the child end when the parent is killed.
pub(in crate::cli) fn end_with_caller() {
    // If this fails, the job runs to its end.
    let _ = set_pdeathsig(Signal::SIGKILL);
    crate::store::end_where_damaged();
}

/// Runs this process's command line in a child and exits with its status. Returns only if the
/// child died of a damaged store.
pub(super) fn run(store: Option<PathBuf>) -> Result<(), Error> {
    let status = Command::new("/proc/self/exe")
        .args(std::env::args_os().skip(1))
        .env(JOB, "1")
        .status()
        .doing("starting a process for the job")?;
    exit(outcome(status, store)?)
}

/// The exit code of a job that has ended. Fails if it died of a damaged store.
pub(in crate::cli) fn outcome(status: ExitStatus, store: Option<PathBuf>) -> Result<i32, Error> {
    if status.success() || !is_suspect(status) {
        return Ok(code(status));
    }
    let places = Places::prepare_quietly(store);
    mend(&places, 0).tell(&places);
    Err(Error::StoreDamaged { status })
}

/// The exit code that a shell would report.
pub(in crate::cli) fn code(status: ExitStatus) -> i32 {
    let signal = status.signal().map_or(1, |signal| 128 + signal);
    status.code().unwrap_or(signal)
}
