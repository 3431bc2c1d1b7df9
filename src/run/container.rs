//! `subuidless run --rootfs` and `--bundle`: a container created by crun or runc.
//!
//! This process writes a bundle, starts a supervisor, enters a user namespace and becomes the
//! runtime (see `crate::front`). The supervisor exits with the container and removes the bundle.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MsFlags, mount};
use serde_json::{Map, Value};

use super::namespace;
use super::network::{self, Network};
use super::options::{Container, Options, Root, is_interactive};
use super::place::{self, About, Place, free_name};
use super::program;
use super::spec::{self, Bind, Changes};
use super::supervisor;
use super::user::{Login, Names};
use crate::error::{Context, Error};
use crate::front;
use crate::front::bundle;
use crate::linux::userns;
use crate::syscalls::profile::Runtime;
use crate::wire::config;

/// Becomes the runtime. Returns only on failure.
pub(super) fn run(options: &Options, root: Root) -> Result<Infallible, Error> {
    let container = &options.container;
    let (path, kind) = front::find_runtime(container.runtime.as_deref())?;
    let place = Place::of(&container.name.clone().unwrap_or_else(free_name))?;
    let mut config = match root {
        Root::Rootfs(rootfs) => spec::of_rootfs(&directory(rootfs)?)?,
        Root::Bundle(bundle) => {
            let bundle = directory(bundle)?;
            let config = bundle::read_object(&bundle.join("config.json"))?;
            spec::moved_from(&bundle, config)?
        }
    };
    let rootfs = directory(&root_of(&config))?;
    place::tidy_up();
    let claimed = place.claim()?;
    let prepared = prepare(options, root, &place, &rootfs, &mut config)
        .and_then(|()| find_program(container, &rootfs, &config))
        .and_then(|()| place.write_about(&about(&path, rootfs.clone(), &config, container.detach)))
        .and_then(|()| start_supervisor(options, &place));
    if let Err(error) = prepared {
        place.remove_all(claimed);
        return Err(error);
    }
    drop(claimed);
    // From here on, the supervisor removes the files once this process has ended.
    userns::enter_with_mounts()?;
    if kind == Runtime::Crun {
        namespace::unify_cgroups()?;
    }
    for directory in &container.copy_up {
        copy_up(&place, &rootfs, directory)?;
    }
    let mut arguments = runtime_arguments(&place, kind);
    arguments.push("run".into());
    if container.detach {
        arguments.push("--detach".into());
    }
    arguments.extend(["--bundle".into(), place.directory.clone().into()]);
    arguments.push(place.name.clone().into());
    Err(front::run(front::Options {
        name: "subuidless".into(),
        runtime: Some(path),
        socket: Some(place.socket()),
        arguments,
        no_fast: options.no_fast,
        permissions: options.permissions,
    }))
}

fn find_program(
    container: &Container,
    rootfs: &Path,
    config: &Map<String, Value>,
) -> Result<(), Error> {
    let mounts = config.get("mounts").and_then(Value::as_array);
    let destinations = mounts
        .into_iter()
        .flatten()
        .filter_map(|mount| mount.get("destination")?.as_str())
        // Directories that are copied up exist in the root file system.
        .filter(|destination| !container.copy_up.iter().any(|copied| copied == destination));
    let root = program::Root {
        directory: rootfs.to_owned(),
        mounts: destinations.map(PathBuf::from).collect(),
    };
    let process = config.get("process").and_then(Value::as_object);
    process.map_or(Ok(()), |process| program::require(&root, process))
}

/// Global options of the runtime.
pub(super) fn runtime_arguments(place: &Place, kind: Runtime) -> Vec<OsString> {
    let mut arguments = vec!["--root".into(), place.state().into()];
    if kind == Runtime::Crun {
        // Without a session manager the user has no cgroup to write to.
        arguments.push("--cgroup-manager=disabled".into());
    }
    arguments
}

fn root_of(config: &Map<String, Value>) -> PathBuf {
    let path = config
        .get("root")
        .and_then(|root| root.get("path")?.as_str());
    PathBuf::from(path.unwrap_or_default())
}

/// The absolute path of an existing directory.
fn directory(path: &Path) -> Result<PathBuf, Error> {
    let absolute = fs::canonicalize(path).at(path)?;
    match fs::metadata(&absolute).at(path)?.is_dir() {
        true => Ok(absolute),
        false => Err(Error::at(path, io::ErrorKind::NotADirectory)),
    }
}

/// Writes config.json according to the options, and process.json, which `exec` starts from.
fn prepare(
    options: &Options,
    root: Root,
    place: &Place,
    rootfs: &Path,
    config: &mut Map<String, Value>,
) -> Result<(), Error> {
    let container = &options.container;
    let is_new = matches!(root, Root::Rootfs(_));
    let network = container.net.or(is_new.then_some(Network::Host));
    let mut binds = container.bind.clone();
    if let Some(network) = network
        && let Some(source) = network.resolver(&place.directory)?
    {
        binds.extend(resolver(rootfs, source, container.read_only));
    }
    for directory in &container.copy_up {
        binds.push(Bind {
            source: copied(place, directory),
            destination: directory.clone(),
            read_only: false,
        });
    }
    let find = |user: &String| Login::find(user, &Names::Rootfs(rootfs));
    let user = options.user.as_ref().map(find).transpose()?;
    let changes = Changes {
        command: config::words(&options.command)?,
        user: user.map(|login| login.to_process_user()),
        environment: options.env.clone(),
        directory: options
            .cwd
            .as_ref()
            .map(|path| path.to_string_lossy().into_owned()),
        terminal: is_interactive() && !container.detach,
        binds,
        read_only: container.read_only,
        hostname: container
            .hostname
            .clone()
            .or_else(|| is_new.then(|| place.name.clone())),
        network,
        capabilities: container.cap_add.clone(),
    };
    changes.apply(config, &place.directory)?;
    write(&place.directory.join("config.json"), config)?;
    write(
        &place.directory.join("process.json"),
        config::object(config, "process"),
    )
}

fn write(path: &Path, json: &Map<String, Value>) -> Result<(), Error> {
    let text = serde_json::to_vec_pretty(json).unwrap_or_default();
    fs::write(path, text).at(path)
}

/// A bind mount of resolv.conf, if the container has the file or it can be created.
fn resolver(rootfs: &Path, source: PathBuf, read_only: bool) -> Option<Bind> {
    let file = rootfs.join("etc/resolv.conf");
    let has_room = match fs::symlink_metadata(&file) {
        Ok(found) => found.is_file(),
        Err(_) => !read_only && rootfs.join("etc").is_dir(),
    };
    has_room.then(|| Bind {
        source,
        destination: "/etc/resolv.conf".to_owned(),
        read_only: true,
    })
}

fn about(runtime: &Path, rootfs: PathBuf, config: &Map<String, Value>, detach: bool) -> About {
    let command = config
        .get("process")
        .and_then(|process| process.get("args")?.as_array());
    let words = command.into_iter().flatten().filter_map(Value::as_str);
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    About {
        runtime: runtime.to_owned(),
        command: words.map(str::to_owned).collect(),
        rootfs,
        started: since_1970.map_or(0, |time| time.as_secs()),
        foreground: !detach,
    }
}

fn start_supervisor(options: &Options, place: &Place) -> Result<(), Error> {
    // Held until the supervisor has taken it, too.
    let _lock = place.lock().at(&place.directory)?;
    supervisor::start_for(place, options.store.as_deref(), &options.log)?;
    match options.container.net {
        Some(network) => network::start_keeper(network, &place.directory),
        None => Ok(()),
    }
}

/// The mount point of the overlay over `directory`, in a tmpfs of this mount namespace.
fn copied(place: &Place, directory: &str) -> PathBuf {
    let name = directory.trim_matches('/').replace('/', "-");
    place.directory.join("up").join(name).join("merged")
}

/// Mounts an overlay with the directory as its lower layer and a tmpfs as its upper one.
fn copy_up(place: &Place, rootfs: &Path, directory: &str) -> Result<(), Error> {
    let lower = directory_in(rootfs, directory)?;
    let merged = copied(place, directory);
    let base = merged.parent().unwrap_or(Path::new("/")).to_owned();
    let mount_at = |kind: &str, at: &Path, data: Option<&str>| {
        mount(Some(kind), at, Some(kind), MsFlags::MS_NODEV, data).at(at)
    };
    fs::create_dir_all(&base).at(&base)?;
    mount_at("tmpfs", &base, None)?;
    for name in ["upper", "work", "merged"] {
        let path = base.join(name);
        fs::create_dir(&path).at(&path)?;
    }
    let data = format!(
        "userxattr,lowerdir={},upperdir={},workdir={}",
        procfs_name(&lower),
        escaped(config::text(&base.join("upper"))?),
        escaped(config::text(&base.join("work"))?)
    );
    mount_at("overlay", &merged, Some(&data))
}

/// Opens a directory of the root file system. Symbolic links are refused: they could lead out of
/// it.
fn directory_in(rootfs: &Path, directory: &str) -> Result<OwnedFd, Error> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    let inside = directory.trim_start_matches('/');
    let open = || -> io::Result<OwnedFd> { Ok(openat2(File::open(rootfs)?, inside, how)?) };
    open().map_err(|_| Error::Rootfs {
        path: rootfs.join(inside),
        reason: "--copy-up wants a directory of the root file system, with no link on the way",
    })
}

fn procfs_name(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Escapes the characters that separate overlay's mount options.
fn escaped(path: &str) -> String {
    path.replace('\\', "\\\\")
        .replace(':', "\\:")
        .replace(',', "\\,")
}
