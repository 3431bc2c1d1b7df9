//! Calls after which a target may see another root directory or an overlay, live in another user
//! namespace, or be restricted: chroot(2), pivot_root(2), fsopen(2), setns(2), unshare(2),
//! clone(2), landlock_restrict_self(2), seccomp(2).
//!
//! The kernel executes them, unless the target's emulated capabilities forbid them. They are rare:
//! until one of them is noticed, no other call needs to check for its effects.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::AtFlags;

use super::permission::allow;
use crate::credentials::{Access, capability};
use crate::linux::seccomp::Reply;
use crate::linux::sys;
use crate::target::{Call, Dirfd, Location};

pub(super) fn chroot(call: &mut Call) -> Result<Reply, Errno> {
    let noticed = notice(call, NEW_MOUNTS);
    if !call.container.identities.anyone_changed() || call.is_nested() {
        return noticed;
    }
    // fs/open.c, ksys_chroot: first the lookup, then search permission, then the capability.
    let Ok(path) = call.path(0) else {
        // CONTINUE: the kernel finds the same fault.
        return Ok(Reply::Continue);
    };
    let location = Location::new(Dirfd::Cwd, path.as_c_str(), AtFlags::empty());
    match call.mode_of(&location) {
        Ok(mode) if mode.is_directory() => {
            let may = call.may_at(&call.subject()?, Access::EXECUTE, &location, mode)?;
            allow(may, Errno::EACCES)?;
            allow(!call.lacks(capability::SYS_CHROOT)?, Errno::EPERM)
        }
        // CONTINUE: ENOTDIR, or the errno of the lookup.
        _ => Ok(Reply::Continue),
    }
}

pub(super) fn pivot_root(call: &mut Call) -> Result<Reply, Errno> {
    notice(call, NEW_MOUNTS)?;
    allow(!call.lacks(capability::SYS_ADMIN)?, Errno::EPERM)
}

pub(super) fn setns(call: &mut Call) -> Result<Reply, Errno> {
    // setns(2): with a type of 0, the fd may be of any namespace; so the type is not even read.
    notice(call, NEW_MOUNTS | NEW_USERS)?;
    if !call.lacks(capability::SYS_ADMIN)? {
        // CONTINUE: the kernel decides.
        return Ok(Reply::Continue);
    }
    let Ok(file) = call.duplicate(call.int(0)) else {
        // CONTINUE: EBADF.
        return Ok(Reply::Continue);
    };
    let wanted = call.int(1);
    let kind = match sys::namespace_kind(file.as_fd()) {
        Ok(kind) if wanted == 0 || wanted == kind => kind,
        // The flags are for a pidfd.
        Err(_) if wanted != 0 && call.process_of_pidfd(call.int(0)).is_some() => wanted,
        // CONTINUE: EINVAL.
        _ => return Ok(Reply::Continue),
    };
    // All others take CAP_SYS_ADMIN in the caller's user namespace as well. One that the call joins
    // may give it.
    allow(kind & libc::CLONE_NEWUSER != 0, Errno::EPERM)
}

pub(super) fn unshare(call: &mut Call) -> Result<Reply, Errno> {
    let flags = call.register(0) & LOW;
    notice(call, flags)?;
    // kernel/fork.c, check_unshare_flags: unknown ones are EINVAL.
    make_namespaces(call, flags, flags & !(NAMESPACES | SHARED) == 0)
}

pub(super) fn clone(call: &mut Call) -> Result<Reply, Errno> {
    let flags = call.register(0) & LOW;
    notice(call, flags)?;
    make_namespaces(call, flags & !NEW_TIME, is_consistent(flags))
}

pub(super) fn clone3(call: &mut Call) -> Result<Reply, Errno> {
    // The first member of struct clone_args is the flags. If they cannot be read, the kernel cannot
    // read them, either. They may change before the kernel reads them: `Call::is_in_namespace` does
    // not rely on them.
    let flags = call.read_u64(0).unwrap_or(0);
    notice(call, flags)?;
    make_namespaces(call, flags, is_consistent(flags))
}

/// Decides about a call that makes the namespaces of `flags`. `is_valid`: without privileges, the
/// call fails with EPERM, and not with EINVAL.
fn make_namespaces(call: &Call, flags: u64, is_valid: bool) -> Result<Reply, Errno> {
    // The target has all capabilities in a user namespace that the same call makes.
    let takes_privilege = flags & NAMESPACES != 0 && flags & NEW_USERS == 0;
    if takes_privilege && is_valid && call.lacks(capability::SYS_ADMIN)? {
        // kernel/nsproxy.c, copy_namespaces and unshare_nsproxy_namespaces.
        return Err(Errno::EPERM);
    }
    // CONTINUE: the kernel executes the call, or fails with EINVAL.
    Ok(Reply::Continue)
}

/// kernel/fork.c, copy_process: the combinations of flags that are EINVAL.
fn is_consistent(flags: u64) -> bool {
    let has = |flag: i32| flags & u64::from(flag.unsigned_abs()) != 0;
    !(has(libc::CLONE_FS) && flags & (NEW_MOUNTS | NEW_USERS) != 0
        || has(libc::CLONE_THREAD) && !has(libc::CLONE_SIGHAND)
        || has(libc::CLONE_SIGHAND) && !has(libc::CLONE_VM)
        || has(libc::CLONE_THREAD) && flags & (NEW_USERS | NEW_PIDS) != 0)
}

/// fsopen(2): the first step of a mount, which may be an overlay.
pub(super) fn fsopen(call: &mut Call) -> Result<Reply, Errno> {
    call.container.expect_overlays();
    if call.lacks(capability::SYS_ADMIN)? {
        return Err(Errno::EPERM);
    }
    // CONTINUE: the call is only observed.
    Ok(Reply::Continue)
}

/// landlock_restrict_self(2): from now on, the kernel creates the target's files, because the
/// target's rules would not restrict a worker.
pub(super) fn landlock_restrict_self(call: &mut Call) -> Result<Reply, Errno> {
    let identities = &call.container.identities;
    identities.confine(&identities.lock(), call.pid())?;
    // CONTINUE: the call is only observed.
    Ok(Reply::Continue)
}

/// seccomp(2)
pub(super) fn seccomp(call: &mut Call) -> Result<Reply, Errno> {
    match call.unsigned(0) {
        libc::SECCOMP_SET_MODE_STRICT | libc::SECCOMP_SET_MODE_FILTER => filter(call),
        // CONTINUE: a question.
        _ => Ok(Reply::Continue),
    }
}

/// Notes a filter of the target's own, which may forbid the calls of the preloaded library.
pub(super) fn filter(call: &Call) -> Result<Reply, Errno> {
    if let Some(facts) = &call.container.facts {
        facts.expect_filter(call.pid());
        call.turn_library_off();
    }
    // CONTINUE: what the call does is the kernel's business.
    Ok(Reply::Continue)
}

const NEW_MOUNTS: u64 = libc::CLONE_NEWNS.unsigned_abs() as u64;
const NEW_USERS: u64 = libc::CLONE_NEWUSER.unsigned_abs() as u64;
const NEW_PIDS: u64 = libc::CLONE_NEWPID.unsigned_abs() as u64;
/// CLONE_NEWTIME. clone(2) does not have it: there it is a bit of the signal, in which no valid one
/// has it.
const NEW_TIME: u64 = 0x80;
/// All CLONE_NEW* flags.
pub(super) const NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET)
    .unsigned_abs() as u64
    | NEW_TIME;
/// What unshare(2) can end sharing, in addition to namespaces.
const SHARED: u64 =
    (libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SYSVSEM).unsigned_abs() as u64;
/// The flags are an `int` or, of clone(2), the lower half of a long.
const LOW: u64 = u32::MAX as u64;

/// Notes which namespaces a call with these CLONE_NEW* flags may change.
fn notice(call: &Call, flags: u64) -> Result<Reply, Errno> {
    if flags & NEW_MOUNTS != 0 {
        call.container.expect_other_views();
    }
    if flags & NEW_USERS != 0 {
        call.container.identities.expect_nested();
    }
    // CONTINUE: the call is only observed.
    Ok(Reply::Continue)
}
