//! Files that a target creates: directory, name and owner.
//!
//! To the kernel, every new file belongs to the host user. For the container's root this is right,
//! so the kernel creates the file, unless the directory passes on an emulated group, or an access
//! control list with unmapped ids. Otherwise a handler finds a [`NewFile`], creates the file with
//! the target's umask, and stores its owner. A call that cannot succeed is left to the kernel,
//! which fails with the right errno.

use std::ffi::CStr;
use std::hash::{DefaultHasher, Hasher};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, ResolveFlag, openat, readlink};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat, umask};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::lookup::last_component;
use super::permission::is_read_only;
use super::xattr::posix_acl;
use crate::credentials::{Access, EmulatedGid, FileMode, Subject};
use crate::identity::Index;
use crate::linux::name::Name;
use crate::linux::seccomp::Reply;
use crate::linux::sys;
use crate::owner::{Device, Owner, file_type};
use crate::target::{Call, Dirfd, Expected, Location};
use crate::wire::board::{Creation, Step};

/// A file that is about to be created.
pub(super) struct NewFile {
    pub(super) directory: OwnedFd,
    pub(super) name: Name,
    /// The path ends with a slash, which only mkdir(2) accepts.
    pub(super) slash: bool,
    /// The mode and the emulated owner of the directory.
    pub(super) shown: FileMode,
    pub(super) subject: Subject,
    /// The device that the new file stands for.
    pub(super) device: Option<Device>,
    /// The stored default access control list of the directory, which the new file inherits.
    pub(super) list: Option<Vec<u8>>,
}

/// Splits a path into the part before its last component, this component, and whether a slash
/// follows. Returns `None` if no file can be created there (`.`, `..`, `/`, an empty path).
pub(super) fn split(path: &CStr) -> Option<(Name, Name, bool)> {
    let bytes = path.to_bytes();
    let (prefix, last) = last_component(bytes)?;
    if matches!(last, b"." | b"..") {
        return None;
    }
    let name = |bytes: &[u8]| Name::new(bytes.to_vec());
    Some((name(prefix), name(last), bytes.ends_with(b"/")))
}

impl NewFile {
    /// The new file for `path`, if a worker must create it. Returns `None` if the kernel creates it
    /// with the right owner, or fails.
    pub(super) fn find(
        call: &mut Call,
        dirfd: Dirfd,
        path: &CStr,
        follows: bool,
        resolve: ResolveFlag,
    ) -> Result<Option<Self>, Errno> {
        let Some((prefix, _, _)) = split(path) else {
            return Ok(None);
        };
        let location = directory_of(dirfd, &prefix);
        let who = call.who_among_files()?;
        // A root that lacks capabilities is checked here: to the kernel, it owns all files.
        let as_kernel =
            call.container.identities.creates_as_kernel(who) && call.restricted()?.is_none();
        // The cheap checks first: in most containers this is the only work for a new file.
        if (as_kernel && !may_inherit(call, &location, path, follows)) || call.is_nested() {
            return Ok(None);
        }
        let new_file = Self::at(call, who, dirfd, path, resolve)?;
        if call.is_confined()? {
            if let Some(new_file) = new_file {
                new_file.expect(call)?;
            }
            return Ok(None);
        }
        Ok(new_file)
    }

    /// Lets the kernel create the file for a process that has restricted itself by landlock(7),
    /// which does not apply to a worker. It gets its owner afterwards.
    fn expect(self, call: &Call) -> Result<(), Errno> {
        if self.present() != Ok(None) {
            // The kernel opens it, or fails with the right errno.
            return Ok(());
        }
        self.check(call)?;
        let expected = Expected {
            tid: call.pid(),
            since: self.creation()?.since,
            uid: self.subject.uid,
            gid: self.group(),
            directory: self.directory,
            name: self.name,
        };
        call.container.expected.add(expected);
        Ok(())
    }

    /// The new file for `path`, which only a worker can create. Returns `None` if that cannot
    /// succeed: the kernel fails with the right errno.
    pub(super) fn at(
        call: &Call,
        who: Index,
        dirfd: Dirfd,
        path: &CStr,
        resolve: ResolveFlag,
    ) -> Result<Option<Self>, Errno> {
        let Some((prefix, name, slash)) = split(path) else {
            return Ok(None);
        };
        let location = directory_of(dirfd, &prefix);
        let directory = if resolve.is_empty() {
            call.resolve(&location)
        } else {
            call.resolve_with(&location, resolve)
        };
        match directory {
            Ok(directory) => {
                let subject = call.subject_of(who)?;
                Self::in_directory(call, subject, directory, name, slash).map(Some)
            }
            Err(_) => Ok(None),
        }
    }

    /// The new file `name` in an open directory.
    pub(super) fn in_directory(
        call: &Call,
        subject: Subject,
        directory: OwnedFd,
        name: Name,
        slash: bool,
    ) -> Result<Self, Errno> {
        let (shown, owner) = call.mode_and_owner(directory.as_fd())?;
        let list = match owner.hands_down_list {
            true => posix_acl::handed_down(call, directory.as_fd())?,
            false => None,
        };
        Ok(Self {
            directory,
            name,
            slash,
            shown,
            subject,
            device: None,
            list,
        })
    }

    fn hands_down_group(&self) -> bool {
        self.shown.mode & libc::S_ISGID != 0
    }

    /// The group of the new file: fs/inode.c, inode_init_owner.
    fn group(&self) -> EmulatedGid {
        if self.hands_down_group() {
            self.shown.gid
        } else {
            self.subject.gid
        }
    }

    /// The mode of the new file, before the umask: fs/inode.c, mode_strip_sgid. The kernel would
    /// not strip S_ISGID, because a worker has CAP_FSETID.
    pub(super) fn mode(&self, mode: u32) -> u32 {
        let both = libc::S_ISGID | libc::S_IXGRP;
        let strips = self.hands_down_group()
            && mode & both == both
            && !self.subject.may_set_group_id(self.shown.gid);
        if strips { mode & !libc::S_ISGID } else { mode }
    }

    /// The type of the file that exists under this name.
    pub(super) fn present(&self) -> Result<Option<SFlag>, Errno> {
        match fstatat(&self.directory, &self.name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(file_type(stat.st_mode))),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Checks that the target may create the file, and that it still waits; then gives this thread
    /// the target's umask, and notes the creation in the journal.
    pub(super) fn prepare(&self, call: &Call) -> Result<(), Errno> {
        self.check(call)?;
        // Every service thread has a umask of its own (unshare(2), CLONE_FS).
        umask(Mode::from_bits_truncate(call.umask()?));
        let creation = self.creation()?;
        call.ensure_waiting()?;
        // Before the file exists, so that the next worker recognizes it (`left_over`).
        call.journal.note(Step::Creating(creation));
        Ok(())
    }

    /// Checks that the target may create the file.
    fn check(&self, call: &Call) -> Result<(), Errno> {
        let stat = fstat(&self.directory)?;
        let may = |access| call.may(&self.subject, access, self.directory.as_fd(), &stat);
        if !may(Access::EXECUTE)? {
            return Err(Errno::EACCES);
        }
        if !may(Access::ENTER_TO_CREATE)? {
            // fs/namei.c, filename_create and open_last_lookups: mnt_want_write (EROFS) comes
            // before may_create (EACCES), but after the search of the directory.
            let read_only = is_read_only(self.directory.as_fd());
            return Err(if read_only {
                Errno::EROFS
            } else {
                Errno::EACCES
            });
        }
        Ok(())
    }

    /// The note for the journal.
    fn creation(&self) -> Result<Creation, Errno> {
        // The clock of birth times (fs/inode.c, current_time): it may be some milliseconds behind
        // CLOCK_REALTIME.
        let now = clock_gettime(ClockId::CLOCK_REALTIME_COARSE)?;
        let (device, inode, name) = self.identity()?;
        Ok(Creation {
            device,
            inode,
            name,
            since: nanoseconds(now.tv_sec(), now.tv_nsec()),
        })
    }

    /// Device and inode number of the directory, and a hash of the name.
    fn identity(&self) -> Result<(u64, u64, u64), Errno> {
        let directory = fstat(&self.directory)?;
        let mut name = DefaultHasher::new();
        name.write(self.name.as_c_str().to_bytes());
        Ok((directory.st_dev, directory.st_ino, name.finish()))
    }

    /// The existing file of this name, if a worker that was killed in this call has created it: its
    /// type is `kind`, and it was born since the worker noted the creation. The path has been read
    /// from the target's memory again, and may name another file now, so it is compared with the
    /// note.
    pub(super) fn left_over(&self, call: &Call, kind: SFlag) -> Result<Option<OwnedFd>, Errno> {
        let Some(Step::Creating(noted)) = call.journal.noted() else {
            return Ok(None);
        };
        if self.identity()? != (noted.device, noted.inode, noted.name) {
            return Ok(None);
        }
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&self.directory, &self.name, flags, Mode::empty())?;
        let mask = libc::STATX_TYPE | libc::STATX_BTIME;
        let found = sys::statx(file.as_fd(), c"", libc::AT_EMPTY_PATH, mask)?;
        let birth = nanoseconds(found.stx_btime.tv_sec, found.stx_btime.tv_nsec.into());
        // Device, directory, name and type agree; the time tells the file from an older one. Not
        // every file system stores it.
        let is_new = found.stx_mask & libc::STATX_BTIME == 0 || birth >= noted.since;
        Ok((is_new && file_type(found.stx_mode.into()) == kind).then_some(file))
    }

    /// Stores the owner of the file that has just been created. If this fails, the caller must
    /// remove the file.
    pub(super) fn own(&self, call: &Call, file: BorrowedFd) -> Result<(), Errno> {
        let stat = fstat(file)?;
        let owner = Owner {
            device: self.device,
            hands_down_list: self.list.is_some() && file_type(stat.st_mode) == SFlag::S_IFDIR,
            ..Owner::shown_as(self.subject.uid, self.group(), &stat)
        };
        call.container.owners.record(file, &stat, owner)?;
        match &self.list {
            Some(list) => posix_acl::inherit(call, file, &stat, list),
            None => Ok(()),
        }
    }

    /// Removes `made`, which has just been created, unless another process has put another file in
    /// its place.
    ///
    /// If this fails, the file stays, as after a crash.
    pub(super) fn remove(&self, made: BorrowedFd) {
        let here = fstatat(&self.directory, &self.name, AtFlags::AT_SYMLINK_NOFOLLOW);
        if let (Ok(made), Ok(here)) = (fstat(made), here)
            && (made.st_dev, made.st_ino) == (here.st_dev, here.st_ino)
        {
            let flags = match file_type(made.st_mode) {
                SFlag::S_IFDIR => UnlinkatFlags::RemoveDir,
                _ => UnlinkatFlags::NoRemoveDir,
            };
            let _ = unlinkat(&self.directory, &self.name, flags);
        }
    }

    /// Creates a file of the type `kind` by `create`, for calls that do not open it.
    pub(super) fn make(
        &self,
        call: &Call,
        kind: SFlag,
        create: impl FnOnce(BorrowedFd, &Name) -> Result<(), Errno>,
    ) -> Result<Reply, Errno> {
        let mut creation = None;
        let made = match self.present() {
            Ok(None) => {
                self.prepare(call)?;
                creation = Some(call.container.creations.begin());
                match create(self.directory.as_fd(), &self.name) {
                    // CONTINUE: another process has just created a file of this name.
                    Err(Errno::EEXIST) => return Ok(Reply::Continue),
                    result => result?,
                }
                let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                openat(&self.directory, &self.name, flags, Mode::empty())?
            }
            Ok(Some(_)) => match self.left_over(call, kind)? {
                Some(made) => made,
                // CONTINUE: EEXIST.
                None => return Ok(Reply::Continue),
            },
            // CONTINUE: the lookup fails in the kernel, too.
            Err(_) => return Ok(Reply::Continue),
        };
        // If a signal has interrupted the target, it restarts its call. The call must not fail with
        // EEXIST because of a file that the target has not been told about.
        let owned = self.own(call, made.as_fd());
        drop(creation);
        let done = owned.and_then(|()| call.ensure_waiting());
        done.inspect_err(|_| self.remove(made.as_fd()))?;
        Ok(Reply::Value(0))
    }

    /// The new file to which the link of this name leads. Returns `None` if nothing can be created
    /// through the link.
    pub(super) fn through_link(&self, call: &Call) -> Result<Option<Self>, Errno> {
        // A magic link leads to an existing file, whatever its text says.
        let Ok(Some(text)) = call.link_text(&self.directory, self.name.as_c_str()) else {
            return Ok(None);
        };
        let text = Name::new(text);
        let Some((prefix, name, slash)) = split(text.as_c_str()) else {
            return Ok(None);
        };
        let prefix = match prefix.as_c_str() {
            path if path.is_empty() => c".",
            path => path,
        };
        let resolved = call.patiently(|| {
            let base = match prefix.to_bytes().starts_with(b"/") {
                true => None,
                false => Some(self.directory.try_clone().map_err(|_| Errno::EMFILE)?),
            };
            call.resolve_from(base, prefix, true)
        });
        match resolved {
            Ok(directory) => {
                let subject = self.subject.clone();
                Self::in_directory(call, subject, directory, name, slash).map(Some)
            }
            Err(_) => Ok(None),
        }
    }
}

fn nanoseconds(seconds: i64, nanoseconds: i64) -> u64 {
    let whole = u64::try_from(seconds).unwrap_or_default();
    whole * 1_000_000_000 + u64::try_from(nanoseconds).unwrap_or_default()
}

/// Whether a worker must not create files for the target: it lives in another user namespace, or
/// has restricted itself by landlock(7), which does not apply to a worker.
pub(super) fn is_out_of_reach(call: &Call) -> Result<bool, Errno> {
    Ok(call.is_nested() || call.is_confined()?)
}

/// The location of the directory, given the part of the path before its last component.
pub(super) fn directory_of(dirfd: Dirfd, prefix: &Name) -> Location<'_> {
    let path = match prefix.as_c_str() {
        path if path.is_empty() => c".",
        path => path,
    };
    Location::new(dirfd, path, AtFlags::empty())
}

/// Whether a file that the container's root creates may get another group, or a stored access
/// control list. Nearly always, one getxattr(2) shows that it does not.
pub(super) fn may_inherit(
    call: &mut Call,
    directory: &Location,
    path: &CStr,
    follows: bool,
) -> bool {
    let Some(reached) = call.name(directory) else {
        return true;
    };
    let hands_down = match call.read_owner(&reached, true) {
        Ok(Some(owner)) => owner.gid.is_some() || owner.hands_down_list,
        Ok(None) => call.container.owners.may_be_elsewhere(SFlag::S_IFDIR),
        // The file system has no user attributes: the owner may be in the side store.
        Err(Errno::EOPNOTSUPP) => call.container.owners.side_store_is_used(),
        Err(_) => false,
    };
    // Through a dangling link, open(2) creates a file in another directory.
    let is_link = || {
        let location = Location { path, ..*directory };
        call.name(&location)
            .is_none_or(|reached| readlink(reached.as_c_str()).is_ok())
    };
    hands_down || (follows && is_link())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_split_at_its_last_component() {
        let split = |path: &CStr| {
            split(path).map(|(prefix, name, slash)| {
                let text = |name: &Name| name.as_c_str().to_str().unwrap().to_owned();
                (text(&prefix), text(&name), slash)
            })
        };
        let some =
            |prefix: &str, name: &str, slash| Some((prefix.to_owned(), name.to_owned(), slash));
        assert_eq!(split(c"a"), some("", "a", false));
        assert_eq!(split(c"/a"), some("/", "a", false));
        assert_eq!(split(c"a/b//"), some("a/", "b", true));
        assert_eq!(split(c"//a//b"), some("//a//", "b", false));
        for none in [c"", c"/", c"//", c".", c"a/..", c"a/./"] {
            assert_eq!(split(none), None, "{none:?}");
        }
    }
}
