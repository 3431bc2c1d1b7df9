//! [`Error`]: a fault on our side, in the user's words: the thing, the reason and the way out. Never sent to a target.

use std::io;
use std::path::PathBuf;

use nix::errno::Errno;

/// What can go wrong outside the emulation itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Error {
    #[error(
        "no socket path given and XDG_RUNTIME_DIR is not set: name one, as in `subuidless ~/.subuidless.sock`"
    )]
    NoSocketPath,

    #[error(
        "{path}: {length} bytes, but the path of a Unix socket has 107 at the most: choose a shorter one"
    )]
    SocketPathTooLong { path: PathBuf, length: usize },

    #[error("{path}: a daemon is already listening there: stop it, or choose another socket path")]
    AlreadyRunning { path: PathBuf },

    #[error(
        "{path}: exists and is not a socket, so it is left alone: remove it, or choose another socket path"
    )]
    NotASocket { path: PathBuf },

    #[error("{path}: cannot listen: {source}")]
    Listen { path: PathBuf, source: io::Error },

    #[error(
        "socket activation: systemd passed {count} fds, but the unit must have exactly one ListenStream="
    )]
    ActivationCount { count: usize },

    #[error("socket activation: {source}")]
    Activation { source: io::Error },

    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },

    #[error("{path}: not a JSON object that this program understands: {reason}")]
    Json { path: PathBuf, reason: String },

    #[error("{what}: {source}")]
    Io {
        what: &'static str,
        source: io::Error,
    },

    #[error("{what}: {}", .errno.desc())]
    System { what: &'static str, errno: Errno },

    #[error(
        "this kernel's seccomp notification has {size} bytes instead of 80: subuidless does not know it, please report the kernel version"
    )]
    NotificationSize { size: u16 },
}
