//! Which daemon a container's listener goes to, and how there comes to be one.
//!
//! podman runs its runtime as root of a user namespace of its own. A daemon that listens at the usual place lives outside, and
//! can serve every container of the user. One that is started in there can serve what lives in there only, so it listens on a socket that
//! bears the namespace's number.

use std::fs::{self, DirBuilder};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::unistd::Uid;

use crate::daemon::store;
use crate::error::Error;
use crate::handover::{Announcement, HEARD};
use crate::sys;

const FILE_NAME: &str = "subuidless.sock";
/// A daemon that nobody asked for by name ends so many seconds after its last container.
const IDLE: &str = "60";
/// For an answer, and for a new daemon.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(10);

/// Tells a daemon of the container that comes next, starting one if there is none. The result is the daemon's socket.
pub(super) fn announce(
    asked: Option<PathBuf>,
    announcement: &Announcement,
) -> Result<PathBuf, Error> {
    let (sockets, own) = match asked {
        Some(path) => (Vec::new(), path),
        None => {
            let directory = directory()?;
            let usual = directory.join(FILE_NAME);
            let own = own_socket(&directory)?;
            (vec![usual], own)
        }
    };
    for socket in sockets.into_iter().filter(|socket| *socket != own) {
        if tell(&socket, announcement)? {
            return Ok(socket);
        }
    }
    // A daemon may be about to end, having had nothing to do, or somebody else may be starting one.
    let mut failure = None;
    for _ in 0..3 {
        if tell(&own, announcement)? {
            return Ok(own);
        }
        failure = start(&own).err();
    }
    match tell(&own, announcement)? {
        true => Ok(own),
        false => Err(failure.unwrap_or_else(|| Error::NoDaemon {
            path: own,
            reason: "it ended at once".to_owned(),
        })),
    }
}

/// Where sockets lie. conmon hands XDG_RUNTIME_DIR on; elsewhere it may be missing.
pub(crate) fn directory() -> Result<PathBuf, Error> {
    if let Some(directory) = std::env::var_os("XDG_RUNTIME_DIR").filter(|value| !value.is_empty()) {
        return Ok(PathBuf::from(directory));
    }
    let uid = store::host_uid();
    let systemds = PathBuf::from(format!("/run/user/{uid}"));
    if is_own(&systemds) {
        return Ok(systemds);
    }
    let directory = PathBuf::from(format!("/tmp/subuidless-{uid}"));
    let failed = |source| Error::File {
        path: directory.clone(),
        source,
    };
    match DirBuilder::new().mode(0o700).create(&directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    // /tmp is everybody's: somebody else may have been there first.
    if !is_own(&directory) {
        return Err(failed(io::Error::other(
            "exists, but is not a directory of mode 0700 of this user: set XDG_RUNTIME_DIR to one that is",
        )));
    }
    Ok(directory)
}

fn is_own(directory: &Path) -> bool {
    fs::symlink_metadata(directory).is_ok_and(|found| {
        found.is_dir() && found.uid() == Uid::effective().as_raw() && found.mode() & 0o077 == 0
    })
}

/// The socket on which a daemon that is born here listens.
fn own_socket(directory: &Path) -> Result<PathBuf, Error> {
    let is_initial = super::user::MappedIds::own().are_all();
    let namespace = match fs::metadata("/proc/self/ns/user") {
        Ok(namespace) if !is_initial => namespace.ino(),
        _ => return Ok(directory.join(FILE_NAME)),
    };
    // Where `subuidless status` looks, too.
    let directory = directory.join("subuidless");
    match DirBuilder::new().mode(0o700).create(&directory) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => Err(Error::File {
            path: directory,
            source,
        }),
        _ => Ok(directory.join(format!("userns-{namespace}.sock"))),
    }
}

/// `false`: nobody listens there.
fn tell(socket: &Path, announcement: &Announcement) -> Result<bool, Error> {
    let failed = |source| Error::Announce {
        path: socket.to_owned(),
        source,
    };
    let start = Instant::now();
    let mut connection = loop {
        match sys::connect_unix(socket) {
            Ok(connection) => break connection,
            Err(Errno::ENOENT | Errno::ECONNREFUSED) => return Ok(false),
            // Its queue is full.
            Err(Errno::EAGAIN) if start.elapsed() < PATIENCE => std::thread::sleep(PAUSE),
            Err(errno) => return Err(failed(errno.into())),
        }
    };
    match converse(&mut connection, announcement) {
        Ok(true) => Ok(true),
        Ok(false) => Err(failed(io::Error::other(
            "it refuses: it may be an older one than this program",
        ))),
        // It has ended in this moment.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(failed(error)),
    }
}

fn converse(connection: &mut UnixStream, announcement: &Announcement) -> io::Result<bool> {
    if getsockopt(&*connection, PeerCredentials)?.uid() != Uid::effective().as_raw() {
        return Err(io::Error::other("it belongs to another user"));
    }
    connection.set_nonblocking(false)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    connection.write_all(&announcement.encode())?;
    let mut answer = [0; HEARD.len()];
    match connection.read_exact(&mut answer) {
        Ok(()) => Ok(answer == HEARD),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Starts a daemon on `socket`, and waits until it listens.
fn start(socket: &Path) -> Result<(), Error> {
    let failed = |reason: String| Error::NoDaemon {
        path: socket.to_owned(),
        reason,
    };
    let output = Command::new("/proc/self/exe")
        .arg0("subuidless")
        .args(["serve", "--background", "--idle", IDLE])
        .arg(socket)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim().trim_start_matches("subuidless: ");
    Err(failed(said.to_owned()))
}
