//! Detects whether this process is emulated already, as everything below `subuidless run` is. The
//! kernel allows one listener for a process and its descendants, so a container in there cannot
//! have rules of its own, and needs none.

use nix::errno::Errno;
use nix::unistd::{Uid, fchown};

use crate::error::{Context, Error};
use crate::linux::memfd;
use crate::linux::procfs::Status;
use crate::linux::{sys, userns};

/// A filter that allows everything: BPF_RET | BPF_K with SECCOMP_RET_ALLOW, a `struct sock_filter`.
const ALLOW: (u16, [u8; 2], u32) = (0x06, [0; 2], libc::SECCOMP_RET_ALLOW);

/// An id that is mapped only where all ids are.
const FAR: Uid = Uid::from_raw(u32::MAX - 2);

/// Whether programs started by this process are emulated already. Fails if another agent has the
/// listener.
pub(crate) fn emulates() -> Result<bool, Error> {
    judge(|| change_owner().is_ok())
}

/// The same for programs in user namespaces that this process creates: also with `--keep-id`.
pub(crate) fn emulates_namespaces() -> Result<bool, Error> {
    let in_namespace = || {
        let code = sys::in_fork(|| i32::from(userns::enter().is_err() || change_owner().is_err()));
        code.is_ok_and(|code| code == 0)
    };
    judge(|| change_owner().is_ok() || in_namespace())
}

/// `is_ours` is asked if there is a listener.
fn judge(is_ours: impl FnOnce() -> bool) -> Result<bool, Error> {
    match has_listener()? {
        false => Ok(false),
        true if is_ours() => Ok(true),
        true => Err(Error::ForeignListener),
    }
}

/// Whether this process has a listener. If it has a filter, the only way to find out is to load a
/// filter with another one: EBUSY. A thread does that, because the filter is gone when the thread
/// exits.
fn has_listener() -> Result<bool, Error> {
    // Unknown before Linux 5.9.
    let filters = Status::of("/proc/self")
        .ok()
        .and_then(|status| status.filters());
    if filters == Some(0) {
        return Ok(false);
    }
    let attempt = || -> Result<(), Errno> {
        nix::sys::prctl::set_no_new_privs()?;
        let (code, jumps, value) = ALLOW;
        let mut filter = code.to_ne_bytes().to_vec();
        filter.extend(jumps);
        filter.extend(value.to_ne_bytes());
        sys::seccomp_load(&filter, false).map(drop)
    };
    let tried = std::thread::Builder::new()
        .spawn(attempt)
        .doing("looking for a seccomp listener")?;
    Ok(matches!(tried.join(), Ok(Err(Errno::EBUSY))))
}

/// Changes an owner, which succeeds only where subuidless answers.
fn change_owner() -> Result<(), Errno> {
    let file = memfd::create(c"subuidless-outer")?;
    fchown(&file, Some(FAR), None)
}
