//! chown(2): chown, lchown, fchown, fchownat.
//!
//! Here root gives a regular file or a directory away, with both ids. As in the worker, the record
//! comes first, and then a chown(2) of the kernel's that has all other effects. Where one id is to
//! stay, the record depends on the former one, which only a worker keeps others from changing.

use core::ffi::{c_char, c_int, c_uint};

use super::file::{AT_FDCWD, AT_SYMLINK_NOFOLLOW, Named, Record};
use super::raw::{int, number, to_kernel, to_worker};
use super::stat::{carries_attributes, mode_of};
use super::{Path, Raw, page, result, who};
use crate::facts::{FULL_ONES, MAPPED};
use crate::owner::{NOT_SET, Shown};

/// A change of the owner.
struct Change {
    file: Named,
    ids: [c_uint; 2],
    number: usize,
    arguments: [usize; 5],
}

impl Change {
    fn make(self) -> c_int {
        let answered = self.make_here();
        result(answered.unwrap_or_else(|| to_worker(self.number, self.arguments)))
    }

    /// `None`: the worker knows better, or can do more.
    fn make_here(&self) -> Option<Raw> {
        // fchown(2) does not know AT_FDCWD.
        let is_no_fd = self.file.is_fd && self.file.dirfd < 0;
        if self.ids.contains(&NOT_SET) || is_no_fd {
            return None;
        }
        let facts = page::facts(match self.file.is_fd {
            true => number::FCHOWN,
            false => number::FCHOWNAT,
        })?;
        if facts & FULL_ONES != 0 || !who::is_free(facts) {
            return None;
        }
        let [mode, uid, gid] = mode_of(self.file)?;
        let is_own = u64::from(uid) + 1 == page::word(MAPPED);
        if !is_own || !carries_attributes(mode) {
            return None;
        }
        let new = Shown::instead_of([uid, gid], self.ids);
        let is_recorded = match self.file.record()? {
            Record::Of(_) => true,
            Record::Missing => !new.is_nothing(),
            Record::Impossible => return None,
        };
        if is_recorded {
            self.file.store(new)?;
        }
        // fsnotify_change: IN_ATTRIB needs an id. Where the record has changed, it has been
        // triggered already.
        self.touch(if is_recorded { NOT_SET } else { uid })
    }

    /// All effects of chown(2) except the change of ids.
    fn touch(&self, uid: c_uint) -> Option<Raw> {
        const NONE: usize = NOT_SET as usize;
        let Named { dirfd, path, .. } = self.file;
        let uid = uid as usize;
        let done = match self.file.is_fd {
            true => to_kernel(number::FCHOWN, [int(dirfd), uid, NONE, 0, 0]),
            false => {
                let flags = if self.file.follow {
                    0
                } else {
                    AT_SYMLINK_NOFOLLOW
                };
                let arguments = [int(dirfd), path.register(), uid, NONE, int(flags)];
                to_kernel(number::FCHOWNAT, arguments)
            }
        };
        (done == 0).then_some(0)
    }
}

#[cfg_attr(fast_library, unsafe(no_mangle))]
pub extern "C" fn fchownat(
    dirfd: c_int,
    path: *const c_char,
    uid: c_uint,
    gid: c_uint,
    flags: c_int,
) -> c_int {
    let arguments = [
        int(dirfd),
        path.expose_provenance(),
        uid as usize,
        gid as usize,
        int(flags),
    ];
    let follow = flags & AT_SYMLINK_NOFOLLOW == 0;
    let change = Change {
        file: Named::at(dirfd, Path(path), follow),
        ids: [uid, gid],
        number: number::FCHOWNAT,
        arguments,
    };
    match flags & !AT_SYMLINK_NOFOLLOW {
        0 => change.make(),
        // AT_EMPTY_PATH, or an error.
        _ => result(to_worker(change.number, change.arguments)),
    }
}

fn at_path(number: usize, path: *const c_char, ids: [c_uint; 2], follow: bool) -> c_int {
    let [uid, gid] = ids.map(|id| id as usize);
    let change = Change {
        file: Named::at(AT_FDCWD, Path(path), follow),
        ids,
        number,
        arguments: [path.expose_provenance(), uid, gid, 0, 0],
    };
    change.make()
}

#[cfg_attr(fast_library, unsafe(no_mangle))]
pub extern "C" fn chown(path: *const c_char, uid: c_uint, gid: c_uint) -> c_int {
    at_path(number::CHOWN, path, [uid, gid], true)
}

#[cfg_attr(fast_library, unsafe(no_mangle))]
pub extern "C" fn lchown(path: *const c_char, uid: c_uint, gid: c_uint) -> c_int {
    at_path(number::LCHOWN, path, [uid, gid], false)
}

#[cfg_attr(fast_library, unsafe(no_mangle))]
pub extern "C" fn fchown(fd: c_int, uid: c_uint, gid: c_uint) -> c_int {
    let change = Change {
        file: Named::fd(fd),
        ids: [uid, gid],
        number: number::FCHOWN,
        arguments: [int(fd), uid as usize, gid as usize, 0, 0],
    };
    change.make()
}
