//! Namespaces for containers: a user namespace in which the host user is root, and cgroups where
//! crun expects them.

use std::fs;
use std::io;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use nix::unistd::{getegid, geteuid};

use crate::error::{Context, Error};
use crate::front::FirstProcess;

/// Moves this process, which must have one thread, into a user namespace of its own, and into new
/// ones of `others`.
pub(crate) fn enter(others: &[CloneFlags]) -> Result<(), Error> {
    let (uid, gid) = (geteuid(), getegid());
    let flags = others.iter().copied().collect::<CloneFlags>() | CloneFlags::CLONE_NEWUSER;
    unshare(flags).map_err(|errno| Error::NoUserNamespace {
        source: errno.into(),
    })?;
    // user_namespaces(7): without setgroups(2) a group may be mapped without any privilege.
    let write = |file: &str, text: String| match fs::write(format!("/proc/self/{file}"), text) {
        // Before Linux 3.19 there was nothing to deny.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(|source| Error::NoUserNamespace { source }),
    };
    write("setgroups", "deny".to_owned())?;
    write("uid_map", format!("0 {uid} 1\n"))?;
    write("gid_map", format!("0 {gid} 1\n"))
}

/// Enters the user namespace of a container, and a new mount namespace.
pub(super) fn join(first: &FirstProcess) -> Result<(), Error> {
    const WHAT: &str = "entering the container's user namespace";
    // A pidfd does since Linux 5.8.
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
