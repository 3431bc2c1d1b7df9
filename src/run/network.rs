//! `--net`: the network of a container, or of a command.
//!
//! pasta and slirp4netns connect a network namespace without privileges, but only from outside the
//! user namespace that owns it. So a *keeper* process (see [`super::keeper`]) is started before
//! that is created. A hook of the runtime, or the process that becomes the command, tells it when
//! the network namespace exists and the program has not started.

use std::fs;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::error::Error;
use crate::linux::{programs, sys, tun};
use crate::wire::config::{self, list, mount, object, text};
use crate::wire::mode::Mode;
use crate::wire::published::Published;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Network {
    /// The network of the host
    Host,
    /// Only a loopback interface
    None,
    /// A private network, connected by pasta(1)
    Pasta,
    /// A private network, connected by slirp4netns(1)
    Slirp4netns,
}

/// The name server of slirp4netns(1).
const SLIRP_NAMESERVER: &str = "10.0.2.3";
/// The host's name servers.
pub(super) const RESOLVER: &str = "/etc/resolv.conf";
/// The name server inside a network of pasta(1), if those of the host are on its loopback.
pub(super) const PASTA_NAMESERVER: &str = "169.254.1.1";
/// How long a network may take to come up.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

impl Network {
    /// The program that connects it.
    pub(super) fn program(self) -> Option<&'static str> {
        match self {
            Self::Host | Self::None => None,
            Self::Pasta => Some(tun::PASTA),
            Self::Slirp4netns => Some(tun::SLIRP4NETNS),
        }
    }

    /// Changes `config` accordingly. The keeper listens in the directory `bundle`.
    pub(super) fn apply(self, config: &mut Map<String, Value>, bundle: &Path) -> Result<(), Error> {
        let namespaces = list(object(config, "linux"), "namespaces");
        namespaces.retain(|namespace| namespace["type"] != "network");
        let mounts = list(config, "mounts");
        mounts.retain(|mount| mount["destination"] != "/sys");
        if self == Self::Host {
            // Only root of a network namespace can mount its sysfs, so the host's is bind-mounted:
            // read-only and recursively, because the user's cgroups below are not for a container.
            mounts.push(mount(
                "/sys",
                "bind",
                "/sys",
                &["rbind", "rro", "nosuid", "noexec", "nodev"],
            ));
        } else {
            mounts.push(mount(
                "/sys",
                "sysfs",
                "sysfs",
                &["ro", "nosuid", "noexec", "nodev"],
            ));
            list(object(config, "linux"), "namespaces").push(json!({"type": "network"}));
        }
        if self.program().is_some() {
            let own = fs::read_link("/proc/self/exe")
                .map_err(|source| Error::at(PathBuf::from("/proc/self/exe"), source))?;
            let hook = json!({
                "path": text(&own)?,
                "args": hook_words(bundle)?,
                "timeout": PATIENCE.as_secs() * 2,
            });
            list(object(config, "hooks"), "createRuntime").push(hook);
        }
        Ok(())
    }

    /// The resolv.conf to mount; `None` leaves the container's own.
    pub(super) fn resolver(self, bundle: &Path) -> Result<Option<PathBuf>, Error> {
        match self {
            Self::None => Ok(None),
            Self::Pasta if has_local_resolver() => written(bundle, PASTA_NAMESERVER),
            Self::Host | Self::Pasta => Ok(fs::canonicalize(RESOLVER).ok()),
            Self::Slirp4netns => written(bundle, SLIRP_NAMESERVER),
        }
    }

    /// Whether it can forward a port; otherwise the reason why not.
    pub(super) fn can_forward(self, port: &Published) -> Result<(), String> {
        let option = format!("--publish {port}");
        match self {
            Self::Pasta => Ok(()),
            Self::Slirp4netns if port.address.is_some_and(|address| address.is_ipv6()) => Err(
                format!("{option}: slirp4netns forwards IPv4 only; use --net pasta"),
            ),
            Self::Slirp4netns => Ok(()),
            Self::None => Err(format!(
                "{option}: with --net none nothing is forwarded; use --net pasta"
            )),
            Self::Host => Err(format!(
                "{option}: with the host's network nothing is forwarded; use --net pasta"
            )),
        }
    }
}

/// A resolv.conf with one server.
fn written(directory: &Path, server: &str) -> Result<Option<PathBuf>, Error> {
    let path = directory.join("resolv.conf");
    match fs::write(&path, format!("nameserver {server}\n")) {
        Ok(()) => Ok(Some(path)),
        Err(source) => Err(Error::at(path, source)),
    }
}

/// Whether the host's name servers are on its loopback only, which another network does not reach.
pub(super) fn has_local_resolver() -> bool {
    let text = fs::read_to_string(RESOLVER).unwrap_or_default();
    let mut servers = text
        .lines()
        .filter_map(|line| {
            line.strip_prefix("nameserver")?
                .trim()
                .parse::<IpAddr>()
                .ok()
        })
        .peekable();
    servers.peek().is_some() && servers.all(|server| server.is_loopback())
}

/// The state that a runtime writes to the standard input of a hook.
#[derive(Debug, Deserialize)]
struct State {
    pid: u32,
}

/// The socket of the keeper.
fn socket(bundle: &Path) -> PathBuf {
    bundle.join("network.sock")
}

/// The answer of the keeper once the network is connected; any other is the reason why not.
pub(super) const UP: &str = "up";

/// Starts the keeper for a network namespace that is about to be created.
pub(super) fn start_keeper(
    network: Network,
    ports: &[Published],
    bundle: &Path,
) -> Result<(), Error> {
    let Some(program) = network.program() else {
        return Ok(());
    };
    let program = programs::find(program).ok_or(Error::NoNetworkProgram { program })?;
    let failed = |source| Error::Network {
        program: program.clone(),
        source,
    };
    // If the hook failed because of this, the runtime's exit code would look like the program's.
    if let Err(error) = tun::open() {
        return Err(failed(io::Error::other(format!("{}: {error}", tun::PATH))));
    }
    let listener = UnixListener::bind(socket(bundle)).map_err(failed)?;
    let mode = Mode::NetworkKeeper {
        program: program.clone(),
        creator: std::process::id(),
        ports: ports.to_vec(),
    };
    let mut keeper = mode.command("subuidless");
    // crun discards what a hook writes to standard error. The keeper has the caller's, and uses it
    // while it may fail.
    keeper.stdin(OwnedFd::from(listener));
    sys::start_orphan(&mut keeper).map_err(failed)
}

/// The args of the hook, the name first.
fn hook_words(bundle: &Path) -> Result<Vec<String>, Error> {
    let mode = Mode::NetworkHook {
        socket: socket(bundle),
    };
    let words = [vec!["subuidless".into()], mode.to_words()].concat();
    config::words(&words)
}

/// The hook: tells the keeper of the container, and returns when the network is up.
pub(crate) fn hook(socket: &Path) -> Result<(), Error> {
    let failed = |source| Error::Network {
        program: socket.to_owned(),
        source,
    };
    let state: State =
        serde_json::from_reader(io::stdin()).map_err(|error| failed(error.into()))?;
    let pid = state.pid;
    Connection::to(socket, socket.to_owned())?.join([pid, pid])
}

/// A connection to the keeper.
#[derive(Debug)]
pub(super) struct Connection {
    keeper: UnixStream,
    /// What errors are about.
    program: PathBuf,
}

impl Connection {
    /// To the keeper of `program` that listens in the directory `bundle`.
    pub(super) fn to_keeper(program: &str, bundle: &Path) -> Result<Self, Error> {
        Self::to(&socket(bundle), program.into())
    }

    fn to(path: &Path, program: PathBuf) -> Result<Self, Error> {
        match UnixStream::connect(path) {
            Ok(keeper) => Ok(Self { keeper, program }),
            Err(source) => Err(Error::Network { program, source }),
        }
    }

    /// Waits until the network namespace of the first of two processes is connected. It will be,
    /// until both have ended.
    pub(super) fn join(mut self, processes: [u32; 2]) -> Result<(), Error> {
        let message = processes.map(u32::to_ne_bytes).concat();
        let mut answer = String::new();
        let mut ask = || {
            self.keeper.set_read_timeout(Some(PATIENCE * 3 / 2))?;
            self.keeper.write_all(&message)?;
            self.keeper.read_to_string(&mut answer)
        };
        let asked = ask().map(drop);
        let told = asked.and_then(|()| match answer.as_str() {
            UP => Ok(()),
            "" => Err(io::Error::other("its keeper has exited")),
            reason => Err(io::Error::other(reason.to_owned())),
        });
        told.map_err(|source| Error::Network {
            program: self.program,
            source,
        })
    }
}
