//! The keeper of a network: runs pasta or slirp4netns for as long as a network namespace is used.

use std::fs::{self, File};
use std::io::{self, PipeWriter, Read, Seek, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};

use super::network::{PASTA_NAMESERVER, PATIENCE, UP, has_local_resolver};
use crate::error::Error;
use crate::linux::{memfd, sys};
use crate::wire::published::{Protocol, Published};

/// The keeper: waits on standard input, a listening socket, while the process `holder` lives, for
/// two pids: of a process in the network namespace, and of one that also uses it. Then it runs
/// `program` while one of them lives.
pub(crate) fn keep(program: &Path, holder: u32, ports: &[Published]) -> Result<(), Error> {
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
        // The namespace was never created.
        return Ok(());
    }
    let (mut asker, _) = listener.accept().map_err(failed)?;
    let mut pids = [[0; size_of::<u32>()]; 2];
    asker.read_exact(pids.as_flattened_mut()).map_err(failed)?;
    let [pid, other] = pids.map(u32::from_ne_bytes);
    let users = [process(pid)?, process(other)?];
    let started = match is_pasta(program) {
        true => start_pasta(program, pid, ports),
        false => start_slirp(program, pid, ports, &listener),
    };
    let mut child = match started {
        Ok(child) => child,
        // A command says itself why it fails.
        Err(error) if pid != other => {
            let _ = asker.write_all(error.to_string().as_bytes());
            return Ok(());
        }
        Err(error) => {
            // crun discards what the hook says. It fails when this process has said why, and ends.
            std::mem::forget(asker);
            return Err(failed(error));
        }
    };
    silence();
    // If the hook has timed out, the container ends at once, and so does this process.
    let _ = asker.write_all(UP.as_bytes());
    drop(asker);
    for user in &users {
        wait_for(user, None);
    }
    child.end();
    Ok(())
}

fn is_pasta(program: &Path) -> bool {
    program.file_name().is_some_and(|name| name == "pasta")
}

/// Closes standard error: a reader of that pipe waits for the command, not for the keeper.
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

/// The program that connects the network.
struct Network {
    child: Child,
    /// What it has written to standard error, as long as that is of interest.
    said: File,
    /// The kernel ends the program once this end of its standard input is closed, even by a SIGKILL
    /// of this process. (PR_SET_PDEATHSIG does not outlive the program's change of user namespace.)
    _alive: PipeWriter,
}

impl Network {
    fn start(command: &mut Command) -> io::Result<Self> {
        let (input, alive) = io::pipe()?;
        let said = memfd::growing(c"subuidless-network")?;
        command
            .stdin(input.try_clone()?)
            .stdout(Stdio::null())
            .stderr(said.try_clone()?);
        let child = command.spawn()?;
        // Its default action is to end the process.
        sys::send_sigio(input.as_fd(), child.id())?;
        Ok(Self {
            child,
            said,
            _alive: alive,
        })
    }

    /// The program is ready. What it says from now on is lost.
    fn go_on(self) -> io::Result<Self> {
        memfd::stop_growing(&self.said)?;
        Ok(self)
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Why it has ended.
    fn failure(&mut self) -> io::Error {
        self.end();
        let mut text = Vec::new();
        let _ = self.said.rewind();
        let _ = (&self.said).take(4096).read_to_end(&mut text);
        let text = String::from_utf8_lossy(&text);
        let last = text.trim().lines().last().unwrap_or_default();
        let last = last.replace(char::is_control, " ");
        let said = match last.is_empty() {
            true => String::new(),
            false => format!(" ({last})"),
        };
        io::Error::other(format!("it ended at once{said}"))
    }
}

/// Starts pasta(1) for the network namespace of the process `pid`, and waits until it is ready.
fn start_pasta(program: &Path, pid: u32, ports: &[Published]) -> io::Result<Network> {
    let mut command = Command::new(program);
    command.args([
        "--foreground",
        "--quiet",
        "--stderr",
        "--config-net",
        "--no-map-gw",
    ]);
    if has_local_resolver() {
        command.args(["--dns-forward", PASTA_NAMESERVER]);
    }
    // In the other direction, none.
    command.args(["-T", "none", "-U", "none"]);
    for (option, protocol) in [("-t", Protocol::Tcp), ("-u", Protocol::Udp)] {
        let mut of_it = ports
            .iter()
            .filter(|port| port.protocol == protocol)
            .peekable();
        if of_it.peek().is_none() {
            command.args([option, "none"]);
        }
        for port in of_it {
            let Published {
                outside, inside, ..
            } = port;
            let address = port.address.map(|address| format!("{address}/"));
            let address = address.unwrap_or_default();
            command.args([option, &format!("{address}{outside}:{inside}")]);
        }
    }
    let mut network = Network::start(command.arg(pid.to_string()))?;
    let start = Instant::now();
    // pasta in the foreground does not say when it is ready: the namespace has a route then.
    while start.elapsed() < PATIENCE {
        if network.child.try_wait()?.is_some() {
            return Err(network.failure());
        }
        let routes =
            |file: &str| fs::read_to_string(format!("/proc/{pid}/net/{file}")).unwrap_or_default();
        if routes("route").lines().count() > 1 || routes("ipv6_route").lines().count() > 4 {
            return network.go_on();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    network.end();
    Err(io::ErrorKind::TimedOut.into())
}

/// Starts slirp4netns(1), and waits until it is ready. `listener` is in a directory of its own.
fn start_slirp(
    program: &Path,
    pid: u32,
    ports: &[Published],
    listener: &UnixListener,
) -> io::Result<Network> {
    let mut command = Command::new(program);
    let (mut ready, tell) = io::pipe()?;
    fcntl(&tell, FcntlArg::F_SETFD(FdFlag::empty()))?;
    let ready_fd = tell.as_raw_fd().to_string();
    command.args(["--configure", "--mtu=65520", "--disable-host-loopback"]);
    command.args(["--ready-fd", &ready_fd]);
    let address = listener.local_addr()?;
    let beside = address.as_pathname().unwrap_or(Path::new("/"));
    let api = beside.with_file_name("slirp.sock");
    if !ports.is_empty() {
        command.arg("--api-socket").arg(&api);
    }
    command.args([&pid.to_string(), "tap0"]);
    let mut network = Network::start(&mut command)?;
    drop(tell);
    if !matches!(ready.read(&mut [0]), Ok(1)) {
        return Err(network.failure());
    }
    for port in ports {
        if let Err(error) = forward_by_slirp(&api, port) {
            network.end();
            return Err(error);
        }
    }
    network.go_on()
}

/// Asks slirp4netns to forward a port.
fn forward_by_slirp(api: &Path, port: &Published) -> io::Result<()> {
    let request = json!({
        "execute": "add_hostfwd",
        "arguments": {
            "proto": match port.protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
            },
            "host_addr": port.address.map_or("0.0.0.0".to_owned(), |address| address.to_string()),
            "host_port": port.outside,
            "guest_port": port.inside,
        },
    });
    let mut connection = UnixStream::connect(api)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.write_all(request.to_string().as_bytes())?;
    connection.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    let answer: Value = serde_json::from_str(&answer)?;
    match answer.get("error") {
        None => Ok(()),
        Some(_) => Err(io::Error::other(format!(
            "it cannot forward {port}; does another program listen on that port?"
        ))),
    }
}
