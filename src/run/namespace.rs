//! Namespaces for containers: how `exec` enters them, and cgroups where crun expects them.

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use crate::error::{Context, Error};
use crate::front::FirstProcess;

/// Enters the user namespace of a container, and a new mount namespace.
pub(super) fn join(first: &FirstProcess) -> Result<(), Error> {
    const WHAT: &str = "entering the container's user namespace";
    setns(first, CloneFlags::CLONE_NEWUSER).doing(WHAT)?;
    unshare(CloneFlags::CLONE_NEWNS).doing(WHAT)
}

/// Mounts cgroup2 at /sys/fs/cgroup, where crun expects it. On a host with both versions it is at
/// /sys/fs/cgroup/unified.
pub(super) fn unify_cgroups() -> Result<(), Error> {
    const ROOT: &str = "/sys/fs/cgroup";
    const UNIFIED: &str = "/sys/fs/cgroup/unified";
    let is_unified =
        |path: &str| statfs(path).is_ok_and(|found| found.filesystem_type() == CGROUP2_SUPER_MAGIC);
    if is_unified(ROOT) || !is_unified(UNIFIED) {
        return Ok(());
    }
    mount(
        Some(UNIFIED),
        ROOT,
        None::<&str>,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        None::<&str>,
    )
    .at(ROOT)
}
