//! getxattr(2), listxattr(2).

use std::ffi::CStr;
use std::os::fd::AsFd;

use nix::errno::Errno;

use super::{
    Asked, at, carries_user_attributes, may_administer, nameless, posix_acl, without_trusted,
};
use crate::credentials::Access;
use crate::linux::attribute;
use crate::linux::name::Name;
use crate::linux::procfs;
use crate::linux::seccomp::Reply;
use crate::linux::sys;
use crate::owner::{Attribute, shown, stored_name};
use crate::syscalls::permission::{FileArgument, allow, check};
use crate::syscalls::stat::resolve_in_side_store;
use crate::target::{Call, Location};

pub(in crate::syscalls) fn getxattr(call: &mut Call) -> Result<Reply, Errno> {
    get(call, &Asked::of(call, FileArgument::path(0), 2))
}

pub(in crate::syscalls) fn lgetxattr(call: &mut Call) -> Result<Reply, Errno> {
    get(call, &Asked::of(call, FileArgument::link(0), 2))
}

pub(in crate::syscalls) fn fgetxattr(call: &mut Call) -> Result<Reply, Errno> {
    get(call, &Asked::of(call, FileArgument::fd(call, 0), 2))
}

pub(super) fn get(call: &mut Call, asked: &Asked) -> Result<Reply, Errno> {
    let named = asked.named;
    let Ok(name) = call.path(asked.name) else {
        // CONTINUE: the kernel finds the same fault.
        return Ok(Reply::Continue);
    };
    match Attribute::of(name.as_c_str()) {
        Attribute::Plain => may_read(call, named, name.as_c_str()),
        Attribute::Hidden => at(call, named, hidden),
        Attribute::Nameless => at(call, named, nameless),
        Attribute::Emulated(name) => at(call, named, |call, location| {
            if is_trusted(&name) && !may_administer(call)? {
                // CONTINUE: ENODATA (trusted.* is invisible without CAP_SYS_ADMIN).
                return Ok(Reply::Continue);
            }
            match stored(call, location, &name) {
                Some(value) => deliver(call, asked, &value),
                None if is_trusted(&name) => without_trusted(call, location),
                // CONTINUE: no stored attribute.
                None => Ok(Reply::Continue),
            }
        }),
        Attribute::Acl(name) => at(call, named, |call, location| {
            let list = match stored(call, location, &name) {
                Some(bytes) => posix_acl::shown(call, location, &name, &bytes)?,
                None => None,
            };
            match list {
                Some(list) => deliver(call, asked, &list),
                // CONTINUE: the kernel has the whole list, if there is one.
                None => Ok(Reply::Continue),
            }
        }),
    }
}

/// Leaves the call to the kernel if the target may read the attribute: fs/xattr.c,
/// xattr_permission.
fn may_read(call: &mut Call, named: FileArgument, name: &CStr) -> Result<Reply, Errno> {
    if !name.to_bytes().starts_with(b"user.") {
        // CONTINUE: everyone may read it, or the kernel fails with the right errno.
        return Ok(Reply::Continue);
    }
    check(call, named, |call, subject, file, location| {
        // Files of other types have no such attributes: ENODATA.
        let may = !carries_user_attributes(file.mode)
            || call.may_at(subject, Access::READ, location, file)?;
        allow(may, Errno::EACCES)
    })
}

/// Answers for one of the attributes that hold emulated owners, as the kernel does for a user
/// attribute that does not exist: the errno depends on the type of file and file system.
fn hidden(call: &mut Call, location: &Location) -> Result<Reply, Errno> {
    let Ok(file) = call.resolve(location) else {
        // CONTINUE: the kernel fails with the right errno.
        return Ok(Reply::Continue);
    };
    let path = procfs::own_fd(file.as_fd());
    match sys::getxattr(path.as_c_str(), c"user.subuidless", &mut [], true) {
        Ok(_) => Err(Errno::ENODATA),
        Err(errno) => Err(errno),
    }
}

fn is_trusted(stored: &Name) -> bool {
    stored
        .as_c_str()
        .to_bytes()
        .starts_with(b"user.subuidless.trusted.")
}

pub(in crate::syscalls) fn listxattr(call: &mut Call) -> Result<Reply, Errno> {
    list(call, &Asked::of(call, FileArgument::path(0), 1))
}

pub(in crate::syscalls) fn llistxattr(call: &mut Call) -> Result<Reply, Errno> {
    list(call, &Asked::of(call, FileArgument::link(0), 1))
}

pub(in crate::syscalls) fn flistxattr(call: &mut Call) -> Result<Reply, Errno> {
    list(call, &Asked::of(call, FileArgument::fd(call, 0), 1))
}

pub(super) fn list(call: &mut Call, asked: &Asked) -> Result<Reply, Errno> {
    at(call, asked.named, |call, location| {
        let has_ours = |names: &[u8]| shown(names, false).is_some();
        let names = read_carefully(call, location, attribute::names, has_ours);
        let Some(names) = names.or_else(|| names_in_side_store(call, location)) else {
            // CONTINUE: nothing to hide and nothing to add, or the kernel fails with the right
            // errno.
            return Ok(Reply::Continue);
        };
        let list = shown(&names, may_administer(call)?).unwrap_or(names);
        deliver(call, asked, &list)
    })
}

/// All names of a file that has attributes in the side store; `None` if it has none there.
fn names_in_side_store(call: &Call, location: &Location) -> Option<Vec<u8>> {
    let (file, stat) = resolve_in_side_store(call, location)?;
    let emulated = call.container.owners.emulated(file.as_fd(), stat.st_mode);
    let stored = emulated
        .of_side_store()
        .ok()
        .filter(|known| !known.is_empty())?;
    let path = procfs::own_fd(file.as_fd());
    let mut all = attribute::names(path.as_c_str(), true).ok()?;
    all.extend(stored.iter().flat_map(|(name, _)| stored_name(name)));
    Some(all)
}

/// Reads from the file at `location` by `ask`, if the result `is_wanted`.
///
/// The first read is by name: mostly it shows in one system call that there is nothing. A wanted
/// result is read again from the resolved file, because a name alone could lead a worker through
/// its own links in procfs.
fn read_carefully(
    call: &mut Call,
    location: &Location,
    ask: impl Fn(&CStr, bool) -> Result<Vec<u8>, Errno>,
    is_wanted: impl Fn(&[u8]) -> bool,
) -> Option<Vec<u8>> {
    if let Some(reached) = call.name(location)
        && !is_wanted(&ask(reached.as_c_str(), location.follow).ok()?)
    {
        return None;
    }
    let file = call.resolve(location).ok()?;
    let value = ask(procfs::own_fd(file.as_fd()).as_c_str(), true).ok()?;
    is_wanted(&value).then_some(value)
}

/// The stored attribute `name` of the file at `location`.
pub(super) fn stored(call: &mut Call, location: &Location, name: &Name) -> Option<Vec<u8>> {
    let ask = |path: &CStr, follow| attribute::value(path, name.as_c_str(), follow);
    if let Some(value) = read_carefully(call, location, ask, |_| true) {
        return Some(value);
    }
    let (file, stat) = resolve_in_side_store(call, location)?;
    let emulated = call.container.owners.emulated(file.as_fd(), stat.st_mode);
    emulated.get(name).ok().flatten()
}

/// Answers with a value: with no room, only with its length (getxattr(2)).
fn deliver(call: &Call, asked: &Asked, value: &[u8]) -> Result<Reply, Errno> {
    let room = usize::try_from(asked.size).unwrap_or(usize::MAX);
    if room > 0 {
        if room < value.len() {
            return Err(Errno::ERANGE);
        }
        call.write_to([(asked.value, value)])?;
    }
    let length = i64::try_from(value.len()).map_err(|_| Errno::ERANGE)?;
    Ok(Reply::Value(length))
}
