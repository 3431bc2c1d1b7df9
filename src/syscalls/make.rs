//! mkdir(2), mknod(2), symlink(2), and bind(2) of a Unix socket: what is created and not opened.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::fcntl::ResolveFlag;
use nix::sys::socket::{UnixAddr, getsockname};
use nix::sys::stat::{Mode, SFlag, mkdirat as make_directory_at, mknodat as make_node_at};
use nix::unistd::symlinkat as make_link_at;

use super::new_file::{NewFile, is_out_of_reach};
use crate::credentials::capability;
use crate::linux::name::Name;
use crate::linux::seccomp::Reply;
use crate::owner::{Device, file_type};
use crate::target::{Call, Dirfd};

/// `path` is an argument number.
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
        // CONTINUE: the kernel creates, or says why not.
        return Ok(Reply::Continue);
    };
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
        // A whiteout of overlayfs is none of a driver's: the kernel lets everybody make one.
        kind @ (SFlag::S_IFCHR | SFlag::S_IFBLK) if kind == SFlag::S_IFBLK || number != 0 => {
            return make_device(call, dirfd, path, mode, Device { kind, number });
        }
        // CONTINUE: a whiteout, or a type that there is none of.
        _ => return Ok(Reply::Continue),
    };
    match new_file(call, dirfd, path)? {
        Some(new_file) if !new_file.slash => {
            let mode = Mode::from_bits_truncate(new_file.mode(mode) & 0o7777);
            new_file.make(call, kind, |directory, name| {
                make_node_at(directory, name, kind, mode, 0)
            })
        }
        // CONTINUE: the kernel creates, or says why not.
        _ => Ok(Reply::Continue),
    }
}

/// A placeholder: a socket, which open(2) refuses with ENXIO, as it does a device without a driver.
/// What it stands for is recorded in the side store, where no other reader of
/// `user.rootlesscontainers` looks.
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
        // CONTINUE: EPERM, or what comes before it.
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
                if !may_make {
                    return Err(Errno::EPERM);
                }
                make_node_at(directory, name, SFlag::S_IFSOCK, mode, 0)
            })
        }
        // CONTINUE: the kernel says why not.
        _ => Ok(Reply::Continue),
    }
}

pub(super) fn symlink(call: &mut Call) -> Result<Reply, Errno> {
    make_link(call, Dirfd::Cwd, 1)
}

pub(super) fn symlinkat(call: &mut Call) -> Result<Reply, Errno> {
    make_link(call, call.dirfd(1), 2)
}

/// The first argument is the link's text.
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
        // CONTINUE: the kernel creates, or says why not.
        _ => Ok(Reply::Continue),
    }
}

/// Of a Unix socket to a path; everything else goes on to the kernel.
pub(super) fn bind(call: &mut Call) -> Result<Reply, Errno> {
    let Some((address, path)) = unix_address(call) else {
        // CONTINUE: no path, or nothing that can be read.
        return Ok(Reply::Continue);
    };
    let found = NewFile::find(
        call,
        Dirfd::Cwd,
        path.as_c_str(),
        false,
        ResolveFlag::empty(),
    )?;
    let Some(new_file) = found.filter(|new_file| !new_file.slash) else {
        // CONTINUE: the kernel creates, or says why not.
        return Ok(Reply::Continue);
    };
    let Ok(socket) = call.duplicate(call.int(0)) else {
        // CONTINUE: EBADF.
        return Ok(Reply::Continue);
    };
    if getsockname::<UnixAddr>(socket.as_raw_fd()).is_err() {
        // CONTINUE: the kernel says what is wrong.
        return Ok(Reply::Continue);
    }
    let mut is_bound = false;
    let made = new_file.make(call, SFlag::S_IFSOCK, |_, _| {
        let bound = call.patiently(|| call.bind_as_target(socket.as_fd(), &address));
        is_bound = bound.is_ok();
        // CONTINUE, as where somebody was faster: the kernel says why, or does it by a link that
        // leads there for the target only. The socket belongs to the container's root then.
        bound.map_err(|_| Errno::EEXIST)
    });
    match made {
        // By a link of procfs it lies somewhere else for the child than for the target: it is root's there.
        Err(Errno::ENOENT) if is_bound => Ok(Reply::Value(0)),
        made => made,
    }
}

/// The bytes of an address with a path, and the path.
fn unix_address(call: &Call) -> Option<(Vec<u8>, Name)> {
    /// struct sockaddr_un: the family, then 108 bytes.
    const LONGEST: usize = 110;
    const AF_UNIX: libc::sa_family_t = 1;
    let length = usize::try_from(call.int(2)).ok()?;
    if !(3..=LONGEST).contains(&length) {
        return None;
    }
    let mut bytes = vec![0; length];
    call.read(1, &mut bytes).ok()?;
    let (family, path) = bytes.split_at(2);
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
