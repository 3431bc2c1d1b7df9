//! Checks the kernel's version and optional features.

use std::fs;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, openat2};

use super::Check;
use crate::linux::sys;

const NAME: &str = "kernel";
const LEAST: (u32, u32) = (5, 14);

pub(super) fn version() -> Check {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    match parse(release) {
        Some(version) if version >= LEAST => Check::ok(NAME, format!("Linux {release}")),
        Some(_) => Check::fail(
            NAME,
            format!("Linux {release}"),
            "Linux 5.14 or newer is needed",
        ),
        None => Check::warn(
            NAME,
            format!("unknown version format: {release:?}"),
            "Linux 5.14 or newer is needed",
        ),
    }
}

/// The major and minor number of a version.
pub(super) fn parse(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(parse("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(parse("5.9"), Some((5, 9)));
        assert!(parse("5.9.1") < Some(LEAST) && parse("5.14.0-427.el9") >= Some(LEAST));
        assert_eq!(parse("Linux"), None);
    }
}
