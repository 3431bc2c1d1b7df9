//! Namespaces: those of a command of the host, how `exec` enters them, and cgroups where crun
//! expects them.

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use super::options::Isolation;
use crate::error::{Context, Error};
use crate::front::FirstProcess;
use crate::linux::cgroups::{ROOT, UNIFIED, is_unified};
use crate::linux::{sys, userns};

/// Enters a new user and mount namespace, and the others that are asked for. A pid namespace is for
/// children.
pub(super) fn enter(isolation: &Isolation) -> Result<(), Error> {
    userns::enter_with_mounts()?;
    let has_network = isolation.own_network().is_some();
    let kinds = isolation.namespaces().into_iter();
    let mut flags = CloneFlags::empty();
    for kind in kinds.chain(has_network.then_some("network")) {
        flags |= match kind {
            "pid" => CloneFlags::CLONE_NEWPID,
            "uts" => CloneFlags::CLONE_NEWUTS,
            "ipc" => CloneFlags::CLONE_NEWIPC,
            "cgroup" => CloneFlags::CLONE_NEWCGROUP,
            _ => CloneFlags::CLONE_NEWNET,
        };
    }
    unshare(flags).doing("creating namespaces")?;
    if has_network {
        sys::bring_loopback_up().doing("bringing up the loopback interface")?;
    }
    match &isolation.hostname {
        Some(name) => nix::unistd::sethostname(name).doing("setting the host name"),
        None => Ok(()),
    }
}

/// Enters all namespaces of a process that are not this process's own. Returns whether its pid
/// namespace is one of them, which then is for children.
pub(super) fn join_all(first: &FirstProcess) -> Result<bool, Error> {
    const WHAT: &str = "entering the namespaces of the command";
    let kinds = [
        ("user", CloneFlags::CLONE_NEWUSER),
        ("mnt", CloneFlags::CLONE_NEWNS),
        ("pid", CloneFlags::CLONE_NEWPID),
        ("net", CloneFlags::CLONE_NEWNET),
        ("uts", CloneFlags::CLONE_NEWUTS),
        ("ipc", CloneFlags::CLONE_NEWIPC),
        ("cgroup", CloneFlags::CLONE_NEWCGROUP),
    ];
    let namespace = |process: &str, kind: &str| {
        std::fs::read_link(format!("/proc/{process}/ns/{kind}")).doing(WHAT)
    };
    let mut flags = CloneFlags::empty();
    for (kind, flag) in kinds {
        if namespace(&first.pid.to_string(), kind)? != namespace("self", kind)? {
            flags |= flag;
        }
    }
    // EPERM for namespaces that are not the user's: those of the host, which are left out. ESRCH if
    // the process has ended meanwhile.
    setns(first, flags).doing(WHAT)?;
    Ok(flags.contains(CloneFlags::CLONE_NEWPID))
}

/// Enters the user namespace of a container, and a new mount namespace.
pub(super) fn join(first: &FirstProcess) -> Result<(), Error> {
    const WHAT: &str = "entering the container's user namespace";
    setns(first, CloneFlags::CLONE_NEWUSER).doing(WHAT)?;
    unshare(CloneFlags::CLONE_NEWNS).doing(WHAT)
}

/// Mounts cgroup2 at /sys/fs/cgroup, where crun and podman expect it. On a host with both versions
/// it is at /sys/fs/cgroup/unified.
pub(super) fn unify_cgroups() -> Result<(), Error> {
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
