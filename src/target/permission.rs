//! Whether emulated credentials allow access to a file, by its mode, its emulated owner and its
//! access control list: fs/namei.c, inode_permission.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FileStat, SFlag, fstat, fstatat};
use nix::sys::statfs::PROC_SUPER_MAGIC;

use super::path::Way;
use super::{Call, Location, PROCFS, is_nameless};
use crate::credentials::{Access, EmulatedGid, EmulatedUid, FileMode, Subject};
use crate::linux;
use crate::linux::name::Name;
use crate::linux::procfs;
use crate::linux::sys;
use crate::owner::acl::{ACCESS, Acl};
use crate::owner::{Attribute, Cache, Version, file_type};

/// The number of files and directories of which a service thread remembers the rights.
pub(super) const KNOWN: usize = 512;

/// What a permission check needs to know of a file in addition to its mode.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rights {
    uid: EmulatedUid,
    gid: EmulatedGid,
    has_list: bool,
}

impl Call<'_> {
    /// Whether `access` to the open file, whose state is `stat`, is allowed to `subject`.
    pub(crate) fn may(
        &self,
        subject: &Subject,
        access: Access,
        file: BorrowedFd,
        stat: &FileStat,
    ) -> Result<bool, Errno> {
        Ok(self.is_allowed(subject, access, file, stat)?
            || self.is_own_descriptors(file, stat)?
            || self.is_own_pipe(subject, access, file, stat)?)
    }

    fn is_allowed(
        &self,
        subject: &Subject,
        access: Access,
        file: BorrowedFd,
        stat: &FileStat,
    ) -> Result<bool, Errno> {
        let rights = self.rights(file, stat)?;
        let shown = rights.shown(stat);
        if !rights.has_list || !subject.may_depend_on_list(shown) {
            return Ok(subject.may(access, shown));
        }
        let by_list = access_list(self, file, stat)?.map_or_else(
            || subject.may(access, shown),
            |list| list.permits(subject, access, shown),
        );
        Ok(by_list || subject.overrides(access, shown))
    }

    /// Whether the file is the target's /proc/self/fd, which is open to it whoever owns it:
    /// fs/proc/fd.c, proc_fd_permission. Whether it is that of a runtime that enters the container,
    /// no worker can tell: the kernel decides.
    fn is_own_descriptors(&self, file: BorrowedFd, stat: &FileStat) -> Result<bool, Errno> {
        const FD: u32 = libc::S_IFDIR | 0o500;
        Ok(stat.st_mode == FD
            && linux::file_system(file)? == PROC_SUPER_MAGIC
            && self.is_in_own_process(file) != Ok(false))
    }

    /// Whether the file is a pipe that its owner may open so. Nothing tells who has made it, so
    /// each user whose process has it counts as its owner, unless somebody else was given it.
    fn is_own_pipe(
        &self,
        subject: &Subject,
        access: Access,
        file: BorrowedFd,
        stat: &FileStat,
    ) -> Result<bool, Errno> {
        if !is_stream(stat.st_mode) || !is_nameless(file)? {
            return Ok(false);
        }
        let shown = self.shown_mode(file, stat)?;
        let as_own = FileMode {
            uid: subject.uid,
            ..shown
        };
        Ok(shown.uid == EmulatedUid::ROOT && subject.may(access, as_own))
    }

    /// As [`Call::may`], for a file that is only named, and whose mode is known.
    pub(crate) fn may_at(
        &self,
        subject: &Subject,
        access: Access,
        location: &Location,
        shown: FileMode,
    ) -> Result<bool, Errno> {
        if !subject.may_depend_on_list(shown) {
            let may = subject.may(access, shown);
            if may || !is_stream(shown.mode) {
                return Ok(may);
            }
        }
        let file = self.resolve(location)?;
        self.may(subject, access, file.as_fd(), &fstat(&file)?)
    }

    /// The mode and the emulated owner of an open file whose state is `stat`.
    pub(crate) fn shown_mode(&self, file: BorrowedFd, stat: &FileStat) -> Result<FileMode, Errno> {
        Ok(self.rights(file, stat)?.shown(stat))
    }

    /// What is known of exactly this version of the file, or is found out now.
    fn rights(&self, file: BorrowedFd, stat: &FileStat) -> Result<Rights, Errno> {
        let version = Version::of(stat);
        if let Some(rights) = self.known_rights().get(version) {
            return Ok(rights);
        }
        let (shown, _) = self.mode_and_owner(file)?;
        let rights = Rights {
            uid: shown.uid,
            gid: shown.gid,
            has_list: access_list(self, file, stat)?.is_some(),
        };
        let file_system = || linux::file_system(file);
        self.known_rights().insert(version, rights, file_system);
        Ok(rights)
    }

    /// Locked for as long as one access takes; nothing panics while it is.
    fn known_rights(&self) -> MutexGuard<'_, Cache<Rights, KNOWN>> {
        let known = self.thread.rights.lock();
        known.unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `subject` may search the directories on the way to `location`, by one stat(2) for
    /// each of them. Returns `None` if only a walk can tell: there is a link on the way, or the
    /// rights to a directory are not known yet.
    pub(super) fn way_to(&self, subject: &Subject, location: &Location) -> Option<Way> {
        let reached = self.name(location).filter(|_| !location.is_empty())?;
        let path = reached.as_c_str().to_bytes();
        let own = location.path.to_bytes();
        let Some(end) = own.iter().rposition(|byte| *byte != b'/') else {
            // The root directory.
            return Some(Way::Open);
        };
        let before = path.len() - own.len();
        let base = match location.is_absolute() {
            true => &path[..1],
            // Without the slash behind it: a link of procfs.
            false => &path[..before - 1],
        };
        if !self.may_pass(subject, base, true)? {
            return Some(Way::Closed);
        }
        let is_end = |at: &usize| own[*at] == b'/' && *at > 0 && own[at - 1] != b'/';
        for at in (0..end).filter(is_end) {
            if !self.may_pass(subject, &path[..before + at], false)? {
                return Some(Way::Closed);
            }
        }
        let file = Name::new(path[..=before + end].to_vec());
        let has_slash = end + 1 < own.len();
        match fstatat(PROCFS, &file, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => match file_type(stat.st_mode) {
                SFlag::S_IFDIR => Some(Way::Open),
                SFlag::S_IFLNK if location.follow => None,
                _ => (!has_slash).then_some(Way::Open),
            },
            Err(Errno::ENOENT) => Some(Way::Missing(Errno::ENOENT)),
            Err(_) => None,
        }
    }

    /// Whether `subject` may search a directory whose rights are known.
    fn may_pass(&self, subject: &Subject, path: &[u8], follow: bool) -> Option<bool> {
        let flags = match follow {
            true => AtFlags::empty(),
            false => AtFlags::AT_SYMLINK_NOFOLLOW,
        };
        let stat = fstatat(PROCFS, &Name::new(path.to_vec()), flags).ok()?;
        let rights = self.known_rights().get(Version::of(&stat))?;
        let shown = rights.shown(&stat);
        let decides = rights.has_list && subject.may_depend_on_list(shown);
        (shown.is_directory() && !decides).then(|| subject.may(Access::EXECUTE, shown))
    }
}

impl Rights {
    fn shown(self, stat: &FileStat) -> FileMode {
        FileMode {
            uid: self.uid,
            gid: self.gid,
            mode: stat.st_mode,
        }
    }
}

/// Whether a file with this mode may be a pipe or socket without a name.
fn is_stream(mode: u32) -> bool {
    matches!(file_type(mode), SFlag::S_IFIFO | SFlag::S_IFSOCK)
}

/// The access control list of a file: the whole one if it was stored because the kernel does not
/// map its ids, otherwise the kernel's.
fn access_list(call: &Call, file: BorrowedFd, stat: &FileStat) -> Result<Option<Acl>, Errno> {
    /// Larger than any list of ext4, which has a limit of one block.
    const LONGEST: usize = 4096;
    if stat.st_mode & libc::S_IRWXG == 0 || file_type(stat.st_mode) == SFlag::S_IFLNK {
        // Without a mask, entries of the list allow nothing: acl_permission_check.
        return Ok(None);
    }
    if let Attribute::Acl(stored) = Attribute::of(ACCESS) {
        let emulated = call.container.owners.emulated(file, stat.st_mode);
        let kept = match emulated.get(&stored) {
            // An unreadable file of another host user.
            Err(Errno::EACCES) => None,
            kept => kept?,
        };
        if let Some(list) = kept.and_then(|bytes| Acl::decode(&bytes)) {
            return Ok(Some(list.with_mode(stat.st_mode)));
        }
    }
    let mut bytes = [0; LONGEST];
    let path = procfs::own_fd(file);
    match sys::getxattr(path.as_c_str(), ACCESS, &mut bytes, true) {
        Ok(length) => Ok(Acl::decode(&bytes[..length])),
        // None, or none is possible.
        Err(_) => Ok(None),
    }
}
