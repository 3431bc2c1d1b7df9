//! The supervisor: a daemon for one command or one container of `run`.

use std::fs::{DirBuilder, File, Metadata};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use nix::fcntl::Flock;
use nix::sys::signal::Signal;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use sendfd::SendWithFd;
use serde_json::json;

use super::options::Log;
use super::output;
use super::place::{self, Place};
use super::stderr::{self, Diverted};
use crate::daemon::{self, FirstWorker};
use crate::error::{Context, Error};
use crate::front;
use crate::linux::sys;
use crate::log::{Format, Settings};
use crate::wire::handover::{Announcement, NextUser, Service};
use crate::wire::mode::{self, Mode, SupervisorOf, SupervisorSetup, wait_until_ready};

const STARTING: &str = "starting a supervisor";

/// A connection to the supervisor of the command that this process becomes, which waits for its
/// listener.
#[derive(Debug)]
pub(super) struct Supervisor {
    connection: UnixStream,
    id: String,
    status: &'static str,
    bundle: PathBuf,
}

/// The status of a process that joins those of an earlier listener.
pub(super) const JOINS: &str = "running";
/// That of the first one.
pub(super) const BEGINS: &str = "creating";

impl Supervisor {
    /// Starts a supervisor. It exits if the connection is closed before a listener comes.
    pub(super) fn start(store: Option<&Path>, of: SupervisorOf, log: &Log) -> Result<Self, Error> {
        Ok(Self {
            connection: start(store, log, of)?,
            id: id_of(std::process::id()),
            status: BEGINS,
            bundle: PathBuf::new(),
        })
    }

    /// Connects to the one that listens on the socket of a place, see [`start_for`].
    pub(super) fn at(place: &Place, service: Service, status: &'static str) -> Result<Self, Error> {
        let mut announcement = Announcement::new(place.name.clone(), NextUser::AsIs);
        announcement.bundle = Some(place.directory.to_string_lossy().into_owned());
        announcement.service = service;
        let socket = front::announce(Some(place.socket()), &announcement)?;
        Ok(Self {
            connection: UnixStream::connect(&socket).at(&socket)?,
            id: place.name.clone(),
            status,
            bundle: place.directory.clone(),
        })
    }

    /// Its pid.
    pub(super) fn pid(&self) -> Result<u32, Error> {
        const WHAT: &str = "asking for the supervisor's pid";
        let peer = getsockopt(&self.connection, PeerCredentials).doing(WHAT)?;
        Ok(peer.pid().unsigned_abs())
    }

    /// Sends it the listener of this process, with the message that a runtime would send.
    pub(super) fn send_listener(self, listener: OwnedFd) -> Result<(), Error> {
        let message = json!({
            "fds": ["seccompFd"],
            "state": {"id": self.id, "status": self.status, "bundle": self.bundle},
        });
        self.connection
            .send_with_fd(message.to_string().as_bytes(), &[listener.as_raw_fd()])
            .doing("handing the filter's listener to the supervisor")?;
        Ok(())
    }
}

/// Starts the supervisor of a container that this process creates, and waits until it listens.
/// Returns the other end of its standard input, see [`mode::has_shared`].
pub(super) fn start_for(
    place: &Place,
    store: Option<&Path>,
    log: &Log,
) -> Result<UnixStream, Error> {
    let of = SupervisorOf::Container {
        directory: place.directory.clone(),
    };
    let mut supervisor = start(store, log, of)?;
    wait_until_ready(&mut supervisor).doing(STARTING)?;
    Ok(supervisor)
}

/// Starts a supervisor and returns the other end of its standard input.
fn start(store: Option<&Path>, log: &Log, of: SupervisorOf) -> Result<UnixStream, Error> {
    let store = store.map(absolute_store).transpose()?;
    let settings = Settings {
        level: log.level,
        format: Format::Text,
    };
    let mode = Mode::Supervise(SupervisorSetup {
        log: settings,
        store,
        creator: std::process::id(),
        borrows_stderr: log.borrows(),
        of,
    });
    mode.fork_orphan("subuidless", open_log(log)?)
        .doing(STARTING)
}

/// The name of a command, as `status` shows it.
pub(crate) fn id_of(command: u32) -> String {
    format!("run-{command}")
}

/// Returns `None` for standard error.
fn open_log(log: &Log) -> Result<Option<File>, Error> {
    let open = |path: &PathBuf| {
        let file = File::options().append(true).create(true).open(path);
        file.at(path)
    };
    log.file.as_ref().map(open).transpose()
}

/// Creates the directory of --store. A failure is reported before the command starts.
fn absolute_store(store: &Path) -> Result<PathBuf, Error> {
    let store = std::path::absolute(store).at(store)?;
    let mut directory = DirBuilder::new();
    let made = directory.mode(0o700).recursive(true).create(&store);
    made.at(&store)?;
    Ok(store)
}

/// The supervisor: serves until the command or the container has ended. `tell` reports an error on
/// standard error.
pub(crate) fn be_supervisor(setup: SupervisorSetup, tell: impl Fn(&Error)) -> Result<(), Error> {
    let diverted = match setup.borrows_stderr {
        true => stderr::divert(setup.creator),
        false => None,
    };
    setup.log.start();
    // So as not to keep the file system busy that the command was started in.
    let _ = nix::unistd::chdir("/");
    // It is a fork, so this process has no threads before.
    let first = match setup.of {
        SupervisorOf::Command { .. } | SupervisorOf::Engine { .. } => Some(FirstWorker::start(
            setup.store.clone(),
            setup.log,
            &id_of(setup.creator),
        )),
        _ => None,
    };
    let lent = diverted.map(Diverted::forward).transpose()?;
    let result = serve(setup, first);
    if let Some(lent) = lent {
        if let Err(error) = &result {
            tell(error);
        }
        lent.give_back();
    }
    result
}

fn serve(setup: SupervisorSetup, first: Option<FirstWorker>) -> Result<(), Error> {
    let options = daemon::Options {
        store: setup.store,
        log: setup.log,
        ..daemon::Options::default()
    };
    match setup.of {
        SupervisorOf::Command { service } => daemon::serve_command(options, service, first),
        SupervisorOf::Engine { permissions } => {
            daemon::serve_engine(options, permissions, setup.creator, first)
        }
        SupervisorOf::Namespaces { permissions } => daemon::serve_namespaces(options, permissions),
        SupervisorOf::Container { directory } => Holder::new(setup.creator, &directory)
            .inspect_err(mode::say_not_ready)
            .and_then(|holder| serve_container(options, Rc::new(holder))),
    }
}

/// Serves a container, and removes its files in the end.
fn serve_container(options: daemon::Options, holder: Rc<Holder>) -> Result<(), Error> {
    let process = holder
        .process
        .try_clone()
        .doing("waiting for the container")?;
    output::watch(&holder.place.directory);
    let [at_begin, at_end] = [Rc::clone(&holder), Rc::clone(&holder)];
    let result = daemon::run(daemon::Options {
        socket: Some(holder.place.socket()),
        says_ready: true,
        until: Some(daemon::Until {
            process: Arc::new(process),
            began: Box::new(move || at_begin.place.note_begin()),
            ended: Box::new(move || at_end.end_container()),
        }),
        ..options
    });
    // Before the files are removed: that waits for the process that waits for this one.
    let result = result.inspect_err(mode::say_not_ready);
    holder.clean_up();
    result
}

/// The process that creates a container, and the container's files.
#[derive(Debug)]
struct Holder {
    process: OwnedFd,
    place: Place,
    /// Marks the container as in use.
    lock: Flock<File>,
}

impl Holder {
    /// `pid` is the process that creates the container in `directory`.
    fn new(pid: u32, directory: &Path) -> Result<Self, Error> {
        let file = |source| Error::at(directory, source);
        let process = sys::process_pidfd(pid).doing("pidfd_open")?;
        let place = place::at(directory).ok_or_else(|| file(io::ErrorKind::InvalidInput.into()))?;
        let lock = place.lock().map_err(file)?;
        Ok(Self {
            process,
            place,
            lock,
        })
    }

    /// Kills a container in the foreground, whose process has ended.
    fn end_container(&self) {
        if !self.place.about().is_some_and(|about| about.foreground) {
            return;
        }
        if let Some(first) = self.place.first_process() {
            // It may have exited meanwhile.
            let _ = first.signal(Signal::SIGKILL);
        }
    }

    /// Removes the files, unless the name already belongs to a new container.
    fn clean_up(&self) {
        // Otherwise they are removed when the name is taken again.
        let Ok(name) = self.place.lock_name() else {
            return;
        };
        let identity = |file: io::Result<Metadata>| file.map(|file| (file.dev(), file.ino())).ok();
        let own = identity(self.lock.metadata());
        let there = identity(std::fs::symlink_metadata(&self.place.directory));
        // A process that failed after it had started this one has removed all but the lock.
        if there.is_none() || own == there {
            self.place.remove_all(name);
        }
    }
}
