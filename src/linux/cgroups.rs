//! Where cgroup2 is mounted, and this process's group (cgroups(7)).

use std::fs;
use std::path::PathBuf;

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

/// Where it is, and where runtimes expect it.
pub(crate) const ROOT: &str = "/sys/fs/cgroup";
/// Where it is on a host with both versions.
pub(crate) const UNIFIED: &str = "/sys/fs/cgroup/unified";

/// Whether a path leads to a cgroup2 file system.
pub(crate) fn is_unified(path: &str) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

/// This process's group; `None` if it is not in sight.
pub(crate) fn own() -> Option<PathBuf> {
    let mount = [ROOT, UNIFIED].into_iter().find(|it| is_unified(it))?;
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    // Outside of the cgroup namespace.
    let is_outside = path.split('/').any(|part| part == "..");
    (!is_outside).then(|| PathBuf::from(mount).join(path))
}
