//! `subuidless owners` in a process of its own: whoever damages the side store's files meanwhile
//! ends that one, and somebody is left to say so.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, exit};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use crate::error::{Context, Error};
use crate::store::{Places, is_suspect, mend};

/// In the environment of the process that does the job.
const JOB: &str = "SUBUIDLESS_OWNERS_JOB";

pub(super) fn is_one() -> bool {
    std::env::var_os(JOB).is_some()
}

/// Whoever kills the caller wants no more to be done.
pub(super) fn end_with_caller() {
    // Without it, the job is done to its end.
    let _ = set_pdeathsig(Signal::SIGKILL);
    crate::store::end_where_damaged();
}

/// Does what this process was called for in another one. Returns where that had no whole store;
/// else this process ends as the other one does.
pub(super) fn run(store: Option<PathBuf>) -> Result<(), Error> {
    let status = Command::new("/proc/self/exe")
        .args(std::env::args_os().skip(1))
        .env(JOB, "1")
        .status()
        .doing("starting a process for the job")?;
    if status.success() || !is_suspect(status) {
        exit(code(status));
    }
    let places = Places::prepare_quietly(store);
    mend(&places, 0).tell(&places);
    Err(Error::StoreDamaged { status })
}

/// As a shell has it.
fn code(status: ExitStatus) -> i32 {
    let signal = status.signal().map_or(1, |signal| 128 + signal);
    status.code().unwrap_or(signal)
}
