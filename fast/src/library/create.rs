//! open(2) with O_CREAT, mkdir(2), symlink(2), mkfifo(3), and their variants.
//!
//! A file that a process with the first credentials creates has the right owner without a record,
//! unless its directory hands down a group or an access control list: then the directory has a
//! record.

use core::ffi::{c_char, c_int, c_uint};

use super::change::allowed;
use super::file::{AT_FDCWD, LongPath, Named, Record};
use super::raw::flag::{O_DIRECTORY, O_NOFOLLOW};
use super::raw::{MARK, clear_mark, int, number, to_kernel, to_worker, to_worker_with};
use super::stat::{S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, look};
use super::{EINTR, ENOENT, ENXIO, Path, Raw, errno, next, page, result};
use super::{status, who};
use crate::facts::{DEVICE, FULL_ONES, SIDE_STORE};
use crate::owner::NOT_SET;

/// A file to create.
#[derive(Clone, Copy)]
struct New {
    dirfd: c_int,
    path: Path,
    /// A link in the last component is followed.
    follows: bool,
    /// The path may end with a slash.
    is_directory: bool,
}

impl New {
    /// The kernel's answer, where the new file needs no record. `None`: the worker knows better.
    fn by_kernel(self, number: usize, arguments: [usize; 5]) -> Option<Raw> {
        let facts = page::facts(number)?;
        // A root that lacks capabilities is checked by the worker: to the kernel, it owns all files.
        let is_checked = !who::is_first(facts) || !who::may_look_up(facts);
        if is_checked || !self.is_name()? || self.may_inherit(facts)? {
            return None;
        }
        allowed(to_kernel(number, arguments))
    }

    /// Whether the path can be read, and does not lead on by a link.
    fn is_name(self) -> Option<bool> {
        match look(Named::at(self.dirfd, self.path, false)) {
            Err(ENOENT) => Some(true),
            Err(_) => None,
            Ok([mode, ..]) => match mode & S_IFMT {
                S_IFREG | S_IFDIR => Some(true),
                S_IFLNK => Some(!self.follows),
                // Opening it may take long, and is libc's: see pthread_cancel(3).
                _ => None,
            },
        }
    }

    /// Whether the directory hands something down; the kernel has read the path.
    fn may_inherit(self, facts: u64) -> Option<bool> {
        // SAFETY: the kernel has read the path.
        let path = unsafe { self.path.bytes(LongPath::ROOM) }?;
        let prefix = prefix(path, self.is_directory)?;
        let mut place = LongPath::new();
        let directory = if prefix.is_empty() {
            Named::fd(self.dirfd)
        } else {
            place.push(prefix)?;
            Named::at(self.dirfd, place.end()?, true)
        };
        Some(match directory.record()? {
            Record::Of(shown) => shown.gid != NOT_SET,
            Record::Missing => facts & FULL_ONES != 0,
            Record::Impossible => facts & SIDE_STORE != 0,
        })
    }
}

/// The part of a path in front of its last component. `None`: nothing can be created there, or only
/// a directory.
fn prefix(path: &[u8], is_directory: bool) -> Option<&[u8]> {
    let end = path.iter().rposition(|byte| *byte != b'/')? + 1;
    if end < path.len() && !is_directory {
        return None;
    }
    let whole = path.get(..end)?;
    let start = whole.iter().rposition(|byte| *byte == b'/');
    let (prefix, last) = whole.split_at_checked(start.map_or(0, |slash| slash + 1))?;
    (!matches!(last, b"." | b"..")).then_some(prefix)
}

// ---- open(2)

pub(super) const O_CREAT: c_int = 0o100;
const O_EXCL: c_int = 0o200;
const O_PATH: c_int = 0o10_000_000;
const UNNAMED: c_int = 0o20_000_000;

/// The descriptor, or an error. `None`: the call creates nothing, or the worker knows better.
fn create(dirfd: c_int, path: *const c_char, flags: c_int, mode: c_uint) -> Option<Raw> {
    if flags & O_CREAT == 0 || flags & (O_DIRECTORY | O_PATH | UNNAMED) != 0 {
        return None;
    }
    let new = New {
        dirfd,
        path: Path(path),
        follows: flags & (O_EXCL | O_NOFOLLOW) == 0,
        is_directory: false,
    };
    let path = path.expose_provenance();
    let arguments = [int(dirfd), path, int(flags), mode as usize, 0];
    new.by_kernel(number::OPENAT, arguments)
}

/// Opens by libc's function, where pthread_cancel(3) may end the thread. It is begun anew where a
/// signal has interrupted the wait for the worker.
fn open_by(open: impl Fn(usize) -> c_int, dirfd: c_int, path: Path, flags: c_int) -> c_int {
    // A mark, as in `directory`: the call creates nothing.
    let mark = match page::facts(number::OPENAT) {
        Some(facts) if flags & (O_CREAT | UNNAMED) == 0 && who::is_free(facts) => MARK,
        _ => 0,
    };
    loop {
        let fd = open(mark);
        clear_mark();
        if fd < 0 && errno() == ENXIO {
            return open_device(dirfd, path, flags);
        }
        if fd >= 0 || mark != 0 || errno() != EINTR || may_wait(dirfd, path) {
            return status::shown(fd, path, flags);
        }
    }
}

/// Asks the worker for the device of which the file may be a placeholder.
fn open_device(dirfd: c_int, path: Path, flags: c_int) -> c_int {
    #[expect(clippy::cast_possible_truncation, reason = "registers have 64 bits")]
    const MARK: usize = DEVICE as usize;
    let facts = page::facts(number::OPENAT);
    let answer = match facts.is_some_and(|facts| facts & SIDE_STORE != 0) {
        true => {
            let arguments = [int(dirfd), path.register(), int(flags | O_CREAT), 0, 0];
            to_worker_with(MARK, number::OPENAT, arguments)
        }
        false => ENXIO,
    };
    result(answer)
}

/// Whether a call waits for the other end of a fifo: such a wait may be interrupted.
fn may_wait(dirfd: c_int, path: Path) -> bool {
    let found = look(Named::at(dirfd, path, true));
    found.is_ok_and(|[mode, ..]| mode & S_IFMT == S_IFIFO)
}

// Of a variadic function, the mode is an argument like any other on all architectures here, and
// undefined where it is not given.
with_64! {
    open, open64 => (path: *const c_char, flags: c_int, mode: c_uint) {
        match create(AT_FDCWD, path, flags, mode) {
            Some(answer) => result(answer),
            None => open_by(|mark| next::open(path, flags, mode, mark), AT_FDCWD, Path(path), flags),
        }
    }
    openat, openat64 => (dirfd: c_int, path: *const c_char, flags: c_int, mode: c_uint) {
        match create(dirfd, path, flags, mode) {
            Some(answer) => result(answer),
            None => open_by(|mark| next::openat(dirfd, path, flags, mode, mark), dirfd, Path(path), flags),
        }
    }
    creat, creat64 => (path: *const c_char, mode: c_uint) {
        const O_WRONLY_TRUNC: c_int = 0o1 | 0o1000;
        let flags = O_WRONLY_TRUNC | O_CREAT;
        match create(AT_FDCWD, path, flags, mode) {
            Some(answer) => result(answer),
            None => open_by(|_| next::creat(path, mode), AT_FDCWD, Path(path), flags),
        }
    }
}

/// open(2) without a mode, as programs call it that were compiled with _FORTIFY_SOURCE. The C
/// library ends a program that should have given a mode.
#[cfg_attr(fast_library, unsafe(no_mangle))]
pub extern "C" fn __open_2(path: *const c_char, flags: c_int) -> c_int {
    open_by(
        |mark| next::open_2(path, flags, mark),
        AT_FDCWD,
        Path(path),
        flags,
    )
}

#[cfg_attr(fast_library, unsafe(no_mangle))]
pub extern "C" fn __open64_2(path: *const c_char, flags: c_int) -> c_int {
    __open_2(path, flags)
}

#[cfg_attr(fast_library, unsafe(no_mangle))]
pub extern "C" fn __openat_2(dirfd: c_int, path: *const c_char, flags: c_int) -> c_int {
    let open = |mark| next::openat_2(dirfd, path, flags, mark);
    open_by(open, dirfd, Path(path), flags)
}

#[cfg_attr(fast_library, unsafe(no_mangle))]
pub extern "C" fn __openat64_2(dirfd: c_int, path: *const c_char, flags: c_int) -> c_int {
    __openat_2(dirfd, path, flags)
}

// ---- mkdir(2), symlink(2), mkfifo(3)

fn named(dirfd: c_int, path: *const c_char) -> New {
    New {
        dirfd,
        path: Path(path),
        follows: false,
        is_directory: false,
    }
}

/// `None`, here and below: the worker knows better.
fn make_directory(dirfd: c_int, path: *const c_char, mode: c_uint) -> Option<Raw> {
    let new = New {
        is_directory: true,
        ..named(dirfd, path)
    };
    let arguments = [int(dirfd), path.expose_provenance(), mode as usize, 0, 0];
    new.by_kernel(number::MKDIRAT, arguments)
}

#[cfg_attr(fast_library, unsafe(no_mangle))]
pub extern "C" fn mkdirat(dirfd: c_int, path: *const c_char, mode: c_uint) -> c_int {
    let arguments = [int(dirfd), path.expose_provenance(), mode as usize, 0, 0];
    let answered = make_directory(dirfd, path, mode);
    result(answered.unwrap_or_else(|| to_worker(number::MKDIRAT, arguments)))
}

#[cfg_attr(fast_library, unsafe(no_mangle))]
pub extern "C" fn mkdir(path: *const c_char, mode: c_uint) -> c_int {
    let arguments = [path.expose_provenance(), mode as usize, 0, 0, 0];
    let answered = make_directory(AT_FDCWD, path, mode);
    result(answered.unwrap_or_else(|| to_worker(number::MKDIR, arguments)))
}

fn make_link(text: *const c_char, dirfd: c_int, path: *const c_char) -> Option<Raw> {
    let (text, place) = (text.expose_provenance(), path.expose_provenance());
    named(dirfd, path).by_kernel(number::SYMLINKAT, [text, int(dirfd), place, 0, 0])
}

#[cfg_attr(fast_library, unsafe(no_mangle))]
pub extern "C" fn symlinkat(text: *const c_char, dirfd: c_int, path: *const c_char) -> c_int {
    let (place, value) = (path.expose_provenance(), text.expose_provenance());
    let answered = make_link(text, dirfd, path);
    let arguments = [value, int(dirfd), place, 0, 0];
    result(answered.unwrap_or_else(|| to_worker(number::SYMLINKAT, arguments)))
}

#[cfg_attr(fast_library, unsafe(no_mangle))]
pub extern "C" fn symlink(text: *const c_char, path: *const c_char) -> c_int {
    let (place, value) = (path.expose_provenance(), text.expose_provenance());
    let answered = make_link(text, AT_FDCWD, path);
    let arguments = [value, place, 0, 0, 0];
    result(answered.unwrap_or_else(|| to_worker(number::SYMLINK, arguments)))
}

fn make_fifo(dirfd: c_int, path: *const c_char, mode: c_uint) -> Option<Raw> {
    let (place, mode) = (path.expose_provenance(), (mode | S_IFIFO) as usize);
    named(dirfd, path).by_kernel(number::MKNODAT, [int(dirfd), place, mode, 0, 0])
}

#[cfg_attr(fast_library, unsafe(no_mangle))]
pub extern "C" fn mkfifoat(dirfd: c_int, path: *const c_char, mode: c_uint) -> c_int {
    match make_fifo(dirfd, path, mode) {
        Some(answer) => result(answer),
        None => next::mkfifoat(dirfd, path, mode),
    }
}

#[cfg_attr(fast_library, unsafe(no_mangle))]
pub extern "C" fn mkfifo(path: *const c_char, mode: c_uint) -> c_int {
    match make_fifo(AT_FDCWD, path, mode) {
        Some(answer) => result(answer),
        None => next::mkfifo(path, mode),
    }
}
