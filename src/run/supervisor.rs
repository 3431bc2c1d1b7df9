//! The daemon for one command, told of its listener as a runtime would tell, or for one container.

use std::fs::{DirBuilder, File, Metadata};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::rc::Rc;

use nix::fcntl::Flock;
use nix::sys::signal::Signal;
use sendfd::SendWithFd;
use serde_json::json;

use super::options::Log;
use super::place::{self, Place};
use super::stderr;
use crate::daemon;
use crate::error::{Context, Error};
use crate::linux::sys;
use crate::log::{Format, Settings};
use crate::wire::mode::{self, Mode, Supervise, Supervised, wait_until_ready};

const STARTING: &str = "starting a supervisor";

/// The supervisor of the command that this process becomes.
#[derive(Debug)]
pub(super) struct Supervisor {
    connection: UnixStream,
}

impl Supervisor {
    /// Starts one for a command, which ends when nothing comes.
    pub(super) fn start(store: Option<&Path>, keep_id: bool, log: &Log) -> Result<Self, Error> {
        let whom = match keep_id {
            true => Supervised::Namespaces,
            false => Supervised::Command,
        };
        let connection = start(store, log, whom)?;
        Ok(Self { connection })
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

/// Starts the supervisor of a container that this process makes, and waits until it listens.
pub(super) fn start_for(place: &Place, store: Option<&Path>, log: &Log) -> Result<(), Error> {
    let whom = Supervised::Container {
        directory: place.directory.clone(),
        creator: std::process::id(),
    };
    wait_until_ready(&mut start(store, log, whom)?).doing(STARTING)
}

/// Starts a supervisor; the result is the other end of its standard input.
fn start(store: Option<&Path>, log: &Log, whom: Supervised) -> Result<UnixStream, Error> {
    let store = store.map(absolute_store).transpose()?;
    let settings = Settings {
        level: log.level,
        format: Format::Text,
    };
    let mode = Mode::Supervise(Supervise {
        log: settings,
        store,
        stderr_of: log.borrows().then(std::process::id),
        whom,
    });
    mode.start_orphan("subuidless", open_log(log)?, &[])
        .doing(STARTING)
}

fn open_log(log: &Log) -> Result<Stdio, Error> {
    match &log.file {
        Some(path) => {
            let file = File::options().append(true).create(true).open(path);
            file.map(Stdio::from).at(path)
        }
        None => Ok(Stdio::inherit()),
    }
}

/// What was asked for by name and cannot be had is an error, before the command runs.
fn absolute_store(store: &Path) -> Result<PathBuf, Error> {
    let store = std::path::absolute(store).at(store)?;
    let mut directory = DirBuilder::new();
    let made = directory.mode(0o700).recursive(true).create(&store);
    made.at(&store)?;
    Ok(store)
}

/// What the supervisor itself does, to the end of the command or the container.
pub(crate) fn supervise(wish: Supervise, tell: impl Fn(&Error)) -> Result<(), Error> {
    let lent = wish.stderr_of.and_then(stderr::lend);
    wish.log.start();
    let result = serve(wish);
    if let Some(lent) = lent {
        if let Err(error) = &result {
            tell(error);
        }
        lent.give_back();
    }
    result
}

fn serve(wish: Supervise) -> Result<(), Error> {
    let options = daemon::Options {
        socket: None,
        store: wish.store,
        log: wish.log,
        idle: None,
        for_one: false,
        says_ready: false,
        until: None,
    };
    match wish.whom {
        Supervised::Command => daemon::supervise(options, false),
        Supervised::Namespaces => daemon::supervise(options, true),
        Supervised::Container { directory, creator } => Holder::new(creator, &directory)
            .and_then(|holder| serve_container(options, Rc::new(holder)))
            .inspect_err(|error| mode::say_not_ready(&error.to_string())),
    }
}

/// Serves a container, and removes what was made for it.
fn serve_container(options: daemon::Options, holder: Rc<Holder>) -> Result<(), Error> {
    let process = holder
        .process
        .try_clone()
        .doing("waiting for the container")?;
    let at_end = Rc::clone(&holder);
    let result = daemon::run(daemon::Options {
        socket: Some(holder.place.socket()),
        says_ready: true,
        until: Some(daemon::Until {
            process,
            ended: Box::new(move || at_end.end_container()),
        }),
        ..options
    });
    holder.clean_up();
    result
}

/// The process that a container's supervisor waits for, and what it removes then.
#[derive(Debug)]
struct Holder {
    process: OwnedFd,
    place: Place,
    /// Held to the end.
    lock: Flock<File>,
}

impl Holder {
    /// Of the process `pid`, which waits for an answer.
    fn new(pid: u32, directory: &Path) -> Result<Self, Error> {
        let file = |source| Error::at(directory, source);
        let process = sys::process_pidfd(pid).doing(STARTING)?;
        let place = place::at(directory).ok_or_else(|| file(io::ErrorKind::InvalidInput.into()))?;
        let lock = place.lock().map_err(file)?;
        Ok(Self {
            process,
            place,
            lock,
        })
    }

    /// To be called when the process has ended: a container in the foreground ends with it.
    fn end_container(&self) {
        if !self.place.about().is_some_and(|about| about.foreground) {
            return;
        }
        if let Some(first) = self.place.first_process() {
            // It may have ended by itself.
            let _ = first.signal(Signal::SIGKILL);
        }
    }

    /// Removes what was made for the container.
    fn clean_up(&self) {
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
