//! Sockets, and file descriptors received through them.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;

use libc::c_uint;
use nix::errno::Errno;

use super::owned_fd;

/// Receives bytes and at most `most` files, which have FD_CLOEXEC from the start. Returns the
/// number of bytes, and the files. The kernel drops further files (MSG_CTRUNC).
///
/// nix's recvmsg returns no files at all if some were dropped, and so leaks those that arrived.
pub(crate) fn receive(
    socket: impl AsFd,
    bytes: &mut [u8],
    most: usize,
) -> Result<(usize, Vec<OwnedFd>), Errno> {
    let mut part = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    let files = c_uint::try_from(most * size_of::<RawFd>()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: only computes a size.
    let room = unsafe { libc::CMSG_LEN(files) } as usize;
    // u64 for the alignment of a control message. CMSG_LEN, not CMSG_SPACE: the padding would have
    // room for one more file.
    let mut control = vec![0_u64; room.div_ceil(size_of::<u64>())];
    // SAFETY: all-zero bytes are a valid `msghdr`.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = room as _;
    let (socket, flags) = (socket.as_fd().as_raw_fd(), libc::MSG_CMSG_CLOEXEC);
    let length = loop {
        // SAFETY: the message points to `bytes` and `control`, with their lengths.
        let result = unsafe { libc::recvmsg(socket, &raw mut message, flags) };
        match Errno::result(result) {
            Err(Errno::EINTR) => {}
            result => break result?,
        }
    };
    Ok((length.cast_unsigned(), received_files(&message)))
}

/// Takes ownership of the files that arrived with a message. To be called once, directly after
/// recvmsg(2).
fn received_files(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut files = Vec::new();
    // SAFETY: the kernel has filled in the control buffer and its length; the caller still owns it.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !next.is_null() {
        // SAFETY: `next` points to a complete header in the control buffer.
        let header = unsafe { next.read_unaligned() };
        if (header.cmsg_level, header.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: only computes an address.
            let data = unsafe { libc::CMSG_DATA(next) }.cast::<RawFd>();
            // SAFETY: only computes a size.
            let before = unsafe { libc::CMSG_LEN(0) } as usize;
            let count = (header.cmsg_len as usize - before) / size_of::<RawFd>();
            for index in 0..count {
                // SAFETY: by `cmsg_len`, the buffer contains `count` file descriptors here.
                let number = unsafe { data.wrapping_add(index).read_unaligned() };
                // SAFETY: the kernel has just installed it in this process; nothing else owns it.
                files.push(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
        // SAFETY: as for CMSG_FIRSTHDR; `next` is a header of this message.
        next = unsafe { libc::CMSG_NXTHDR(message, next) };
    }
    files
}

/// Duplicates a file descriptor that no value in this program owns, as systemd passes it
/// (sd_listen_fds(3)). EBADF if it is not open.
pub(crate) fn duplicate(fd: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: no pointers are passed; the kernel checks the number.
    let result = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
    owned_fd(result.into())
}

/// bind(2) to an encoded address.
pub(crate) fn bind(socket: BorrowedFd, address: &[u8]) -> Result<(), Errno> {
    let length = libc::socklen_t::try_from(address.len()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the kernel reads `length` bytes, the length of `address`, and needs no alignment.
    let result = unsafe { libc::bind(socket.as_raw_fd(), address.as_ptr().cast(), length) };
    Errno::result(result).map(drop)
}

/// Connects to a Unix stream socket without blocking: EAGAIN if the listening socket's queue is
/// full. A path that begins with `@` is an abstract name (unix(7)).
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

/// Whether the socket that is bound to `path` still exists. Its owner does not notice the check: a
/// datagram socket cannot connect to a stream socket (EPROTOTYPE).
pub(crate) fn is_bound(path: &Path) -> Result<bool, Errno> {
    let probe = |path| UnixDatagram::unbound()?.connect(path);
    let error = match probe(path) {
        Ok(()) => return Ok(true),
        Err(error) => crate::linux::errno_of(error),
    };
    match error {
        Errno::ECONNREFUSED => Ok(false),
        Errno::EPROTOTYPE => Ok(true),
        errno => Err(errno),
    }
}

/// A pidfd of the process at the other end of a Unix socket (SO_PEERPIDFD, Linux 6.5).
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

/// Brings the loopback interface of this network namespace up (netdevice(7)).
pub(crate) fn bring_loopback_up() -> Result<(), Errno> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let (family, flags) = (AddressFamily::Inet, SockFlag::SOCK_CLOEXEC);
    let any = socket(family, SockType::Datagram, flags, None)?;
    // SAFETY: all-zero bytes are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(*b"lo") {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let up = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or_default();
    request.ifr_ifru.ifru_flags = up;
    // SAFETY: the kernel reads one `ifreq`, whose name ends in NUL.
    let result =
        unsafe { libc::ioctl(any.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    Errno::result(result).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    use sendfd::SendWithFd;
    use std::io::Read;

    #[test]
    fn files_for_which_there_is_no_room_are_closed() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        theirs
            .send_with_fd(b"hello", &[writer.as_raw_fd(); 5])
            .unwrap();
        drop(writer);
        let mut bytes = [0; 8];
        let (length, files) = receive(&ours, &mut bytes, 3).unwrap();
        assert_eq!(&bytes[..length], b"hello");
        assert_eq!(files.len(), 3);
        for file in &files {
            let flags = fcntl(file, FcntlArg::F_GETFD).unwrap();
            assert_eq!(flags, FdFlag::FD_CLOEXEC.bits());
        }
        drop(files);
        // Blocks if a write end is still open.
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    }
}
