//! Calls that change the entries of directories, and create no inode: unlink(2), rmdir(2),
//! rename(2), link(2).
//!
//! The kernel does them. To the kernel, every target may, so this checks the directories, the
//! sticky bit and protected hard links as fs/namei.c does.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use super::new_file::{directory_of, split};
use super::permission::is_read_only;
use crate::credentials::{Access, FileMode, Subject};
use crate::linux::name::Name;
use crate::linux::seccomp::Reply;
use crate::linux::sys;
use crate::owner::file_type;
use crate::target::{Call, Dirfd, Location, protection};

/// A name in an open directory.
struct Entry {
    directory: OwnedFd,
    stat: FileStat,
    name: Name,
    /// The path ends with a slash.
    slash: bool,
}

/// The file that an entry names, a link itself.
struct Present {
    file: OwnedFd,
    stat: FileStat,
}

impl Present {
    fn is_directory(&self) -> bool {
        file_type(self.stat.st_mode) == SFlag::S_IFDIR
    }

    fn is(&self, other: &Self) -> bool {
        identity(&self.stat) == identity(&other.stat)
    }
}

fn identity(stat: &FileStat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

impl Entry {
    /// The entry for a path argument. Returns `None` if the kernel finds a fault in the path.
    fn find(call: &Call, dirfd: Dirfd, path: usize) -> Option<Self> {
        let path = call.path(path).ok()?;
        let (prefix, name, slash) = split(path.as_c_str())?;
        let directory = call.resolve(&directory_of(dirfd, &prefix)).ok()?;
        Some(Self {
            stat: fstat(&directory).ok()?,
            directory,
            name,
            slash,
        })
    }

    fn present(&self) -> Option<Present> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&self.directory, &self.name, flags, Mode::empty()).ok()?;
        let stat = fstat(&file).ok()?;
        Some(Present { file, stat })
    }

    fn shown(&self, call: &Call) -> Result<FileMode, Errno> {
        call.shown_mode(self.directory.as_fd(), &self.stat)
    }

    /// fs/namei.c, may_create: EACCES.
    fn may_create(&self, call: &Call, subject: &Subject) -> Result<(), Errno> {
        let directory = self.directory.as_fd();
        if call.may(subject, Access::ENTER_TO_CREATE, directory, &self.stat)?
            // There the kernel refuses it to everyone, for other reasons.
            || fstatfs(directory)?.filesystem_type() == PROC_SUPER_MAGIC
        {
            Ok(())
        } else {
            Err(Errno::EACCES)
        }
    }

    /// fs/namei.c, may_delete: EACCES, or EPERM because of the sticky bit.
    fn may_delete(&self, call: &Call, subject: &Subject, victim: &Present) -> Result<(), Errno> {
        self.may_create(call, subject)?;
        let file = call.shown_mode(victim.file.as_fd(), &victim.stat)?;
        match subject.is_kept_by_sticky(self.shown(call)?, file) {
            true => Err(Errno::EPERM),
            false => Ok(()),
        }
    }

    /// Whether this directory lies below `above`, or is it.
    fn is_below(&self, above: &Present) -> bool {
        /// PATH_MAX / 2.
        const DEEPEST: usize = 2048;
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let mut here = self.stat;
        let mut directory = self.directory.try_clone().ok();
        for _ in 0..DEEPEST {
            if identity(&here) == identity(&above.stat) {
                return true;
            }
            let up = directory.and_then(|it| openat(&it, c"..", flags, Mode::empty()).ok());
            match up.as_ref().map(fstat) {
                Some(Ok(stat)) if identity(&stat) != identity(&here) => here = stat,
                _ => return false,
            }
            directory = up;
        }
        false
    }

    /// The mount; `None` if it is unknown.
    fn mount(&self) -> Option<u64> {
        const STATX_MNT_ID: u32 = 0x1000;
        let found = sys::statx(
            self.directory.as_fd(),
            c"",
            libc::AT_EMPTY_PATH,
            STATX_MNT_ID,
        );
        found.ok().map(|found| found.stx_mnt_id)
    }
}

// ---- unlink(2), rmdir(2)

pub(super) fn unlink(call: &mut Call) -> Result<Reply, Errno> {
    remove(call, Dirfd::Cwd, 0, false)
}

pub(super) fn rmdir(call: &mut Call) -> Result<Reply, Errno> {
    remove(call, Dirfd::Cwd, 0, true)
}

pub(super) fn unlinkat(call: &mut Call) -> Result<Reply, Errno> {
    let of_directory = call.int(2) & libc::AT_REMOVEDIR != 0;
    remove(call, call.dirfd(0), 1, of_directory)
}

fn remove(call: &Call, dirfd: Dirfd, path: usize, of_directory: bool) -> Result<Reply, Errno> {
    let Some(subject) = call.restricted()? else {
        // CONTINUE: neither owners nor modes restrict the target.
        return Ok(Reply::Continue);
    };
    if let Some(entry) = Entry::find(call, dirfd, path)
        && let Some(victim) = entry.present()
        // Only rmdir(2) accepts a slash at the end.
        && (of_directory || !entry.slash)
        && !is_read_only(entry.directory.as_fd())
    {
        entry.may_delete(call, &subject, &victim)?;
    }
    // CONTINUE: the target may, or the kernel fails with the right errno.
    Ok(Reply::Continue)
}

// ---- rename(2)

pub(super) fn rename(call: &mut Call) -> Result<Reply, Errno> {
    move_entry(call, (Dirfd::Cwd, 0), (Dirfd::Cwd, 1), 0)
}

pub(super) fn renameat(call: &mut Call) -> Result<Reply, Errno> {
    move_entry(call, (call.dirfd(0), 1), (call.dirfd(2), 3), 0)
}

pub(super) fn renameat2(call: &mut Call) -> Result<Reply, Errno> {
    let flags = call.unsigned(4);
    move_entry(call, (call.dirfd(0), 1), (call.dirfd(2), 3), flags)
}

/// Handles a rename(2): fs/namei.c, do_renameat2 and vfs_rename.
fn move_entry(
    call: &Call,
    from: (Dirfd, usize),
    to: (Dirfd, usize),
    flags: u32,
) -> Result<Reply, Errno> {
    let Some(subject) = call.restricted()? else {
        // CONTINUE: neither owners nor modes restrict the target.
        return Ok(Reply::Continue);
    };
    let known = libc::RENAME_NOREPLACE | libc::RENAME_EXCHANGE | libc::RENAME_WHITEOUT;
    let both = Entry::find(call, from.0, from.1).zip(Entry::find(call, to.0, to.1));
    if let Some((from, to)) = both
        && flags & !known == 0
        && let Some(source) = from.present()
        && reaches_permissions(&from, &to, &source, flags)
    {
        may_move(call, &subject, (&from, &source), &to, flags)?;
    }
    // CONTINUE: the target may, or the kernel fails with the right errno.
    Ok(Reply::Continue)
}

/// Whether do_renameat2 finds no fault before it checks permissions.
fn reaches_permissions(from: &Entry, to: &Entry, source: &Present, flags: u32) -> bool {
    let exchanges = flags & libc::RENAME_EXCHANGE != 0;
    let target = to.present();
    let is_fault_of_flags = match &target {
        Some(_) => flags & libc::RENAME_NOREPLACE != 0,
        None => exchanges,
    };
    // Only directories may have a slash behind them.
    let is_fault_of_slash = |slash: bool| slash && !source.is_directory();
    let target_is_file = target.as_ref().is_some_and(|target| !target.is_directory());
    let slashes = match exchanges {
        true => is_fault_of_slash(from.slash) || to.slash && target_is_file,
        false => is_fault_of_slash(from.slash || to.slash),
    };
    let is_same = target.as_ref().is_some_and(|target| target.is(source));
    // EINVAL, ENOTEMPTY
    let is_below = source.is_directory() && to.is_below(source)
        || target.is_some_and(|target| target.is_directory() && from.is_below(&target));
    let is_elsewhere = from.mount() != to.mount() || is_read_only(from.directory.as_fd());
    !is_elsewhere && !is_fault_of_flags && !slashes && !is_same && !is_below
}

fn may_move(
    call: &Call,
    subject: &Subject,
    (from, source): (&Entry, &Present),
    to: &Entry,
    flags: u32,
) -> Result<(), Errno> {
    let may_write = |directory: &Present| {
        // A directory that moves gets another `..`.
        let file = directory.file.as_fd();
        match call.may(subject, Access::WRITE, file, &directory.stat)? {
            true => Ok(()),
            false => Err(Errno::EACCES),
        }
    };
    let target = to.present();
    from.may_delete(call, subject, source)?;
    match &target {
        None => to.may_create(call, subject)?,
        Some(target) => to.may_delete(call, subject, target)?,
    }
    if identity(&from.stat) == identity(&to.stat) {
        return Ok(());
    }
    let exchanges = flags & libc::RENAME_EXCHANGE != 0;
    if let Some(target) = &target
        && !exchanges
        && target.is_directory() != source.is_directory()
    {
        // ENOTDIR, EISDIR
        return Ok(());
    }
    if source.is_directory() {
        may_write(source)?;
    }
    match target {
        Some(target) if exchanges && target.is_directory() => may_write(&target),
        _ => Ok(()),
    }
}

// ---- link(2)

pub(super) fn link(call: &mut Call) -> Result<Reply, Errno> {
    add_link(call, (Dirfd::Cwd, 0), (Dirfd::Cwd, 1), 0)
}

pub(super) fn linkat(call: &mut Call) -> Result<Reply, Errno> {
    let flags = call.int(4);
    add_link(call, (call.dirfd(0), 1), (call.dirfd(2), 3), flags)
}

/// Handles a link(2): fs/namei.c, do_linkat.
fn add_link(
    call: &Call,
    old: (Dirfd, usize),
    new: (Dirfd, usize),
    flags: i32,
) -> Result<Reply, Errno> {
    let Some(subject) = call.restricted()? else {
        // CONTINUE: neither owners nor modes restrict the target.
        return Ok(Reply::Continue);
    };
    let follow = match flags & libc::AT_SYMLINK_FOLLOW {
        0 => AtFlags::AT_SYMLINK_NOFOLLOW,
        _ => AtFlags::empty(),
    };
    let empty = AtFlags::from_bits_retain(flags & libc::AT_EMPTY_PATH);
    if let Ok(path) = call.path(old.1)
        && let Ok(file) = call.resolve(&Location::new(old.0, path.as_c_str(), follow | empty))
        && let Some(entry) = Entry::find(call, new.0, new.1)
        && entry.present().is_none()
        && !entry.slash
        && !is_read_only(entry.directory.as_fd())
    {
        let stat = fstat(&file)?;
        let old = Entry {
            directory: file,
            stat,
            name: Name::default(),
            slash: false,
        };
        if old.mount() == entry.mount() {
            may_link(call, &subject, &old)?;
            entry.may_create(call, &subject)?;
        }
    }
    // CONTINUE: the target may, or the kernel fails with the right errno.
    Ok(Reply::Continue)
}

/// fs/namei.c, may_linkat: EPERM.
fn may_link(call: &Call, subject: &Subject, old: &Entry) -> Result<(), Errno> {
    let (file, mode) = (old.directory.as_fd(), old.stat.st_mode);
    let set_group_id = libc::S_ISGID | libc::S_IXGRP;
    let is_safe = || {
        Ok(file_type(mode) == SFlag::S_IFREG
            && mode & libc::S_ISUID == 0
            && mode & set_group_id != set_group_id
            && call.may(subject, Access::READ_WRITE, file, &old.stat)?)
    };
    if subject.owns(old.shown(call)?) || is_safe()? || protection("hardlinks")? == 0 {
        Ok(())
    } else {
        Err(Errno::EPERM)
    }
}
