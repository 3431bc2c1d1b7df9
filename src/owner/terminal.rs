//! Owners of terminals (devpts(5)): in the memory of the container. The number of a terminal, and
//! so its inode, is soon another one's, and a side store in use makes lookups slower.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{FileStat, SFlag, UtimensatFlags, fstat, major, minor, utimensat};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};
use subuidless_fast::owner::TERMINALS;

use super::{FileOwners, Owner, file_type};
use crate::credentials::Id;
use crate::linux::{hash, procfs};
use crate::wire::objects::{Kind, Known, Object, Pair};

/// Whether it is a terminal of a devpts, and not a console or the like.
fn is_terminal(stat: &FileStat) -> bool {
    file_type(stat.st_mode) == SFlag::S_IFCHR && TERMINALS.contains(&major(stat.st_rdev))
}

/// The name of an inode of a devpts.
fn object(stat: &FileStat) -> Option<Object> {
    const MINOR_BITS: u32 = 20;
    let number = |number: u64| u32::try_from(number).ok();
    Some(Object {
        kind: Kind::Terminal,
        place: number(major(stat.st_dev))? << MINOR_BITS | number(minor(stat.st_dev))?,
        number: number(stat.st_ino)?,
    })
}

impl FileOwners {
    /// Whether a terminal may have an emulated owner.
    pub(crate) fn has_terminals(&self) -> bool {
        let objects = self.objects.as_ref();
        objects.is_some_and(|objects| objects.has(Kind::Terminal))
    }

    /// The owner of the open file, if it is a terminal that has one.
    pub(super) fn load_terminal(
        &self,
        fd: BorrowedFd,
        file_type: SFlag,
    ) -> Result<Option<Owner>, Errno> {
        if file_type != SFlag::S_IFCHR || !self.has_terminals() {
            return Ok(None);
        }
        let stat = fstat(fd)?;
        let known = is_terminal(&stat).then(|| self.terminal(&stat, None));
        Ok(known.flatten())
    }

    /// With a time, only if the inode got its owner at that time.
    fn terminal(&self, stat: &FileStat, time: Option<TimeSpec>) -> Option<Owner> {
        let known = self.objects.as_ref()?.get(object(stat)?)?;
        if time.is_some_and(|time| known.note != fingerprint(time)) {
            return None;
        }
        let owner = Owner {
            uid: Id::new(known.owner.uid),
            gid: Id::new(known.owner.gid),
            ..Owner::default()
        };
        (!owner.is_unset()).then_some(owner)
    }

    /// Gives a terminal that nobody can have opened yet to `owner`, unless it has been given to
    /// somebody since its master was opened.
    ///
    /// The inode may have the number of an earlier one. So the terminal's time of modification
    /// becomes the present one in nanoseconds, which no other terminal has: the kernel uses the
    /// time of the last tick.
    pub(crate) fn give_new_terminal(
        &self,
        fd: BorrowedFd,
        stat: &FileStat,
        owner: impl FnOnce() -> Owner,
    ) -> Result<(), Errno> {
        let (Some(objects), Some(object)) = (&self.objects, object(stat)) else {
            return Ok(());
        };
        let modified = TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec);
        let is_given = |known: Known| known.note == fingerprint(modified);
        if objects.get(object).is_some_and(is_given) {
            return Ok(());
        }
        let now = clock_gettime(ClockId::CLOCK_REALTIME)?;
        let follow = UtimensatFlags::FollowSymlink;
        utimensat(
            AT_FDCWD,
            &procfs::own_fd(fd),
            &TimeSpec::UTIME_OMIT,
            &now,
            follow,
        )?;
        // That of an earlier terminal.
        objects.remove(object);
        objects.set(object, known(owner(), fingerprint(now)))
    }

    /// The owner that new terminals get in the devpts whose file `ptmx` has this `stat`.
    pub(crate) fn owner_by_mount(&self, ptmx: &FileStat) -> Owner {
        self.terminal(ptmx, Some(changed(ptmx))).unwrap_or_default()
    }

    /// Gives all terminals of a devpts that are yet to be opened to `owner`, where that has an id.
    pub(crate) fn set_owner_by_mount(&self, ptmx: &FileStat, owner: Owner) -> Result<(), Errno> {
        let (Some(objects), Some(object)) = (&self.objects, object(ptmx)) else {
            return Ok(());
        };
        // That of an earlier devpts.
        objects.remove(object);
        objects.set(object, known(owner, fingerprint(changed(ptmx))))
    }

    /// Sets the owner of a terminal, or removes it if `owner` is unset. Returns `false` if it is
    /// none, or if owners of terminals are in the side store.
    pub(super) fn store_terminal(&self, stat: &FileStat, owner: Owner) -> Result<bool, Errno> {
        let (Some(objects), Some(object)) = (&self.objects, object(stat)) else {
            return Ok(false);
        };
        if !is_terminal(stat) {
            return Ok(false);
        }
        let note = objects.get(object).map_or(0, |known| known.note);
        objects.set(object, known(owner, note)).map(|()| true)
    }
}

fn known(owner: Owner, note: u32) -> Known {
    let owner = Pair {
        uid: owner.uid.map_or(u32::MAX, Id::as_raw),
        gid: owner.gid.map_or(u32::MAX, Id::as_raw),
    };
    Known {
        owner,
        creator: owner,
        note,
    }
}

/// When the inode was made, if nobody changes its mode and the like.
fn changed(stat: &FileStat) -> TimeSpec {
    TimeSpec::new(stat.st_ctime, stat.st_ctime_nsec)
}

/// A hash of the time that a terminal got when it was given to its owner.
fn fingerprint(time: TimeSpec) -> u32 {
    let (seconds, nanoseconds) = (time.tv_sec().cast_unsigned(), time.tv_nsec());
    let hash = hash::of_inode(seconds, nanoseconds.cast_unsigned());
    let [a, b, c, d, ..] = hash.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}
