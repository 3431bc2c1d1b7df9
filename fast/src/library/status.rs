//! `/proc/PID/status`, where ps(1) and its like find the ids of processes: the worker shows the
//! emulated ones.

use core::ffi::c_int;

use super::Path;
use super::file::LongPath;
use super::page;
use super::raw::{call, int, number};
use crate::facts::{CHANGED, STATUS};

const O_ACCMODE: c_int = 0o3;
const O_CREAT: usize = 0o100;
const O_CLOEXEC: c_int = 0o2_000_000;
const O_PATH: c_int = 0o10_000_000;

/// The descriptor `fd`, at which `path` has been opened, or an error. If it is such a file, it is
/// replaced by the one that the worker gives.
pub(super) fn shown(fd: c_int, path: Path, flags: c_int) -> c_int {
    if fd >= 0 && flags & (O_ACCMODE | O_PATH) == 0 && is_status(path) {
        show(fd, flags);
    }
    fd
}

/// The kernel has read the path.
fn is_status(path: Path) -> bool {
    // SAFETY: the kernel has read it.
    let bytes = unsafe { path.bytes(LongPath::ROOM) };
    let last = bytes.and_then(|bytes| bytes.rsplit(|byte| *byte == b'/').next());
    last == Some(b"status")
}

fn show(fd: c_int, flags: c_int) {
    #[expect(clippy::cast_possible_truncation, reason = "registers have 64 bits")]
    const MARK: usize = STATUS as usize;
    let facts = page::facts(number::OPENAT);
    if facts.is_none_or(|facts| facts & CHANGED == 0) {
        return;
    }
    let empty = Path::EMPTY.register();
    let Ok(shown) = usize::try_from(call(number::OPENAT, [int(fd), empty, O_CREAT, 0, 0, MARK]))
    else {
        return;
    };
    let close_on_exec = int(flags & O_CLOEXEC);
    call(number::DUP3, [shown, int(fd), close_on_exec, 0, 0, 0]);
    call(number::CLOSE, [shown, 0, 0, 0, 0, 0]);
}
