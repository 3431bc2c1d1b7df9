//! Starts a daemon in the background, as an orphan, and waits until it listens.
//!
//! The runtime front starts one while it holds pipes of podman and conmon, which wait until all
//! write ends are closed. So the daemon inherits nothing but the environment.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

use crate::error::Error;
use crate::wire::mode::{Daemon, Mode, wait_until_ready};

/// Environment variables to remove: they describe conmon's pipes, and another service's systemd
/// protocol.
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
/// The size in bytes at which the log is truncated.
const LARGEST_LOG: u64 = 1 << 20;

/// Starts a daemon and waits until it listens. Its log is in the directory of the socket. This
/// process must have a single thread.
pub(crate) fn start(daemon: Daemon) -> Result<(), Error> {
    let socket = super::socket::resolve(Some(daemon.socket.clone()))?;
    let (log, path) = open_log(&socket)?;
    let title = format!("subuidless serve {}", socket.display());
    let mode = Mode::Daemon(Daemon { socket, ..daemon });
    mode.start_orphan(title, log.into(), &OTHERS)
        .and_then(|mut process| wait_until_ready(&mut process))
        .map_err(|error| Error::Background {
            reason: error.to_string(),
            log: path,
        })
}

fn open_log(socket: &Path) -> Result<(File, PathBuf), Error> {
    // One log for all daemons of a directory, of which there may be one per container.
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
            // In the directory of a given socket, another user may have created the file.
            if !found.is_file() || found.uid() != Uid::effective().as_raw() {
                return Err(io::Error::other(
                    "it is not a regular file owned by this user",
                ));
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
