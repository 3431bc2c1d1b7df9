//! The config.json that `run --rootfs` writes, and the changes that options make to that of
//! `run --bundle`.

use std::fs;
use std::path::{Component, Path, PathBuf};

use serde_json::{Map, Value, json};
use terminal_size::terminal_size_of;

use super::network::Network;
use crate::error::Error;
use crate::linux::programs;
use crate::wire::config::{list, mount, object, text};
use crate::wire::handover::ProcessUser;
use crate::wire::word::Word;

/// The default capabilities of docker and podman, and those that mknod(1) and packages with
/// daemons need.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Changes to a config.json that options of `run` ask for.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) command: Vec<String>,
    pub(super) user: Option<ProcessUser>,
    /// `NAME=VALUE`, or `NAME` for its value in this process.
    pub(super) environment: Vec<String>,
    pub(super) directory: Option<String>,
    pub(super) terminal: bool,
    pub(super) binds: Vec<Bind>,
    pub(super) read_only: bool,
    pub(super) hostname: Option<String>,
    pub(super) network: Option<Network>,
    /// Types of namespaces, besides those that the config.json has.
    pub(super) namespaces: Vec<&'static str>,
    pub(super) propagation: Option<Propagation>,
    pub(super) capabilities: Vec<String>,
}

/// How mounts are passed on, as mount_namespaces(7) calls it; always recursively.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Propagation {
    /// In neither direction
    Private,
    /// Mounts of the host appear here
    Slave,
    /// As slave, and mount namespaces that the command creates get its mounts
    Shared,
}

/// `SRC:DST[:ro]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bind {
    pub(crate) source: PathBuf,
    pub(crate) destination: String,
    pub(crate) read_only: bool,
}

impl std::str::FromStr for Bind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (rest, read_only) = match text.strip_suffix(":ro") {
            Some(rest) => (rest, true),
            None => (text.strip_suffix(":rw").unwrap_or(text), false),
        };
        let (source, destination) = rest
            .rsplit_once(':')
            .ok_or("two paths are wanted, as in /data:/mnt or /data:/mnt:ro")?;
        if !destination.starts_with('/') {
            return Err(format!(
                "{destination:?} is neither ro nor an absolute path in the container"
            ));
        }
        if is_root(destination) {
            return Err(
                "nothing can be mounted at /: --rootfs makes a directory the root".to_owned(),
            );
        }
        let source = fs::canonicalize(source).map_err(|error| format!("{source}: {error}"))?;
        Ok(Self {
            source,
            destination: destination.to_owned(),
            read_only,
        })
    }
}

/// Whether a path names the root directory. A process would not see what is mounted there.
fn is_root(path: &str) -> bool {
    let parts = Path::new(path).components();
    let depth = parts.fold(0_usize, |depth, part| match part {
        Component::Normal(_) => depth + 1,
        Component::ParentDir => depth.saturating_sub(1),
        _ => depth,
    });
    depth == 0
}

/// Returns a config.json for a root file system.
pub(super) fn of_rootfs(rootfs: &Path) -> Result<Map<String, Value>, Error> {
    let mounts = json!([
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"]
        ),
        // Not gid=5, which is not mapped in this user namespace.
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620"
            ]
        ),
        mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]
        ),
        mount(
            "/dev/mqueue",
            "mqueue",
            "mqueue",
            &["nosuid", "noexec", "nodev"]
        ),
    ]);
    let config = json!({
        "ociVersion": "1.0.0",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/sh"],
            "env": [format!("PATH={}", programs::USUAL)],
            "cwd": "/",
            "capabilities": {
                "bounding": CAPABILITIES,
                "effective": CAPABILITIES,
                "permitted": CAPABILITIES,
            },
            "noNewPrivileges": false,
        },
        "root": {"path": text(rootfs)?, "readonly": false},
        "mounts": mounts,
        "linux": {
            "namespaces": [
                {"type": "pid"},
                {"type": "ipc"},
                {"type": "uts"},
                {"type": "mount"},
            ],
            "maskedPaths": [
                "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug",
                "/sys/firmware",
            ],
            "readonlyPaths": [
                "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
            ],
        },
    });
    match config {
        Value::Object(config) => Ok(config),
        _ => unreachable!("written as an object above"),
    }
}

/// Makes the config.json of a bundle independent of its location, and drops its user namespace:
/// this process creates one.
pub(super) fn moved_from(
    bundle: &Path,
    mut config: Map<String, Value>,
) -> Result<Map<String, Value>, Error> {
    let wrong = |reason: &str| Error::Json {
        path: bundle.join("config.json"),
        reason: reason.to_owned(),
    };
    let root = object(&mut config, "root");
    let path = root.get("path").and_then(Value::as_str);
    let path = bundle.join(path.ok_or_else(|| wrong("it has no \"root\" with a \"path\""))?);
    root.insert("path".into(), text(&path)?.into());
    for mount in list(&mut config, "mounts") {
        if mount["type"] == "devpts" {
            drop_group(mount);
        }
        if is_bind(mount)
            && let Some(source) = mount.get("source").and_then(Value::as_str)
        {
            mount["source"] = text(&bundle.join(source))?.into();
        }
    }
    let linux = object(&mut config, "linux");
    list(linux, "namespaces").retain(|namespace| namespace["type"] != "user");
    linux.remove("uidMappings");
    linux.remove("gidMappings");
    // Without cgroups there is no place for limits.
    linux.remove("resources");
    linux.remove("cgroupsPath");
    Ok(config)
}

/// Whether a mount of config.json is a bind mount.
pub(super) fn is_bind(mount: &Value) -> bool {
    let options = mount.get("options").and_then(Value::as_array);
    let mut options = options.into_iter().flatten();
    mount["type"] == "bind" || options.any(|option| option == "bind" || option == "rbind")
}

/// Drops the group of new terminals, usually 5, from a devpts, unless it is 0: no other one is
/// mapped in this user namespace, and the mount would fail.
fn drop_group(devpts: &mut Value) {
    if let Some(options) = devpts.get_mut("options").and_then(Value::as_array_mut) {
        options.retain(|option| {
            let option = option.as_str().unwrap_or_default();
            option.strip_prefix("gid=").is_none_or(|gid| gid == "0")
        });
    }
}

impl Changes {
    /// Applies the changes to `config`, which will be written to the directory `bundle`.
    pub(super) fn apply(self, config: &mut Map<String, Value>, bundle: &Path) -> Result<(), Error> {
        self.apply_to_process(object(config, "process"))?;
        if self.read_only {
            object(config, "root").insert("readonly".into(), true.into());
        }
        if let Some(hostname) = &self.hostname {
            config.insert("hostname".into(), hostname.as_str().into());
        }
        if let Some(network) = self.network {
            network.apply(config, bundle)?;
        }
        for kind in &self.namespaces {
            let namespaces = list(object(config, "linux"), "namespaces");
            if !namespaces.iter().any(|known| known["type"] == *kind) {
                namespaces.push(json!({"type": kind}));
            }
        }
        if let Some(propagation) = self.propagation {
            let word = format!("r{}", propagation.word());
            object(config, "linux").insert("rootfsPropagation".into(), word.into());
        }
        for bind in &self.binds {
            let mode = if bind.read_only { "ro" } else { "rw" };
            let mount = mount(
                &bind.destination,
                "bind",
                text(&bind.source)?,
                &["rbind", mode],
            );
            list(config, "mounts").push(mount);
        }
        Ok(())
    }

    /// Applies those that concern `process`; `exec` needs no others.
    pub(super) fn apply_to_process(&self, process: &mut Map<String, Value>) -> Result<(), Error> {
        process.insert("terminal".into(), self.terminal.into());
        process.remove("consoleSize");
        if self.terminal
            && let Some((width, height)) = terminal_size_of(std::io::stdin())
        {
            let size = json!({"height": height.0, "width": width.0});
            process.insert("consoleSize".into(), size);
        }
        if !self.command.is_empty() {
            process.insert("args".into(), json!(self.command));
        }
        if let Some(user) = &self.user {
            process.insert("user".into(), json!(user));
        }
        if let Some(directory) = &self.directory {
            process.insert("cwd".into(), directory.as_str().into());
        }
        let environment = list(process, "env");
        for variable in &self.environment {
            let name = variable.split('=').next().unwrap_or_default();
            let is_it = |value: &Value| {
                let known = value.as_str().and_then(|text| text.split('=').next());
                known == Some(name)
            };
            environment.retain(|known| !is_it(known));
            match variable.contains('=') {
                true => environment.push(variable.as_str().into()),
                false => {
                    if let Ok(value) = std::env::var(name) {
                        environment.push(format!("{name}={value}").into());
                    }
                }
            }
        }
        for capability in &self.capabilities {
            add_capability(process, capability);
        }
        Ok(())
    }
}

pub(super) fn add_capability(process: &mut Map<String, Value>, capability: &str) {
    let sets = object(process, "capabilities");
    for set in ["bounding", "effective", "permitted"] {
        let set = list(sets, set);
        if !set.iter().any(|known| known == capability) {
            set.push(capability.into());
        }
    }
}
