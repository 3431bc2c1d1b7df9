//! ioctl(2) of terminals: whoever opens /dev/ptmx owns the new terminal.
//!
//! The open itself is not notified. But every program finds out which terminal it got (TIOCGPTN),
//! or unlocks it (TIOCSPTLCK), before it or anybody else uses it. The first of these calls gives
//! the terminal to the caller; so it takes it from the owner of an earlier one of that number.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::stat::fstat;

use crate::linux::seccomp::Reply;
use crate::linux::sys;
use crate::target::Call;

pub(super) fn ioctl(call: &mut Call) -> Result<Reply, Errno> {
    let is_new = |master: &_| sys::is_terminal_locked(AsFd::as_fd(master)) == Ok(true);
    if let Ok(master) = call.duplicate(call.int(0))
        && is_new(&master)
        && !call.is_nested()
    {
        let terminal = sys::terminal_of(master.as_fd())?;
        let (ptmx, stat) = (fstat(&master)?, fstat(&terminal)?);
        let _lock = call.container.locks.lock_file(&stat)?;
        let (uid, gid) = call.container.identities.ids(call.who_among_files()?);
        call.ensure_waiting()?;
        call.container
            .owners
            .give_new_terminal(terminal.as_fd(), &stat, || {
                call.container
                    .owner_of_new_terminal(call.pid(), (&ptmx, &stat), (uid.fs, gid.fs))
            })?;
    }
    // CONTINUE: only the owner is emulated.
    Ok(Reply::Continue)
}
