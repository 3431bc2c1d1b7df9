//! getxattr(2), listxattr(2), setxattr(2), removexattr(2), and their variants.
//!
//! The attributes that hold emulated owners do not exist for a target. Attributes that the
//! container's root may set, but the kernel refuses, are emulated (`owner::Attribute`). All others
//! are left to the kernel, after a permission check.

pub(super) mod posix_acl;

mod change;
mod read;
mod xattrat;

use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::sys::stat::SFlag;

pub(super) use change::{fremovexattr, fsetxattr, lremovexattr, lsetxattr, removexattr, setxattr};
pub(super) use read::{fgetxattr, flistxattr, getxattr, lgetxattr, listxattr, llistxattr};
pub(super) use xattrat::{getxattrat, listxattrat, removexattrat, setxattrat};

use super::permission::FileArgument;
use crate::credentials::capability;
use crate::linux::attribute::LARGEST;
use crate::linux::procfs;
use crate::linux::seccomp::Reply;
use crate::linux::sys;
use crate::owner::{carries_xattrs, file_type, takes_attributes};
use crate::target::{Call, Location};

/// Whether files with such a mode can carry user attributes: regular files and directories, and
/// since Linux 7.1 sockets (fs/xattr.c, xattr_permission).
fn carries_user_attributes(mode: u32) -> bool {
    static OF_SOCKETS: OnceLock<bool> = OnceLock::new();
    // Whether this kernel looks for an attribute that no socket has.
    let looks = || {
        UnixDatagram::unbound().is_ok_and(|socket| {
            let path = procfs::own_fd(socket.as_fd());
            sys::removexattr(path.as_c_str(), c"user.subuidless") == Err(Errno::ENODATA)
        })
    };
    match file_type(mode) {
        SFlag::S_IFSOCK => *OF_SOCKETS.get_or_init(looks),
        kind => carries_xattrs(kind),
    }
}

/// Runs `work` with the location that a call names. If the path cannot be read, the call is left to
/// the kernel.
fn at(
    call: &mut Call,
    named: FileArgument,
    work: impl FnOnce(&mut Call, &Location) -> Result<Reply, Errno>,
) -> Result<Reply, Errno> {
    let Some(path) = named.read(call) else {
        // CONTINUE: the kernel finds the same fault.
        return Ok(Reply::Continue);
    };
    work(call, &named.location(&path))
}

/// Fails with `absent` if the file exists. Otherwise the kernel fails with the right errno.
fn absent(call: &Call, location: &Location, absent: Errno) -> Result<Reply, Errno> {
    match call.resolve(location) {
        Ok(_) => Err(absent),
        // CONTINUE: the kernel fails with the right errno.
        Err(_) => Ok(Reply::Continue),
    }
}

/// The arguments of a call: most calls have them all in registers.
struct Asked {
    named: FileArgument,
    /// The argument number of the attribute's name.
    name: usize,
    /// The address of the value, or of the list of names.
    value: u64,
    /// The size of that memory, in bytes.
    size: u64,
    flags: i32,
}

impl Asked {
    /// The arguments of a call with the value in argument `value`, followed by its size, and by
    /// flags if the call has any.
    fn of(call: &Call, named: FileArgument, value: usize) -> Self {
        Self {
            named,
            name: 1,
            value: call.register(value),
            size: call.register(value + 1),
            flags: call.int(value + 2),
        }
    }

    /// Reads the value that the target sets. Returns `None` if that fails or the value is too
    /// large: the kernel then fails with the right errno.
    fn given(&self, call: &Call) -> Option<Vec<u8>> {
        let size = usize::try_from(self.size).ok()?;
        if size > LARGEST {
            return None;
        }
        let mut value = vec![0; size];
        call.read_from(self.value, &mut value).ok()?;
        Some(value)
    }
}

/// Whether the target has CAP_SYS_ADMIN, which `trusted.*` and `security.*` require.
fn may_administer(call: &Call) -> Result<bool, Errno> {
    Ok(call.subject()?.has(capability::SYS_ADMIN))
}

/// How a call changes an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Set,
    Remove,
}

/// Answers for `trusted.` and `security.` with nothing behind the prefix (fs/xattr.c,
/// xattr_resolve_name: EINVAL).
fn nameless(call: &mut Call, location: &Location) -> Result<Reply, Errno> {
    if may_administer(call)? {
        absent(call, location, Errno::EINVAL)
    } else {
        // CONTINUE: the kernel refuses the attribute, which is right for this target.
        Ok(Reply::Continue)
    }
}

/// Answers for a `trusted.*` attribute that does not exist: EOPNOTSUPP if the file system has no
/// attributes, where the kernel would say ENODATA, because to it the target lacks CAP_SYS_ADMIN.
fn without_trusted(call: &Call, location: &Location) -> Result<Reply, Errno> {
    match call.resolve(location) {
        Ok(file) if !takes_attributes(file.as_fd()) => Err(Errno::EOPNOTSUPP),
        // CONTINUE: ENODATA, or the errno of the lookup.
        _ => Ok(Reply::Continue),
    }
}
