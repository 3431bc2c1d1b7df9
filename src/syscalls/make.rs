//! mkdir(2), mknod(2), symlink(2), and bind(2) of a Unix socket: calls that create a file without
//! opening it.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::fcntl::ResolveFlag;
use nix::sys::socket::{UnixAddr, getsockname};
use nix::sys::stat::{Mode, SFlag, mkdirat as make_directory_at, mknodat as make_node_at};
use nix::unistd::symlinkat as make_link_at;

use super::lookup;
use super::new_file::{NewFile, is_out_of_reach};
use crate::credentials::capability;
use crate::linux::name::Name;
use crate::linux::seccomp::Reply;
use crate::owner::{Device, file_type};
use crate::target::{Call, Dirfd};

/// As [`NewFile::find`]; `path` is an argument number.
fn new_file(call: &mut Call, dirfd: Dirfd, path: usize) -> Result<Option<NewFile>, Errno> {
    match call.path(path) {
        Ok(path) => NewFile::find(call, dirfd, path.as_c_str(), false, ResolveFlag::empty()),
        Err(_) => Ok(None),
    }
}

pub(super) fn mkdir(call: &mut Call) -> Result<Reply, Errno> {
    make_directory(call, Dirfd::Cwd, 0, 1)
}

pub(super) fn mkdirat(call: &mut Call) -> Result<Reply, Errno> {
    make_directory(call, call.dirfd(0), 1, 2)
}

fn make_directory(call: &mut Call, dirfd: Dirfd, path: usize, mode: usize) -> Result<Reply, Errno> {
    let Some(new_file) = new_file(call, dirfd, path)? else {
        // CONTINUE: the kernel creates the file, or fails with the right errno.
        return Ok(Reply::Continue);
    };
    // fs/namei.c, vfs_mkdir: other bits are ignored.
    let mode = Mode::from_bits_truncate(call.unsigned(mode) & 0o1777);
    new_file.make(call, SFlag::S_IFDIR, |directory, name| {
        make_directory_at(directory, name, mode)
    })
}

pub(super) fn mknod(call: &mut Call) -> Result<Reply, Errno> {
    make_node(call, Dirfd::Cwd, 0, 1)
}

pub(super) fn mknodat(call: &mut Call) -> Result<Reply, Errno> {
    make_node(call, call.dirfd(0), 1, 2)
}

fn make_node(call: &mut Call, dirfd: Dirfd, path: usize, mode: usize) -> Result<Reply, Errno> {
    let number = call.unsigned(mode + 1);
    let mode = call.unsigned(mode);
    let kind = match file_type(mode) {
        kind if kind.is_empty() => SFlag::S_IFREG,
        kind @ (SFlag::S_IFREG | SFlag::S_IFIFO | SFlag::S_IFSOCK) => kind,
        // Character device 0, a whiteout of overlayfs, is not a device: it does not require
        // CAP_MKNOD (Linux 5.8).
        kind @ (SFlag::S_IFCHR | SFlag::S_IFBLK) if kind == SFlag::S_IFBLK || number != 0 => {
            return make_device(call, dirfd, path, mode, Device { kind, number });
        }
        // CONTINUE: a whiteout, or an unknown type.
        _ => return Ok(Reply::Continue),
    };
    match new_file(call, dirfd, path)? {
        Some(new_file) if !new_file.slash => {
            let mode = Mode::from_bits_truncate(new_file.mode(mode) & 0o7777);
            new_file.make(call, kind, |directory, name| {
                make_node_at(directory, name, kind, mode, 0)
            })
        }
        // CONTINUE: the kernel creates the file, or fails with the right errno.
        _ => Ok(Reply::Continue),
    }
}

/// Creates a placeholder for a device: a socket. open(2) refuses it with ENXIO, as it does a device
/// without a driver. The device is in its record in the side store, which no other program that
/// reads `user.rootlesscontainers` sees.
fn make_device(
    call: &mut Call,
    dirfd: Dirfd,
    path: usize,
    mode: u32,
    device: Device,
) -> Result<Reply, Errno> {
    let who = call.who_among_files()?;
    let Ok(path) = call.path(path) else {
        // CONTINUE: the kernel finds the same fault.
        return Ok(Reply::Continue);
    };
    if is_out_of_reach(call)? {
        // CONTINUE: EPERM, or an errno that takes precedence over it.
        return Ok(Reply::Continue);
    }
    match NewFile::at(call, who, dirfd, path.as_c_str(), ResolveFlag::empty())? {
        Some(new_file) if !new_file.slash => {
            let may_make = new_file.subject.has(capability::MKNOD);
            let new_file = NewFile {
                device: Some(device),
                ..new_file
            };
            let mode = Mode::from_bits_truncate(new_file.mode(mode) & 0o7777);
            new_file.make(call, SFlag::S_IFSOCK, |directory, name| {
                // fs/namei.c, vfs_mknod: may_create, which `prepare` has done, comes first.
                if !may_make {
                    return Err(Errno::EPERM);
                }
                make_node_at(directory, name, SFlag::S_IFSOCK, mode, 0)
            })
        }
        // CONTINUE: the kernel fails with the right errno.
        _ => Ok(Reply::Continue),
    }
}

pub(super) fn symlink(call: &mut Call) -> Result<Reply, Errno> {
    make_link(call, Dirfd::Cwd, 1)
}

pub(super) fn symlinkat(call: &mut Call) -> Result<Reply, Errno> {
    make_link(call, call.dirfd(1), 2)
}

/// Handles a symlink(2): argument 0 is the link's text, `path` the argument number of its path.
fn make_link(call: &mut Call, dirfd: Dirfd, path: usize) -> Result<Reply, Errno> {
    let text = match call.path(0) {
        Ok(text) if !text.as_c_str().is_empty() => text,
        // CONTINUE: ENOENT, or a bad pointer.
        _ => return Ok(Reply::Continue),
    };
    match new_file(call, dirfd, path)? {
        Some(new_file) if !new_file.slash => {
            new_file.make(call, SFlag::S_IFLNK, |directory, name| {
                make_link_at(&text, directory, name)
            })
        }
        // CONTINUE: the kernel creates the file, or fails with the right errno.
        _ => Ok(Reply::Continue),
    }
}

/// bind(2) of a Unix socket to a path. All other calls are left to the kernel.
pub(super) fn bind(call: &mut Call) -> Result<Reply, Errno> {
    let Some((address, path)) = unix_address(call) else {
        // CONTINUE: not an address with a path, or a bad pointer.
        return Ok(Reply::Continue);
    };
    if let Some(subject) = call.restricted()? {
        lookup::search_parent(call, &subject, Dirfd::Cwd, path.as_c_str())?;
    }
    let found = NewFile::find(
        call,
        Dirfd::Cwd,
        path.as_c_str(),
        false,
        ResolveFlag::empty(),
    )?;
    let Some(new_file) = found.filter(|new_file| !new_file.slash) else {
        // CONTINUE: the kernel creates the file, or fails with the right errno.
        return Ok(Reply::Continue);
    };
    let Ok(socket) = call.duplicate(call.int(0)) else {
        // CONTINUE: EBADF.
        return Ok(Reply::Continue);
    };
    if getsockname::<UnixAddr>(socket.as_raw_fd()).is_err() {
        // CONTINUE: not a Unix socket; the kernel fails with the right errno.
        return Ok(Reply::Continue);
    }
    let mut is_bound = false;
    let made = new_file.make(call, SFlag::S_IFSOCK, |_, _| {
        let bound = call.patiently(|| call.bind_as_target(socket.as_fd(), &address));
        is_bound = bound.is_ok();
        // `make` continues the call after EEXIST. Then the kernel fails with the right errno, or
        // binds the socket through a link of procfs that only the target can follow; the socket
        // then belongs to the container's root.
        bound.map_err(|_| Errno::EEXIST)
    });
    match made {
        // `make` does not find the socket: a link of procfs led the child to another directory than
        // the target. There the socket belongs to the container's root.
        Err(Errno::ENOENT) if is_bound => Ok(Reply::Value(0)),
        made => made,
    }
}

/// Reads an address with a path: its bytes, and the path. Returns `None` for all other addresses
/// (abstract, unnamed, other families).
pub(super) fn unix_address(call: &Call) -> Option<(Vec<u8>, Name)> {
    /// struct sockaddr_un: the family, then 108 bytes.
    const LONGEST: usize = 110;
    const AF_UNIX: libc::sa_family_t = 1;
    let length = usize::try_from(call.int(2)).ok()?;
    // unix(7): only the family (autobind) or less, or too long (EINVAL).
    if !(3..=LONGEST).contains(&length) {
        return None;
    }
    let mut bytes = vec![0; length];
    call.read(1, &mut bytes).ok()?;
    let (family, path) = bytes.split_at(2);
    // unix(7): a leading NUL means an abstract address.
    if family != AF_UNIX.to_ne_bytes() || path[0] == 0 {
        return None;
    }
    let end = path
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(path.len());
    let path = Name::new(path[..end].to_vec());
    Some((bytes, path))
}
