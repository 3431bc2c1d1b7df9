//! [`ControlSocket`]: binds a socket or takes one from systemd, accepts connections, and removes
//! the socket at the end.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::SocketAddr;
use std::path::{Display, Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::{Mode, umask};
use nix::unistd::Uid;
use tokio::net::{UnixListener, UnixStream};
use tracing::{info, warn};

use crate::error::{Context, Error};
use crate::linux::sys;
use crate::wire::rundir;

/// sun_path of unix(7), without the NUL.
const MAX_PATH: usize = 107;

/// The Unix socket that runtimes send listeners to.
#[derive(Debug)]
pub(super) struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode number of the socket file, if this process created it and will remove it.
    own: Option<(u64, u64)>,
}

impl ControlSocket {
    pub(super) fn open(path: Option<PathBuf>) -> Result<Self, Error> {
        if let Some(fd) = activation_fd()? {
            if let Some(path) = path {
                warn!(
                    path = %path.display(),
                    "systemd has passed a socket: the one on the command line is not used"
                );
            }
            return Self::from_systemd(fd);
        }
        Self::bind(resolve(path)?)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn display(&self) -> Display<'_> {
        self.path.display()
    }

    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }

    fn from_systemd(fd: OwnedFd) -> Result<Self, Error> {
        let failed = |source| Error::Activation { source };
        let listener = std::os::unix::net::UnixListener::from(fd);
        listener.set_nonblocking(true).map_err(failed)?;
        let listener = UnixListener::from_std(listener).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let path = address
            .as_pathname()
            .unwrap_or(Path::new("(systemd)"))
            .to_owned();
        Ok(Self {
            listener,
            path,
            own: None,
        })
    }

    fn bind(path: PathBuf) -> Result<Self, Error> {
        let length = path.as_os_str().as_bytes().len();
        if length > MAX_PATH {
            return Err(Error::SocketPathTooLong { path, length });
        }
        // Two daemons that start at once must not mistake each other's socket for a stale one:
        // between bind(2) and listen(2) it refuses connections.
        let _lock = lock_directory(&path)?;
        remove_stale(&path)?;
        let failed = |source| Error::Listen {
            path: path.clone(),
            source,
        };
        // umask(2), not chmod(2): the socket has mode 0600 from the start.
        let before = umask(Mode::from_bits_truncate(0o177));
        let bound = UnixListener::bind(&path);
        umask(before);
        let listener = bound.map_err(failed)?;
        let file = std::fs::symlink_metadata(&path).map_err(failed)?;
        Ok(Self {
            listener,
            own: Some((file.dev(), file.ino())),
            path,
        })
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let Ok(file) = std::fs::symlink_metadata(&self.path) else {
            return;
        };
        if self.own == Some((file.dev(), file.ino())) {
            // A socket that is left over is replaced at the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A socket for `status` and `trace` of a supervisor that has no other one. Its name is abstract:
/// nothing remains of it, even after a SIGKILL.
pub(super) fn for_questions(id: &str) -> io::Result<UnixListener> {
    let address = SocketAddr::from_abstract_name(abstract_name(id))?;
    let listener = std::os::unix::net::UnixListener::bind_addr(&address)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Whether the peer `pid` is in this process's user namespace. An abstract name can be reached from
/// every container with the host's network, whose processes are of the same user.
pub(crate) fn is_neighbour(connection: BorrowedFd, pid: u32) -> bool {
    // SO_PEERPIDFD (Linux 6.5). Without it, the pid may belong to another process by now.
    let Ok(process) = sys::peer_pidfd(connection).or_else(|_| sys::process_pidfd(pid)) else {
        return false;
    };
    let namespace = |process: &str| {
        let found = std::fs::metadata(format!("/proc/{process}/ns/user")).ok()?;
        Some((found.dev(), found.ino()))
    };
    let theirs = namespace(&pid.to_string());
    // Checked after reading /proc/PID: the pid was not reused if the process still lives.
    !sys::has_ended(process.as_fd()) && theirs.is_some() && theirs == namespace("self")
}

/// The abstract name, without its NUL byte; it looks like a path in the runtime directory.
pub(crate) fn abstract_name(id: &str) -> String {
    // The supervisor and `status` agree on the name even if there is no such directory.
    let directory = rundir::look().map(|found| found.path).unwrap_or_default();
    let directory = directory.display();
    format!("{directory}/subuidless-{}/{id}", Uid::effective())
}

/// The socket passed by systemd (sd_listen_fds(3)), if any. Fails if there are several.
fn activation_fd() -> Result<Option<OwnedFd>, Error> {
    let mut fds = sd_notify::listen_fds().map_err(|source| Error::Activation { source })?;
    match (fds.len(), fds.next()) {
        (0, _) | (_, None) => Ok(None),
        (1, Some(fd)) => {
            let socket = sys::duplicate(fd).map_err(|errno| Error::Activation {
                source: errno.into(),
            })?;
            Ok(Some(socket))
        }
        (count, _) => Err(Error::ActivationCount { count }),
    }
}

/// The absolute path of the given socket, or the default path.
pub(super) fn resolve(path: Option<PathBuf>) -> Result<PathBuf, Error> {
    match path {
        Some(path) => {
            let path = match std::path::absolute(&path) {
                Ok(path) => path,
                Err(source) => return Err(Error::at(path, source)),
            };
            match rundir::refuse_replaceable(&path) {
                Ok(()) => Ok(path),
                Err(source) => Err(Error::SocketPlace { path, source }),
            }
        }
        None => {
            let found = rundir::find()?;
            for reason in &found.passed_over {
                info!(
                    reason,
                    directory = %found.path.display(),
                    "another runtime directory is used"
                );
            }
            Ok(found.control_socket())
        }
    }
}

/// Locks the socket's directory, to be held until the socket listens. Returns `None` on a file
/// system without locks.
fn lock_directory(path: &Path) -> Result<Option<Flock<File>>, Error> {
    const PATIENCE: Duration = Duration::from_secs(5);
    // Another user could hold a lock on a directory of theirs, or on /tmp, for ever: then the
    // runtime directory is locked instead.
    let parent = path.parent().unwrap_or(Path::new("/"));
    let is_ours = |found: Metadata| found.uid() == Uid::effective().as_raw();
    let directory = match std::fs::metadata(parent).map(is_ours) {
        Ok(false) => &rundir::room()?,
        _ => parent,
    };
    let mut file = File::open(directory).at(directory)?;
    let start = Instant::now();
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(Some(lock)),
            Err((back, Errno::EWOULDBLOCK)) if start.elapsed() < PATIENCE => file = back,
            Err((_, Errno::EWOULDBLOCK)) => {
                return Err(Error::at(directory, io::ErrorKind::WouldBlock));
            }
            // A file system without locks: the probe in remove_stale() has to suffice.
            Err(_) => return Ok(None),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Removes a stale socket. Fails if a daemon listens on it, or if it is not a socket.
fn remove_stale(path: &Path) -> Result<(), Error> {
    let path_buf = || path.to_owned();
    let failed = |source| Error::Listen {
        path: path_buf(),
        source,
    };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(file) if !file.file_type().is_socket() => {
            return Err(Error::NotASocket { path: path_buf() });
        }
        Ok(_) => {}
    }
    match sys::is_bound(path) {
        Ok(false) => std::fs::remove_file(path).map_err(failed),
        Ok(true) => Err(Error::AlreadyRunning { path: path_buf() }),
        Err(errno) => Err(failed(errno.into())),
    }
}
