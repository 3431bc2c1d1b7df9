//! getxattr(2), listxattr(2), setxattr(2), removexattr(2), and their relatives.
//!
//! The attributes in which fake owners live do not exist for a target. What the container's root
//! may set and the kernel refuses is emulated (`owner::Attribute`); everything else goes on to
//! the kernel, once it is clear who asks.

pub(super) mod posix_acl;

mod change;
mod read;
mod xattrat;

use std::os::fd::AsFd;

use nix::errno::Errno;

pub(super) use change::{fremovexattr, fsetxattr, lremovexattr, lsetxattr, removexattr, setxattr};
pub(super) use read::{fgetxattr, flistxattr, getxattr, lgetxattr, listxattr, llistxattr};
pub(super) use xattrat::{getxattrat, listxattrat, removexattrat, setxattrat};

use super::permission::FileArgument;
use crate::credentials::capability;
use crate::linux::attribute::LARGEST;
use crate::linux::seccomp::Reply;
use crate::owner::takes_attributes;
use crate::target::{Call, Location};

/// Runs `work` with the place that a call names; what cannot be read goes on to the kernel.
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

/// `absent`, if there is such a file; otherwise the kernel says what is wrong with its name.
fn absent(call: &Call, location: &Location, absent: Errno) -> Result<Reply, Errno> {
    match call.resolve(location) {
        Ok(_) => Err(absent),
        // CONTINUE: the kernel says why.
        Err(_) => Ok(Reply::Continue),
    }
}

/// What a call asks for, and where what goes in or out is: most have it all in registers.
struct Asked {
    named: FileArgument,
    /// An argument number.
    name: usize,
    /// An address.
    value: u64,
    size: u64,
    flags: i32,
}

impl Asked {
    /// With the value in the argument `value`, its size behind it, and behind that flags, if it
    /// takes any.
    fn of(call: &Call, named: FileArgument, value: usize) -> Self {
        Self {
            named,
            name: 1,
            value: call.register(value),
            size: call.register(value + 1),
            flags: call.int(value + 2),
        }
    }

    /// The value that the target gives; `None` if the kernel knows better what to say of it.
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

fn may_administer(call: &Call) -> Result<bool, Errno> {
    Ok(call.subject()?.has(capability::SYS_ADMIN))
}

/// What is to become of an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Set,
    Remove,
}

/// fs/xattr.c, xattr_resolve_name: `trusted.` is the name of none.
fn nameless(call: &mut Call, location: &Location) -> Result<Reply, Errno> {
    if may_administer(call)? {
        absent(call, location, Errno::EINVAL)
    } else {
        // CONTINUE: none for this target.
        Ok(Reply::Continue)
    }
}

/// The kernel says ENODATA to whoever is not its root, even where there are no such attributes at
/// all.
fn without_trusted(call: &Call, location: &Location) -> Result<Reply, Errno> {
    match call.resolve(location) {
        Ok(file) if !takes_attributes(file.as_fd()) => Err(Errno::EOPNOTSUPP),
        // CONTINUE: ENODATA, or why there is no such file.
        _ => Ok(Reply::Continue),
    }
}
