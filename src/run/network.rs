//! `--net`: the network of a container.
//!
//! pasta and slirp4netns connect a network namespace without privileges, but only from outside the
//! container's user namespace. So a *keeper* process is started before that namespace is created. A
//! hook of the runtime tells it when the network namespace exists and the container's program has
//! not started; the keeper then runs pasta or slirp4netns for as long as the container lives.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::error::Error;
use crate::linux::{programs, sys};
use crate::wire::config::{self, list, mount, object, text};
use crate::wire::mode::Mode;

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
const SLIRP_NAMESERVER: &str = "nameserver 10.0.2.3\n";
/// Both programs create their interface with it.
const TUN: &str = "/dev/net/tun";
/// How long a network may take to come up.
const PATIENCE: Duration = Duration::from_secs(10);

impl Network {
    /// The program that connects it.
    pub(super) fn program(self) -> Option<&'static str> {
        match self {
            Self::Host | Self::None => None,
            Self::Pasta => Some("pasta"),
            Self::Slirp4netns => Some("slirp4netns"),
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
            Self::Host | Self::Pasta => Ok(fs::canonicalize("/etc/resolv.conf").ok()),
            Self::Slirp4netns => {
                let path = bundle.join("resolv.conf");
                match fs::write(&path, SLIRP_NAMESERVER) {
                    Ok(()) => Ok(Some(path)),
                    Err(source) => Err(Error::at(path, source)),
                }
            }
        }
    }
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

/// Starts the keeper of a container that this process is about to create.
pub(super) fn start_keeper(network: Network, bundle: &Path) -> Result<(), Error> {
    let Some(program) = network.program() else {
        return Ok(());
    };
    let program = programs::find(program).ok_or(Error::NoNetworkProgram { program })?;
    let failed = |source| Error::Network {
        program: program.clone(),
        source,
    };
    // If the hook failed because of this, the runtime's exit code would look like the program's.
    if let Err(error) = File::options().read(true).write(true).open(TUN) {
        return Err(failed(io::Error::other(format!("{TUN}: {error}"))));
    }
    let listener = UnixListener::bind(socket(bundle)).map_err(failed)?;
    let mode = Mode::NetworkKeeper {
        program: program.clone(),
        creator: std::process::id(),
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
    let mut keeper = UnixStream::connect(socket).map_err(failed)?;
    keeper
        .set_read_timeout(Some(PATIENCE * 3 / 2))
        .and_then(|()| keeper.write_all(&state.pid.to_ne_bytes()))
        .map_err(failed)?;
    let mut answer = String::new();
    keeper.read_to_string(&mut answer).map_err(failed)?;
    match answer.as_str() {
        UP => Ok(()),
        _ => Err(failed(io::Error::other("the keeper says why"))),
    }
}

/// The answers of the keeper to the hook.
const UP: &str = "up";
const DOWN: &str = "down";

/// The keeper: waits for the hook on standard input, a listening socket, while the process `holder`
/// lives; then runs `program` while the container's first process lives.
pub(crate) fn keep(program: &Path, holder: u32) -> Result<(), Error> {
    let failed = |source| Error::Network {
        program: program.to_owned(),
        source,
    };
    let process = |pid| sys::process_pidfd(pid).map_err(|errno| failed(errno.into()));
    let listener = io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
    let listener = UnixListener::from(listener);
    let holder = process(holder)?;
    if !wait_for(&listener, Some(&holder)) {
        silence();
        // The container was never created.
        return Ok(());
    }
    let (mut hook, _) = listener.accept().map_err(failed)?;
    let mut pid = [0; size_of::<u32>()];
    hook.read_exact(&mut pid).map_err(failed)?;
    let pid = u32::from_ne_bytes(pid);
    let container = process(pid)?;
    let mut child = match start(program, pid) {
        Ok(child) => child,
        Err(error) => {
            let _ = hook.write_all(DOWN.as_bytes());
            return Err(failed(error));
        }
    };
    silence();
    // If the hook has timed out, the container ends at once, and so does this process.
    let _ = hook.write_all(UP.as_bytes());
    drop(hook);
    wait_for(&container, None);
    let _ = child.kill();
    let _ = child.wait();
    Ok(())
}

/// Closes standard error: a reader of that pipe waits for the container, not for the keeper.
fn silence() {
    if let Ok(null) = File::options().write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stderr(null);
    }
}

/// Waits until `fd` is readable. Returns `false` if `other` is readable first.
fn wait_for(fd: &impl AsFd, other: Option<&OwnedFd>) -> bool {
    let mut fds = vec![PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    fds.extend(other.map(|other| PollFd::new(other.as_fd(), PollFlags::POLLIN)));
    while poll(&mut fds, PollTimeout::NONE) == Err(Errno::EINTR) {}
    fds[0].any() == Some(true)
}

/// Starts `program` for the network namespace of the process `pid`, and waits until it is ready.
fn start(program: &Path, pid: u32) -> io::Result<Child> {
    let is_pasta = program.file_name().is_some_and(|name| name == "pasta");
    let mut command = Command::new(program);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if is_pasta {
        // No ports are forwarded in either direction.
        command.args(["--foreground", "--quiet", "--config-net", "--no-map-gw"]);
        command.args(["-t", "none", "-u", "none", "-T", "none", "-U", "none"]);
        let mut child = command.arg(pid.to_string()).spawn()?;
        wait_until_up(&mut child, pid)?;
        return Ok(child);
    }
    let (mut ready, tell) = io::pipe()?;
    fcntl(&tell, FcntlArg::F_SETFD(FdFlag::empty()))?;
    let ready_fd = tell.as_raw_fd().to_string();
    command.args(["--configure", "--mtu=65520", "--disable-host-loopback"]);
    command.args(["--ready-fd", &ready_fd, &pid.to_string(), "tap0"]);
    let mut child = command.spawn()?;
    drop(tell);
    match ready.read(&mut [0]) {
        Ok(1) => Ok(child),
        _ => Err(ended(child.wait()?)),
    }
}

/// Waits until the namespace has a route: pasta in the foreground does not say when it is ready.
fn wait_until_up(child: &mut Child, pid: u32) -> io::Result<()> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait()? {
            return Err(ended(status));
        }
        let routes =
            |file: &str| fs::read_to_string(format!("/proc/{pid}/net/{file}")).unwrap_or_default();
        if routes("route").lines().count() > 1 || routes("ipv6_route").lines().count() > 4 {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    let _ = child.wait();
    Err(io::ErrorKind::TimedOut.into())
}

fn ended(status: ExitStatus) -> io::Error {
    io::Error::other(format!(
        "it ended at once ({status}); is /dev/net/tun there, and open to this user?"
    ))
}
