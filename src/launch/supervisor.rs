//! The daemon for one listener: started beside the command, and told of it as a runtime would tell.

use std::ffi::OsString;
use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sendfd::SendWithFd;
use serde_json::json;

use crate::error::Error;
use crate::sys;

/// Where a supervisor logs to, and what.
#[derive(Debug)]
pub(crate) struct Log {
    /// Appended to; none: standard error where that is a terminal, else nowhere. Whoever waits for the end of a pipe waits for the
    /// command, and not for us.
    pub(crate) file: Option<PathBuf>,
    /// Options of the supervisor's own command line.
    pub(crate) options: Vec<OsString>,
}

impl Log {
    fn open(&self) -> Result<Stdio, Error> {
        match &self.file {
            Some(path) => File::options()
                .append(true)
                .create(true)
                .open(path)
                .map(Stdio::from)
                .map_err(|source| Error::File {
                    path: path.clone(),
                    source,
                }),
            None if std::io::stderr().is_terminal() => Ok(Stdio::inherit()),
            None => Ok(Stdio::null()),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Supervisor {
    connection: UnixStream,
}

impl Supervisor {
    /// Starts one, which ends when nothing comes.
    pub(crate) fn start(store: Option<&Path>, keep_id: bool, log: &Log) -> Result<Self, Error> {
        let failed = |source| Error::Io {
            what: "starting a supervisor",
            source,
        };
        let (connection, theirs) = UnixStream::pair().map_err(failed)?;
        let mut command = Command::new("/proc/self/exe");
        command.arg("supervise").args(&log.options);
        if keep_id {
            command.arg("--keep-id");
        }
        if let Some(store) = store {
            command
                .arg("--store")
                .arg(std::path::absolute(store).map_err(failed)?);
        }
        command
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(log.open()?);
        sys::start_orphan(&mut command).map_err(failed)?;
        Ok(Self { connection })
    }

    /// Hands over the listener of this process.
    pub(crate) fn supervise(self, listener: OwnedFd) -> Result<(), Error> {
        let id = format!("run-{}", std::process::id());
        let message = json!({
            "fds": ["seccompFd"],
            "state": {"id": id, "status": "creating", "bundle": ""},
        });
        self.connection
            .send_with_fd(message.to_string().as_bytes(), &[listener.as_raw_fd()])
            .map_err(|source| Error::Io {
                what: "handing the filter's listener to the supervisor",
                source,
            })?;
        Ok(())
    }
}
