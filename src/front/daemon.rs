//! Finds the daemon that a container's listener goes to, or starts one.
//!
//! podman runs its runtime as root of a new user namespace. A daemon that listens on the usual
//! socket is outside of it and can serve all containers of the user. Without one, each container
//! gets a daemon of its own, which exits with it. conmon, the container's monitor, is a child
//! subreaper (prctl(2)): a daemon started here becomes its child, and conmon waits for all of them.
//! A daemon of several containers would keep the first one's conmon alive.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::unistd::Uid;

use crate::daemon::background;
use crate::error::Error;
use crate::linux::sys;
use crate::log;
use crate::wire::handover::{Announcement, HEARD};
use crate::wire::message::Message;
use crate::wire::mode::Daemon;
use crate::wire::rundir;

/// Seconds without a container after which a daemon started by the front exits.
const IDLE: u64 = 60;
/// The time limit for connecting, and for each read and write.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(10);

/// Announces a container to a daemon, starting one if there is none. Returns the daemon's socket.
pub(crate) fn announce(
    asked: Option<PathBuf>,
    announcement: &Announcement,
) -> Result<PathBuf, Error> {
    let Some(own) = asked else {
        let usual = rundir::control_socket()?;
        return match tell(&usual, announcement)? {
            true => Ok(usual),
            false => start_for_one(&rundir::room()?, announcement),
        };
    };
    // The runtime does not check who receives the listener.
    rundir::refuse_replaceable(&own).map_err(|source| Error::SocketPlace {
        path: own.clone(),
        source,
    })?;
    // An idle daemon may be exiting right now, or another process may be starting one.
    let mut failure = None;
    for _ in 0..3 {
        if tell(&own, announcement)? {
            return Ok(own);
        }
        failure = start(&own, false).err();
    }
    match tell(&own, announcement)? {
        true => Ok(own),
        false => Err(failure.unwrap_or_else(|| Error::NoDaemon {
            path: own,
            reason: "it exited at once".to_owned(),
        })),
    }
}

/// Starts a daemon for the announced container only.
fn start_for_one(directory: &Path, announcement: &Announcement) -> Result<PathBuf, Error> {
    const ATTEMPTS: u32 = 3;
    remove_left_over(directory);
    let namespace = fs::metadata("/proc/self/ns/user").map_or(0, |namespace| namespace.ino());
    let name = format!("userns-{namespace}-{}", std::process::id());
    let mut failure = None;
    for attempt in 0..ATTEMPTS {
        // The container of an earlier process with this pid may still run.
        let socket = directory.join(format!("{name}-{attempt}.sock"));
        match start(&socket, true) {
            Ok(()) if tell(&socket, announcement)? => return Ok(socket),
            Ok(()) => {}
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| Error::NoDaemon {
        path: directory.join(name),
        reason: "it exited at once".to_owned(),
    }))
}

/// Removes the sockets of such daemons that were killed: no other daemon would reuse the names.
fn remove_left_over(directory: &Path) {
    // A starting daemon holds this lock until it listens.
    let lock = File::open(directory)
        .map(|directory| Flock::lock(directory, FlockArg::LockExclusiveNonblock));
    let Ok(Ok(_lock)) = lock else {
        return;
    };
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_ours = name.starts_with("userns-") && name.ends_with(".sock");
        if is_ours && sys::is_bound(&path) == Ok(false) {
            // If this fails, the next front tries again.
            let _ = fs::remove_file(&path);
        }
    }
}

/// Sends the announcement to `socket`. Returns `false` if no daemon listens there.
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
            // connect(2): the backlog of the socket is full.
            Err(Errno::EAGAIN) if start.elapsed() < PATIENCE => std::thread::sleep(PAUSE),
            Err(errno) => return Err(failed(errno.into())),
        }
    };
    match converse(&mut connection, announcement) {
        Ok(true) => Ok(true),
        Ok(false) => Err(failed(io::Error::other(
            "it refused: if it is older than this program, restart it",
        ))),
        // The daemon has just exited.
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
    connection.write_all(&Message::Announcement(announcement.clone()).encode())?;
    let mut answer = [0; HEARD.len()];
    match connection.read_exact(&mut answer) {
        Ok(()) => Ok(answer == HEARD),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Starts a daemon on `socket` and waits until it listens.
fn start(socket: &Path, for_one: bool) -> Result<(), Error> {
    let daemon = Daemon {
        log: log::Settings::default(),
        socket: socket.to_owned(),
        store: None,
        idle: Some(IDLE),
        for_one,
    };
    background::start(daemon).map_err(|error| Error::NoDaemon {
        path: socket.to_owned(),
        reason: error.to_string(),
    })
}
