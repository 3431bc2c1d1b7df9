//! The daemon for one command, told of its listener as a runtime would tell, or for one container.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, Metadata};
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::fcntl::Flock;
use nix::sys::signal::Signal;
use sendfd::SendWithFd;
use serde_json::json;

use super::place::Place;
use crate::error::{Context, Error};
use crate::linux::sys;

/// Where a supervisor logs to, and what.
#[derive(Debug)]
pub(crate) struct Log {
    /// Appended to; none: standard error, which is the command's. Where it is no terminal, until
    /// the command ends (see [`super::stderr`]).
    pub(crate) file: Option<PathBuf>,
    /// Options of the supervisor's own command line.
    pub(crate) options: Vec<OsString>,
}

impl Log {
    pub(crate) fn goes_nowhere(&self) -> bool {
        self.file.is_none() && !std::io::stderr().is_terminal()
    }

    fn open(&self) -> Result<Stdio, Error> {
        match &self.file {
            Some(path) => File::options()
                .append(true)
                .create(true)
                .open(path)
                .map(Stdio::from)
                .at(path),
            None => Ok(Stdio::inherit()),
        }
    }

    /// Whether standard error is only lent.
    fn borrows(&self) -> bool {
        self.file.is_none() && !std::io::stderr().is_terminal()
    }
}

#[derive(Debug)]
pub(super) struct Supervisor {
    connection: UnixStream,
}

impl Supervisor {
    /// Starts one for a command, which ends when nothing comes.
    pub(super) fn start(store: Option<&Path>, keep_id: bool, log: &Log) -> Result<Self, Error> {
        let more: &[&str] = if keep_id { &["--keep-id"] } else { &[] };
        let connection = start(store, log, more.iter().map(OsString::from))?;
        Ok(Self { connection })
    }

    /// Starts one for a container, and waits until it listens.
    pub(super) fn start_for(place: &Place, store: Option<&Path>, log: &Log) -> Result<(), Error> {
        let holder: [OsString; 4] = [
            "--holder".into(),
            std::process::id().to_string().into(),
            "--directory".into(),
            place.directory.clone().into(),
        ];
        let mut connection = start(store, log, holder)?;
        let mut answer = String::new();
        let read = connection.read_to_string(&mut answer);
        match (read, answer.as_str()) {
            (Ok(_), READY) => Ok(()),
            (Ok(_), "") => Err(Error::NoSupervisor),
            (Ok(_), reason) => Err(failed(io::Error::other(reason.to_owned()))),
            (Err(source), _) => Err(failed(source)),
        }
    }

    /// Hands over the listener of this process.
    pub(super) fn supervise(self, listener: OwnedFd) -> Result<(), Error> {
        let id = format!("run-{}", std::process::id());
        let message = json!({
            "fds": ["seccompFd"],
            "state": {"id": id, "status": "creating", "bundle": ""},
        });
        self.connection
            .send_with_fd(message.to_string().as_bytes(), &[listener.as_raw_fd()])
            .doing("handing the filter's listener to the supervisor")?;
        Ok(())
    }
}

fn failed(source: io::Error) -> Error {
    Error::doing("starting a supervisor", source)
}

/// Starts a process of this program, whose standard input is the other end of the result.
fn start(
    store: Option<&Path>,
    log: &Log,
    more: impl IntoIterator<Item = OsString>,
) -> Result<UnixStream, Error> {
    let (connection, theirs) = UnixStream::pair().map_err(failed)?;
    let mut command = Command::new("/proc/self/exe");
    command.arg("supervise").args(&log.options).args(more);
    if log.borrows() {
        let command_id = std::process::id().to_string();
        command.args(["--stderr-until", &command_id]);
    }
    if let Some(store) = store {
        let store = std::path::absolute(store).map_err(failed)?;
        // What was asked for by name and cannot be had is an error, before the command runs.
        let mut directory = DirBuilder::new();
        let made = directory.mode(0o700).recursive(true).create(&store);
        made.at(&store)?;
        command.arg("--store").arg(store);
    }
    command
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(log.open()?);
    sys::start_orphan(&mut command).map_err(failed)?;
    Ok(connection)
}

/// What the supervisor of a container says once it listens.
const READY: &str = "ready";

/// The process that a container's supervisor waits for, and what it removes then.
#[derive(Debug)]
pub(crate) struct Holder {
    process: OwnedFd,
    place: Place,
    /// Held to the end.
    lock: Flock<File>,
}

impl Holder {
    /// Of the process `pid`, which waits for an answer.
    pub(crate) fn new(pid: u32, directory: &Path) -> Result<Self, Error> {
        let file = |source| Error::at(directory, source);
        let process = sys::process_pidfd(pid).map_err(|errno| failed(errno.into()))?;
        let place =
            super::place::at(directory).ok_or_else(|| file(io::ErrorKind::InvalidInput.into()))?;
        let lock = place.lock().map_err(file)?;
        Ok(Self {
            process,
            place,
            lock,
        })
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.place.socket()
    }

    /// Readable once the process has ended.
    pub(crate) fn process(&self) -> io::Result<OwnedFd> {
        self.process.try_clone()
    }

    /// Tells the process that there is a socket.
    pub(crate) fn tell_ready() {
        tell(READY);
    }

    pub(crate) fn tell_failure(error: &Error) {
        tell(&error.to_string());
    }

    /// To be called when the process has ended: a container in the foreground ends with it.
    pub(crate) fn end_container(&self) {
        if !self.place.about().is_some_and(|about| about.foreground) {
            return;
        }
        if let Some(first) = self.place.first_process() {
            // It may have ended by itself.
            let _ = first.signal(Signal::SIGKILL);
        }
    }

    /// Removes what was made for the container.
    pub(crate) fn clean_up(&self) {
        // What is left over is removed when the name is taken anew.
        let Ok(name) = self.place.lock_name() else {
            return;
        };
        let identity = |file: io::Result<Metadata>| file.map(|file| (file.dev(), file.ino())).ok();
        let own = identity(self.lock.metadata());
        if own.is_some() && own == identity(std::fs::symlink_metadata(&self.place.directory)) {
            self.place.remove_all(name);
        }
    }
}

/// Says `words` on standard input, which is a socket, and nothing more after that.
fn tell(words: &str) {
    let stdin = io::stdin();
    let Ok(socket) = stdin.as_fd().try_clone_to_owned() else {
        return;
    };
    let mut socket = UnixStream::from(socket);
    // Who started us may have given up.
    let _ = socket.write_all(words.as_bytes());
    let _ = socket.shutdown(std::net::Shutdown::Both);
}
