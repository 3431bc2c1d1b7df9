//! mount(2), umount2(2), open_tree(2) and other calls that change mounts: whether the target's
//! emulated capabilities allow them. [`owned`] makes the mounts whose owner the kernel does not
//! know.

mod context;
mod owned;

use std::os::fd::AsFd;
use std::thread;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::Mode;
use nix::unistd::fchdir;

pub(super) use context::{fsconfig, fsmount};
pub(super) use owned::mount;

use super::new_file::is_out_of_reach;
use super::permission::allow;
use crate::credentials::capability;
use crate::linux::procfs;
use crate::linux::seccomp::Reply;
use crate::linux::sys;
use crate::target::{Call, Dirfd, Location, PROCFS};

pub(super) fn umount2(call: &mut Call) -> Result<Reply, Errno> {
    let flags = call.int(1);
    let known = libc::MNT_FORCE | libc::MNT_DETACH | libc::MNT_EXPIRE | libc::UMOUNT_NOFOLLOW;
    if flags & !known != 0 {
        // CONTINUE: EINVAL.
        return Ok(Reply::Continue);
    }
    let lookup = match flags & libc::UMOUNT_NOFOLLOW {
        0 => AtFlags::empty(),
        _ => AtFlags::AT_SYMLINK_NOFOLLOW,
    };
    check_at(call, Dirfd::Cwd, 0, lookup)
}

/// umount(2) of i386, which has no flags.
pub(super) fn umount(call: &mut Call) -> Result<Reply, Errno> {
    check_at(call, Dirfd::Cwd, 0, AtFlags::empty())
}

const OPEN_TREE_CLONE: u32 = 1;

pub(super) fn open_tree(call: &mut Call) -> Result<Reply, Errno> {
    match call.unsigned(2) & OPEN_TREE_CLONE {
        // CONTINUE: no more than an open with O_PATH.
        0 => Ok(Reply::Continue),
        _ => check(call),
    }
}

pub(super) fn move_mount(call: &mut Call) -> Result<Reply, Errno> {
    let reply = check(call)?;
    Ok(context::attach(call)?.unwrap_or(reply))
}

pub(super) fn fspick(call: &mut Call) -> Result<Reply, Errno> {
    check(call)
}

pub(super) fn mount_setattr(call: &mut Call) -> Result<Reply, Errno> {
    let reply = check(call)?;
    refuse_id_mapping(call, reply)
}

/// open_tree_attr(2) (Linux 6.15): open_tree(2), and mount_setattr(2) of what that has opened.
pub(super) fn open_tree_attr(call: &mut Call) -> Result<Reply, Errno> {
    if call.register(3) == 0 {
        return open_tree(call);
    }
    let reply = match call.unsigned(2) & OPEN_TREE_CLONE {
        0 => check_at(call, call.dirfd(0), 1, AtFlags::empty())?,
        _ => check(call)?,
    };
    refuse_id_mapping(call, reply)
}

/// As if no file system could be mounted with other ids (fs/namespace.c, can_idmap_mount): most
/// cannot by a user, and what the kernel maps then are not the emulated owners. Argument 3 is a
/// struct mount_attr.
fn refuse_id_mapping(call: &Call, reply: Reply) -> Result<Reply, Errno> {
    const MOUNT_ATTR_IDMAP: u64 = 0x10_0000;
    // The first member is what is set.
    match call.read_u64(3) {
        Ok(set) if set & MOUNT_ATTR_IDMAP != 0 => Err(Errno::EINVAL),
        _ => Ok(reply),
    }
}

/// Lets the kernel execute a call that asks for CAP_SYS_ADMIN first: fs/namespace.c, may_mount.
fn check(call: &Call) -> Result<Reply, Errno> {
    allow(!call.lacks(capability::SYS_ADMIN)?, Errno::EPERM)
}

/// As [`check`], for a call that looks up its path, argument `path`, before.
fn check_at(call: &Call, dirfd: Dirfd, path: usize, flags: AtFlags) -> Result<Reply, Errno> {
    if !call.lacks(capability::SYS_ADMIN)? {
        // CONTINUE: the kernel decides.
        return Ok(Reply::Continue);
    }
    let Ok(path) = call.path(path) else {
        // CONTINUE: the kernel finds the same fault.
        return Ok(Reply::Continue);
    };
    match call.resolve(&Location::new(dirfd, path.as_c_str(), flags)) {
        Ok(_) => Err(Errno::EPERM),
        // CONTINUE: the kernel fails with the right errno.
        Err(_) => Ok(Reply::Continue),
    }
}

/// Whether a worker may make a mount for the target: it is allowed to make some, by the kernel as
/// well, and nothing restricts it that would not restrict the worker.
fn is_made_by_workers(call: &Call) -> Result<bool, Errno> {
    Ok(call.is_in_namespace()?
        && call.subject()?.has(capability::SYS_ADMIN)
        && sys::capabilities(call.pid())?.effective & capability::SYS_ADMIN != 0
        && !is_out_of_reach(call)?)
}

/// Does `work` in the target's mount namespace, with CAP_SYS_ADMIN: in a thread of its own, which
/// ends afterwards.
fn inside<T: Send>(
    call: &Call,
    work: impl FnOnce() -> Result<T, Errno> + Send,
) -> Result<T, Errno> {
    thread::scope(|scope| {
        let work = || enter(call).and_then(|()| work());
        let thread = thread::Builder::new().spawn_scoped(scope, work);
        thread.map_or(Err(Errno::EAGAIN), |thread| {
            thread.join().unwrap_or(Err(Errno::EIO))
        })
    })
}

fn enter(call: &Call) -> Result<(), Errno> {
    // setns(2), CLONE_NEWNS: EINVAL for a thread that shares its root with others.
    unshare(CloneFlags::CLONE_FS)?;
    let own = sys::capabilities(0)?;
    sys::set_capabilities(own.effective | capability::SYS_ADMIN, own.permitted)?;
    let open = |path: &std::ffi::CStr, flags| {
        openat(PROCFS, path, flags | OFlag::O_CLOEXEC, Mode::empty())
    };
    let namespace = open(
        procfs::target(call.pid(), "ns/mnt").as_c_str(),
        OFlag::O_RDONLY,
    )?;
    let procfs = open(c".", OFlag::O_PATH)?;
    call.ensure_waiting()?;
    setns(namespace, CloneFlags::CLONE_NEWNS)?;
    // It has become the root directory of the namespace.
    fchdir(procfs.as_fd())
}
