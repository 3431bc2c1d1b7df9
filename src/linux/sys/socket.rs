//! Sockets, and what comes through them.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;

use nix::errno::Errno;

use super::owned_fd;

/// Takes over fds that recvmsg(2) put into this process.
///
/// The caller must have got them from SCM_RIGHTS just now and must not use the numbers again.
pub(crate) fn adopt_received_fds(fds: &[RawFd]) -> Vec<OwnedFd> {
    fds.iter()
        // SAFETY: the kernel installed these fds for this message; the caller gives them up.
        .map(|&fd| unsafe { OwnedFd::from_raw_fd(fd) })
        .collect()
}

/// Takes over the fds that systemd passed (sd_listen_fds(3)); to be called once, before anything
/// opens files.
pub(crate) fn adopt_activation_fd(fd: RawFd) -> OwnedFd {
    // SAFETY: sd_listen_fds(3): the fds from 3 on belong to this process, and the caller asks once.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// bind(2) to an address as it is.
pub(crate) fn bind(socket: BorrowedFd, address: &[u8]) -> Result<(), Errno> {
    let length = libc::socklen_t::try_from(address.len()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the kernel reads `length` bytes of `address`, which has as many, and asks for no
    // alignment.
    let result = unsafe { libc::bind(socket.as_raw_fd(), address.as_ptr().cast(), length) };
    Errno::result(result).map(drop)
}

/// Connects to a Unix socket without ever waiting: EAGAIN when the listener's queue is full. A path
/// that begins with `@` is an abstract name (unix(7)).
pub(crate) fn connect_unix(path: &Path) -> Result<UnixStream, Errno> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
    let address = match path.as_os_str().as_bytes() {
        [b'@', name @ ..] => UnixAddr::new_abstract(name)?,
        _ => UnixAddr::new(path)?,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let connection = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(connection.as_raw_fd(), &address)?;
    Ok(UnixStream::from(connection))
}

/// Whether the Unix socket file at `path` belongs to a socket that still exists, without its owner
/// noticing: to a stream socket no datagram can be sent (EPROTOTYPE).
pub(crate) fn is_bound(path: &Path) -> Result<bool, Errno> {
    let probe = |path| UnixDatagram::unbound()?.connect(path);
    let error = match probe(path) {
        Ok(()) => return Ok(true),
        Err(error) => Errno::try_from(error).unwrap_or(Errno::EIO),
    };
    match error {
        Errno::ECONNREFUSED => Ok(false),
        Errno::EPROTOTYPE => Ok(true),
        errno => Err(errno),
    }
}

/// A pidfd of who is at the other end of a Unix socket (Linux 6.5).
pub(crate) fn peer_pidfd(socket: BorrowedFd) -> Result<OwnedFd, Errno> {
    const SO_PEERPIDFD: libc::c_int = 77;
    let mut fd: RawFd = -1;
    let mut length = libc::socklen_t::try_from(size_of::<RawFd>()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the kernel writes at most `length` bytes, an int.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            (&raw mut fd).cast(),
            &raw mut length,
        )
    };
    Errno::result(result)?;
    owned_fd(fd.into())
}
