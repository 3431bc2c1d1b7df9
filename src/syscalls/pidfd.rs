//! PIDFD_GET_INFO of ioctl(2) (Linux 6.13): the ids of the process that a pidfd refers to.
//!
//! The worker asks in the target's place, and replaces the ids by emulated ones, and its own pids
//! by those of the target's pid namespace.

use std::os::fd::AsFd;

use nix::errno::Errno;

use crate::credentials::{Credentials, Id as _};
use crate::linux::procfs::{self, Stat, Status};
use crate::linux::seccomp::Reply;
use crate::linux::sys;
use crate::target::Call;

/// The members of struct pidfd_info (linux/pidfd.h) that are changed here: the words of pid, tgid
/// and ppid, and behind them eight ids.
const PIDS: usize = 4;
const IDS: usize = 7;
/// The words of the structure's first version.
const WORDS: usize = 16;

pub(super) fn get_info(call: &mut Call) -> Result<Reply, Errno> {
    if !call.container.identities.anyone_changed() || call.is_nested() {
        // CONTINUE: the kernel knows the ids.
        return Ok(Reply::Continue);
    }
    match info(call) {
        Some(info) => call.write(2, &info).map(|()| Reply::Value(0)),
        // CONTINUE: no pidfd, a bad pointer, or a process that has ended or is outside of this
        // container.
        None => Ok(Reply::Continue),
    }
}

/// What the call writes; `None` if that is the kernel's affair.
fn info(call: &Call) -> Option<Vec<u8>> {
    /// The bits of an ioctl's request with the size of its argument.
    const SIZE: u32 = (1 << 14) - 1;
    const CREDENTIALS: u64 = 1 << 1;
    let file = call.duplicate(call.int(0)).ok()?;
    let pid = procfs::pid_of(file.as_fd())?;
    let credentials = call.credentials_at(pid)?;
    let numbers = numbers(call, pid)?;
    let mut info = vec![0; usize::try_from(call.unsigned(1) >> 16 & SIZE).ok()?];
    let mask = call.read_u64(2).ok()?;
    // After the credentials: if the kernel still knows them, `pid` has not been recycled.
    let mask = sys::process_info(file.as_fd(), mask, &mut info).ok()?;
    if mask & CREDENTIALS == 0 {
        return None;
    }
    let (words, _) = info.as_chunks_mut::<4>();
    let words: &mut [_; WORDS] = words.first_chunk_mut()?;
    let mut put = |first: usize, values: &[u32]| {
        for (word, value) in words[first..].iter_mut().zip(values) {
            *word = value.to_ne_bytes();
        }
    };
    put(PIDS, &numbers);
    put(IDS, &ids(&credentials));
    Some(info)
}

fn ids(credentials: &Credentials) -> [u32; 8] {
    let (uid, gid) = (&credentials.uid, &credentials.gid);
    [
        uid.real.as_raw(),
        gid.real.as_raw(),
        uid.effective.as_raw(),
        gid.effective.as_raw(),
        uid.saved.as_raw(),
        gid.saved.as_raw(),
        uid.fs.as_raw(),
        gid.fs.as_raw(),
    ]
}

/// The ids of the thread `pid`, its process and its parent, in the target's pid namespace. `None`
/// if it has none there (fs/pidfs.c: EREMOTE).
fn numbers(call: &Call, pid: u32) -> Option<[u32; 3]> {
    let at = Status::of(call.pid()).ok()?.tids().len().checked_sub(1)?;
    let status = Status::of(pid).ok()?;
    let parent = Stat::of(pid).ok()?.parent()?;
    let of_parent = Status::of(parent).ok();
    Some([
        *status.tids().get(at)?,
        *status.tgids().get(at)?,
        of_parent
            .and_then(|status| status.tids().get(at).copied())
            .unwrap_or(0),
    ])
}
