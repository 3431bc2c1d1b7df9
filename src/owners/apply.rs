//! Applies an [`Entry`] to one file.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2, renameat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmodat, fstat, mknodat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::entry::{Entry, Kind};
use super::{Outside, text};
use crate::credentials::{EmulatedGid, EmulatedUid, Id};
use crate::linux::name::Name;
use crate::linux::procfs;
use crate::owner::{
    Device, Owner, attributes, carries_xattrs, file_type, remove_access_list, set_attribute,
};

/// PATH_MAX, without the NUL.
const LONGEST_PATH: usize = 4095;

/// The ids to set; `None` leaves one unchanged.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct OwnerChange {
    pub(crate) uid: Option<EmulatedUid>,
    pub(crate) gid: Option<EmulatedGid>,
}

impl OwnerChange {
    pub(crate) fn new(uid: Option<u32>, gid: Option<u32>) -> Self {
        Self {
            uid: uid.and_then(EmulatedUid::new),
            gid: gid.and_then(EmulatedGid::new),
        }
    }
}

/// The reason for a failure, printed behind the file's name and a colon.
type Reason = String;

impl Outside {
    /// Changes the owner, as chown(2) does for the container's root.
    pub(crate) fn change_owner(
        &self,
        file: BorrowedFd,
        stat: &FileStat,
        change: OwnerChange,
    ) -> Result<(), Reason> {
        self.check_ours(stat)?;
        let _lock = self.locks.lock_file(stat).map_err(reason)?;
        let known = self
            .owners
            .load(file, file_type(stat.st_mode))
            .map_err(reason)?;
        let owner = known
            .unwrap_or_default()
            .with_ids(change.uid, change.gid, stat);
        let change = (known, owner);
        self.owners.store(file, stat, change, None).map_err(reason)
    }

    /// As [`Outside::apply`], but never replaces a file.
    pub(crate) fn apply_below(&self, top: &OwnedFd, entry: &Entry) -> Result<(), Reason> {
        self.apply(top.as_fd(), entry, false)
    }

    /// Changes the file below `top` that `entry` names to match it. Idempotent. Creates a device
    /// that is missing. With `is_replaceable`, an empty regular file is taken for a file that an
    /// unprivileged user could not create, and is replaced.
    pub(super) fn apply(
        &self,
        top: BorrowedFd,
        entry: &Entry,
        is_replaceable: bool,
    ) -> Result<(), Reason> {
        let (path, name) = split(&entry.path)?;
        if entry.kind.is_some_and(Kind::is_device) && entry.device.is_none() {
            return Err("the entry of a device has no device number".to_owned());
        }
        let directory = open_below(top, &path)?;
        let mut file = open_one(directory.as_fd(), name);
        match &file {
            Err(Errno::ENOENT) if entry.kind.is_some_and(Kind::is_device) => {
                make(directory.as_fd(), name, entry).map_err(reason)?;
                file = open_one(directory.as_fd(), name);
            }
            Ok(found) if is_replaceable && stands_for_another(found, entry) => {
                return self.replace(directory.as_fd(), name, entry);
            }
            _ => {}
        }
        self.apply_to(file.map_err(reason)?.as_fd(), entry)
    }

    /// Replaces a file by renaming a complete one over it. At no time is the file missing, for
    /// other processes or after this one was killed: the old file may have the only record of what
    /// it stands for.
    fn replace(&self, directory: BorrowedFd, name: &[u8], entry: &Entry) -> Result<(), Reason> {
        const TEMPORARY: &str = ".subuidless-replacement";
        // Left by an import that was killed.
        let _ = unlinkat(directory, TEMPORARY, UnlinkatFlags::NoRemoveDir);
        make(directory, TEMPORARY.as_bytes(), entry).map_err(reason)?;
        let made = open_one(directory, TEMPORARY.as_bytes()).map_err(reason)?;
        self.apply_to(made.as_fd(), entry)?;
        renameat(directory, TEMPORARY, directory, &Name::new(name.to_vec())).map_err(reason)
    }

    fn apply_to(&self, file: BorrowedFd, entry: &Entry) -> Result<(), Reason> {
        let stat = fstat(file).map_err(reason)?;
        self.check_ours(&stat)?;
        let _lock = self.locks.lock_file(&stat).map_err(reason)?;
        let kind = file_type(stat.st_mode);
        let known = self.owners.load(file, kind).map_err(reason)?;
        let change = OwnerChange::new(entry.uid, entry.gid);
        let owner = Owner {
            device: device(entry, &stat, known)?,
            ..known
                .unwrap_or_default()
                .with_ids(change.uid, change.gid, &stat)
        };
        // Only if it differs: a second import changes nothing, not even ctime.
        if owner != known.unwrap_or_default() {
            self.owners.put(file, &stat, owner).map_err(reason)?;
        }
        if let Some(mode) = entry.mode.filter(|mode| *mode != stat.st_mode & 0o7777)
            && kind != SFlag::S_IFLNK
        {
            let path = procfs::own_fd(file);
            let bits = Mode::from_bits_truncate(mode);
            fchmodat(AT_FDCWD, &path, bits, FchmodatFlags::FollowSymlink).map_err(reason)?;
            // fs/attr.c, setattr_prepare: the kernel clears S_ISGID without an error.
            if mode & libc::S_ISGID != 0
                && fstat(file).map_err(reason)?.st_mode & libc::S_ISGID == 0
            {
                return Err(
                    "cannot set the set-group-ID bit: you are not in the file's real group"
                        .to_owned(),
                );
            }
        }
        self.apply_attributes(file, entry)
    }

    fn apply_attributes(&self, file: BorrowedFd, entry: &Entry) -> Result<(), Reason> {
        if entry.attributes.is_empty() {
            return Ok(());
        }
        let stat = fstat(file).map_err(reason)?;
        let known = attributes(&self.owners, file, stat.st_mode).map_err(reason)?;
        for attribute in &entry.attributes {
            if known.contains(attribute) {
                continue;
            }
            let (name, value) = attribute;
            let file = (file, stat.st_mode);
            let set = set_attribute(&self.owners, file, (name, value), |id| self.is_mapped(id));
            set.map_err(|errno| match errno {
                Errno::EPERM if !carries_xattrs(file_type(stat.st_mode)) => {
                    "there is no side store for its attributes".to_owned()
                }
                errno => format!("{}: {}", text::escape(name), errno.desc()),
            })?;
        }
        Ok(())
    }

    /// Refuses files of other users: a container's root may not change them either.
    fn check_ours(&self, stat: &FileStat) -> Result<(), Reason> {
        match self.is_mapped(stat.st_uid) {
            true => Ok(()),
            false => Err("belongs to another user of this machine".to_owned()),
        }
    }
}

/// The device that the file will stand for. Fails if the file is of another type than the entry.
fn device(entry: &Entry, stat: &FileStat, known: Option<Owner>) -> Result<Option<Device>, Reason> {
    let found = Kind::of(stat.st_mode);
    let stands_for = known.and_then(|owner| owner.device);
    let Some(wanted) = entry.kind else {
        return Ok(stands_for);
    };
    if wanted.is_device() && found == Some(Kind::Socket) {
        return Ok(Some(wanted_device(wanted, entry)?));
    }
    let is_same = !wanted.is_device() || entry.device.map(u64::from) == Some(stat.st_rdev);
    if found == Some(wanted) && is_same {
        return Ok(None);
    }
    let found = match stands_for {
        Some(device) => Kind::of(device.kind.bits()),
        None => found,
    };
    let found = found.map_or("something else", Kind::sentence);
    Err(match found == wanted.sentence() {
        true => format!("is {found} with another device number"),
        false => format!("is {found}, not {}", wanted.sentence()),
    })
}

fn wanted_device(wanted: Kind, entry: &Entry) -> Result<Device, Reason> {
    Ok(Device {
        kind: wanted.flag(),
        number: entry
            .device
            .ok_or("the entry of a device has no device number")?,
    })
}

/// Whether the file is empty and regular, as fakeroot and others create in place of a file that
/// they cannot create.
fn stands_for_another(file: &OwnedFd, entry: &Entry) -> bool {
    let is_makeable = |kind: Kind| kind.is_device() || matches!(kind, Kind::Fifo | Kind::Socket);
    entry.kind.is_some_and(is_makeable)
        && fstat(file).is_ok_and(|stat| {
            file_type(stat.st_mode) == SFlag::S_IFREG && stat.st_size == 0 && stat.st_nlink == 1
        })
}

/// Creates a placeholder (see `syscalls::make`), or the fifo or socket itself. A whiteout of
/// overlayfs (character device 0,0) needs no privilege.
fn make(directory: BorrowedFd, name: &[u8], entry: &Entry) -> Result<(), Errno> {
    let kind = match (entry.kind, entry.device) {
        (Some(Kind::Character), Some(0)) => SFlag::S_IFCHR,
        (Some(Kind::Fifo), _) => SFlag::S_IFIFO,
        _ => SFlag::S_IFSOCK,
    };
    let mode = Mode::from_bits_truncate(entry.mode.unwrap_or(0o666));
    mknodat(directory, &Name::new(name.to_vec()), kind, mode, 0)?;
    // An access control list inherited from the directory's default one is not part of the entry.
    let made = open_one(directory, name)?;
    match remove_access_list(made.as_fd()) {
        Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(()),
        result => result,
    }
}

/// Splits a path below the top into the directory's components and the last one.
fn split(path: &[u8]) -> Result<(Vec<&[u8]>, &[u8]), Reason> {
    if path.starts_with(b"/") {
        return Err("is absolute: paths must be relative to DIR".to_owned());
    }
    if path.is_empty() || path.contains(&0) {
        return Err("is not a path: it is empty or contains a NUL".to_owned());
    }
    let is_name = |part: &&[u8]| !matches!(*part, b"" | b".");
    let mut parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(is_name).collect();
    if parts.contains(&&b".."[..]) {
        return Err("contains `..`, which could lead out of DIR".to_owned());
    }
    let name = parts.pop().unwrap_or(b".");
    Ok((parts, name))
}

/// Opens the directory `parts`. Fails if one of them is a symbolic link.
fn open_below(top: BorrowedFd, parts: &[&[u8]]) -> Result<OwnedFd, Reason> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut directory = open_with(top, &Name::new(b".".to_vec()), flags).map_err(reason)?;
    let mut rest = parts;
    while !rest.is_empty() {
        let mut length = 0;
        let fits = |part: &&&[u8]| {
            length += part.len() + 1;
            length <= LONGEST_PATH
        };
        let count = rest.iter().take_while(fits).count().max(1);
        let (step, next) = rest.split_at(count);
        directory =
            open_with(directory.as_fd(), &Name::new(step.join(&b'/')), flags).map_err(|errno| {
                match errno {
                    Errno::ELOOP => {
                        "its path contains a symbolic link, which is not followed".to_owned()
                    }
                    errno => reason(errno),
                }
            })?;
        rest = next;
    }
    Ok(directory)
}

fn open_one(directory: BorrowedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    open_with(directory, &Name::new(name.to_vec()), flags)
}

fn open_with<P: NixPath + ?Sized>(
    directory: BorrowedFd,
    path: &P,
    flags: OFlag,
) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_SYMLINKS
        | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let how = OpenHow::new().flags(flags).resolve(resolve);
    // openat2(2): EAGAIN if a concurrent rename could have led out of the directory.
    const TRIES: usize = 64;
    let mut result = Err(Errno::EAGAIN);
    for _ in 0..TRIES {
        result = openat2(directory, path, how);
        if !matches!(result, Err(Errno::EAGAIN)) {
            break;
        }
    }
    result
}

fn reason(errno: Errno) -> Reason {
    match errno {
        Errno::ENOENT => "is missing".to_owned(),
        errno => errno.desc().to_owned(),
    }
}
