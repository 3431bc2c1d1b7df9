//! mount(2) of devpts, tmpfs and proc with a `uid=` or `gid=` that the user namespace does not map.
//!
//! For the kernel such options are invalid (EINVAL), and a supervisor cannot change the arguments
//! of a call. So the worker makes the file system without them, in the target's mount namespace.
//! The root directory of a tmpfs gets the owner as an emulated one, and so do new terminals of a
//! devpts. All other mounts are left to the kernel.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::mount::MsFlags;
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat};
use nix::sys::statfs::{DEVPTS_SUPER_MAGIC, FsType, PROC_SUPER_MAGIC, TMPFS_MAGIC};

use super::{check_at, inside, is_made_by_workers};
use crate::credentials::{EmulatedGid, EmulatedUid, Id as _};
use crate::linux;
use crate::linux::name::Name;
use crate::linux::procfs;
use crate::linux::seccomp::Reply;
use crate::linux::sys;
use crate::owner::{Owner, file_type};
use crate::target::{Call, Dirfd, Location, PROCFS};
use crate::wire::board::Step;

/// The file systems whose options may name an owner, of those that root of a user namespace mounts.
const OWNED: [(&CStr, FsType); 3] = [
    (c"devpts", DEVPTS_SUPER_MAGIC),
    (c"tmpfs", TMPFS_MAGIC),
    (c"proc", PROC_SUPER_MAGIC),
];

/// Flags of calls that have no options.
const OTHER_BUSINESS: u64 = libc::MS_BIND
    | libc::MS_MOVE
    | libc::MS_SHARED
    | libc::MS_PRIVATE
    | libc::MS_SLAVE
    | libc::MS_UNBINDABLE;

/// The names and values of mount options.
type Options = Vec<(Name, Option<Name>)>;

/// A mount that the kernel would refuse.
struct Request {
    /// The directory to mount on, or the root directory of the mount to change (MS_REMOUNT).
    directory: OwnedFd,
    /// Those of mount(2).
    flags: u64,
    options: Options,
    owner: Owner,
}

pub(crate) fn mount(call: &mut Call) -> Result<Reply, Errno> {
    let Some(request) = request(call) else {
        return check_at(call, Dirfd::Cwd, 1, AtFlags::empty());
    };
    let there = magic(request.directory.as_fd())?;
    let is_there = |found: &&(&CStr, FsType)| found.1 == there;
    if request.flags & libc::MS_REMOUNT != 0 {
        if OWNED.iter().any(|owned| is_there(&owned)) {
            inside(call, || change(call, &request))?;
            return Ok(Reply::Value(0));
        }
        // CONTINUE: of other file systems, the kernel knows what the options mean.
        return Ok(Reply::Continue);
    }
    let kind = call.path(2)?;
    let known = |owned: &&(&CStr, FsType)| owned.0 == kind.as_c_str();
    let Some(owned) = OWNED.iter().find(known) else {
        // CONTINUE: the same.
        return Ok(Reply::Continue);
    };
    if call.journal.noted() == Some(Step::Changing) && is_there(&owned) {
        // A worker mounted it, and was killed before it replied.
        return Ok(Reply::Value(0));
    }
    inside(call, || {
        let made = make(call, owned.0, &request)?;
        call.ensure_waiting()?;
        call.journal.note(Step::Changing);
        sys::attach_mount(made.as_fd(), request.directory.as_fd())
    })?;
    Ok(Reply::Value(0))
}

/// Reads the arguments; `None` for a call that is the kernel's.
fn request(call: &mut Call) -> Option<Request> {
    if call.register(3) & OTHER_BUSINESS != 0 {
        return None;
    }
    if call.path(2).is_ok_and(|kind| kind.as_c_str() == c"overlay") {
        call.container.expect_overlays();
        return None;
    }
    let data = call.path(4).ok()?;
    let (options, owner) = split(data.as_c_str().to_bytes(), |id| {
        call.container.is_mapped(id)
    })?;
    let flags = flags(call.register(3))?;
    if !is_made_by_workers(call).ok()? {
        return None;
    }
    let path = call.path(1).ok()?;
    let location = Location::new(Dirfd::Cwd, path.as_c_str(), AtFlags::empty());
    Some(Request {
        directory: call.resolve(&location).ok()?,
        flags,
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

/// MOUNT_ATTR_RDONLY
const READ_ONLY: u32 = 0x1;

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
        .fold(libc::MS_SILENT | libc::MS_REMOUNT, |known, (flag, _)| {
            known | flag
        });
    (flags & !known == 0).then_some(flags)
}

/// The flags of mount(2) and the attributes of fsmount(2) (linux/mount.h, MOUNT_ATTR_*) that
/// correspond.
const ATTRIBUTES: [(u64, u32); 8] = [
    (libc::MS_RDONLY, READ_ONLY),
    (libc::MS_NOSUID, 0x2),
    (libc::MS_NODEV, 0x4),
    (libc::MS_NOEXEC, 0x8),
    (libc::MS_NOATIME, 0x10),
    (libc::MS_STRICTATIME, 0x20),
    (libc::MS_NODIRATIME, 0x80),
    (libc::MS_RELATIME, 0),
];

/// Makes the file system, which is not attached anywhere yet. Runs inside.
fn make(call: &Call, kind: &CStr, request: &Request) -> Result<OwnedFd, Errno> {
    if file_type(fstat(&request.directory)?.st_mode) != SFlag::S_IFDIR {
        // fs/namespace.c, graft_tree.
        return Err(Errno::ENOTDIR);
    }
    let context = match kind == c"proc" {
        true => open_procfs(call, request)?,
        false => sys::fsopen(kind)?,
    };
    let context = context.as_fd();
    if let Ok(source) = call.path(0) {
        sys::fsconfig_set(context, c"source", Some(source.as_c_str()))?;
    }
    for (key, value) in &request.options {
        sys::fsconfig_set(context, key.as_c_str(), value.as_ref().map(Name::as_c_str))?;
    }
    sys::fsconfig_create(context)?;
    let attributes = ATTRIBUTES
        .iter()
        .filter(|(flag, _)| request.flags & flag != 0)
        .fold(0, |all, (_, attribute)| all | attribute);
    made_for(call, context, attributes, request.owner)
}

/// A context for a procfs of the target's pid namespace: that of its opener, so of a child. Runs
/// inside.
fn open_procfs(call: &Call, request: &Request) -> Result<OwnedFd, Errno> {
    let namespace = procfs::target(call.pid(), "ns/pid");
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let namespace = openat(PROCFS, &namespace, flags, Mode::empty())?;
    call.ensure_waiting()?;
    // Of the children of this thread, which ends soon.
    setns(&namespace, CloneFlags::CLONE_NEWPID)?;
    let child = sys::Child {
        file: namespace.as_fd(),
        user_namespace: None,
        directory: request.directory.as_fd(),
        effective: sys::capabilities(0)?.effective,
    };
    child.fsopen(c"proc")
}

/// Changes the options of the file system that is mounted there, and the flags of the mount. Runs
/// inside.
fn change(call: &Call, request: &Request) -> Result<(), Errno> {
    let mut data = Vec::new();
    for (key, value) in &request.options {
        data.extend_from_slice(key.as_c_str().to_bytes());
        if let Some(value) = value {
            data.push(b'=');
            data.extend_from_slice(value.as_c_str().to_bytes());
        }
        data.push(b',');
    }
    let directory = request.directory.as_fd();
    let path = procfs::own_fd(directory);
    let flags = MsFlags::from_bits_retain(request.flags);
    let data = Name::new(data);
    let none: Option<&CStr> = None;
    nix::mount::mount(none, path.as_c_str(), none, flags, Some(data.as_c_str()))?;
    // The root directory of a tmpfs keeps its owner.
    match magic(directory)? {
        DEVPTS_SUPER_MAGIC => give(call, directory, request.owner),
        _ => Ok(()),
    }
}

/// Makes a mount of a configured file system, with the owner that its options would give it, or its
/// new terminals. Runs inside.
pub(super) fn made_for(
    call: &Call,
    context: BorrowedFd,
    attributes: u32,
    owner: Owner,
) -> Result<OwnedFd, Errno> {
    // In a read-only root directory, no owner can be stored.
    let made = sys::fsmount(context, attributes & !READ_ONLY)?;
    give(call, made.as_fd(), owner)?;
    if attributes & READ_ONLY != 0 {
        sys::set_mounts_read_only(made.as_fd(), true)?;
    }
    Ok(made)
}

fn give(call: &Call, root: BorrowedFd, owner: Owner) -> Result<(), Errno> {
    let owners = &call.container.owners;
    match magic(root)? {
        TMPFS_MAGIC => owners.record(root, &fstat(root)?, owner),
        DEVPTS_SUPER_MAGIC => {
            let ptmx = fstatat(root, c"ptmx", AtFlags::AT_SYMLINK_NOFOLLOW)?;
            owners.set_owner_by_mount(&ptmx, owner)
        }
        // procfs: who else sees processes that are hidden. Here, nothing is hidden from anybody.
        _ => Ok(()),
    }
}

fn magic(directory: BorrowedFd) -> Result<FsType, Errno> {
    linux::file_system(directory)
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
        assert_eq!(flags(libc::MS_SYNCHRONOUS), None);
    }
}
