//! stat(2): stat, lstat, fstat, newfstatat; statx(2).
//!
//! Most files have no emulated owner: one getxattr(2) shows this, and the kernel answers the call.
//! Calls that cannot succeed (unknown flags, bad pointers, missing files) are left to the kernel,
//! too, and get its errno.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, readlink};
use nix::sys::stat::{FileStat, SFlag, fstatat};
use nix::sys::statfs::PROC_SUPER_MAGIC;
use nix::unistd::{AccessFlags, access};
use subuidless_fast::facts::{FOREIGN, ORDINARY};

use super::compat;
use crate::credentials::Id;
use crate::linux;
use crate::linux::name::Name;
use crate::linux::seccomp::Reply;
use crate::linux::sys;
use crate::owner::{Owner, Version, carries_xattrs, file_type};
use crate::target::{Abi, Call, Dirfd, Location, PROCFS, SYSFS_MAGIC};
use crate::wire::others::Others;

pub(super) fn stat(call: &mut Call) -> Result<Reply, Errno> {
    answer_path(
        call,
        Dirfd::Cwd,
        0,
        AtFlags::empty(),
        &Form::Stat { buffer: 1 },
    )
}

pub(super) fn lstat(call: &mut Call) -> Result<Reply, Errno> {
    let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
    answer_path(call, Dirfd::Cwd, 0, flags, &Form::Stat { buffer: 1 })
}

pub(super) fn fstat(call: &mut Call) -> Result<Reply, Errno> {
    answer_fd(call, &Form::Stat { buffer: 1 })
}

pub(super) fn newfstatat(call: &mut Call) -> Result<Reply, Errno> {
    let flags = AtFlags::from_bits_retain(call.int(3));
    answer_path(call, call.dirfd(0), 1, flags, &Form::Stat { buffer: 2 })
}

pub(super) fn stat64(call: &mut Call) -> Result<Reply, Errno> {
    let form = Form::Stat64 { buffer: 1 };
    answer_path(call, Dirfd::Cwd, 0, AtFlags::empty(), &form)
}

pub(super) fn lstat64(call: &mut Call) -> Result<Reply, Errno> {
    let form = Form::Stat64 { buffer: 1 };
    answer_path(call, Dirfd::Cwd, 0, AtFlags::AT_SYMLINK_NOFOLLOW, &form)
}

pub(super) fn fstat64(call: &mut Call) -> Result<Reply, Errno> {
    answer_fd(call, &Form::Stat64 { buffer: 1 })
}

pub(super) fn fstatat64(call: &mut Call) -> Result<Reply, Errno> {
    let flags = AtFlags::from_bits_retain(call.int(3));
    answer_path(call, call.dirfd(0), 1, flags, &Form::Stat64 { buffer: 2 })
}

pub(super) fn statx(call: &mut Call) -> Result<Reply, Errno> {
    let form = Form::Statx {
        flags: call.int(2),
        mask: call.unsigned(3),
        buffer: 4,
    };
    let flags = AtFlags::from_bits_retain(call.int(2));
    answer_path(call, call.dirfd(0), 1, flags, &form)
}

/// The flags that fs/stat.c, vfs_statx, knows. statx(2) itself refuses both bits of
/// AT_STATX_SYNC_TYPE together.
const KNOWN_FLAGS: AtFlags = AtFlags::from_bits_retain(
    libc::AT_SYMLINK_NOFOLLOW
        | libc::AT_EMPTY_PATH
        | libc::AT_NO_AUTOMOUNT
        | libc::AT_STATX_FORCE_SYNC
        | libc::AT_STATX_DONT_SYNC,
);

/// The structure that the call fills in; `buffer` is an argument number.
#[derive(Debug)]
enum Form {
    Stat {
        buffer: usize,
    },
    /// `struct stat64` of 32-bit programs.
    Stat64 {
        buffer: usize,
    },
    Statx {
        flags: i32,
        mask: u32,
        buffer: usize,
    },
}

/// A structure that the kernel has filled in for the worker.
enum Filled {
    Stat(FileStat),
    Statx(Box<libc::statx>),
}

impl Form {
    /// Calls stat(2) or statx(2).
    fn fill(&self, dirfd: BorrowedFd, path: &CStr, flags: AtFlags) -> Result<Filled, Errno> {
        match self {
            Self::Stat { .. } | Self::Stat64 { .. } => {
                fstatat(dirfd, path, flags).map(Filled::Stat)
            }
            Self::Statx {
                flags: asked, mask, ..
            } => {
                // Flags such as AT_STATX_FORCE_SYNC are the target's, those of the lookup are this
                // worker's.
                let lookup = AtFlags::AT_SYMLINK_NOFOLLOW | AtFlags::AT_EMPTY_PATH;
                let flags = asked & !lookup.bits() | flags.bits();
                sys::statx(dirfd, path, flags, *mask).map(|statx| Filled::Statx(Box::new(statx)))
            }
        }
    }

    /// Whether the kernel takes a null path with these arguments for an empty one.
    fn takes_null_path(&self, dirfd: Dirfd, flags: AtFlags) -> bool {
        let ask = |dirfd: BorrowedFd| match self {
            Self::Statx { flags, .. } => sys::takes_null_path(dirfd, *flags, true),
            _ => sys::takes_null_path(dirfd, flags.bits(), false),
        };
        match dirfd {
            Dirfd::Cwd => ask(AT_FDCWD),
            Dirfd::Fd(_) => File::open("/").is_ok_and(|root| ask(root.as_fd())),
        }
    }

    /// Puts `owner` into the structure, and writes it to the target.
    fn write(&self, call: &Call, filled: &mut Filled, owner: Owner) -> Result<Reply, Errno> {
        filled.show(call.container.shown(owner));
        let (Self::Stat { buffer } | Self::Stat64 { buffer } | Self::Statx { buffer, .. }) = self;
        let packed;
        let bytes = match (&*filled, self) {
            (Filled::Stat(stat), Self::Stat64 { .. }) => {
                packed = compat::stat64(stat);
                &packed
            }
            (Filled::Stat(stat), _) if call.abi != Abi::Native => {
                packed = compat::stat(stat)?;
                &packed
            }
            (Filled::Stat(stat), _) => sys::stat_bytes(stat),
            (Filled::Statx(statx), _) => sys::statx_bytes(statx),
        };
        call.write(*buffer, bytes)?;
        Ok(Reply::Value(0))
    }
}

/// Whether a file of this mode may be the placeholder of a device.
fn is_socket(mode: u32) -> bool {
    file_type(mode) == SFlag::S_IFSOCK
}

impl Filled {
    /// Replaces the real owner by the emulated one, and a placeholder by its device.
    fn show(&mut self, owner: Owner) {
        let uid = owner.uid.map(|uid| uid.as_raw());
        let gid = owner.gid.map(|gid| gid.as_raw());
        match self {
            Self::Stat(stat) => {
                if let Some(device) = owner.device.filter(|_| is_socket(stat.st_mode)) {
                    stat.st_mode = stat.st_mode & !libc::S_IFMT | device.kind.bits();
                    stat.st_rdev = device.number.into();
                }
                stat.st_uid = uid.unwrap_or(stat.st_uid);
                stat.st_gid = gid.unwrap_or(stat.st_gid);
            }
            Self::Statx(statx) => {
                if let Some(device) = owner.device.filter(|_| is_socket(statx.stx_mode.into())) {
                    let mode = u32::from(statx.stx_mode) & !libc::S_IFMT | device.kind.bits();
                    // S_IFMT and the permissions are 16 bits.
                    statx.stx_mode = u16::try_from(mode).unwrap_or(statx.stx_mode);
                    statx.stx_rdev_major = libc::major(device.number.into());
                    statx.stx_rdev_minor = libc::minor(device.number.into());
                }
                statx.stx_uid = uid.unwrap_or(statx.stx_uid);
                statx.stx_gid = gid.unwrap_or(statx.stx_gid);
            }
        }
    }

    fn file_type(&self) -> SFlag {
        match self {
            Self::Stat(stat) => file_type(stat.st_mode),
            Self::Statx(statx) => file_type(statx.stx_mode.into()),
        }
    }

    fn ids(&self) -> [u32; 2] {
        match self {
            Self::Stat(stat) => [stat.st_uid, stat.st_gid],
            Self::Statx(statx) => [statx.stx_uid, statx.stx_gid],
        }
    }

    fn version(&self) -> Option<Version> {
        match self {
            Self::Stat(stat) => Some(Version::of(stat)),
            Self::Statx(statx) => Version::of_statx(statx),
        }
    }
}

/// Answers a call whose first argument is the file descriptor.
fn answer_fd(call: &mut Call, form: &Form) -> Result<Reply, Errno> {
    let location = Location::new(Dirfd::from_fd(call.int(0)), c"", AtFlags::AT_EMPTY_PATH);
    answer(call, &location, form)
}

/// Answers a call with a path; `path` is an argument number.
fn answer_path(
    call: &mut Call,
    dirfd: Dirfd,
    path: usize,
    flags: AtFlags,
    form: &Form,
) -> Result<Reply, Errno> {
    let is_null = call.register(path) == 0 && flags.contains(AtFlags::AT_EMPTY_PATH);
    let path = match call.path(path) {
        Ok(path) => path,
        Err(Errno::EFAULT) if is_null && form.takes_null_path(dirfd, flags) => Name::default(),
        // CONTINUE: the kernel finds the same fault.
        Err(_) => return Ok(Reply::Continue),
    };
    let is_fd = path.as_c_str().is_empty();
    if !may_succeed(dirfd, is_fd, flags) {
        // CONTINUE: ENOENT, EBADF or EINVAL.
        return Ok(Reply::Continue);
    }
    let location = Location::new(dirfd, path.as_c_str(), flags);
    answer(call, &location, form)
}

/// Whether the kernel accepts the arguments.
fn may_succeed(dirfd: Dirfd, is_fd: bool, flags: AtFlags) -> bool {
    match dirfd {
        Dirfd::Fd(fd) if is_fd => {
            fd >= 0
                && flags.contains(AtFlags::AT_EMPTY_PATH)
                && (KNOWN_FLAGS.contains(flags) || ignores_unknown_flags())
        }
        Dirfd::Cwd if is_fd => {
            flags.contains(AtFlags::AT_EMPTY_PATH) && KNOWN_FLAGS.contains(flags)
        }
        _ => KNOWN_FLAGS.contains(flags),
    }
}

/// Whether fstatat(2) ignores unknown flags if there are an empty path and a descriptor, as newer
/// kernels do (fs/stat.c, vfs_fstatat).
fn ignores_unknown_flags() -> bool {
    static IGNORES: OnceLock<bool> = OnceLock::new();
    *IGNORES.get_or_init(|| {
        let flags = AtFlags::AT_EMPTY_PATH | AtFlags::from_bits_retain(1 << 30);
        File::open("/").is_ok_and(|root| fstatat(&root, c"", flags).is_ok())
    })
}

/// Answers a call. The result for the last file decides which way is tried first: in a tree with
/// emulated owners, the next file probably has one, too.
fn answer(call: &mut Call, location: &Location, form: &Form) -> Result<Reply, Errno> {
    let Some(reached) = call.name(location).filter(|_| call.register(5) != FOREIGN) else {
        return answer_resolved(call, location, form);
    };
    let name = reached.as_c_str();
    if call.thread.expects_owner {
        if !call.thread.expects_remembered {
            return answer_resolved(call, location, form);
        }
        if let Some(reply) = answer_remembered(call, name, location.follow, form) {
            return reply;
        }
    }
    // The attribute found by name only decides who answers: at the next lookup, the name may be
    // another file's.
    match call.read_owner(&reached, location.follow) {
        Ok(Some(_)) => answer_resolved(call, location, form),
        Ok(None) if may_be_in_side_store(call, name, location.follow) => {
            answer_resolved(call, location, form)
        }
        Err(Errno::ENOENT) if may_exist_for_target(name, location) => {
            answer_resolved(call, location, form)
        }
        Err(Errno::EOPNOTSUPP)
            if may_be_elsewhere(call) || is_foreign(call, name, location.follow) =>
        {
            answer_resolved(call, location, form)
        }
        // sysfs, and links of procfs. Among other files this would be a system call for nothing,
        // unless those of others do not show what the kernel does.
        Ok(None)
            if (may_be_of_kernel(location) || call.container.service.others == Others::Root)
                && is_foreign(call, name, location.follow) =>
        {
            answer_resolved(call, location, form)
        }
        // The magic link in front of a relative path counts as one of the forty links that the
        // kernel follows.
        Err(Errno::ELOOP) => answer_resolved(call, location, form),
        // CONTINUE: no emulated owner, or no such file: the kernel's answer is right.
        Ok(None) | Err(_) => {
            call.thread.expects_owner = false;
            Ok(Reply::Continue)
        }
    }
}

/// Answers by one stat(2), if the cache has the owner of this version (device, inode, ctime).
/// Returns `None` otherwise.
fn answer_remembered(
    call: &mut Call,
    name: &CStr,
    follow: bool,
    form: &Form,
) -> Option<Result<Reply, Errno>> {
    let mut filled = form.fill(PROCFS, name, lookup_flags(follow)).ok()?;
    match call.thread.owners.get(filled.version()?) {
        Some(owner) => Some(form.write(call, &mut filled, owner)),
        None => {
            call.thread.expects_remembered = false;
            None
        }
    }
}

fn lookup_flags(follow: bool) -> AtFlags {
    if follow {
        AtFlags::empty()
    } else {
        AtFlags::AT_SYMLINK_NOFOLLOW
    }
}

/// Whether a file on a file system without user attributes may have an owner: in the side store, a
/// terminal's, or that of a process (procfs).
fn may_be_elsewhere(call: &Call) -> bool {
    call.container.owners.is_any_elsewhere() || call.container.identities.anyone_changed()
}

/// Whether the file belongs to another host user: it may be one that the kernel has made, or show
/// root.
fn is_foreign(call: &Call, name: &CStr, follow: bool) -> bool {
    let container = call.container;
    fstatat(PROCFS, name, lookup_flags(follow)).is_ok_and(|stat| {
        !container.is_mapped(stat.st_uid) || container.shows_another([stat.st_uid, stat.st_gid])
    })
}

/// Whether this may be a file in procfs or sysfs, by its path.
fn may_be_of_kernel(location: &Location) -> bool {
    let path = location.path.to_bytes();
    path.starts_with(b"/proc/") || path.starts_with(b"/sys")
}

/// Whether the file, which lacks the attribute, may have an owner in the side store.
fn may_be_in_side_store(call: &Call, name: &CStr, follow: bool) -> bool {
    call.container.owners.is_any_elsewhere()
        && fstatat(PROCFS, name, lookup_flags(follow)).is_ok_and(|stat| {
            call.container
                .owners
                .may_be_elsewhere(file_type(stat.st_mode))
        })
}

/// Opens the file if it cannot carry attributes, so that the side store may have an entry for it.
pub(super) fn resolve_in_side_store(
    call: &Call,
    location: &Location,
) -> Option<(OwnedFd, FileStat)> {
    if !call.container.owners.side_store_is_used() {
        return None;
    }
    if let Some(reached) = call.name(location)
        && !may_be_in_side_store(call, reached.as_c_str(), location.follow)
    {
        return None;
    }
    let file = call.resolve(location).ok()?;
    let stat = fstatat(&file, c"", AtFlags::AT_EMPTY_PATH).ok()?;
    (!carries_xattrs(file_type(stat.st_mode))).then_some((file, stat))
}

/// Whether a path that does not exist for the worker may exist for the target, because it leads
/// through `/proc/self`: it ends with a link (/dev/stdout), or its directory does not exist for the
/// worker, either.
fn may_exist_for_target(name: &CStr, location: &Location) -> bool {
    if location.follow && readlink(name).is_ok() {
        return true;
    }
    let path = location.path.to_bytes();
    let Some(end) = path
        .iter()
        .rposition(|byte| *byte == b'/')
        .filter(|end| *end > 0)
    else {
        return false;
    };
    // The same place in `name`, which may have a magic link in front of the path.
    let end = name.count_bytes() - (path.len() - end);
    let directory = Name::new(name.to_bytes()[..end].to_vec());
    access(&directory, AccessFlags::F_OK) == Err(Errno::ENOENT)
}

/// Opens the file first, so that the owner and all else are those of one inode.
fn answer_resolved(call: &mut Call, location: &Location, form: &Form) -> Result<Reply, Errno> {
    match call.resolve(location) {
        Ok(file) => answer_file(call, file.as_fd(), form),
        // CONTINUE: the kernel fails with the right errno.
        Err(_) => Ok(Reply::Continue),
    }
}

/// Whether the file system is neither procfs nor sysfs.
fn is_ordinary(file: BorrowedFd) -> Result<bool, Errno> {
    Ok(![PROC_SUPER_MAGIC, SYSFS_MAGIC].contains(&linux::file_system(file)?))
}

/// Answers with the state of an open file.
fn answer_file(call: &mut Call, file: BorrowedFd, form: &Form) -> Result<Reply, Errno> {
    let mut filled = form.fill(file, c"", AtFlags::AT_EMPTY_PATH)?;
    // The owner is read after the version. In the other order, a change in between would put the
    // old owner into the cache for the new version.
    let owner = match call.container.owners.load(file, filled.file_type())? {
        None => call.kernel_owner(file, filled.ids()[0])?,
        owner => owner,
    };
    let Some(owner) = owner else {
        if call.register(5) == FOREIGN && is_ordinary(file)? {
            form.write(call, &mut filled, Owner::default())?;
            return Ok(Reply::Value(ORDINARY));
        }
        if call.container.shows_another(filled.ids()) {
            return form.write(call, &mut filled, Owner::default());
        }
        // CONTINUE: no emulated owner.
        call.thread.expects_owner = false;
        return Ok(Reply::Continue);
    };
    call.thread.expects_owner = true;
    if let Some(version) = filled
        .version()
        .filter(|_| carries_xattrs(filled.file_type()))
    {
        let cache = &mut call.thread.owners;
        call.thread.expects_remembered = cache.get(version).is_some();
        cache.insert(version, owner, || linux::file_system(file));
    }
    form.write(call, &mut filled, owner)
}
