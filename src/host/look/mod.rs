//! `status` and `trace`: finds the daemons of a user and asks them about their containers.
//!
//! A user has one daemon, and a supervisor for each `subuidless run`, which answers the same
//! questions on a socket of its own: in the runtime directory (see `crate::wire::rundir`), or with
//! an abstract name. Answers go to a terminal, so control characters in them are escaped.

mod processes;
pub(crate) mod status;
mod table;
pub(crate) mod trace;

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::unistd::Uid;

use crate::daemon;
use crate::error::Error;
use crate::linux::sys;
use crate::wire::ask::{Report, What};
use crate::wire::message::Message;
use crate::wire::rundir;

/// The time limit for each read of an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The largest accepted answer, in bytes. An answer has some 10 KB per listener.
const MAX_ANSWER: u64 = 1 << 28;

/// A connection to a daemon.
#[derive(Debug)]
struct Daemon {
    path: PathBuf,
    connection: UnixStream,
}

impl Daemon {
    /// Returns `None` if nothing listens at `path`.
    fn connect(path: &Path) -> Result<Option<Self>, Error> {
        let connection = match sys::connect_unix(path) {
            Err(Errno::ENOENT | Errno::ECONNREFUSED | Errno::ENOTDIR) => return Ok(None),
            result => result.map_err(|errno| ask_failed(path, errno.desc()))?,
        };
        let prepare = || -> io::Result<bool> {
            connection.set_nonblocking(false)?;
            connection.set_read_timeout(Some(PATIENCE))?;
            connection.set_write_timeout(Some(PATIENCE))?;
            let peer = getsockopt(&connection, PeerCredentials)?;
            // A process in a container could listen on the same abstract name.
            let is_abstract = path.as_os_str().as_encoded_bytes().starts_with(b"@");
            let pid = u32::try_from(peer.pid()).unwrap_or_default();
            let is_neighbour = !is_abstract || daemon::is_neighbour(connection.as_fd(), pid);
            Ok(peer.uid() == Uid::effective().as_raw() && is_neighbour)
        };
        match prepare() {
            Ok(true) => Ok(Some(Self {
                path: path.to_owned(),
                connection,
            })),
            Ok(false) => Err(ask_failed(
                path,
                "it belongs to another user, or to a container",
            )),
            Err(error) => Err(ask_failed(path, error)),
        }
    }

    fn ask(&mut self, what: What) -> Result<(), Error> {
        let said = self.connection.write_all(&Message::Ask(what).encode());
        said.map_err(|error| ask_failed(&self.path, error))
    }

    fn status(mut self) -> Result<Report, Error> {
        self.ask(What::Status)?;
        let mut answer = Vec::new();
        (&self.connection)
            .take(MAX_ANSWER)
            .read_to_end(&mut answer)
            .map_err(|error| ask_failed(&self.path, slow(error)))?;
        if answer.is_empty() {
            return Err(ask_failed(&self.path, OLDER));
        }
        serde_json::from_slice(&answer).map_err(|error| ask_failed(&self.path, error))
    }
}

const OLDER: &str =
    "it closed the connection without an answer: if it is of an older version, restart it";

fn ask_failed(path: &Path, reason: impl ToString) -> Error {
    Error::Ask {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

/// Replaces the error of a timeout, which is EAGAIN, by one that says so.
fn slow(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => {
            io::Error::other(format!("no answer within {} seconds", PATIENCE.as_secs()))
        }
        _ => error,
    }
}

/// Connects to the daemon on `socket`, or to all of the user. Calls `complain` for those that fail.
fn daemons(socket: Option<&Path>, complain: &mut dyn FnMut(&Error)) -> Result<Vec<Daemon>, Error> {
    let places = match socket {
        Some(socket) => vec![socket.to_owned()],
        None => default_sockets()?,
    };
    let mut found = Vec::new();
    for place in &places {
        match Daemon::connect(place) {
            Ok(daemon) => found.extend(daemon),
            Err(error) if socket.is_some() => return Err(error),
            Err(error) => complain(&error),
        }
    }
    if found.is_empty() {
        let place = places.first().map(|path| shown(&path.to_string_lossy()));
        return Err(Error::NobodyListens {
            place: place.unwrap_or_default(),
            others: match socket {
                Some(_) => "",
                None => ", and no `subuidless run` is active in this network namespace",
            },
        });
    }
    Ok(found)
}

/// The sockets of supervisors with abstract names, as proc_net_unix(5) lists them: `@` stands for
/// the NUL byte.
fn abstract_sockets() -> Vec<PathBuf> {
    let listed = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let wanted = format!("@{}", daemon::abstract_name(""));
    let mut found: Vec<PathBuf> = listed
        .lines()
        // The name is the last field, and may have spaces.
        .filter_map(|line| Some(PathBuf::from(&line[line.find(&wanted)?..])))
        .collect();
    // Accepted connections have the name of the listening socket.
    found.sort();
    found.dedup();
    found
}

/// The sockets of the daemon, of daemons that serve one container, and of `subuidless run`.
fn default_sockets() -> Result<Vec<PathBuf>, Error> {
    let found = rundir::look()?;
    let mut others = sockets_in(&found.room());
    others.extend(sockets_in(&found.room().join(rundir::SOCKETS)));
    others.extend(abstract_sockets());
    others.sort();
    others.insert(0, found.control_socket());
    Ok(others)
}

fn sockets_in(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket()))
        .map(|entry| entry.path())
        .collect()
}

/// Escapes control characters, for a terminal.
fn shown(text: &str) -> String {
    let is_plain = |c: &char| !c.is_control();
    text.chars()
        .flat_map(|c| {
            let plain = Some(c).filter(is_plain);
            let escaped = plain.is_none().then(|| c.escape_default());
            plain.into_iter().chain(escaped.into_iter().flatten())
        })
        .collect()
}
