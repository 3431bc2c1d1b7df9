//! A daemon in the background: `serve --background` starts another process of this program and ends
//! once that one listens.
//!
//! The runtime front starts it in the midst of podman's and conmon's pipes, whose other ends wait
//! for everybody to close them: nothing is inherited but the environment.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::Uid;

use crate::error::{Context, Error};
use crate::linux::sys;
use crate::wire::rundir;

/// What a daemon of its own has nothing to do with: conmon's pipes, and somebody else's service
/// manager.
const OTHERS: [&str; 9] = [
    "_OCI_SYNCPIPE",
    "_OCI_STARTPIPE",
    "_OCI_ATTACHPIPE",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);
/// A log of this size is begun anew.
const LARGEST_LOG: u64 = 1 << 20;

/// Starts `subuidless` with `arguments`, which make it listen on `socket`, and waits until it does.
/// Its log is beside the socket.
pub(crate) fn start(socket: Option<PathBuf>, arguments: Vec<OsString>) -> Result<(), Error> {
    sys::close_fds_from(3);
    let socket = super::socket::resolve(socket)?;
    const WHAT: &str = "starting a daemon in the background";
    // EPERM: leads a group already, and a shell's job needs no session of its own.
    let _ = nix::unistd::setsid();
    let (mut log, path) = open_log(&socket)?;
    let end = log.seek(SeekFrom::End(0)).doing(WHAT)?;
    let ready = Ready::new(&rundir::room()?).doing(WHAT)?;
    let mut command = Command::new("/proc/self/exe");
    for name in OTHERS {
        command.env_remove(name);
    }
    let mut child = command
        .arg0("subuidless")
        .args(arguments)
        .arg(&socket)
        .env("NOTIFY_SOCKET", &ready.path)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log.try_clone().doing(WHAT)?)
        .spawn()
        .doing(WHAT)?;
    match ready.wait(&mut child) {
        Ok(()) => Ok(()),
        Err(error) => Err(Error::Background {
            reason: last_error(&mut log, end).unwrap_or_else(|| error.to_string()),
            log: path,
        }),
    }
}

fn open_log(socket: &Path) -> Result<(File, PathBuf), Error> {
    // One for all daemons of a directory: each of podman's and buildah's namespaces may have one.
    let path = socket.with_file_name("subuidless.log");
    let opened = OpenOptions::new()
        .append(true)
        .read(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(&path)
        .and_then(|file| {
            let found = file.metadata()?;
            // Beside a socket that was named, others may have been first.
            if !found.is_file() || found.uid() != Uid::effective().as_raw() {
                return Err(io::Error::other("it is no file of this user"));
            }
            if found.len() > LARGEST_LOG {
                file.set_len(0)?;
            }
            Ok(file)
        });
    match opened {
        Ok(file) => Ok((file, path)),
        Err(source) => Err(Error::at(path, source)),
    }
}

/// The last error that was logged, without its time.
fn last_error(log: &mut File, from: u64) -> Option<String> {
    let mut bytes = Vec::new();
    log.seek(SeekFrom::Start(from)).ok()?;
    log.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    // Others may write to the same log.
    text.lines().rev().find_map(|line| {
        let (_, told) = line.split_once("ERROR ")?;
        Some(told.trim().to_owned())
    })
}

/// Hears the daemon say that it listens, as systemd would (sd_notify(3)).
#[derive(Debug)]
struct Ready {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Ready {
    fn new(directory: &Path) -> io::Result<Self> {
        let path = directory.join(format!(".ready-{}", std::process::id()));
        // A process of this number has ended long ago.
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path)?;
        socket.set_read_timeout(Some(LOOK))?;
        Ok(Self { socket, path })
    }

    fn wait(&self, child: &mut Child) -> io::Result<()> {
        let start = Instant::now();
        let mut message = [0; 256];
        while start.elapsed() < PATIENCE {
            match self.socket.recv(&mut message) {
                Ok(length) if message[..length].starts_with(b"READY=1") => return Ok(()),
                Ok(_) => {}
                Err(error)
                    if !matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) =>
                {
                    return Err(error);
                }
                Err(_) => {}
            }
            if let Some(status) = child.try_wait()? {
                return Err(io::Error::other(format!("it ended at once, {status}")));
            }
        }
        Err(io::Error::other(format!(
            "it does not listen after {} seconds",
            PATIENCE.as_secs()
        )))
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        // What is left over is in the way of nobody.
        let _ = std::fs::remove_file(&self.path);
    }
}
