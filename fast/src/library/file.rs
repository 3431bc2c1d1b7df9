//! A file as a call names it, and its owner's record.

use core::ffi::c_int;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, Ordering};

use super::raw::{call, int, number, to_kernel};
use super::{ENOSYS, EPERM, Path, Raw};
use crate::facts::MAGIC_ABOVE_INT;
use crate::owner::{ATTRIBUTE, LONGEST, Shown};

pub(super) const AT_FDCWD: c_int = -100;
pub(super) const AT_SYMLINK_NOFOLLOW: c_int = 0x100;
pub(super) const AT_EMPTY_PATH: c_int = 0x1000;

/// More than two ids take. A longer record is the worker's to read.
const RECORD: usize = 32;

// The calls for each kind of name: see [`Whose::number`].
pub(super) const GET: [usize; 3] = [number::GETXATTR, number::LGETXATTR, number::FGETXATTR];
pub(super) const SET: [usize; 3] = [number::SETXATTR, number::LSETXATTR, number::FSETXATTR];
pub(super) const REMOVE: [usize; 3] = [
    number::REMOVEXATTR,
    number::LREMOVEXATTR,
    number::FREMOVEXATTR,
];

/// Whose attributes are asked for.
#[derive(Clone, Copy)]
pub(super) enum Whose {
    /// What a path leads to.
    Path(Path),
    /// What stands there, a link itself.
    Link(Path),
    Fd(c_int),
}

impl Whose {
    pub(super) fn register(self) -> usize {
        match self {
            Self::Path(path) | Self::Link(path) => path.register(),
            Self::Fd(fd) => int(fd),
        }
    }

    pub(super) fn named(self) -> Named {
        match self {
            Self::Path(path) => Named::at(AT_FDCWD, path, true),
            Self::Link(path) => Named::at(AT_FDCWD, path, false),
            Self::Fd(fd) => Named::fd(fd),
        }
    }

    /// The one of three calls that takes this kind of name.
    pub(super) fn number(self, [path, link, fd]: [usize; 3]) -> usize {
        match self {
            Self::Path(_) => path,
            Self::Link(_) => link,
            Self::Fd(_) => fd,
        }
    }
}

/// A file as the *at calls name it.
#[derive(Clone, Copy)]
pub(super) struct Named {
    pub(super) dirfd: c_int,
    pub(super) path: Path,
    /// Whether a link in the last component is followed.
    pub(super) follow: bool,
    /// `dirfd` itself: the path is empty.
    pub(super) is_fd: bool,
}

/// The owner's record of a file.
pub(super) enum Record {
    Of(Shown),
    /// The file has none.
    Missing,
    /// Its file system has no such attributes.
    Impossible,
}

impl Named {
    pub(super) fn at(dirfd: c_int, path: Path, follow: bool) -> Self {
        Self {
            dirfd,
            path,
            follow,
            is_fd: false,
        }
    }

    pub(super) fn fd(fd: c_int) -> Self {
        Self {
            dirfd: fd,
            path: Path::EMPTY,
            follow: true,
            is_fd: true,
        }
    }

    /// Reads the owner's record. `None`: it cannot be read from here, or means more than an owner.
    pub(super) fn record(self) -> Option<Record> {
        const ENODATA: Raw = super::ENODATA;
        const EOPNOTSUPP: Raw = super::EOPNOTSUPP;
        let mut record = MaybeUninit::<[u8; RECORD]>::uninit();
        let length = match self.read(&mut record)? {
            ENODATA => return Some(Record::Missing),
            EOPNOTSUPP => return Some(Record::Impossible),
            length => usize::try_from(length).ok()?,
        };
        // SAFETY: bytes without any value that is not allowed, of which the kernel has written as
        // many as are looked at.
        let record = unsafe { &*record.as_ptr() };
        Shown::decode(record.get(..length)?).map(Record::Of)
    }

    fn read(self, record: &mut MaybeUninit<[u8; RECORD]>) -> Option<Raw> {
        let value = record.as_mut_ptr().expose_provenance();
        if self.is_beside_directory()
            && let Some(length) = self.read_at(value)
        {
            return Some(length);
        }
        self.call_attribute(GET, [value, RECORD])
    }

    /// Stores the owner's record, or removes it if nothing is shown instead. `None`: only the
    /// worker can do it.
    pub(super) fn store(self, shown: Shown) -> Option<()> {
        let mut record = MaybeUninit::<[u8; LONGEST]>::uninit();
        let done = if shown.is_nothing() {
            self.call_attribute(REMOVE, [0, 0])
        } else {
            let length = shown.encode(|index, byte| {
                let place = record.as_mut_ptr().cast::<u8>().wrapping_add(index);
                // SAFETY: `encode` gives at most `LONGEST` bytes.
                unsafe { place.write(byte) };
            });
            self.call_attribute(SET, [record.as_ptr().expose_provenance(), length])
        };
        (done? == 0).then_some(())
    }

    /// Makes one of three calls about the attribute.
    fn call_attribute(self, calls: [usize; 3], [value, size]: [usize; 2]) -> Option<Raw> {
        let mut place = LongPath::new();
        let whose = self.reach(&mut place)?;
        let name = ATTRIBUTE.as_ptr().expose_provenance();
        let arguments = [whose.register(), name, value, size, 0];
        Some(to_kernel(whose.number(calls), arguments))
    }

    /// Whether only calls with `dirfd` name the file.
    fn is_beside_directory(self) -> bool {
        let is_absolute = || self.path.first() == Some(b'/');
        !self.is_fd && self.dirfd != AT_FDCWD && !is_absolute()
    }

    /// The name for calls without `dirfd`; the kernel has read the path. `None`: there is none.
    fn reach(self, place: &mut LongPath) -> Option<Whose> {
        if self.is_fd {
            return Some(match self.dirfd {
                AT_FDCWD => Whose::Path(Path::HERE),
                fd => Whose::Fd(fd),
            });
        }
        let path = match self.is_beside_directory() {
            true => place.below(self.dirfd, self.path)?,
            false => self.path,
        };
        Some(match self.follow {
            true => Whose::Path(path),
            false => Whose::Link(path),
        })
    }

    /// Reads the record with getxattrat(2), which has six arguments.
    fn read_at(self, value: usize) -> Option<Raw> {
        if !HAS_GETXATTRAT.load(Ordering::Relaxed) {
            return None;
        }
        let arguments = Arguments {
            value: value as u64,
            size: 32,
            flags: 0,
        };
        #[expect(clippy::cast_possible_truncation, reason = "registers have 64 bits")]
        const MARK: usize = MAGIC_ABOVE_INT as usize;
        let flags = if self.follow { 0 } else { AT_SYMLINK_NOFOLLOW };
        let length = call(
            number::GETXATTRAT,
            [
                MARK | int(self.dirfd),
                self.path.register(),
                int(flags),
                ATTRIBUTE.as_ptr().expose_provenance(),
                (&raw const arguments).expose_provenance(),
                size_of::<Arguments>(),
            ],
        );
        if matches!(length, ENOSYS | EPERM) {
            HAS_GETXATTRAT.store(false, Ordering::Relaxed);
            return None;
        }
        Some(length)
    }
}

const _: () = assert!(RECORD == 32);

/// getxattrat(2) is there, and the filter lets it pass.
static HAS_GETXATTRAT: AtomicBool = AtomicBool::new(true);

/// `struct xattr_args`
#[repr(C)]
struct Arguments {
    value: u64,
    size: u32,
    flags: u32,
}

/// Room for a path that is put together here. Longer ones are the worker's.
pub(super) struct LongPath {
    bytes: MaybeUninit<[u8; Self::ROOM]>,
    length: usize,
}

impl LongPath {
    /// Little, because programs may call from small stacks.
    pub(super) const ROOM: usize = 192;

    pub(super) fn new() -> Self {
        Self {
            bytes: MaybeUninit::uninit(),
            length: 0,
        }
    }

    /// `path`, seen from the directory `dirfd`: its way leads through procfs, which is the
    /// program's own affair. Where procfs is missing, so is the file.
    fn below(&mut self, dirfd: c_int, path: Path) -> Option<Path> {
        self.begin_at(dirfd)?;
        // SAFETY: the kernel has read the path.
        self.push(unsafe { path.bytes(Self::ROOM) }?)?;
        self.end()
    }

    /// Begins with the directory `dirfd`, and a slash. A thread may have descriptors of its own
    /// (CLONE_FILES in unshare(2)).
    pub(super) fn begin_at(&mut self, dirfd: c_int) -> Option<()> {
        let number = u32::try_from(dirfd).ok()?;
        self.push(b"/proc/thread-self/fd/")?;
        let mut unit = 1;
        while number / unit > 9 {
            unit *= 10;
        }
        while unit > 0 {
            let digit = (number / unit % 10).to_le_bytes()[0];
            self.push(&[b'0' + digit])?;
            unit /= 10;
        }
        self.push(b"/")
    }

    pub(super) fn push(&mut self, bytes: &[u8]) -> Option<()> {
        if bytes.len() >= Self::ROOM - self.length {
            return None;
        }
        for byte in bytes {
            let place = self.bytes.as_mut_ptr().cast::<u8>();
            // SAFETY: there is room for all of them and the NUL. Volatile, lest it become a call of
            // memcpy(3), which nobody may provide.
            unsafe { place.wrapping_add(self.length).write_volatile(*byte) };
            self.length += 1;
        }
        Some(())
    }

    /// The path, with its NUL.
    pub(super) fn end(&mut self) -> Option<Path> {
        let place = self.bytes.as_mut_ptr().cast::<u8>();
        // SAFETY: `push` leaves room for it.
        unsafe { place.wrapping_add(self.length).write_volatile(0) };
        Some(Path(place.cast_const().cast()))
    }
}
