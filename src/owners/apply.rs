//! Gives one file what an [`Entry`] says of it.

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

/// What `owners set` changes.
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

/// Why something cannot be done, as the end of a sentence that begins with the file's name.
type Reason = String;

impl Outside {
    /// chown(2) as the container's root.
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
        let owner = with_ids(known, change, stat);
        let change = (known, owner);
        self.owners.store(file, stat, change, None).map_err(reason)
    }

    /// As [`Outside::apply`], and what is not a socket stays what it is.
    pub(crate) fn apply_below(&self, top: &OwnedFd, entry: &Entry) -> Result<(), Reason> {
        self.apply(top.as_fd(), entry, false)
    }

    /// Makes the file of the `entry` below `top` what it says. Once more makes no difference.
    /// `is_replaceable`: an empty regular file may stand for what an unprivileged user cannot make.
    pub(super) fn apply(
        &self,
        top: BorrowedFd,
        entry: &Entry,
        is_replaceable: bool,
    ) -> Result<(), Reason> {
        let (path, name) = split(&entry.path)?;
        if entry.kind.is_some_and(Kind::is_device) && entry.device.is_none() {
            return Err("is to be a device, and its number is missing".to_owned());
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

    /// In one step, for whoever looks at the same time and for a run that is killed: what is
    /// replaced is all that says what it was.
    fn replace(&self, directory: BorrowedFd, name: &[u8], entry: &Entry) -> Result<(), Reason> {
        const BESIDE: &str = ".subuidless-replacement";
        // Of a run that was killed.
        let _ = unlinkat(directory, BESIDE, UnlinkatFlags::NoRemoveDir);
        make(directory, BESIDE.as_bytes(), entry).map_err(reason)?;
        let made = open_one(directory, BESIDE.as_bytes()).map_err(reason)?;
        self.apply_to(made.as_fd(), entry)?;
        renameat(directory, BESIDE, directory, &Name::new(name.to_vec())).map_err(reason)
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
            ..with_ids(known, change, &stat)
        };
        if owner != known.unwrap_or_default() {
            self.owners.put(file, &stat, owner).map_err(reason)?;
        }
        if let Some(mode) = entry.mode.filter(|mode| *mode != stat.st_mode & 0o7777)
            && kind != SFlag::S_IFLNK
        {
            let path = procfs::own_fd(file);
            let bits = Mode::from_bits_truncate(mode);
            fchmodat(AT_FDCWD, &path, bits, FchmodatFlags::FollowSymlink).map_err(reason)?;
            // fs/attr.c, setattr_prepare: without a word.
            if mode & libc::S_ISGID != 0
                && fstat(file).map_err(reason)?.st_mode & libc::S_ISGID == 0
            {
                return Err(
                    "its real group is none of yours, so it gets no set-group-ID bit".to_owned(),
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
                    "there is no side store to keep its attributes in".to_owned()
                }
                errno => format!("{}: {}", text::escape(name), errno.desc()),
            })?;
        }
        Ok(())
    }

    /// A container's root may not change it either.
    fn check_ours(&self, stat: &FileStat) -> Result<(), Reason> {
        match self.is_mapped(stat.st_uid) {
            true => Ok(()),
            false => Err("belongs to another user of this machine".to_owned()),
        }
    }
}

fn with_ids(known: Option<Owner>, change: OwnerChange, stat: &FileStat) -> Owner {
    let known = known.unwrap_or_default();
    let uid = change.uid.or(known.uid).or(EmulatedUid::new(stat.st_uid));
    let gid = change.gid.or(known.gid).or(EmulatedGid::new(stat.st_gid));
    Owner {
        uid: uid.filter(|uid| uid.as_raw() != stat.st_uid),
        gid: gid.filter(|gid| gid.as_raw() != stat.st_gid),
        ..known
    }
}

/// What the file is to stand for from now on, if it is of the right type.
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
        true => format!("is {found} with another number"),
        false => format!("is {found}, not {}", wanted.sentence()),
    })
}

fn wanted_device(wanted: Kind, entry: &Entry) -> Result<Device, Reason> {
    Ok(Device {
        kind: wanted.flag(),
        number: entry.device.ok_or("a device without number")?,
    })
}

/// The file is the empty regular one that others make for want of the right type.
fn stands_for_another(file: &OwnedFd, entry: &Entry) -> bool {
    let is_makeable = |kind: Kind| kind.is_device() || matches!(kind, Kind::Fifo | Kind::Socket);
    entry.kind.is_some_and(is_makeable)
        && fstat(file).is_ok_and(|stat| {
            file_type(stat.st_mode) == SFlag::S_IFREG && stat.st_size == 0 && stat.st_nlink == 1
        })
}

/// A placeholder (see `syscalls::make`), or the fifo or socket itself; a whiteout of overlayfs is
/// nobody's to refuse.
fn make(directory: BorrowedFd, name: &[u8], entry: &Entry) -> Result<(), Errno> {
    let kind = match (entry.kind, entry.device) {
        (Some(Kind::Character), Some(0)) => SFlag::S_IFCHR,
        (Some(Kind::Fifo), _) => SFlag::S_IFIFO,
        _ => SFlag::S_IFSOCK,
    };
    let mode = Mode::from_bits_truncate(entry.mode.unwrap_or(0o666));
    mknodat(directory, &Name::new(name.to_vec()), kind, mode, 0)?;
    // What comes from the directory's default list is not the entry's.
    let made = open_one(directory, name)?;
    match remove_access_list(made.as_fd()) {
        Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(()),
        result => result,
    }
}

/// The directory and the last name of a path that stays below the top.
fn split(path: &[u8]) -> Result<(Vec<&[u8]>, &[u8]), Reason> {
    if path.starts_with(b"/") {
        return Err("is absolute, and paths here are those below DIR".to_owned());
    }
    if path.is_empty() || path.contains(&0) {
        return Err("is no path: empty, or with a NUL".to_owned());
    }
    let is_name = |part: &&[u8]| !matches!(*part, b"" | b".");
    let mut parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(is_name).collect();
    if parts.contains(&&b".."[..]) {
        return Err("leads out of DIR, or could: `..`".to_owned());
    }
    let name = parts.pop().unwrap_or(b".");
    Ok((parts, name))
}

/// The directory at the end of `parts`, none of which is a symbolic link.
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
                        "a symbolic link is on the way, which is not followed".to_owned()
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
    // openat2(2): a rename somewhere made the kernel unsure.
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
