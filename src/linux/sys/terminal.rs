//! Terminals: ioctl_tty(2).

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use libc::c_int;
use nix::errno::Errno;

use super::owned_fd;

/// Whether the terminal of `master` has not been unlocked yet. ENOTTY if it is no master.
pub(crate) fn is_terminal_locked(master: BorrowedFd) -> Result<bool, Errno> {
    const TIOCGPTLCK: libc::Ioctl = 0x8004_5439;
    let mut is_locked: c_int = 0;
    // SAFETY: the kernel writes an int.
    let result = unsafe { libc::ioctl(master.as_raw_fd(), TIOCGPTLCK, &raw mut is_locked) };
    Errno::result(result).map(|_| is_locked != 0)
}

/// The terminal of `master`, as an O_PATH descriptor: it is not opened, and may be locked.
pub(crate) fn terminal_of(master: BorrowedFd) -> Result<OwnedFd, Errno> {
    const TIOCGPTPEER: libc::Ioctl = 0x5441;
    let flags = libc::O_PATH | libc::O_CLOEXEC;
    // SAFETY: the ioctl takes its argument by value.
    let fd = unsafe { libc::ioctl(master.as_raw_fd(), TIOCGPTPEER, flags) };
    owned_fd(fd.into())
}
