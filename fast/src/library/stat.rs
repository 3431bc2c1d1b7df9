//! stat(2): stat, lstat, fstat, fstatat, with all names that libc has and had for them; statx(2).
//!
//! The kernel fills in the structure, and one getxattr(2) reads the owner. Most files have none. If
//! there is one, a second stat(2) verifies that the structure is about the same file in the same
//! state.

use core::ffi::{c_char, c_int, c_uint, c_void};
use core::mem::MaybeUninit;

use super::cache::Version;
use super::file::{AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, Named, Record};
use super::raw::{Stat, int, number, to_kernel, to_worker, to_worker_with};
use super::{EACCES, EINVAL, ENOSYS, EPERM, Path, Raw, cache, next, page, result, who};
use crate::facts::{
    CHANGED, FOREIGN, FULL_ONES, MAPPED, ORDINARY, OTHERS_ARE_ROOT, SIDE_STORE, TERMINALS,
};
use crate::owner::{self, Shown};

const AT_NO_AUTOMOUNT: c_int = 0x800;
const AT_STATX_SYNC_TYPE: c_int = 0x6000;

pub(super) const S_IFMT: u32 = 0o170_000;
pub(super) const S_IFLNK: u32 = 0o120_000;
pub(super) const S_IFREG: u32 = 0o100_000;
pub(super) const S_IFDIR: u32 = 0o040_000;
pub(super) const S_IFIFO: u32 = 0o010_000;
const S_IFCHR: u32 = 0o020_000;

/// `struct statx`, up to where it matters here.
#[repr(C)]
#[derive(Clone, Copy)]
struct Statx {
    mask: u32,
    block_size: u32,
    attributes: u64,
    nlink: u32,
    uid: u32,
    gid: u32,
    mode: u16,
    pad: u16,
    ino: u64,
    size: u64,
    blocks: u64,
    attributes_mask: u64,
    atime: [u64; 2],
    btime: [u64; 2],
    ctime: [u64; 2],
    mtime: [u64; 2],
    rdev: [u32; 2],
    dev: [u32; 2],
    rest: [u64; 14],
}

const _: () = assert!(size_of::<Statx>() == 256);

/// A structure that the kernel fills in.
trait Structure: Copy {
    /// `None`: the file system does not say enough.
    fn version(&self) -> Option<Version>;
    fn mode(&self) -> u32;
    /// The major number of the device.
    fn major(&self) -> u64;
    fn uid(&self) -> u32;
    /// The device, if it is not one of disks, whose numbers have a major part.
    fn anonymous_device(&self) -> Option<u64>;
    fn show(&mut self, shown: Shown);
}

impl Structure for Stat {
    fn version(&self) -> Option<Version> {
        Some(Version {
            dev: self.dev,
            ino: self.ino,
            ctime: self.ctime.map(i64::cast_unsigned),
            mode: self.mode,
        })
    }

    fn mode(&self) -> u32 {
        self.mode
    }

    fn major(&self) -> u64 {
        // sys/sysmacros.h
        self.rdev >> 8 & 0xfff | self.rdev >> 32 & 0xffff_f000
    }

    fn uid(&self) -> u32 {
        self.uid
    }

    fn anonymous_device(&self) -> Option<u64> {
        // sys/sysmacros.h: the bits of the major number.
        const MAJOR: u64 = 0xffff_f000_000f_ff00;
        (self.dev & MAJOR == 0).then_some(self.dev)
    }

    fn show(&mut self, shown: Shown) {
        self.uid = Shown::instead(shown.uid, self.uid);
        self.gid = Shown::instead(shown.gid, self.gid);
    }
}

impl Structure for Statx {
    fn version(&self) -> Option<Version> {
        const TYPE_CTIME_INO: u32 = 0x1 | 0x80 | 0x100;
        (self.mask & TYPE_CTIME_INO == TYPE_CTIME_INO).then_some(Version {
            dev: u64::from(self.dev[0]) << 32 | u64::from(self.dev[1]),
            ino: self.ino,
            // What is behind the nanoseconds is reserved.
            ctime: [self.ctime[0], self.ctime[1] & 0xffff_ffff],
            mode: self.mode.into(),
        })
    }

    fn mode(&self) -> u32 {
        self.mode.into()
    }

    fn major(&self) -> u64 {
        self.rdev[0].into()
    }

    fn uid(&self) -> u32 {
        self.uid
    }

    fn anonymous_device(&self) -> Option<u64> {
        let [major, minor] = self.dev;
        (major == 0).then_some(minor.into())
    }

    fn show(&mut self, shown: Shown) {
        self.uid = Shown::instead(shown.uid, self.uid);
        self.gid = Shown::instead(shown.gid, self.gid);
    }
}

/// The call that a program makes.
#[derive(Clone, Copy)]
enum Form {
    Fstat,
    /// `is_at`: with the directory's descriptor, as fstatat(2).
    Newfstatat {
        is_at: bool,
    },
    Statx {
        mask: c_uint,
    },
}

/// Which file is asked about, and how.
#[derive(Clone, Copy)]
struct Asked {
    form: Form,
    dirfd: c_int,
    path: Path,
    flags: c_int,
    buffer: *mut c_void,
}

impl Asked {
    /// The call's number and arguments, with the structure at another place.
    fn call(self, buffer: *mut c_void) -> (usize, [usize; 5]) {
        let (dirfd, flags) = (int(self.dirfd), int(self.flags));
        let path = self.path.register();
        let buffer = buffer.expose_provenance();
        match self.form {
            Form::Fstat => (number::FSTAT, [dirfd, buffer, 0, 0, 0]),
            Form::Newfstatat { .. } => (number::NEWFSTATAT, [dirfd, path, buffer, flags, 0]),
            Form::Statx { mask } => {
                let mask = mask as usize;
                (number::STATX, [dirfd, path, flags, mask, buffer])
            }
        }
    }

    /// # Safety
    ///
    /// `S` is what this call fills in.
    unsafe fn answer<S: Structure>(self) -> c_int {
        const LOOKUP: c_int = AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT;
        let known = match self.form {
            Form::Fstat | Form::Newfstatat { .. } => LOOKUP,
            Form::Statx { .. } => LOOKUP | AT_STATX_SYNC_TYPE,
        };
        let (number, _) = self.call(self.buffer);
        let answered = match page::facts(number) {
            Some(facts) if self.flags & !known == 0 && self.may_look_up(facts) => {
                // SAFETY: the caller's promise.
                unsafe { self.answer_here::<S>(facts) }
            }
            _ => None,
        };
        match answered {
            Some(answer) => result(answer),
            None => self.by_libc(),
        }
    }

    /// Whether the way to the file is open; to that of a descriptor there is none.
    fn may_look_up(self, facts: u64) -> bool {
        matches!(self.form, Form::Fstat) || who::may_look_up(facts)
    }

    fn by_libc(self) -> c_int {
        let Self {
            dirfd,
            path: Path(path),
            flags,
            buffer,
            ..
        } = self;
        match self.form {
            Form::Fstat => next::fstat(dirfd, buffer),
            Form::Newfstatat { is_at: true } => next::fstatat(dirfd, path, buffer, flags),
            Form::Newfstatat { .. } if flags == 0 => next::stat(path, buffer),
            Form::Newfstatat { .. } => next::lstat(path, buffer),
            Form::Statx { .. } => {
                let (number, arguments) = self.call(buffer);
                result(to_worker(number, arguments))
            }
        }
    }

    /// `None`: the worker knows better.
    ///
    /// # Safety
    ///
    /// `S` is what this call fills in.
    unsafe fn answer_here<S: Structure>(self, facts: u64) -> Option<Raw> {
        let (number, arguments) = self.call(self.buffer);
        match to_kernel(number, arguments) {
            0 => {}
            // A worker has more permissions on its way. ENOSYS: the filter did not let it go on.
            EACCES | EPERM | ENOSYS => return None,
            error => return Some(error),
        }
        let structure = self.buffer.cast::<S>();
        // SAFETY: the kernel has just written the structure there. It may lie at an odd address.
        let filled = unsafe { structure.read_unaligned() };
        if let Some(device) = filled.anonymous_device()
            && is_foreign(filled.uid())
            && !cache::is_ordinary(device)
        {
            return Some(self.ask_about_foreign(device));
        }
        if !carries_attributes(filled.mode()) {
            let is_elsewhere =
                facts & SIDE_STORE != 0 || (facts & TERMINALS != 0 && is_terminal(&filled));
            return match is_elsewhere {
                true => None,
                // SAFETY: the caller's promise.
                false => Some(unsafe { self.show(filled, Shown::NOTHING, facts) }),
            };
        }
        let version = filled.version();
        let known = version.as_ref().and_then(Version::known);
        let shown = match known {
            Some(shown) => shown,
            None => match self.named().record()? {
                Record::Of(shown) => {
                    let version = version.as_ref()?;
                    // Behind a descriptor it is one file, whatever happens to its names.
                    if !self.named().is_fd && self.look_again::<S>()? != *version {
                        return None;
                    }
                    version.keep(shown);
                    shown
                }
                Record::Missing => {
                    if let Some(version) = &version {
                        version.keep(Shown::NOTHING);
                    }
                    Shown::NOTHING
                }
                // In procfs files belong to processes.
                Record::Impossible if facts & (SIDE_STORE | CHANGED) != 0 => return None,
                Record::Impossible => Shown::NOTHING,
            },
        };
        if shown.is_nothing() && facts & FULL_ONES != 0 {
            return None;
        }
        // SAFETY: the caller's promise.
        Some(unsafe { self.show(filled, shown, facts) })
    }

    /// Gives the caller the structure with what a file with this record shows.
    ///
    /// # Safety
    ///
    /// `S` is what this call fills in, and the kernel has filled in the caller's.
    unsafe fn show<S: Structure>(self, mut filled: S, shown: Shown, facts: u64) -> Raw {
        let shown = match facts & OTHERS_ARE_ROOT {
            0 => shown,
            _ => shown.or_root(),
        };
        if !shown.is_nothing() {
            filled.show(shown);
            // SAFETY: the caller's promise. It may lie at an odd address.
            unsafe { self.buffer.cast::<S>().write_unaligned(filled) };
        }
        0
    }

    /// Asks the worker about a file of another host user, which may be one of procfs or sysfs.
    fn ask_about_foreign(self, device: u64) -> Raw {
        #[expect(clippy::cast_possible_truncation, reason = "registers have 64 bits")]
        const MARK: usize = FOREIGN as usize;
        let (number, arguments) = self.call(self.buffer);
        match to_worker_with(MARK, number, arguments) {
            answer if answer as i64 == ORDINARY => {
                cache::note_ordinary(device);
                0
            }
            answer => answer,
        }
    }

    fn look_again<S: Structure>(self) -> Option<Version> {
        let mut again = MaybeUninit::<S>::uninit();
        let (number, arguments) = self.call(again.as_mut_ptr().cast());
        if to_kernel(number, arguments) != 0 {
            return None;
        }
        // SAFETY: the kernel has just filled it in; whatever it has left out was plain numbers.
        let again = unsafe { again.assume_init() };
        again.version()
    }

    /// The file; the kernel has read the path.
    fn named(self) -> Named {
        Named {
            dirfd: self.dirfd,
            path: self.path,
            follow: self.flags & AT_SYMLINK_NOFOLLOW == 0,
            is_fd: matches!(self.form, Form::Fstat)
                || (self.flags & AT_EMPTY_PATH != 0 && self.path.first() == Some(0)),
        }
    }
}

/// Whether a file carries no attributes; also if that cannot be seen.
pub(super) fn is_special(file: Named) -> bool {
    mode_of(file).is_none_or(|[mode, ..]| !carries_attributes(mode))
}

/// Mode, uid and gid of a file, as the kernel has them.
pub(super) fn mode_of(file: Named) -> Option<[u32; 3]> {
    look(file).ok()
}

/// The same, or the kernel's error.
pub(super) fn look(file: Named) -> Result<[u32; 3], Raw> {
    let mut filled = MaybeUninit::<Stat>::uninit();
    let flags = match (file.is_fd, file.follow) {
        (true, _) => AT_EMPTY_PATH,
        (false, true) => 0,
        (false, false) => AT_SYMLINK_NOFOLLOW,
    };
    let asked = Asked {
        form: Form::Newfstatat { is_at: true },
        dirfd: file.dirfd,
        path: file.path,
        flags,
        buffer: filled.as_mut_ptr().cast(),
    };
    let (number, arguments) = asked.call(asked.buffer);
    match to_kernel(number, arguments) {
        0 => {}
        error => return Err(error),
    }
    // SAFETY: the kernel has just filled it in.
    let filled = unsafe { filled.assume_init() };
    Ok([filled.mode, filled.uid, filled.gid])
}

fn is_terminal<S: Structure>(filled: &S) -> bool {
    filled.mode() & S_IFMT == S_IFCHR && owner::TERMINALS.contains(&filled.major())
}

/// Whether a file whose st_uid is `uid` belongs to another host user.
fn is_foreign(uid: u32) -> bool {
    const OVERFLOW: u32 = 65534;
    match page::word(MAPPED) {
        0 => uid == OVERFLOW,
        only => u64::from(uid) + 1 != only,
    }
}

/// xattr(7): user attributes are for regular files and directories.
pub(super) fn carries_attributes(mode: u32) -> bool {
    matches!(mode & S_IFMT, S_IFREG | S_IFDIR)
}

fn newfstatat(
    directory: Option<c_int>,
    path: *const c_char,
    buffer: *mut c_void,
    flags: c_int,
) -> c_int {
    let asked = Asked {
        form: Form::Newfstatat {
            is_at: directory.is_some(),
        },
        dirfd: directory.unwrap_or(AT_FDCWD),
        path: Path(path),
        flags,
        buffer,
    };
    // SAFETY: newfstatat(2) fills in a `struct stat`.
    unsafe { asked.answer::<Stat>() }
}

fn fstat_of(fd: c_int, buffer: *mut c_void) -> c_int {
    let asked = Asked {
        form: Form::Fstat,
        dirfd: fd,
        path: Path::EMPTY,
        flags: 0,
        buffer,
    };
    // SAFETY: fstat(2) fills in a `struct stat`.
    unsafe { asked.answer::<Stat>() }
}

/// What glibc before 2.33 made of stat(2): `version` says how the structure looks.
fn is_known(version: c_int) -> bool {
    // bits/stat.h: _STAT_VER_KERNEL, _STAT_VER_LINUX.
    matches!(version, 0 | 1)
}

with_64! {
    stat, stat64 => (path: *const c_char, buffer: *mut c_void) {
        newfstatat(None, path, buffer, 0)
    }
    lstat, lstat64 => (path: *const c_char, buffer: *mut c_void) {
        newfstatat(None, path, buffer, AT_SYMLINK_NOFOLLOW)
    }
    fstat, fstat64 => (fd: c_int, buffer: *mut c_void) {
        fstat_of(fd, buffer)
    }
    fstatat, fstatat64 => (dirfd: c_int, path: *const c_char, buffer: *mut c_void, flags: c_int) {
        newfstatat(Some(dirfd), path, buffer, flags)
    }
    __xstat, __xstat64 => (version: c_int, path: *const c_char, buffer: *mut c_void) {
        match is_known(version) {
            true => newfstatat(None, path, buffer, 0),
            false => result(EINVAL),
        }
    }
    __lxstat, __lxstat64 => (version: c_int, path: *const c_char, buffer: *mut c_void) {
        match is_known(version) {
            true => newfstatat(None, path, buffer, AT_SYMLINK_NOFOLLOW),
            false => result(EINVAL),
        }
    }
    __fxstat, __fxstat64 => (version: c_int, fd: c_int, buffer: *mut c_void) {
        match is_known(version) {
            true => fstat_of(fd, buffer),
            false => result(EINVAL),
        }
    }
    __fxstatat, __fxstatat64 => (
        version: c_int, dirfd: c_int, path: *const c_char, buffer: *mut c_void, flags: c_int
    ) {
        match is_known(version) {
            true => newfstatat(Some(dirfd), path, buffer, flags),
            false => result(EINVAL),
        }
    }
}

/// statx(2)
#[cfg_attr(fast_library, unsafe(no_mangle))]
pub extern "C" fn statx(
    dirfd: c_int,
    path: *const c_char,
    flags: c_int,
    mask: c_uint,
    buffer: *mut c_void,
) -> c_int {
    let asked = Asked {
        form: Form::Statx { mask },
        dirfd,
        path: Path(path),
        flags,
        buffer,
    };
    // SAFETY: statx(2) fills in a `struct statx`.
    unsafe { asked.answer::<Statx>() }
}
