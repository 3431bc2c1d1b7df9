//! setxattr(2), removexattr(2).

use std::ffi::CStr;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::stat::fstat;

use super::{
    Asked, Change, absent, at, carries_user_attributes, may_administer, nameless, posix_acl,
    without_trusted,
};
use crate::credentials::{Access, capability};
use crate::linux::name::Name;
use crate::linux::seccomp::Reply;
use crate::owner::Attribute;
use crate::syscalls::permission::{self, FileArgument, allow};
use crate::target::{Call, Location};
use crate::wire::board::Step;

pub(in crate::syscalls) fn setxattr(call: &mut Call) -> Result<Reply, Errno> {
    change(
        call,
        &Asked::of(call, FileArgument::path(0), 2),
        Change::Set,
    )
}

pub(in crate::syscalls) fn lsetxattr(call: &mut Call) -> Result<Reply, Errno> {
    change(
        call,
        &Asked::of(call, FileArgument::link(0), 2),
        Change::Set,
    )
}

pub(in crate::syscalls) fn fsetxattr(call: &mut Call) -> Result<Reply, Errno> {
    change(
        call,
        &Asked::of(call, FileArgument::fd(call, 0), 2),
        Change::Set,
    )
}

pub(in crate::syscalls) fn removexattr(call: &mut Call) -> Result<Reply, Errno> {
    change(
        call,
        &Asked::of(call, FileArgument::path(0), 2),
        Change::Remove,
    )
}

pub(in crate::syscalls) fn lremovexattr(call: &mut Call) -> Result<Reply, Errno> {
    change(
        call,
        &Asked::of(call, FileArgument::link(0), 2),
        Change::Remove,
    )
}

pub(in crate::syscalls) fn fremovexattr(call: &mut Call) -> Result<Reply, Errno> {
    change(
        call,
        &Asked::of(call, FileArgument::fd(call, 0), 2),
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
        // xattr(7): the errnos of a file system without user attributes, for programs that store
        // owners in this attribute themselves.
        let errno = match change {
            Change::Set => Errno::EOPNOTSUPP,
            Change::Remove => Errno::ENODATA,
        };
        return at(call, named, |call, location| absent(call, location, errno));
    }
    let checked = check_change(call, named, name.as_c_str())?;
    match attribute {
        Attribute::Emulated(stored) if may_administer(call)? => {
            at(call, named, |call, location| {
                keep(call, location, &stored, (asked, change))
            })
        }
        Attribute::Nameless => at(call, named, nameless),
        Attribute::Acl(stored) => at(call, named, |call, location| {
            posix_acl::change(call, location, (name.as_c_str(), &stored), (asked, change))
        }),
        _ => Ok(checked),
    }
}

/// Checks permission as fs/xattr.c, xattr_permission; fs/posix_acl.c; security/commoncap.c do.
fn check_change(call: &mut Call, named: FileArgument, name: &CStr) -> Result<Reply, Errno> {
    permission::check_change(call, named, |call, subject, file, location| {
        let name = name.to_bytes();
        if name.starts_with(b"user.") {
            const STICKY: u32 = 0o1000;
            let is_closed = file.is_directory() && file.mode & STICKY != 0 && !subject.owns(file);
            if is_closed || !carries_user_attributes(file.mode) {
                return Err(Errno::EPERM);
            }
            let may = call.may_at(subject, Access::WRITE, location, file)?;
            return allow(may, Errno::EACCES);
        }
        let allowed = if name == b"security.capability" {
            subject.has(capability::SETFCAP)
        } else if name.starts_with(b"system.posix_acl_") {
            subject.owns(file)
        } else if name.starts_with(b"trusted.") || name.starts_with(b"security.") {
            subject.has(capability::SYS_ADMIN)
        } else {
            // No file system has attributes with such a prefix.
            let may = call.may_at(subject, Access::WRITE, location, file)?;
            return allow(may, Errno::EACCES);
        };
        allow(allowed, Errno::EPERM)
    })
}

/// Changes an emulated attribute, which is stored under the name `name`.
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
        // CONTINUE: EPERM, since the file belongs to another host user.
        return Ok(Reply::Continue);
    }
    // XATTR_CREATE and XATTR_REPLACE depend on the present state: no other worker may change it.
    let _lock = call.container.locks.lock_file(&stat)?;
    let emulated = call.container.owners.emulated(file.as_fd(), stat.st_mode);
    // A worker that was killed passed the checks below, and may have made the change. To repeat
    // them would fail because of that change (EEXIST, ENODATA).
    let is_again = call.journal.noted() == Some(Step::Changing);
    match change {
        Change::Set => {
            let Some(value) = asked.given(call) else {
                // CONTINUE: E2BIG, or a bad pointer.
                return Ok(Reply::Continue);
            };
            let flags = if is_again { 0 } else { asked.flags };
            if flags & !(libc::XATTR_CREATE | libc::XATTR_REPLACE) == 0 && flags != 0 {
                let is_there = emulated.get(name)?.is_some();
                if is_there && flags & libc::XATTR_CREATE != 0 {
                    return Err(Errno::EEXIST);
                }
                if !is_there && flags & libc::XATTR_REPLACE != 0 {
                    return Err(Errno::ENODATA);
                }
            }
            call.ensure_waiting()?;
            call.journal.note(Step::Changing);
            emulated.set(name, &value, flags)?;
        }
        Change::Remove => {
            if !is_again && emulated.get(name)?.is_none() {
                return without_trusted(call, location).and(Err(Errno::ENODATA));
            }
            call.ensure_waiting()?;
            call.journal.note(Step::Changing);
            match emulated.remove(name) {
                Err(Errno::ENODATA) if is_again => {}
                result => result?,
            }
        }
    }
    Ok(Reply::Value(0))
}
