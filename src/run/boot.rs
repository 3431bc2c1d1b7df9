//! Containers whose first process is systemd: what that wants to find when it starts
//! (<https://systemd.io/CONTAINER_INTERFACE>), and a control group of its own.
//!
//! The group lies below that of this process. It has no other processes: systemd distributes
//! resources to groups below its own, which a group with processes cannot do.

use std::fs::{self, DirBuilder};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::unistd::{AccessFlags, access};
use serde_json::{Map, Value, json};

use super::{program, spec};
use crate::error::Error;
use crate::linux::cgroups;
use crate::wire::config::{list, mount, object};

/// Where the container sees its group.
const GROUPS: &str = "/sys/fs/cgroup";

/// Whether the program of `config` is systemd, by whichever name.
pub(super) fn is_wanted(rootfs: &Path, config: &Map<String, Value>) -> bool {
    let process = config.get("process").and_then(Value::as_object);
    process
        .and_then(|process| program::resolved(rootfs, process))
        .is_some_and(|path| path.file_name().is_some_and(|name| name == "systemd"))
}

/// Adds to `config` what systemd wants, and returns the control group to create for the container
/// `name`.
pub(super) fn apply(config: &mut Map<String, Value>, name: &str) -> Result<PathBuf, Error> {
    let group = below_own(name)?;
    let process = object(config, "process");
    // Without it, systemd ignores what units say about namespaces, or refuses to start them.
    spec::add_capability(process, "CAP_SYS_ADMIN");
    let environment = list(process, "env");
    let is_named = |it: &Value| it.as_str().is_some_and(|it| it.starts_with("container="));
    if !environment.iter().any(is_named) {
        environment.push("container=oci".into());
    }
    let namespaces = list(object(config, "linux"), "namespaces");
    if !namespaces.iter().any(|known| known["type"] == "cgroup") {
        namespaces.push(json!({"type": "cgroup"}));
    }
    // They must be mounts when it starts. Before those of --bind, which may be below.
    let tmpfs = |at: &str, mode: &str| mount(at, "tmpfs", "tmpfs", &["nosuid", "nodev", mode]);
    let mounts = list(config, "mounts");
    let sysfs = mounts
        .iter()
        .position(|known| known["destination"] == "/sys");
    let control = ["nosuid", "nodev", "noexec", "rw"];
    mounts.insert(
        sysfs.map_or(0, |sysfs| sysfs + 1),
        mount(GROUPS, "cgroup", "cgroup", &control),
    );
    mounts.splice(
        0..0,
        [
            tmpfs("/run", "mode=755"),
            tmpfs("/run/lock", "mode=1777"),
            tmpfs("/tmp", "mode=1777"),
        ],
    );
    Ok(group)
}

/// A group to create below that of this process, which may be the user's own.
fn below_own(name: &str) -> Result<PathBuf, Error> {
    let failed = |reason: String| Error::NoControlGroup { reason };
    let own =
        cgroups::own().ok_or_else(|| failed("this process has none of cgroup2".to_owned()))?;
    for needed in [&own, &own.join("cgroup.procs")] {
        if let Err(errno) = access(needed, AccessFlags::W_OK) {
            return Err(failed(format!("{}: {}", needed.display(), errno.desc())));
        }
    }
    Ok(own.join(format!("subuidless-{name}")))
}

/// Creates the group, and moves this process there.
pub(super) fn enter(group: &Path) -> Result<(), Error> {
    let made = match DirBuilder::new().create(group) {
        // Of a container that was killed.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    };
    made.and_then(|()| fs::write(group.join("cgroup.procs"), "0"))
        .map_err(|source| Error::NoControlGroup {
            reason: format!("{}: {source}", group.display()),
        })
}

/// Removes the group and those that systemd has made below it. The container's processes have
/// ended, but the last ones may not have left it yet.
pub(super) fn remove(group: &Path) {
    const PATIENCE: Duration = Duration::from_secs(1);
    let start = Instant::now();
    while group.exists() {
        remove_below(group);
        let removed = fs::remove_dir(group);
        if removed.is_ok() || start.elapsed() > PATIENCE {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn remove_below(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        // The files of a group go with it.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path());
            let _ = fs::remove_dir(entry.path());
        }
    }
}
