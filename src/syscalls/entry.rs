//! Calls that change the entries of directories, and create no inode: unlink(2), rmdir(2),
//! rename(2), link(2).
//!
//! The kernel does them. To the kernel, every target may, so this checks the directories, the
//! sticky bit and protected hard links as fs/namei.c does.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::sys::statfs::PROC_SUPER_MAGIC;

use super::new_file::{directory_of, split};
use super::permission::is_read_only;
use crate::credentials::{Access, FileMode, Subject};
use crate::linux;
use crate::linux::name::Name;
use crate::linux::seccomp::Reply;
use crate::linux::sys;
use crate::owner::file_type;
use crate::target::{Call, Dirfd, Location, protection};

/// An open file or directory.
struct Opened {
    file: OwnedFd,
    stat: FileStat,
}

impl Opened {
    fn new(file: OwnedFd) -> Result<Self, Errno> {
        Ok(Self {
            stat: fstat(&file)?,
            file,
        })
    }

    fn is_directory(&self) -> bool {
        file_type(self.stat.st_mode) == SFlag::S_IFDIR
    }

    fn is(&self, other: &Self) -> bool {
        (self.stat.st_dev, self.stat.st_ino) == (other.stat.st_dev, other.stat.st_ino)
    }

    fn shown(&self, call: &Call) -> Result<FileMode, Errno> {
        call.shown_mode(self.file.as_fd(), &self.stat)
    }

    fn may(&self, call: &Call, subject: &Subject, access: Access) -> Result<bool, Errno> {
        call.may(subject, access, self.file.as_fd(), &self.stat)
    }

    /// The mount; `None` if it is unknown.
    fn mount(&self) -> Option<u64> {
        const STATX_MNT_ID: u32 = 0x1000;
        let found = sys::statx(self.file.as_fd(), c"", libc::AT_EMPTY_PATH, STATX_MNT_ID);
        found.ok().map(|found| found.stx_mnt_id)
    }

    fn is_read_only(&self) -> bool {
        is_read_only(self.file.as_fd())
    }

    /// Whether this directory lies below `above`, or is it.
    fn is_below(&self, above: &Self) -> bool {
        /// PATH_MAX / 2.
        const DEEPEST: usize = 2048;
        let up = |from: &OwnedFd| {
            let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
            Self::new(openat(from, c"..", flags, Mode::empty())?)
        };
        if self.is(above) {
            return true;
        }
        let mut here = up(&self.file);
        for _ in 0..DEEPEST {
            let Ok(directory) = here else {
                return false;
            };
            if directory.is(above) {
                return true;
            }
            match up(&directory.file) {
                // The root directory.
                Ok(next) if next.is(&directory) => return false,
                next => here = next,
            }
        }
        false
    }
}

/// A name in an open directory.
struct Entry {
    directory: Opened,
    name: Name,
    /// The path ends with a slash.
    slash: bool,
}

impl Entry {
    /// The entry for a path argument. Returns `None` if the kernel finds a fault in the path.
    fn find(call: &Call, dirfd: Dirfd, path: usize) -> Option<Self> {
        let path = call.path(path).ok()?;
        let (prefix, name, slash) = split(path.as_c_str())?;
        let directory = call.resolve(&directory_of(dirfd, &prefix)).ok()?;
        Some(Self {
            directory: Opened::new(directory).ok()?,
            name,
            slash,
        })
    }

    /// The file of this name, a link itself.
    fn present(&self) -> Option<Opened> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&self.directory.file, &self.name, flags, Mode::empty()).ok()?;
        Opened::new(file).ok()
    }

    /// fs/namei.c, may_create: EACCES.
    fn may_create(&self, call: &Call, subject: &Subject) -> Result<(), Errno> {
        if self.directory.may(call, subject, Access::ENTER_TO_CREATE)?
            // There the kernel refuses it to everyone, for other reasons.
            || linux::file_system(&self.directory.file)? == PROC_SUPER_MAGIC
        {
            Ok(())
        } else {
            Err(Errno::EACCES)
        }
    }

    /// fs/namei.c, may_delete: EACCES, or EPERM because of the sticky bit.
    fn may_delete(&self, call: &Call, subject: &Subject, victim: &Opened) -> Result<(), Errno> {
        self.may_create(call, subject)?;
        let (directory, file) = (self.directory.shown(call)?, victim.shown(call)?);
        match subject.is_kept_by_sticky(directory, file) {
            true => Err(Errno::EPERM),
            false => Ok(()),
        }
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
        && !entry.directory.is_read_only()
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

/// Notes the name that a file gets, for `fakeroot -s`.
fn note(call: &Call, (dirfd, path): (Dirfd, usize)) -> Result<(), Errno> {
    let Some(notes) = &call.container.owners.notes else {
        return Ok(());
    };
    match Entry::find(call, dirfd, path) {
        Some(entry) => notes.add_entry(
            entry.directory.file.as_fd(),
            entry.name.as_c_str().to_bytes(),
        ),
        // The kernel does not find it, either.
        None => Ok(()),
    }
}

/// Handles a rename(2): fs/namei.c, do_renameat2 and vfs_rename.
fn move_entry(
    call: &Call,
    from: (Dirfd, usize),
    to: (Dirfd, usize),
    flags: u32,
) -> Result<Reply, Errno> {
    note(call, to)?;
    if flags & libc::RENAME_EXCHANGE != 0 {
        note(call, from)?;
    }
    let Some(subject) = call.restricted()? else {
        // CONTINUE: neither owners nor modes restrict the target.
        return Ok(Reply::Continue);
    };
    let known = libc::RENAME_NOREPLACE | libc::RENAME_EXCHANGE | libc::RENAME_WHITEOUT;
    if flags & !known == 0
        && let Some(from) = Entry::find(call, from.0, from.1)
        && let Some(to) = Entry::find(call, to.0, to.1)
        && let Some(source) = from.present()
    {
        let target = to.present();
        let moved = Move {
            from,
            source,
            to,
            target,
            flags,
        };
        if moved.reaches_permissions() {
            moved.check(call, &subject)?;
        }
    }
    // CONTINUE: the target may, or the kernel fails with the right errno.
    Ok(Reply::Continue)
}

/// A rename(2) of a file that exists.
struct Move {
    from: Entry,
    source: Opened,
    to: Entry,
    /// The file that has the new name already.
    target: Option<Opened>,
    flags: u32,
}

impl Move {
    fn exchanges(&self) -> bool {
        self.flags & libc::RENAME_EXCHANGE != 0
    }

    /// Whether do_renameat2 finds no fault before it checks permissions.
    fn reaches_permissions(&self) -> bool {
        let Self {
            from,
            source,
            to,
            target,
            flags,
        } = self;
        let is_fault_of_flags = match target {
            Some(_) => flags & libc::RENAME_NOREPLACE != 0,
            None => self.exchanges(),
        };
        // Only directories may have a slash behind them.
        let is_fault_of_slash = |slash: bool| slash && !source.is_directory();
        let target_is_file = target.as_ref().is_some_and(|target| !target.is_directory());
        let slashes = match self.exchanges() {
            true => is_fault_of_slash(from.slash) || to.slash && target_is_file,
            false => is_fault_of_slash(from.slash || to.slash),
        };
        let is_same = target.as_ref().is_some_and(|target| target.is(source));
        // EINVAL, ENOTEMPTY
        let is_below = source.is_directory() && to.directory.is_below(source)
            || target
                .as_ref()
                .is_some_and(|target| target.is_directory() && from.directory.is_below(target));
        let is_elsewhere =
            from.directory.mount() != to.directory.mount() || from.directory.is_read_only();
        !is_elsewhere && !is_fault_of_flags && !slashes && !is_same && !is_below
    }

    /// The permissions, in the order of vfs_rename.
    fn check(&self, call: &Call, subject: &Subject) -> Result<(), Errno> {
        // A directory that moves gets another `..`.
        let may_write = |directory: &Opened| match directory.may(call, subject, Access::WRITE)? {
            true => Ok(()),
            false => Err(Errno::EACCES),
        };
        self.from.may_delete(call, subject, &self.source)?;
        match &self.target {
            None => self.to.may_create(call, subject)?,
            Some(target) => self.to.may_delete(call, subject, target)?,
        }
        if self.from.directory.is(&self.to.directory) {
            return Ok(());
        }
        if let Some(target) = &self.target
            && !self.exchanges()
            && target.is_directory() != self.source.is_directory()
        {
            // ENOTDIR, EISDIR
            return Ok(());
        }
        if self.source.is_directory() {
            may_write(&self.source)?;
        }
        match &self.target {
            Some(target) if self.exchanges() && target.is_directory() => may_write(target),
            _ => Ok(()),
        }
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
    note(call, new)?;
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
        && !entry.directory.is_read_only()
    {
        let old = Opened::new(file)?;
        if old.mount() == entry.directory.mount() {
            may_link(call, &subject, &old)?;
            entry.may_create(call, &subject)?;
        }
    }
    // CONTINUE: the target may, or the kernel fails with the right errno.
    Ok(Reply::Continue)
}

/// fs/namei.c, may_linkat: EPERM.
fn may_link(call: &Call, subject: &Subject, old: &Opened) -> Result<(), Errno> {
    let mode = old.stat.st_mode;
    let set_group_id = libc::S_ISGID | libc::S_IXGRP;
    let is_safe = || {
        Ok(file_type(mode) == SFlag::S_IFREG
            && mode & libc::S_ISUID == 0
            && mode & set_group_id != set_group_id
            && old.may(call, subject, Access::READ_WRITE)?)
    };
    if subject.owns(old.shown(call)?) || is_safe()? || protection("hardlinks")? == 0 {
        Ok(())
    } else {
        Err(Errno::EPERM)
    }
}
