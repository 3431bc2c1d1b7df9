//! getxattr(2), listxattr(2), setxattr(2), removexattr(2), and their relatives.
//!
//! The attributes in which fake owners live do not exist for a target. What the container's root may set and the kernel
//! refuses is kept beside (`owner::Attribute`); everything else goes on to the kernel, once it is clear who asks.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::fstat;

use super::permission::{self, Named, allow};
use crate::acl::Acl;
use crate::credentials::{Access, capability};
use crate::name::Name;
use crate::owner::{Attribute, carries_xattrs, file_type, shown};
use crate::procfs;
use crate::seccomp::Reply;
use crate::sys;
use crate::target::{Call, Location};

/// XATTR_SIZE_MAX, XATTR_LIST_MAX
const LARGEST: usize = 65_536;

/// Runs `work` with the place that a call names; what cannot be read goes on to the kernel.
fn at(
    call: &mut Call,
    named: Named,
    work: impl FnOnce(&mut Call, &Location) -> Result<Reply, Errno>,
) -> Result<Reply, Errno> {
    let path = named
        .path
        .map_or(Ok(Name::default()), |path| call.path(path));
    let Ok(path) = path else {
        // CONTINUE: the kernel finds the same fault.
        return Ok(Reply::Continue);
    };
    let location = Location {
        dirfd: named.dirfd,
        path: path.as_c_str(),
        follow: named.path.is_none() || !named.flags.contains(AtFlags::AT_SYMLINK_NOFOLLOW),
        empty_path: named.path.is_none(),
    };
    work(call, &location)
}

/// `absent`, if there is such a file; otherwise the kernel says what is wrong with its name.
fn absent(call: &Call, location: &Location, absent: Errno) -> Result<Reply, Errno> {
    match call.resolve(location) {
        Ok(_) => Err(absent),
        // CONTINUE: the kernel says why.
        Err(_) => Ok(Reply::Continue),
    }
}

/// The file, if it can carry user attributes.
fn carrier(call: &Call, location: &Location) -> Option<OwnedFd> {
    let file = call.resolve(location).ok()?;
    carries_xattrs(file_type(fstat(&file).ok()?.st_mode)).then_some(file)
}

/// A value for the argument `buffer`, whose room is in the next one.
fn deliver(call: &Call, buffer: usize, value: &[u8]) -> Result<Reply, Errno> {
    let room = usize::try_from(call.register(buffer + 1)).unwrap_or(usize::MAX);
    if room > 0 {
        if room < value.len() {
            return Err(Errno::ERANGE);
        }
        call.write(buffer, value)?;
    }
    let length = i64::try_from(value.len()).map_err(|_| Errno::ERANGE)?;
    Ok(Reply::Value(length))
}

/// Asks something of the file that is named, by its name first: mostly there is nothing to be had.
///
/// What is had is read again from the file itself. By a name alone a worker could be led through links of its own in procfs.
fn read_carefully(
    call: &mut Call,
    location: &Location,
    ask: impl Fn(&CStr, &mut [u8], bool) -> Result<usize, Errno>,
    is_wanted: impl Fn(&[u8]) -> bool,
) -> Option<Vec<u8>> {
    let follow = location.follow || location.is_empty();
    if let Some(reached) = call
        .name(location)
        .filter(|_| !call.container.shows_worker())
    {
        let glanced = read_whole(|buffer| ask(reached.as_c_str(), buffer, follow))?;
        if !is_wanted(&glanced) {
            return None;
        }
    }
    let file = call.resolve(location).ok()?;
    let path = procfs::own_fd(file.as_fd());
    read_whole(|buffer| ask(path.as_c_str(), buffer, true)).filter(|value| is_wanted(value))
}

/// Reads into a buffer that is made large enough.
fn read_whole(read: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Option<Vec<u8>> {
    let mut value = vec![0; 512];
    loop {
        match read(&mut value) {
            Ok(length) => {
                value.truncate(length);
                return Some(value);
            }
            Err(Errno::ERANGE) if value.len() < LARGEST => value.resize(LARGEST, 0),
            Err(_) => return None,
        }
    }
}

/// One of our own attributes of what is named.
fn stored(call: &mut Call, location: &Location, name: &Name) -> Option<Vec<u8>> {
    let ask =
        |path: &CStr, value: &mut [u8], follow| sys::getxattr(path, name.as_c_str(), value, follow);
    read_carefully(call, location, ask, |_| true)
}

fn may_administer(call: &Call) -> Result<bool, Errno> {
    Ok(call.subject()?.has(capability::SYS_ADMIN))
}

// ---- getxattr(2)

pub(super) fn getxattr(call: &mut Call) -> Result<Reply, Errno> {
    get(call, Named::path(0))
}

pub(super) fn lgetxattr(call: &mut Call) -> Result<Reply, Errno> {
    get(call, Named::link(0))
}

pub(super) fn fgetxattr(call: &mut Call) -> Result<Reply, Errno> {
    get(call, Named::fd(call, 0))
}

fn get(call: &mut Call, named: Named) -> Result<Reply, Errno> {
    const VALUE: usize = 2;
    let Ok(name) = call.path(1) else {
        // CONTINUE: the kernel finds the same fault.
        return Ok(Reply::Continue);
    };
    match Attribute::of(name.as_c_str()) {
        // CONTINUE: an attribute like any other.
        Attribute::Plain => Ok(Reply::Continue),
        Attribute::Hidden => at(call, named, |call, location| {
            absent(call, location, Errno::ENODATA)
        }),
        Attribute::Kept(name) => at(call, named, |call, location| {
            match stored(call, location, &name) {
                Some(value) if !is_trusted(&name) || may_administer(call)? => {
                    deliver(call, VALUE, &value)
                }
                // CONTINUE: none, or none for this target.
                _ => Ok(Reply::Continue),
            }
        }),
        Attribute::Acl(name) => at(call, named, |call, location| {
            let list = stored(call, location, &name);
            let Some(list) = list.and_then(|bytes| Acl::decode(&bytes)) else {
                // CONTINUE: the kernel has it all.
                return Ok(Reply::Continue);
            };
            let list = if is_default(&name) {
                list
            } else {
                list.with_mode(fstat(call.resolve(location)?)?.st_mode)
            };
            deliver(call, VALUE, &list.encode())
        }),
    }
}

fn is_trusted(kept: &Name) -> bool {
    kept.as_c_str()
        .to_bytes()
        .starts_with(b"user.subuidless.trusted.")
}

/// A default list is no file's permissions.
fn is_default(kept: &Name) -> bool {
    kept.as_c_str().to_bytes().ends_with(b"_default")
}

// ---- listxattr(2)

pub(super) fn listxattr(call: &mut Call) -> Result<Reply, Errno> {
    list(call, Named::path(0))
}

pub(super) fn llistxattr(call: &mut Call) -> Result<Reply, Errno> {
    list(call, Named::link(0))
}

pub(super) fn flistxattr(call: &mut Call) -> Result<Reply, Errno> {
    list(call, Named::fd(call, 0))
}

fn list(call: &mut Call, named: Named) -> Result<Reply, Errno> {
    at(call, named, |call, location| {
        let has_ours = |names: &[u8]| shown(names, false).is_some();
        let Some(names) = read_carefully(call, location, sys::listxattr, has_ours) else {
            // CONTINUE: nothing to hide, and nothing to add; or the kernel says why.
            return Ok(Reply::Continue);
        };
        let list = shown(&names, may_administer(call)?).unwrap_or_default();
        deliver(call, 1, &list)
    })
}

// ---- setxattr(2), removexattr(2)

/// What is to become of an attribute.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Set,
    Remove,
}

pub(super) fn setxattr(call: &mut Call) -> Result<Reply, Errno> {
    change(call, Named::path(0), Change::Set)
}

pub(super) fn lsetxattr(call: &mut Call) -> Result<Reply, Errno> {
    change(call, Named::link(0), Change::Set)
}

pub(super) fn fsetxattr(call: &mut Call) -> Result<Reply, Errno> {
    change(call, Named::fd(call, 0), Change::Set)
}

pub(super) fn removexattr(call: &mut Call) -> Result<Reply, Errno> {
    change(call, Named::path(0), Change::Remove)
}

pub(super) fn lremovexattr(call: &mut Call) -> Result<Reply, Errno> {
    change(call, Named::link(0), Change::Remove)
}

pub(super) fn fremovexattr(call: &mut Call) -> Result<Reply, Errno> {
    change(call, Named::fd(call, 0), Change::Remove)
}

fn change(call: &mut Call, named: Named, change: Change) -> Result<Reply, Errno> {
    let Ok(name) = call.path(1) else {
        // CONTINUE: the kernel finds the same fault.
        return Ok(Reply::Continue);
    };
    let attribute = Attribute::of(name.as_c_str());
    if attribute == Attribute::Hidden {
        // To a program that would keep owners there itself: xattr(7) for a file system that has no such attributes.
        let errno = match change {
            Change::Set => Errno::EOPNOTSUPP,
            Change::Remove => Errno::ENODATA,
        };
        return at(call, named, |call, location| absent(call, location, errno));
    }
    let checked = check_change(call, named, name.as_c_str())?;
    match attribute {
        Attribute::Kept(kept) if may_administer(call)? => at(call, named, |call, location| {
            keep(call, location, &kept, change)
        }),
        Attribute::Acl(kept) => at(call, named, |call, location| {
            change_acl(call, location, (name.as_c_str(), &kept), change)
        }),
        _ => Ok(checked),
    }
}

/// fs/xattr.c, xattr_permission; fs/posix_acl.c; security/commoncap.c.
fn check_change(call: &mut Call, named: Named, name: &CStr) -> Result<Reply, Errno> {
    permission::check_change(call, named, |_, subject, file, _| {
        let name = name.to_bytes();
        if name.starts_with(b"user.") {
            const STICKY: u32 = 0o1000;
            let is_closed = file.is_directory() && file.mode & STICKY != 0 && !subject.owns(file);
            if is_closed || !carries_xattrs(file_type(file.mode)) {
                return Err(Errno::EPERM);
            }
            return allow(subject.may(Access::WRITE, file), Errno::EACCES);
        }
        let allowed = if name == b"security.capability" {
            subject.has(capability::SETFCAP)
        } else if name.starts_with(b"system.posix_acl_") {
            subject.owns(file)
        } else if name.starts_with(b"trusted.") || name.starts_with(b"security.") {
            subject.has(capability::SYS_ADMIN)
        } else {
            // A kind of attributes that no file system has.
            return allow(subject.may(Access::WRITE, file), Errno::EACCES);
        };
        allow(allowed, Errno::EPERM)
    })
}

/// The value that the target gives; `None` if the kernel knows better what to say of it.
fn given(call: &Call) -> Option<Vec<u8>> {
    let size = usize::try_from(call.register(3)).ok()?;
    if size > LARGEST {
        return None;
    }
    let mut value = vec![0; size];
    call.read(2, &mut value).ok()?;
    Some(value)
}

/// An attribute that lives under the name `kept`.
fn keep(call: &Call, location: &Location, kept: &Name, change: Change) -> Result<Reply, Errno> {
    let Some(file) = carrier(call, location) else {
        // CONTINUE: no such file, or one that carries no user attributes.
        return Ok(Reply::Continue);
    };
    let path = procfs::own_fd(file.as_fd());
    call.ensure_waiting()?;
    match change {
        Change::Set => {
            let Some(value) = given(call) else {
                // CONTINUE: E2BIG, or a bad pointer.
                return Ok(Reply::Continue);
            };
            sys::setxattr(path.as_c_str(), kept.as_c_str(), &value, call.int(4))?;
        }
        Change::Remove => sys::removexattr(path.as_c_str(), kept.as_c_str())?,
    }
    Ok(Reply::Value(0))
}

/// An access control list goes to the kernel as far as it takes it, and is kept beside where it does not.
fn change_acl(
    call: &Call,
    location: &Location,
    (name, kept): (&CStr, &Name),
    change: Change,
) -> Result<Reply, Errno> {
    let Some(file) = carrier(call, location) else {
        // CONTINUE: no such file, or one that has no such list.
        return Ok(Reply::Continue);
    };
    let path = procfs::own_fd(file.as_fd());
    let foreign = match change {
        Change::Set => {
            let Some(bytes) = given(call) else {
                // CONTINUE: E2BIG, or a bad pointer.
                return Ok(Reply::Continue);
            };
            let is_mapped = |id| call.container.is_mapped(id);
            Acl::decode(&bytes).and_then(|list| Some((list.mapped(is_mapped)?, bytes)))
        }
        Change::Remove => None,
    };
    call.ensure_waiting()?;
    let Some((mapped, bytes)) = foreign else {
        // The list that was kept is another one's now. Mostly there is none.
        match sys::removexattr(path.as_c_str(), kept.as_c_str()) {
            Ok(()) | Err(Errno::ENODATA | Errno::EOPNOTSUPP) => {}
            Err(errno) => return Err(errno),
        }
        // CONTINUE: the kernel takes it, or says what is wrong with it.
        return Ok(Reply::Continue);
    };
    sys::setxattr(path.as_c_str(), name, &mapped.encode(), call.int(4))?;
    sys::setxattr(path.as_c_str(), kept.as_c_str(), &bytes, 0)?;
    Ok(Reply::Value(0))
}
