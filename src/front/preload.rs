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
use subuidless_fast::facts::LIBRARY_NAME;

use super::library::{self, SWITCH, VARIABLE, candidates, is_native};
use crate::syscalls::profile;

/// The library for a container, if the fast path is on and possible. Removes what an earlier run
/// left in `config`. `asked`: it is on unless the container's environment turns it off; `rootfs` is
/// the container's root file system, as this process sees it.
pub(super) fn find_for(
    config: &mut Map<String, Value>,
    rootfs: &Path,
    asked: bool,
) -> Option<PathBuf> {
    remove_from(config);
    let is_possible = is_switched_on(config).unwrap_or(asked)
        && has_own_dev(config)
        && !is_labelled(config)
        && first_program_is_native(config, rootfs) == Some(true);
    is_possible.then(|| library::place().ok()).flatten()
}

/// Lets a container's programs load the library. A profile of ours has been woven into `config`
/// already; if it forbids calls that the library would make, nothing is changed.
pub(super) fn add_to(config: &mut Map<String, Value>, library: &Path) {
    let Some(source) = library.to_str().filter(|_| lets_it_call(config)) else {
        return;
    };
    let inside = format!("/dev/.{}", library::name());
    let mount = json!({
        "destination": inside,
        "type": "bind",
        "source": source,
        "options": ["bind", "ro", "nosuid", "nodev"],
    });
    if let Some(mounts) = config.get_mut("mounts").and_then(Value::as_array_mut) {
        mounts.push(mount);
    }
    if let Some(process) = config.get_mut("process").and_then(Value::as_object_mut) {
        name_in(process, &inside);
    }
}

/// Removes what an earlier run left in a config.json that was changed in place.
pub(super) fn remove_from(config: &mut Map<String, Value>) {
    if let Some(mounts) = config.get_mut("mounts").and_then(Value::as_array_mut) {
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

/// Whether a path in a container is that of the library.
fn is_ours(path: &str) -> bool {
    let rest = path.strip_prefix("/dev/.");
    rest.is_some_and(|rest| rest.starts_with(LIBRARY_NAME))
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

/// The library's path in a container, according to the mounts in the runtime's state.
pub(super) fn noted(mounts: Option<&Value>) -> Option<String> {
    let mounts = mounts.and_then(Value::as_array)?;
    let destinations = mounts
        .iter()
        .filter_map(|mount| mount.get("destination")?.as_str());
    let mut found = destinations.filter(|destination| is_ours(destination));
    found.next().map(str::to_owned)
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

fn lets_it_call(config: &Map<String, Value>) -> bool {
    let profile = config
        .get("linux")
        .and_then(|linux| linux.get("seccomp")?.as_object());
    profile.is_some_and(profile::lets_library_call)
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
    for (destination, mount) in mounts(config) {
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
