//! `--net`: which network a container has.
//!
//! pasta and slirp4netns give a network namespace a way out without any privilege, for who stands
//! outside of the container's user namespace. So a keeper is started before it is made; a hook of
//! the runtime tells him when the network namespace is there and the container's program is not
//! yet; and the network lives as long as the container.

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

use super::spec::{list, mount, object, text};
use crate::error::Error;
use crate::linux::sys;
use crate::wire::mode::Mode;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Network {
    /// That of the host
    Host,
    /// Nothing but a loopback of its own
    None,
    /// A network of its own, through pasta(1)
    Pasta,
    /// A network of its own, through slirp4netns(1)
    Slirp4netns,
}

/// slirp4netns(1): its name server.
const SLIRP_NAMESERVER: &str = "nameserver 10.0.2.3\n";
/// What both programs make an interface of.
const TUN: &str = "/dev/net/tun";
/// For a network to come up.
const PATIENCE: Duration = Duration::from_secs(10);

impl Network {
    /// The program behind it.
    pub(super) fn program(self) -> Option<&'static str> {
        match self {
            Self::Host | Self::None => None,
            Self::Pasta => Some("pasta"),
            Self::Slirp4netns => Some("slirp4netns"),
        }
    }

    /// `bundle` is where the keeper listens.
    pub(super) fn apply(self, config: &mut Map<String, Value>, bundle: &Path) -> Result<(), Error> {
        let namespaces = list(object(config, "linux"), "namespaces");
        namespaces.retain(|namespace| namespace["type"] != "network");
        let mounts = list(config, "mounts");
        mounts.retain(|mount| mount["destination"] != "/sys");
        if self == Self::Host {
            // sysfs belongs to a network namespace, and can be mounted by that one's root only.
            // Read-only with all that is mounted below: what the host's user may do with her
            // cgroups is not for a container.
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

    /// The resolv.conf that fits; `None`: the container's own.
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

fn find(program: &'static str) -> Result<PathBuf, Error> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|path| path.is_absolute() && path.is_file())
        .ok_or(Error::NoNetworkProgram { program })
}

/// What a runtime tells its hooks on standard input.
#[derive(Debug, Deserialize)]
struct State {
    pid: u32,
}

/// Where the keeper of a bundle's network listens.
fn socket(bundle: &Path) -> PathBuf {
    bundle.join("network.sock")
}

/// Starts the keeper of a container that this process is going to make.
pub(super) fn start_keeper(network: Network, bundle: &Path) -> Result<(), Error> {
    let Some(program) = network.program() else {
        return Ok(());
    };
    let program = find(program)?;
    let failed = |source| Error::Network {
        program: program.clone(),
        source,
    };
    // The runtime's exit code for a hook that fails would be the container's own.
    if let Err(error) = File::options().read(true).write(true).open(TUN) {
        return Err(failed(io::Error::other(format!("{TUN}: {error}"))));
    }
    let listener = UnixListener::bind(socket(bundle)).map_err(failed)?;
    let mode = Mode::NetworkKeeper {
        program: program.clone(),
        creator: std::process::id(),
    };
    let mut keeper = mode.command("subuidless");
    // What a hook complains of crun shows to nobody; the keeper, whose standard error is that of
    // the caller, is heard as long as it may fail.
    keeper.stdin(OwnedFd::from(listener));
    sys::start_orphan(&mut keeper).map_err(failed)
}

/// The command line of the hook, its name first.
fn hook_words(bundle: &Path) -> Result<Vec<String>, Error> {
    let mode = Mode::NetworkHook {
        socket: socket(bundle),
    };
    let words = [vec!["subuidless".into()], mode.to_words()].concat();
    super::spec::words(&words)
}

/// The hook: has the network of the container made, and comes back when it is up.
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

/// What the keeper says to the hook.
const UP: &str = "up";
const DOWN: &str = "down";

/// Waits for the hook on standard input, a socket, as long as the process `holder` lives; then runs
/// `program` as long as the container's first process lives.
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
        // The container has never come about.
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
    // The hook may have lost its patience: then the container ends at once, and this with it.
    let _ = hook.write_all(UP.as_bytes());
    drop(hook);
    wait_for(&container, None);
    let _ = child.kill();
    let _ = child.wait();
    Ok(())
}

/// Whoever waits for the end of a pipe waits for the container, and not for us.
fn silence() {
    if let Ok(null) = File::options().write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stderr(null);
    }
}

/// Waits until there is something to read from `fd`; `false`: from `other` before.
fn wait_for(fd: &impl AsFd, other: Option<&OwnedFd>) -> bool {
    let mut fds = vec![PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    fds.extend(other.map(|other| PollFd::new(other.as_fd(), PollFlags::POLLIN)));
    while poll(&mut fds, PollTimeout::NONE) == Err(Errno::EINTR) {}
    fds[0].any() == Some(true)
}

/// Starts `program` for the container whose first process is `pid`, and waits until it is ready.
fn start(program: &Path, pid: u32) -> io::Result<Child> {
    let is_pasta = program.file_name().is_some_and(|name| name == "pasta");
    let mut command = Command::new(program);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if is_pasta {
        // No port of one side appears on the other one.
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

/// pasta in the foreground tells nobody when it is ready; a way out of the namespace is what is
/// wanted.
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
