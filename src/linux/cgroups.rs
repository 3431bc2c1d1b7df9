//! Where cgroup2 is mounted (cgroups(7)).

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

/// Where it is, and where runtimes expect it.
pub(crate) const ROOT: &str = "/sys/fs/cgroup";
/// Where it is on a host with both versions.
pub(crate) const UNIFIED: &str = "/sys/fs/cgroup/unified";

/// Whether a path leads to a cgroup2 file system.
pub(crate) fn is_unified(path: &str) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == CGROUP2_SUPER_MAGIC)
}
