//! stat(2): stat, lstat, fstat, newfstatat; statx(2).
//!
//! Most files have no fake owner: then one getxattr(2) finds that out, and the kernel answers the call itself. That is
//! also how everything odd is answered: unknown flags, bad pointers and paths that lead nowhere get the kernel's own errno.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, readlink};
use nix::sys::stat::{FileStat, fstat as host_fstat, fstatat};
use nix::sys::statfs::fstatfs;
use nix::unistd::{AccessFlags, access};

use crate::owner::{Owner, Version, carries_xattrs};
use crate::seccomp::Reply;
use crate::sys;
use crate::target::{Call, Dirfd, Location, PROCFS};

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
    answer_fd(call, call.int(0), &Form::Stat { buffer: 1 })
}

pub(super) fn newfstatat(call: &mut Call) -> Result<Reply, Errno> {
    let flags = AtFlags::from_bits_retain(call.int(3));
    answer_path(call, call.dirfd(0), 1, flags, &Form::Stat { buffer: 2 })
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

/// fs/stat.c, vfs_statx; both bits of AT_STATX_SYNC_TYPE together are statx(2)'s own error.
const KNOWN_FLAGS: AtFlags = AtFlags::from_bits_retain(
    libc::AT_SYMLINK_NOFOLLOW
        | libc::AT_EMPTY_PATH
        | libc::AT_NO_AUTOMOUNT
        | libc::AT_STATX_FORCE_SYNC
        | libc::AT_STATX_DONT_SYNC,
);

/// The structure that the target wants; `buffer` is an argument number.
#[derive(Debug)]
enum Form {
    Stat {
        buffer: usize,
    },
    Statx {
        flags: i32,
        mask: u32,
        buffer: usize,
    },
}

/// A filled-in structure, still with the real owner.
enum Filled {
    Stat(FileStat),
    Statx(Box<libc::statx>),
}

impl Form {
    fn fill(&self, dirfd: BorrowedFd, path: &CStr, flags: AtFlags) -> Result<Filled, Errno> {
        match self {
            Self::Stat { .. } => fstatat(dirfd, path, flags).map(Filled::Stat),
            Self::Statx {
                flags: asked, mask, ..
            } => {
                // AT_STATX_FORCE_SYNC and its like are the target's wish, the look-up flags are ours.
                let lookup = AtFlags::AT_SYMLINK_NOFOLLOW | AtFlags::AT_EMPTY_PATH;
                let flags = asked & !lookup.bits() | flags.bits();
                sys::statx(dirfd, path, flags, *mask).map(|statx| Filled::Statx(Box::new(statx)))
            }
        }
    }

    fn write(&self, call: &Call, filled: &mut Filled, owner: Owner) -> Result<Reply, Errno> {
        let (uid, gid) = (
            owner.uid.map(|uid| uid.as_raw()),
            owner.gid.map(|gid| gid.as_raw()),
        );
        let bytes = match filled {
            Filled::Stat(stat) => {
                stat.st_uid = uid.unwrap_or(stat.st_uid);
                stat.st_gid = gid.unwrap_or(stat.st_gid);
                sys::stat_bytes(stat)
            }
            Filled::Statx(statx) => {
                statx.stx_uid = uid.unwrap_or(statx.stx_uid);
                statx.stx_gid = gid.unwrap_or(statx.stx_gid);
                sys::statx_bytes(statx)
            }
        };
        let (Self::Stat { buffer } | Self::Statx { buffer, .. }) = self;
        call.write(*buffer, bytes)?;
        Ok(Reply::Value(0))
    }
}

impl Filled {
    fn version(&self) -> Option<Version> {
        match self {
            Self::Stat(stat) => Some(Version::of(stat)),
            Self::Statx(statx) => Version::of_statx(statx),
        }
    }
}

/// `path` is an argument number.
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
        Err(Errno::EFAULT) if is_null && sys::null_path_is_empty() => CString::default(),
        // CONTINUE: the kernel finds the same fault.
        Err(_) => return Ok(Reply::Continue),
    };
    let location = Location {
        dirfd,
        path: &path,
        follow: !flags.contains(AtFlags::AT_SYMLINK_NOFOLLOW),
        empty_path: flags.contains(AtFlags::AT_EMPTY_PATH),
    };
    if location.is_empty() {
        return match dirfd {
            // Unknown flags are no error here: fs/stat.c, vfs_fstatat.
            Dirfd::Fd(fd) if location.empty_path => answer_fd(call, fd, form),
            Dirfd::Cwd if location.empty_path && KNOWN_FLAGS.contains(flags) => {
                answer_resolved(call, &location, form)
            }
            // CONTINUE: ENOENT or EINVAL.
            _ => Ok(Reply::Continue),
        };
    }
    if !KNOWN_FLAGS.contains(flags) {
        // CONTINUE: EINVAL.
        return Ok(Reply::Continue);
    }
    let Some(name) = call.name(&location) else {
        return answer_resolved(call, &location, form);
    };
    if call.thread.expects_owner
        && let Some(reply) = answer_remembered(call, &name, flags, form)
    {
        return reply;
    }
    match call.container.owners.glance(&name, location.follow) {
        Ok(Some(_)) => answer_resolved(call, &location, form),
        Ok(None) if may_be_in_side_store(call, &name, flags) => {
            answer_resolved(call, &location, form)
        }
        Err(Errno::ENOENT) if may_exist_for_target(&name, &location) => {
            answer_resolved(call, &location, form)
        }
        // The magic link in front of a relative path counts as one of the forty.
        Err(Errno::ELOOP) => answer_resolved(call, &location, form),
        // CONTINUE: no fake owner, or nothing there: the kernel's own answer is the right one.
        Ok(None) | Err(_) => {
            call.thread.expects_owner = false;
            Ok(Reply::Continue)
        }
    }
}

/// One stat that says which version of which inode it is: if its owner is known, that is the whole answer.
fn answer_remembered(
    call: &Call,
    name: &CStr,
    flags: AtFlags,
    form: &Form,
) -> Option<Result<Reply, Errno>> {
    let flags = flags & AtFlags::AT_SYMLINK_NOFOLLOW;
    let mut filled = form.fill(PROCFS, name, flags).ok()?;
    let owner = call.thread.owners.get(filled.version()?)?;
    Some(form.write(call, &mut filled, owner))
}

/// An inode without the attribute may still have an owner in the side store, unless it is one that carries attributes.
fn may_be_in_side_store(call: &Call, name: &CStr, flags: AtFlags) -> bool {
    call.container.owners.side_store_is_used()
        && fstatat(PROCFS, name, flags & AtFlags::AT_SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| !carries_xattrs(&stat))
}

/// A path that does not exist for us may lead through `/proc/self`: if it ends in a link, as /dev/stdout does, or if its
/// directory does not exist for us either.
fn may_exist_for_target(name: &CStr, location: &Location) -> bool {
    if location.follow && readlink(name).is_ok() {
        return true;
    }
    let path = location.path.to_bytes();
    let Some(end) = path.iter().rposition(|byte| *byte == b'/').filter(|end| *end > 0) else {
        return false;
    };
    let end = name.count_bytes() - (path.len() - end);
    CString::new(&name.to_bytes()[..end])
        .is_ok_and(|directory| access(directory.as_c_str(), AccessFlags::F_OK) == Err(Errno::ENOENT))
}

/// Opens the file, so that owner and everything else are those of one inode.
fn answer_resolved(call: &mut Call, location: &Location, form: &Form) -> Result<Reply, Errno> {
    match call.resolve(location) {
        Ok(file) => answer_file(call, file.as_fd(), form),
        // CONTINUE: the kernel says why.
        Err(_) => Ok(Reply::Continue),
    }
}

fn answer_fd(call: &mut Call, fd: i32, form: &Form) -> Result<Reply, Errno> {
    match call.duplicate(fd) {
        Ok(file) => answer_file(call, file.as_fd(), form),
        // CONTINUE: EBADF.
        Err(_) => Ok(Reply::Continue),
    }
}

fn answer_file(call: &mut Call, file: BorrowedFd, form: &Form) -> Result<Reply, Errno> {
    let owners = &call.container.owners;
    let before = host_fstat(file)?;
    let Some(owner) = owners.load(file, &before)? else {
        // CONTINUE: no fake owner.
        call.thread.expects_owner = false;
        return Ok(Reply::Continue);
    };
    call.thread.expects_owner = true;
    if carries_xattrs(&before) {
        let file_system = || Ok(fstatfs(file)?.filesystem_type());
        call.thread
            .owners
            .insert(Version::of(&before), owner, file_system);
    }
    let mut filled = form.fill(file, c"", AtFlags::AT_EMPTY_PATH)?;
    form.write(call, &mut filled, owner)
}
