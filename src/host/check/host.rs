//! Checks what the host provides for this user: ids, limits, /proc, filters, cgroups.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::Uid;

use super::Check;
use super::proof::output;
use crate::linux::cgroups;
use crate::linux::limits::{self, Loss};
use crate::linux::mountinfo::Mounts;
use crate::linux::name_service;
use crate::linux::procfs::Status;
use crate::linux::userns::IdMaps;
use crate::linux::{programs, sys};

const PATIENCE: Duration = Duration::from_secs(10);

/// Checks that the user is not real root.
pub(super) fn user() -> Check {
    const NAME: &str = "user";
    let uid = Uid::effective();
    if !uid.is_root() {
        return Check::ok(NAME, format!("uid {uid}, not root"));
    }
    match IdMaps::of("/proc/self") {
        Ok(maps) if maps.are_all() => Check::warn(
            NAME,
            "root: the kernel knows all ids, so containers need no emulation",
            "run this as the user who will run containers",
        ),
        _ => Check::ok(NAME, "root of a user namespace"),
    }
}

/// Checks whether the user has a range of ids, so that the kernel could map several ids.
pub(super) fn range() -> Check {
    const NAME: &str = "subuid range";
    let uid = Uid::effective();
    let account = name_service::user_by_uid(uid.as_raw()).ok().flatten();
    let name = account.map_or_else(|| uid.to_string(), |account| account.name);
    let file = fs::read_to_string("/etc/subuid").unwrap_or_default();
    let Some(range) = range_in(&file, &name, uid.as_raw()).or_else(|| asked_range(&name)) else {
        return Check::ok(
            NAME,
            format!("none for {name}: that is what subuidless is for"),
        );
    };
    let reason = format!("{name} has {range}");
    if programs::find("newuidmap").is_some() {
        Check::warn(
            NAME,
            reason,
            "prefer native mapping if the range is large enough for the image: it is faster, and a \
             real boundary between ids",
        )
    } else {
        Check::ok(
            NAME,
            format!("{reason}, but it cannot be used: newuidmap is missing"),
        )
    }
}

/// The first range of the user in subuid(5).
fn range_in(file: &str, name: &str, uid: u32) -> Option<String> {
    let uid = uid.to_string();
    file.lines().find_map(|line| {
        let (owner, range) = line.trim().split_once(':')?;
        let (start, count) = range.split_once(':')?;
        (owner == name || owner == uid).then(|| format!("{count} ids from {start} on"))
    })
}

/// The range of the user from LDAP or another source in the `subid:` line of nsswitch.conf, as
/// printed by getsubids(1): `0: NAME START COUNT`.
fn asked_range(name: &str) -> Option<String> {
    let mut command = Command::new("getsubids");
    let (status, text) = output(command.arg(name).stderr(Stdio::null()), PATIENCE).ok()?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let [start, count] = text
        .lines()
        .next()?
        .split_ascii_whitespace()
        .skip(2)
        .collect::<Vec<_>>()
        .try_into()
        .ok()?;
    status
        .success()
        .then(|| format!("{count} ids from {start} on"))
}

/// Checks the resource limits of this process.
pub(super) fn limits() -> Check {
    const NAME: &str = "limits";
    const CHANGE: &str = "raise the limit where it was lowered, as by ulimit(1), limits.conf(5), \
                          or LimitNOFILE= (or similar) in a systemd unit";
    let short = limits::shortfalls();
    let words = short
        .iter()
        .map(|(loss, words)| format!("{words}: {}", loss.words()));
    let words = words.collect::<Vec<_>>().join("; ");
    if short.is_empty() {
        Check::ok(NAME, "high enough")
    } else if short.iter().any(|(loss, _)| *loss == Loss::All) {
        Check::fail(NAME, words, CHANGE)
    } else {
        Check::warn(NAME, words, CHANGE)
    }
}

/// Checks whether workers can see their targets.
pub(super) fn procfs() -> Check {
    const NAME: &str = "/proc";
    let mounts = Mounts::read("/proc/self/mountinfo").ok();
    let mounts = mounts.as_ref().map(Mounts::iter).into_iter().flatten();
    let Some(mount) = mounts.filter(|it| it.point() == Path::new("/proc")).last() else {
        return Check::fail(NAME, "not mounted", "mount -t proc proc /proc, as root");
    };
    let hidden = mount.option("hidepid").unwrap_or_default();
    match hidden.to_string_lossy().as_ref() {
        "" | "0" | "off" => Check::ok(NAME, "shows all processes"),
        hidden => Check::ok(
            NAME,
            format!(
                "hidepid={hidden}: shows this user's processes, which is all that workers need"
            ),
        ),
    }
}

/// Checks whether this process has a seccomp filter already.
pub(super) fn filters() -> Check {
    const NAME: &str = "filters";
    let status = Status::of("/proc/self").ok();
    match status.and_then(|status| status.filters()).unwrap_or(0) {
        0 => Check::ok(NAME, "this process has no seccomp filter"),
        count => Check::warn(
            NAME,
            format!("{count} on this process: they apply to containers, too"),
            "if a check above fails, run this outside of containers and sandboxes",
        ),
    }
}

/// Reports io_uring(7), which bypasses seccomp filters.
pub(super) fn io_uring() -> Check {
    const NAME: &str = "io_uring";
    let inside = "in containers it fails with ENOSYS, since it would bypass the filter";
    match sys::io_uring_setup() {
        Errno::ENOSYS | Errno::EPERM | Errno::EACCES => Check::ok(NAME, "not available"),
        _ => Check::ok(NAME, format!("available; {inside}")),
    }
}

/// Checks whether runtimes accept the cgroup hierarchy.
pub(super) fn cgroups() -> Check {
    const NAME: &str = "cgroups";
    if cgroups::is_unified(cgroups::ROOT) {
        return Check::ok(NAME, "pure v2: all runtimes work");
    }
    let bind = format!("mount --bind {} {}", cgroups::UNIFIED, cgroups::ROOT);
    if cgroups::is_unified(cgroups::UNIFIED) {
        return Check::warn(
            NAME,
            "hybrid: what subuidless starts, and runc, work; crun and podman alone refuse it",
            format!(
                "unshare -r -m sh -c '{bind} && exec \"$@\"' -- crun --cgroup-manager=disabled run \
                 ...; for podman, until it is restarted: podman unshare {bind}"
            ),
        );
    }
    Check::warn(
        NAME,
        "v1 only, or none: crun and podman refuse it",
        "boot with systemd.unified_cgroup_hierarchy=1, or use runc or `subuidless run`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_found_by_name_and_by_number() {
        let file = "# comment\nbob:1:2\nalice:100000:65536\n1003:300000:1000\n";
        let of = |name, uid| range_in(file, name, uid);
        assert_eq!(of("alice", 1).as_deref(), Some("65536 ids from 100000 on"));
        assert_eq!(of("x", 1003).as_deref(), Some("1000 ids from 300000 on"));
        assert_eq!(of("ali", 100), None);
    }
}
