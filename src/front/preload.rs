//! The preloaded library in a container. It is mounted, read-only, on the tmpfs that the runtime
//! creates for /dev, so nothing of it remains in the root file system. LD_PRELOAD names it.
//!
//! If it is not certain that the first program can load the library, nothing is changed.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use serde_json::{Map, Value, json};

use super::library::{self, Absence, SWITCH, VARIABLE, is_native};
use crate::linux::programs::candidates;
use crate::syscalls::profile;
use crate::wire::config::{list, mount, object};
use crate::wire::fast::{self, FastPath};

/// Lets a container's programs load the library, if that is possible. `rootfs` is the container's
/// root file system, as this process sees it. `place` puts the library's directory somewhere, and
/// returns the source of a bind mount.
pub(super) fn add_to(
    config: &mut Map<String, Value>,
    rootfs: &Path,
    place: impl Fn() -> Result<PathBuf, Absence>,
) -> FastPath {
    remove_from(config);
    if let Some(obstacle) = obstacle(config, rootfs) {
        return obstacle;
    }
    let directory = match place() {
        Ok(directory) => directory,
        Err(absence) => return absence.into(),
    };
    let Some(source) = directory.to_str() else {
        return FastPath::NoPlace;
    };
    let inside = format!("/dev/.{}", library::name());
    let options = ["bind", "ro", "nosuid", "nodev"];
    list(config, "mounts").push(mount(&inside, "bind", source, &options));
    let library = format!("{inside}/{}", fast::LOADED_AS);
    name_in(object(config, "process"), &library);
    FastPath::On
}

fn obstacle(config: &Map<String, Value>, rootfs: &Path) -> Option<FastPath> {
    if !is_switched_on(config).unwrap_or_else(|| !library::is_turned_off()) {
        Some(FastPath::TurnedOff)
    } else if !has_own_dev(config) {
        Some(FastPath::NoDev)
    } else if is_labelled(config) {
        Some(FastPath::Labelled)
    } else if forbids_library(config) {
        Some(FastPath::Forbidden)
    } else if first_program_is_native(config, rootfs) != Some(true) {
        Some(FastPath::OtherProgram)
    } else {
        None
    }
}

/// Removes what an earlier run left in a config.json that was changed in place.
pub(super) fn remove_from(config: &mut Map<String, Value>) {
    if let Some(mounts) = config.get_mut("mounts").and_then(Value::as_array_mut) {
        let is_ours = |path: &str| is_in_dev(path) && fast::is_directory(Path::new(path));
        mounts.retain(|mount| !mount["destination"].as_str().is_some_and(is_ours));
    }
    let environment = config
        .get_mut("process")
        .and_then(|process| process.get_mut("env")?.as_array_mut());
    let Some(environment) = environment else {
        return;
    };
    environment.retain_mut(|variable| {
        let Some(list) = value_of(variable, VARIABLE).filter(|list| list.split(':').any(is_ours))
        else {
            return true;
        };
        let others: Vec<&str> = list.split(':').filter(|path| !is_ours(path)).collect();
        let stays = !others.is_empty();
        *variable = format!("{VARIABLE}={}", others.join(":")).into();
        stays
    });
}

/// Lets a process of `exec` load the library of its container, whose root directory is `root`.
pub(super) fn add_to_process(process: &mut Map<String, Value>, root: &Path, library: &str) {
    let Ok(root) = File::open(root).map(OwnedFd::from) else {
        return;
    };
    let is_native = program_is_native(process, &|path| open_below(&root, path));
    if is_native && variable(process, SWITCH) != Some("0") {
        name_in(process, library);
    }
}

/// The library where [`add_to`] mounts it.
fn is_ours(path: &str) -> bool {
    is_in_dev(path) && fast::is_library(Path::new(path))
}

fn is_in_dev(path: &str) -> bool {
    path.starts_with("/dev/.")
}

/// Adds the library to LD_PRELOAD, behind the process's own.
fn name_in(process: &mut Map<String, Value>, library: &str) {
    let environment = process.entry("env").or_insert_with(|| json!([]));
    let Some(environment) = environment.as_array_mut() else {
        return;
    };
    let present = environment.iter_mut().find_map(|variable| {
        let is_it = value_of(variable, VARIABLE).is_some_and(|list| !list.is_empty());
        is_it.then_some(variable)
    });
    match present {
        Some(variable) => {
            let text = variable.as_str().unwrap_or_default();
            if !text.contains(library) {
                *variable = format!("{text}:{library}").into();
            }
        }
        None => environment.push(format!("{VARIABLE}={library}").into()),
    }
}

/// The value of an environment variable, if it has this name.
fn value_of<'a>(variable: &'a Value, name: &str) -> Option<&'a str> {
    variable.as_str()?.strip_prefix(name)?.strip_prefix('=')
}

fn variable<'a>(process: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    let environment = process.get("env")?.as_array()?;
    environment
        .iter()
        .find_map(|variable| value_of(variable, name))
}

fn mounts(config: &Map<String, Value>) -> impl DoubleEndedIterator<Item = (&str, &Value)> {
    let mounts = config.get("mounts").and_then(Value::as_array);
    mounts
        .into_iter()
        .flatten()
        .filter_map(|mount| Some((mount.get("destination")?.as_str()?, mount)))
}

fn has_own_dev(config: &Map<String, Value>) -> bool {
    let (_, dev) = match mounts(config).rfind(|(destination, _)| *destination == "/dev") {
        Some(found) => found,
        None => return false,
    };
    dev.get("type").and_then(Value::as_str) == Some("tmpfs")
}

/// Under SELinux, a container may not read files of a runtime directory.
fn is_labelled(config: &Map<String, Value>) -> bool {
    let label = config
        .get("process")
        .and_then(|process| process.get("selinuxLabel")?.as_str());
    label.is_some_and(|label| !label.is_empty())
}

/// The choice in the container's environment, if there is one.
fn is_switched_on(config: &Map<String, Value>) -> Option<bool> {
    let process = config.get("process").and_then(Value::as_object)?;
    match variable(process, SWITCH)? {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

fn forbids_library(config: &Map<String, Value>) -> bool {
    let profile = config
        .get("linux")
        .and_then(|linux| linux.get("seccomp")?.as_object());
    profile.is_some_and(profile::forbids_library)
}

fn first_program_is_native(config: &Map<String, Value>, rootfs: &Path) -> Option<bool> {
    let process = config.get("process")?.as_object()?;
    let root = File::open(rootfs).map(OwnedFd::from).ok()?;
    let open = |path: &Path| open_in(&root, config, path);
    Some(program_is_native(process, &open))
}

/// Whether the program of a process can load the library; `open` opens the container's files.
fn program_is_native(
    process: &Map<String, Value>,
    open: &dyn Fn(&Path) -> io::Result<File>,
) -> bool {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(PathBuf::from);
    let Some(program) = text(process.get("args").and_then(|args| args.get(0))) else {
        return false;
    };
    let directory = text(process.get("cwd")).unwrap_or_else(|| PathBuf::from("/"));
    let search_path = variable(process, "PATH").map(OsStr::new);
    let open = |path: &Path| open(&directory.join(path));
    let candidates = candidates(&program, search_path);
    let mut native = candidates
        .iter()
        .filter_map(|candidate| is_native(candidate, &open));
    native.next() == Some(true)
}

/// Opens a file of a container that does not exist yet.
fn open_in(root: &OwnedFd, config: &Map<String, Value>, path: &Path) -> io::Result<File> {
    // Of several, the last one is on top.
    for (destination, mount) in mounts(config).rev() {
        let Ok(rest) = path.strip_prefix(destination) else {
            continue;
        };
        // A mount covers this part of the root file system.
        let source = mount.get("source").and_then(Value::as_str);
        return match source.filter(|source| source.starts_with('/')) {
            Some(source) if rest.as_os_str().is_empty() => File::open(source),
            Some(source) => File::open(Path::new(source).join(rest)),
            None => Err(io::ErrorKind::NotFound.into()),
        };
    }
    open_below(root, path)
}

/// Opens a file as a process with this root directory does.
fn open_below(root: &OwnedFd, path: &Path) -> io::Result<File> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    Ok(File::from(openat2(root, path, how)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A container that can have the library.
    fn config() -> Map<String, Value> {
        let config = json!({
            "process": {"args": ["/exe"], "env": ["PATH=/"]},
            "mounts": [{"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}],
        });
        config.as_object().unwrap().clone()
    }

    #[test]
    fn each_obstacle_is_named() {
        let root = tempfile::tempdir().unwrap();
        std::fs::copy("/proc/self/exe", root.path().join("exe")).unwrap();
        let found = |change: &dyn Fn(&mut Value)| {
            let mut config = Value::Object(config());
            change(&mut config);
            let mut config = config.as_object().unwrap().clone();
            let fast = add_to(&mut config, root.path(), || Ok("/library".into()));
            assert_eq!(fast::of_config(&config).is_on(), fast.is_on());
            fast
        };
        assert_eq!(found(&|_| ()), FastPath::On);
        for (change, obstacle) in [
            (
                (|config| config["process"]["args"][0] = "/missing".into()) as fn(&mut Value),
                FastPath::OtherProgram,
            ),
            (
                |config| config["process"]["env"][0] = format!("{SWITCH}=0").into(),
                FastPath::TurnedOff,
            ),
            (
                |config| config["mounts"][0]["type"] = "bind".into(),
                FastPath::NoDev,
            ),
            (
                |config| config["process"]["selinuxLabel"] = "system_u:x".into(),
                FastPath::Labelled,
            ),
            (
                |config| {
                    // It covers the program.
                    let mount = json!({"destination": "/", "type": "tmpfs", "source": "tmpfs"});
                    config["mounts"].as_array_mut().unwrap().push(mount);
                },
                FastPath::OtherProgram,
            ),
            (
                |config| {
                    let rule = json!({"names": ["getxattr"], "action": "SCMP_ACT_ERRNO"});
                    config["linux"] = json!({
                        "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]},
                    });
                },
                FastPath::Forbidden,
            ),
        ] {
            assert_eq!(found(&change), obstacle);
        }
    }

    #[test]
    fn what_was_added_can_be_removed() {
        let root = tempfile::tempdir().unwrap();
        std::fs::copy("/proc/self/exe", root.path().join("exe")).unwrap();
        for list in [None, Some("LD_PRELOAD=/own.so")] {
            let mut before = config();
            let environment = before["process"]["env"].as_array_mut().unwrap();
            environment.extend(list.map(Value::from));
            let mut after = before.clone();
            for _ in 0..2 {
                add_to(&mut after, root.path(), || Ok("/library".into()));
                assert_ne!(after, before);
            }
            remove_from(&mut after);
            assert_eq!(after, before);
        }
    }
}
