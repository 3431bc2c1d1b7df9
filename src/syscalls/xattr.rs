//! getxattr(2), listxattr(2), setxattr(2), removexattr(2), and their relatives.
//!
//! The attributes in which fake owners live do not exist for a target. What the container's root
//! may set and the kernel refuses is kept beside (`owner::Attribute`); everything else goes on to
//! the kernel, once it is clear who asks.

use std::ffi::CStr;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::fstat;

use super::permission::{self, Named, allow};
use super::posix_acl;
use super::stat::beside;
use crate::credentials::{Access, capability};
use crate::linux::name::Name;
use crate::linux::procfs;
use crate::linux::seccomp::Reply;
use crate::linux::sys;
use crate::owner::{Attribute, carries_xattrs, file_type, kept_name, shown, takes_attributes};
use crate::target::{Call, Location};
use crate::wire::board::Step;

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

/// What a call asks for, and where what goes in or out is: most have it all in registers.
pub(super) struct Asked {
    pub(super) named: Named,
    /// An argument number.
    pub(super) name: usize,
    /// An address.
    pub(super) value: u64,
    pub(super) size: u64,
    pub(super) flags: i32,
}

impl Asked {
    /// With the value in the argument `value`, its size behind it, and behind that flags, if it
    /// takes any.
    fn of(call: &Call, named: Named, value: usize) -> Self {
        Self {
            named,
            name: 1,
            value: call.register(value),
            size: call.register(value + 1),
            flags: call.int(value + 2),
        }
    }
}

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

/// Asks something of the file that is named, by its name first: mostly there is nothing to be had.
///
/// What is had is read again from the file itself. By a name alone a worker could be led through
/// links of its own in procfs.
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

/// What is kept under `name` of what is named.
pub(super) fn stored(call: &mut Call, location: &Location, name: &Name) -> Option<Vec<u8>> {
    let ask =
        |path: &CStr, value: &mut [u8], follow| sys::getxattr(path, name.as_c_str(), value, follow);
    if let Some(value) = read_carefully(call, location, ask, |_| true) {
        return Some(value);
    }
    let (file, stat) = beside(call, location)?;
    let kept = call.container.owners.kept(file.as_fd(), stat.st_mode);
    kept.get(name).ok().flatten()
}

fn may_administer(call: &Call) -> Result<bool, Errno> {
    Ok(call.subject()?.has(capability::SYS_ADMIN))
}

// ---- getxattr(2)

pub(super) fn getxattr(call: &mut Call) -> Result<Reply, Errno> {
    get(call, &Asked::of(call, Named::path(0), 2))
}

pub(super) fn lgetxattr(call: &mut Call) -> Result<Reply, Errno> {
    get(call, &Asked::of(call, Named::link(0), 2))
}

pub(super) fn fgetxattr(call: &mut Call) -> Result<Reply, Errno> {
    get(call, &Asked::of(call, Named::fd(call, 0), 2))
}

pub(super) fn get(call: &mut Call, asked: &Asked) -> Result<Reply, Errno> {
    let named = asked.named;
    let Ok(name) = call.path(asked.name) else {
        // CONTINUE: the kernel finds the same fault.
        return Ok(Reply::Continue);
    };
    match Attribute::of(name.as_c_str()) {
        // CONTINUE: an attribute like any other.
        Attribute::Plain => Ok(Reply::Continue),
        Attribute::Hidden => at(call, named, hidden),
        Attribute::Nameless => at(call, named, nameless),
        Attribute::Kept(name) => at(call, named, |call, location| {
            if is_trusted(&name) && !may_administer(call)? {
                // CONTINUE: none for this target.
                return Ok(Reply::Continue);
            }
            match stored(call, location, &name) {
                Some(value) => deliver(call, asked, &value),
                None if is_trusted(&name) => without_trusted(call, location),
                // CONTINUE: none.
                None => Ok(Reply::Continue),
            }
        }),
        Attribute::Acl(name) => at(call, named, |call, location| {
            match posix_acl::shown(call, location, &name)? {
                Some(list) => deliver(call, asked, &list),
                // CONTINUE: the kernel has it all.
                None => Ok(Reply::Continue),
            }
        }),
    }
}

/// What the kernel says of an attribute of users that nobody has.
fn hidden(call: &mut Call, location: &Location) -> Result<Reply, Errno> {
    let Ok(file) = call.resolve(location) else {
        // CONTINUE: the kernel says why.
        return Ok(Reply::Continue);
    };
    let path = procfs::own_fd(file.as_fd());
    match sys::getxattr(path.as_c_str(), c"user.subuidless", &mut [], true) {
        Ok(_) => Err(Errno::ENODATA),
        Err(errno) => Err(errno),
    }
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

fn is_trusted(kept: &Name) -> bool {
    kept.as_c_str()
        .to_bytes()
        .starts_with(b"user.subuidless.trusted.")
}

// ---- listxattr(2)

pub(super) fn listxattr(call: &mut Call) -> Result<Reply, Errno> {
    list(call, &Asked::of(call, Named::path(0), 1))
}

pub(super) fn llistxattr(call: &mut Call) -> Result<Reply, Errno> {
    list(call, &Asked::of(call, Named::link(0), 1))
}

pub(super) fn flistxattr(call: &mut Call) -> Result<Reply, Errno> {
    list(call, &Asked::of(call, Named::fd(call, 0), 1))
}

pub(super) fn list(call: &mut Call, asked: &Asked) -> Result<Reply, Errno> {
    at(call, asked.named, |call, location| {
        let has_ours = |names: &[u8]| shown(names, false).is_some();
        let names = read_carefully(call, location, sys::listxattr, has_ours);
        let Some(names) = names.or_else(|| names_beside(call, location)) else {
            // CONTINUE: nothing to hide, and nothing to add; or the kernel says why.
            return Ok(Reply::Continue);
        };
        let list = shown(&names, may_administer(call)?).unwrap_or(names);
        deliver(call, asked, &list)
    })
}

/// All names of a file of which the side store has some.
fn names_beside(call: &Call, location: &Location) -> Option<Vec<u8>> {
    let (file, stat) = beside(call, location)?;
    let kept = call.container.owners.kept(file.as_fd(), stat.st_mode);
    let beside = kept.beside().ok().filter(|known| !known.is_empty())?;
    let path = procfs::own_fd(file.as_fd());
    let mut all = read_whole(|buffer| sys::listxattr(path.as_c_str(), buffer, true))?;
    all.extend(beside.iter().flat_map(|(name, _)| kept_name(name)));
    Some(all)
}

// ---- setxattr(2), removexattr(2)

/// What is to become of an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Set,
    Remove,
}

pub(super) fn setxattr(call: &mut Call) -> Result<Reply, Errno> {
    change(call, &Asked::of(call, Named::path(0), 2), Change::Set)
}

pub(super) fn lsetxattr(call: &mut Call) -> Result<Reply, Errno> {
    change(call, &Asked::of(call, Named::link(0), 2), Change::Set)
}

pub(super) fn fsetxattr(call: &mut Call) -> Result<Reply, Errno> {
    change(call, &Asked::of(call, Named::fd(call, 0), 2), Change::Set)
}

pub(super) fn removexattr(call: &mut Call) -> Result<Reply, Errno> {
    change(call, &Asked::of(call, Named::path(0), 2), Change::Remove)
}

pub(super) fn lremovexattr(call: &mut Call) -> Result<Reply, Errno> {
    change(call, &Asked::of(call, Named::link(0), 2), Change::Remove)
}

pub(super) fn fremovexattr(call: &mut Call) -> Result<Reply, Errno> {
    change(
        call,
        &Asked::of(call, Named::fd(call, 0), 2),
        Change::Remove,
    )
}

pub(super) fn change(call: &mut Call, asked: &Asked, change: Change) -> Result<Reply, Errno> {
    let named = asked.named;
    let Ok(name) = call.path(asked.name) else {
        // CONTINUE: the kernel finds the same fault.
        return Ok(Reply::Continue);
    };
    let attribute = Attribute::of(name.as_c_str());
    if attribute == Attribute::Hidden {
        // To a program that would keep owners there itself: xattr(7) for a file system that has no
        // such attributes.
        let errno = match change {
            Change::Set => Errno::EOPNOTSUPP,
            Change::Remove => Errno::ENODATA,
        };
        return at(call, named, |call, location| absent(call, location, errno));
    }
    let checked = check_change(call, named, name.as_c_str())?;
    match attribute {
        Attribute::Kept(kept) if may_administer(call)? => at(call, named, |call, location| {
            keep(call, location, &kept, (asked, change))
        }),
        Attribute::Nameless => at(call, named, nameless),
        Attribute::Acl(kept) => at(call, named, |call, location| {
            posix_acl::change(call, location, (name.as_c_str(), &kept), (asked, change))
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
pub(super) fn given(call: &Call, asked: &Asked) -> Option<Vec<u8>> {
    let size = usize::try_from(asked.size).ok()?;
    if size > LARGEST {
        return None;
    }
    let mut value = vec![0; size];
    call.read_from(asked.value, &mut value).ok()?;
    Some(value)
}

/// An attribute that lives under the name `name`.
fn keep(
    call: &Call,
    location: &Location,
    name: &Name,
    (asked, change): (&Asked, Change),
) -> Result<Reply, Errno> {
    let Ok(file) = call.resolve(location) else {
        // CONTINUE: no such file.
        return Ok(Reply::Continue);
    };
    let stat = fstat(&file)?;
    if !call.container.is_mapped(stat.st_uid) {
        // CONTINUE: another host user's; EPERM.
        return Ok(Reply::Continue);
    }
    let _lock = call.container.locks.lock_file(&stat)?;
    let kept = call.container.owners.kept(file.as_fd(), stat.st_mode);
    // A worker that was killed may have done it already: then nothing is in the way.
    let is_again = call.journal.noted() == Some(Step::Changing);
    match change {
        Change::Set => {
            let Some(value) = given(call, asked) else {
                // CONTINUE: E2BIG, or a bad pointer.
                return Ok(Reply::Continue);
            };
            let flags = if is_again { 0 } else { asked.flags };
            if flags & !(libc::XATTR_CREATE | libc::XATTR_REPLACE) == 0 && flags != 0 {
                let is_there = kept.get(name)?.is_some();
                if is_there && flags & libc::XATTR_CREATE != 0 {
                    return Err(Errno::EEXIST);
                }
                if !is_there && flags & libc::XATTR_REPLACE != 0 {
                    return Err(Errno::ENODATA);
                }
            }
            call.ensure_waiting()?;
            call.journal.note(Step::Changing);
            kept.set(name, &value, flags)?;
        }
        Change::Remove => {
            if !is_again && kept.get(name)?.is_none() {
                return without_trusted(call, location).and(Err(Errno::ENODATA));
            }
            call.ensure_waiting()?;
            call.journal.note(Step::Changing);
            match kept.remove(name) {
                Err(Errno::ENODATA) if is_again => {}
                result => result?,
            }
        }
    }
    Ok(Reply::Value(0))
}
