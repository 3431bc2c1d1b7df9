//! mount(2), umount2(2), open_tree(2) and other calls that change mounts: whether the target's
//! emulated capabilities allow them; and mount(2) of devpts and tmpfs with a `uid=` or `gid=` that
//! the user namespace does not map.
//!
//! For the kernel such options are invalid (EINVAL), and a supervisor cannot change the arguments
//! of a call. So the worker makes the file system without them, and attaches it in the target's
//! mount namespace. The root directory of a tmpfs gets the owner as an emulated one, and so do new
//! terminals of a devpts. All other mounts are left to the kernel.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat};
use nix::sys::statfs::{DEVPTS_SUPER_MAGIC, FsType, TMPFS_MAGIC, fstatfs};

use super::new_file::is_out_of_reach;
use super::permission::allow;
use crate::credentials::{EmulatedGid, EmulatedUid, Id, capability};
use crate::linux::name::Name;
use crate::linux::procfs;
use crate::linux::seccomp::Reply;
use crate::linux::sys;
use crate::owner::{Owner, file_type};
use crate::target::{Call, Dirfd, Location, PROCFS};
use crate::wire::board::Step;

/// Flags of calls that make no new file system.
const OTHER_BUSINESS: u64 = libc::MS_REMOUNT
    | libc::MS_BIND
    | libc::MS_MOVE
    | libc::MS_SHARED
    | libc::MS_PRIVATE
    | libc::MS_SLAVE
    | libc::MS_UNBINDABLE;

/// The names and values of mount options.
type Options = Vec<(Name, Option<Name>)>;

/// A mount that the kernel would refuse; `flags` are those of mount(2).
struct Request {
    kind: &'static CStr,
    magic: FsType,
    flags: u64,
    options: Options,
    owner: Owner,
}

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
    check_at(call, 0, lookup)
}

/// umount(2) of i386, which has no flags.
pub(super) fn umount(call: &mut Call) -> Result<Reply, Errno> {
    check_at(call, 0, AtFlags::empty())
}

pub(super) fn open_tree(call: &mut Call) -> Result<Reply, Errno> {
    const OPEN_TREE_CLONE: u32 = 1;
    match call.unsigned(2) & OPEN_TREE_CLONE {
        // CONTINUE: no more than an open with O_PATH.
        0 => Ok(Reply::Continue),
        _ => check(call),
    }
}

pub(super) fn move_mount(call: &mut Call) -> Result<Reply, Errno> {
    check(call)
}

pub(super) fn fspick(call: &mut Call) -> Result<Reply, Errno> {
    check(call)
}

pub(super) fn mount_setattr(call: &mut Call) -> Result<Reply, Errno> {
    check(call)
}

/// Lets the kernel execute a call that asks for CAP_SYS_ADMIN first: fs/namespace.c, may_mount.
fn check(call: &Call) -> Result<Reply, Errno> {
    allow(!call.lacks(capability::SYS_ADMIN)?, Errno::EPERM)
}

/// As [`check`], for a call that looks up its path, argument `path`, before.
fn check_at(call: &Call, path: usize, flags: AtFlags) -> Result<Reply, Errno> {
    if !call.lacks(capability::SYS_ADMIN)? {
        // CONTINUE: the kernel decides.
        return Ok(Reply::Continue);
    }
    let Ok(path) = call.path(path) else {
        // CONTINUE: the kernel finds the same fault.
        return Ok(Reply::Continue);
    };
    match call.resolve(&Location::new(Dirfd::Cwd, path.as_c_str(), flags)) {
        Ok(_) => Err(Errno::EPERM),
        // CONTINUE: the kernel fails with the right errno.
        Err(_) => Ok(Reply::Continue),
    }
}

pub(super) fn mount(call: &mut Call) -> Result<Reply, Errno> {
    if call.register(3) & OTHER_BUSINESS != 0 {
        return check_at(call, 1, AtFlags::empty());
    }
    let Some(request) = request(call) else {
        return check_at(call, 1, AtFlags::empty());
    };
    let is_allowed = call.is_in_namespace()? && call.subject()?.has(capability::SYS_ADMIN);
    if !is_allowed {
        return check_at(call, 1, AtFlags::empty());
    }
    if is_out_of_reach(call)? {
        // CONTINUE: EPERM or EINVAL.
        return Ok(Reply::Continue);
    }
    let Ok(path) = call.path(1) else {
        // CONTINUE: the kernel finds the same fault.
        return Ok(Reply::Continue);
    };
    let location = Location::new(Dirfd::Cwd, path.as_c_str(), AtFlags::empty());
    let Ok(directory) = call.resolve(&location) else {
        // CONTINUE: the kernel fails with the right errno.
        return Ok(Reply::Continue);
    };
    let is_there =
        || fstatfs(&directory).is_ok_and(|found| found.filesystem_type() == request.magic);
    if call.journal.noted() == Some(Step::Changing) && is_there() {
        // A worker mounted it, and was killed before it replied.
        return Ok(Reply::Value(0));
    }
    // In a thread of its own, which ends afterwards: it makes CAP_SYS_ADMIN effective, and setns(2)
    // into a mount namespace replaces its root and working directory.
    let done = thread::scope(|scope| {
        let work =
            || make(call, &request).and_then(|made| attach(call, made.as_fd(), directory.as_fd()));
        let thread = thread::Builder::new().spawn_scoped(scope, work);
        thread.map_or(Err(Errno::EAGAIN), |thread| {
            thread.join().unwrap_or(Err(Errno::EIO))
        })
    });
    done.map(|()| Reply::Value(0))
}

/// Reads the arguments; `None` for a mount that the kernel can do.
fn request(call: &Call) -> Option<Request> {
    let kind = call.path(2).ok()?;
    let (kind, magic) = match kind.as_c_str().to_bytes() {
        b"devpts" => (c"devpts", DEVPTS_SUPER_MAGIC),
        b"tmpfs" => (c"tmpfs", TMPFS_MAGIC),
        b"overlay" => {
            call.container.expect_overlays();
            return None;
        }
        _ => return None,
    };
    let data = call.path(4).ok()?;
    let (options, owner) = split(data.as_c_str().to_bytes(), |id| {
        call.container.is_mapped(id)
    })?;
    Some(Request {
        kind,
        magic,
        flags: flags(call.register(3))?,
        options,
        owner,
    })
}

/// Splits options into those without unmapped ids, and the owner that the unmapped ids name.
/// Returns `None` if all ids are mapped.
fn split(data: &[u8], is_mapped: impl Fn(u32) -> bool) -> Option<(Options, Owner)> {
    let name = |bytes: &[u8]| Name::new(bytes.to_vec());
    let mut owner = Owner::default();
    let mut options = Vec::new();
    for option in data.split(|byte| *byte == b',') {
        let mut parts = option.splitn(2, |byte| *byte == b'=');
        let (key, value) = (parts.next().unwrap_or_default(), parts.next());
        let id = || std::str::from_utf8(value?).ok()?.parse().ok();
        let foreign = || id().filter(|id| !is_mapped(*id));
        match (key, value) {
            // tmpfs(5): its value may contain commas.
            (b"mpol", _) => return None,
            (b"", None) => continue,
            (b"uid", _) if foreign().is_some() => owner.uid = foreign().and_then(EmulatedUid::new),
            (b"gid", _) if foreign().is_some() => owner.gid = foreign().and_then(EmulatedGid::new),
            _ => options.push((name(key), value.map(name))),
        }
    }
    (!owner.is_unset()).then_some((options, owner))
}

/// The flags of mount(2) without the old magic number (MS_MGC_VAL); `None` if one of them is not in
/// `ATTRIBUTES`.
fn flags(flags: u64) -> Option<u64> {
    const MAGIC: u64 = 0xc0ed_0000;
    let flags = match flags & 0xffff_0000 {
        MAGIC => flags & 0xffff,
        _ => flags,
    };
    let known = ATTRIBUTES
        .iter()
        .fold(libc::MS_SILENT, |known, (flag, _)| known | flag);
    (flags & !known == 0).then_some(flags)
}

/// The flags of mount(2) and the attributes of fsmount(2) (linux/mount.h, MOUNT_ATTR_*) that
/// correspond. Not MS_RDONLY: on a read-only root directory, no owner can be stored.
const ATTRIBUTES: [(u64, u32); 7] = [
    (libc::MS_NOSUID, 0x2),
    (libc::MS_NODEV, 0x4),
    (libc::MS_NOEXEC, 0x8),
    (libc::MS_NOATIME, 0x10),
    (libc::MS_STRICTATIME, 0x20),
    (libc::MS_NODIRATIME, 0x80),
    (libc::MS_RELATIME, 0),
];

/// Makes the file system, which is not attached anywhere yet. Runs in a thread of its own.
fn make(call: &Call, request: &Request) -> Result<OwnedFd, Errno> {
    // setns(2), CLONE_NEWNS: EINVAL for a thread that shares its root with others.
    unshare(CloneFlags::CLONE_FS)?;
    let own = sys::capabilities(0)?;
    sys::set_capabilities(own.effective | capability::SYS_ADMIN, own.permitted)?;
    let context = sys::fsopen(request.kind)?;
    let context = context.as_fd();
    if let Ok(source) = call.path(0) {
        sys::fsconfig_set(context, c"source", Some(source.as_c_str()))?;
    }
    for (key, value) in &request.options {
        sys::fsconfig_set(context, key.as_c_str(), value.as_ref().map(Name::as_c_str))?;
    }
    let attributes = ATTRIBUTES
        .iter()
        .filter(|(flag, _)| request.flags & flag != 0);
    let made = sys::fsmount(
        context,
        attributes.fold(0, |all, (_, attribute)| all | attribute),
    )?;
    let owners = &call.container.owners;
    match request.magic {
        TMPFS_MAGIC => owners.record(made.as_fd(), &fstat(&made)?, request.owner)?,
        _ => {
            let ptmx = fstatat(&made, c"ptmx", AtFlags::AT_SYMLINK_NOFOLLOW)?;
            owners.set_owner_by_mount(&ptmx, request.owner)?;
        }
    }
    Ok(made)
}

/// Attaches `made` to `directory` in the target's mount namespace. Runs in the thread of `make`,
/// which stays in that namespace.
fn attach(call: &Call, made: BorrowedFd, directory: BorrowedFd) -> Result<(), Errno> {
    if file_type(fstat(directory)?.st_mode) != SFlag::S_IFDIR {
        // fs/namespace.c, graft_tree.
        return Err(Errno::ENOTDIR);
    }
    // Before setns(2), after which PROCFS is no longer the working directory.
    let namespace = openat(
        PROCFS,
        &procfs::target(call.pid(), "ns/mnt"),
        OFlag::O_RDONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    call.ensure_waiting()?;
    setns(namespace, CloneFlags::CLONE_NEWNS)?;
    call.journal.note(Step::Changing);
    sys::attach_mount(made, directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(data: &str) -> Option<(Vec<String>, Owner)> {
        let text = |name: &Name| name.as_c_str().to_str().unwrap().to_owned();
        let (options, owner) = split(data.as_bytes(), |id| id == 0)?;
        let options = options.iter().map(|(key, value)| match value {
            Some(value) => text(key) + "=" + &text(value),
            None => text(key),
        });
        Some((options.collect(), owner))
    }

    #[test]
    fn foreign_ids_are_taken_out_of_the_options() {
        let (options, owner) = parts("uid=5,mode=620,,gid=0,newinstance").unwrap();
        assert_eq!(options, ["mode=620", "gid=0", "newinstance"]);
        assert_eq!(owner.uid, EmulatedUid::new(5));
        assert_eq!(owner.gid, None);
        for kernels in [
            "",
            "mode=620",
            "uid=0,gid=0",
            "uid=x",
            "uid",
            "gid=5,mpol=interleave:0-3,5",
        ] {
            assert_eq!(parts(kernels), None, "{kernels}");
        }
    }

    #[test]
    fn flags_that_are_unknown_are_the_kernels_business() {
        assert_eq!(flags(libc::MS_NOSUID), Some(libc::MS_NOSUID));
        assert_eq!(flags(0xc0ed_0000 | libc::MS_NOEXEC), Some(libc::MS_NOEXEC));
        assert_eq!(flags(libc::MS_RDONLY), None);
    }
}
