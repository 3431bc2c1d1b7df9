//! Checks the kernel's version and optional features.

use std::fs;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, openat2};

use super::Check;
use crate::linux::{kernel, sys};

const NAME: &str = "kernel";

pub(super) fn version() -> Check {
    const CHANGE: &str = "Linux 5.14 or newer is needed";
    let release = kernel::release();
    match kernel::is_enough(&release) {
        Some(true) => Check::ok(NAME, format!("Linux {release}")),
        Some(false) => Check::fail(NAME, format!("Linux {release}"), CHANGE),
        None => Check::warn(NAME, format!("unknown version format: {release:?}"), CHANGE),
    }
}

/// Checks the features that subuidless uses beyond those of the oldest kernel.
pub(super) fn features() -> [Check; 3] {
    [killable_waits(), openat2_is_there(), getxattrat_is_there()]
}

fn killable_waits() -> Check {
    let name = "uninterrupted calls";
    if sys::seccomp_knows_wait_killable() {
        Check::ok(name, "signals do not restart a call that is being answered")
    } else {
        Check::warn(
            name,
            "no SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: signals restart a call that is being \
             answered",
            "Linux 5.19 or newer has it",
        )
    }
}

fn openat2_is_there() -> Check {
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC);
    match openat2(AT_FDCWD, c"/", how) {
        Ok(_) => Check::ok("openat2", "paths are resolved as for the target"),
        Err(errno) => Check::fail(
            "openat2",
            errno.desc(),
            "Linux 5.6 or newer has it; the filter of an outer container (old Docker) may deny it",
        ),
    }
}

fn getxattrat_is_there() -> Check {
    let name = c"user.rootlesscontainers";
    let Ok(root) = fs::File::open("/") else {
        return Check::warn("getxattrat", "cannot open the root directory", "none");
    };
    match sys::getxattrat(root.as_fd(), c".", name, &mut [0; 64], true) {
        Err(Errno::ENOSYS) => Check::warn(
            "getxattrat",
            "not in this kernel: a stat by path takes slightly longer",
            "Linux 6.13 or newer has it",
        ),
        _ => Check::ok("getxattrat", "owners are looked up with fewer calls"),
    }
}
