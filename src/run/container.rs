//! `subuidless run --rootfs` and `--bundle`: a container created by crun or runc.
//!
//! This process writes a bundle, starts a supervisor, enters a user namespace and becomes the
//! runtime (see `crate::front`). The supervisor exits with the container and removes the bundle.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use serde_json::{Map, Value};

use super::boot;
use super::copy_up::{copied, copy_up};
use super::environment::variables;
use super::family::{self, Half};
use super::namespace;
use super::network::{self, Network};
use super::options::{Isolation, Options, Root, is_interactive};
use super::output;
use super::place::{self, About, Place, free_name, seconds_now};
use super::points;
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
    let Options {
        isolation,
        container,
        ..
    } = options;
    let (path, kind) = front::find_runtime(container.runtime.as_deref())?;
    let place = Place::of(&isolation.name.clone().unwrap_or_else(free_name))?;
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
    let prepared = create_output(options, &place)
        .and_then(|()| prepare(options, root, &place, &rootfs, &mut config))
        .and_then(|group| {
            find_program(isolation, &rootfs, &config)?;
            let mut about = about(&place, &path, rootfs.clone(), &config, options);
            about.control_group.clone_from(&group);
            place.write_about(&about)?;
            Ok((group, start_supervisor(options, &place)?))
        });
    let (group, supervisor) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            place.remove_all(claimed);
            return Err(error);
        }
    };
    drop(claimed);
    // From here on, the supervisor removes the files once this process has ended.
    match family::split()? {
        Half::Waits(runtime) => runtime.served_by(supervisor)?.wait(None, |code| {
            match options.is_detached() {
                true if code != 0 => output::show_failure(&place.directory),
                true => {}
                // Now rather than when the supervisor gets to it: who comes next may read the tree.
                false => place.remove_points(place.about().as_ref()),
            }
            place.code_of(code)
        }),
        Half::Command => {
            if let Some(group) = group {
                boot::enter(&group)?;
            }
            become_runtime(options, &place, &rootfs, path, kind)
        }
    }
}

/// Enters a user namespace and becomes the runtime. Returns only on failure.
fn become_runtime(
    options: &Options,
    place: &Place,
    rootfs: &Path,
    path: PathBuf,
    kind: Runtime,
) -> Result<Infallible, Error> {
    userns::enter_with_mounts()?;
    // Not before: entering a user namespace clears it. Without the process that waits, nobody
    // would end the container.
    set_pdeathsig(Signal::SIGKILL).doing("prctl(PR_SET_PDEATHSIG)")?;
    if kind == Runtime::Crun {
        namespace::unify_cgroups()?;
    }
    for directory in &options.isolation.copy_up {
        copy_up(place, rootfs, directory)?;
    }
    let mut arguments = runtime_arguments(place, kind);
    arguments.push("run".into());
    if options.is_detached() {
        output::divert(&place.directory)?;
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

fn create_output(options: &Options, place: &Place) -> Result<(), Error> {
    match options.is_detached() {
        true => output::create(&place.directory),
        false => Ok(()),
    }
}

fn find_program(
    isolation: &Isolation,
    rootfs: &Path,
    config: &Map<String, Value>,
) -> Result<(), Error> {
    let mut root = program::Root::new(rootfs.to_owned());
    let mounts = config.get("mounts").and_then(Value::as_array);
    for mount in mounts.into_iter().flatten() {
        let member = |name: &str| mount.get(name).and_then(Value::as_str);
        let Some(destination) = member("destination") else {
            continue;
        };
        // Directories that are copied up exist in the root file system.
        if !isolation.copy_up.iter().any(|it| it == destination) {
            let source = member("source").filter(|_| spec::is_bind(mount));
            root.mount(Path::new(destination), source.map(PathBuf::from));
        }
    }
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
/// Returns the control group that the container is to have, if it is to have one.
fn prepare(
    options: &Options,
    root: Root,
    place: &Place,
    rootfs: &Path,
    config: &mut Map<String, Value>,
) -> Result<Option<PathBuf>, Error> {
    let Options {
        isolation,
        container,
        ..
    } = options;
    let is_new = matches!(root, Root::Rootfs(_));
    let network = isolation.net.or(is_new.then_some(Network::Host));
    let hostname = isolation.hostname.clone();
    let hostname = hostname.or_else(|| is_new.then(|| place.name.clone()));
    let mut binds = isolation.bind.clone();
    if let Some(network) = network
        && let Some(source) = network.resolver(&place.directory)?
        && has_room(rootfs, isolation, "/etc/resolv.conf", |_| true)
    {
        binds.push(small_file(source, "/etc/resolv.conf"));
    }
    if is_new && has_room(rootfs, isolation, "/etc/hosts", |size| size == 0) {
        let source = hosts(place, hostname.as_deref().unwrap_or_default())?;
        binds.push(small_file(source, "/etc/hosts"));
    }
    for directory in &isolation.copy_up {
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
        environment: variables(&options.env_file, &options.env)?,
        directory: options
            .cwd
            .as_ref()
            .map(|path| path.to_string_lossy().into_owned()),
        terminal: is_interactive() && !container.detach,
        binds,
        read_only: isolation.read_only,
        hostname,
        network,
        namespaces: isolation.namespaces(),
        propagation: isolation.propagation,
        capabilities: container.cap_add.clone(),
    };
    changes.apply(config, &place.directory)?;
    let group = match is_new && boot::is_wanted(rootfs, config) {
        true => Some(boot::apply(config, &place.name)?),
        false => None,
    };
    write(&place.directory.join("config.json"), config)?;
    write(
        &place.directory.join("process.json"),
        config::object(config, "process"),
    )?;
    Ok(group)
}

fn write(path: &Path, json: &Map<String, Value>) -> Result<(), Error> {
    let text = serde_json::to_vec_pretty(json).unwrap_or_default();
    fs::write(path, text).at(path)
}

/// Whether a small file may be mounted over `file`, which is there with a size that `suits`, or can
/// be created.
fn has_room(
    rootfs: &Path,
    isolation: &Isolation,
    file: &str,
    suits: impl FnOnce(u64) -> bool,
) -> bool {
    if isolation.bind.iter().any(|bind| bind.destination == file) {
        return false;
    }
    match fs::symlink_metadata(rootfs.join(file.trim_start_matches('/'))) {
        Ok(found) => found.is_file() && suits(found.len()),
        Err(_) => !isolation.read_only && rootfs.join("etc").is_dir(),
    }
}

/// A file that can only be read: changes would be lost with the container.
fn small_file(source: PathBuf, destination: &str) -> Bind {
    Bind {
        source,
        destination: destination.to_owned(),
        read_only: true,
    }
}

/// A file for /etc/hosts, see hosts(5).
fn hosts(place: &Place, hostname: &str) -> Result<PathBuf, Error> {
    let path = place.directory.join("hosts");
    let text = format!(
        "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 {hostname}\n"
    );
    fs::write(&path, text).at(&path)?;
    Ok(path)
}

fn about(
    place: &Place,
    runtime: &Path,
    rootfs: PathBuf,
    config: &Map<String, Value>,
    options: &Options,
) -> About {
    let command = config
        .get("process")
        .and_then(|process| process.get("args")?.as_array());
    let words = command.into_iter().flatten().filter_map(Value::as_str);
    let mounts = config.get("mounts").and_then(Value::as_array);
    let mounts = mounts.into_iter().flatten();
    let destinations = mounts.filter_map(|mount| mount.get("destination")?.as_str());
    About {
        runtime: Some(runtime.to_owned()),
        command: words.map(str::to_owned).collect(),
        points: points::missing(&rootfs, destinations, &place.borrowed(&rootfs)),
        rootfs,
        started: seconds_now(),
        control_group: None,
        foreground: !options.is_detached(),
        plain: None,
    }
}

/// Returns the other end of its standard input.
fn start_supervisor(options: &Options, place: &Place) -> Result<UnixStream, Error> {
    // Held until the supervisor has taken it, too.
    let _lock = place.lock().at(&place.directory)?;
    let supervisor = supervisor::start_for(place, options.store.as_deref(), &options.log)?;
    start_keeper(&options.isolation, place)?;
    Ok(supervisor)
}

/// Starts the keeper of the network, if it needs one.
pub(super) fn start_keeper(isolation: &Isolation, place: &Place) -> Result<(), Error> {
    match isolation.net {
        Some(network) => network::start_keeper(network, &isolation.publish, &place.directory),
        None => Ok(()),
    }
}
