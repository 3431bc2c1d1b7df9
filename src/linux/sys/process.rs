//! Processes: pidfds, limits, capabilities, namespaces, and this one itself.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use libc::{c_long, c_uint};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::owned_fd;
use crate::credentials::Capabilities;

/// A pidfd of the thread `tid` (Linux 6.9), or of the process `tid` where PIDFD_THREAD is unknown.
pub(crate) fn pidfd_open(tid: u32) -> Result<OwnedFd, Errno> {
    const PIDFD_THREAD: c_uint = libc::O_EXCL as c_uint;
    match pidfd_open_flags(tid, PIDFD_THREAD) {
        Err(Errno::EINVAL) => pidfd_open_flags(tid, 0),
        result => result,
    }
}

/// A pidfd of the process `pid`: it hangs up when the last thread has ended. One of a thread does
/// so when that thread ends or executes a program (Linux 6.9 to 6.14).
pub(crate) fn process_pidfd(pid: u32) -> Result<OwnedFd, Errno> {
    pidfd_open_flags(pid, 0)
}

/// Whether the process of a pidfd has ended.
pub(crate) fn has_ended(process: BorrowedFd) -> bool {
    let mut fds = [PollFd::new(process, PollFlags::POLLIN)];
    while poll(&mut fds, PollTimeout::ZERO) == Err(Errno::EINTR) {}
    fds[0].any() == Some(true)
}

/// Sends a signal to the process of a pidfd.
pub(crate) fn pidfd_send_signal(
    process: BorrowedFd,
    signal: nix::sys::signal::Signal,
) -> Result<(), Errno> {
    // SAFETY: without a siginfo the kernel makes one as for kill(2).
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            signal as libc::c_int,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    Errno::result(result).map(drop)
}

fn pidfd_open_flags(tid: u32, flags: c_uint) -> Result<OwnedFd, Errno> {
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, tid, flags) };
    owned_fd(fd)
}

/// A duplicate of the target's file descriptor `fd` (Linux 5.6): the same open file description.
pub(crate) fn pidfd_getfd(pidfd: BorrowedFd, fd: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0) };
    owned_fd(fd)
}

/// The soft and hard RLIMIT_LOCKS of the process of the thread `tid`.
pub(crate) fn lock_limit(tid: u32) -> Result<(u64, u64), Errno> {
    let mut limit = libc::rlimit64 {
        rlim_cur: 0,
        rlim_max: 0,
    };
    let tid = libc::pid_t::try_from(tid).map_err(|_| Errno::ESRCH)?;
    // SAFETY: without a new limit the kernel only writes the one `rlimit64`.
    let result =
        unsafe { libc::prlimit64(tid, libc::RLIMIT_LOCKS, std::ptr::null(), &raw mut limit) };
    Errno::result(result)?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Sets RLIMIT_LOCKS of the process of the thread `tid`.
pub(crate) fn set_lock_limit(tid: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    let limit = libc::rlimit64 {
        rlim_cur: soft,
        rlim_max: hard,
    };
    let tid = libc::pid_t::try_from(tid).map_err(|_| Errno::ESRCH)?;
    // SAFETY: the kernel only reads the one `rlimit64`.
    let result = unsafe {
        libc::prlimit64(
            tid,
            libc::RLIMIT_LOCKS,
            &raw const limit,
            std::ptr::null_mut(),
        )
    };
    Errno::result(result).map(drop)
}

/// The capabilities of the thread `tid`, as capget(2) tells them: without the ambient ones.
pub(crate) fn capabilities(tid: u32) -> Result<Capabilities, Errno> {
    const LINUX_CAPABILITY_VERSION_3: u32 = 0x2008_0522;
    let mut header = [LINUX_CAPABILITY_VERSION_3, tid];
    let mut data = [0u32; 6];
    // SAFETY: version 3 reads a header of two words and writes twice three words.
    let result = unsafe { libc::syscall(libc::SYS_capget, header.as_mut_ptr(), data.as_mut_ptr()) };
    Errno::result(result)?;
    let set = |index: usize| u64::from(data[index + 3]) << 32 | u64::from(data[index]);
    Ok(Capabilities {
        effective: set(0),
        permitted: set(1),
        inheritable: set(2),
        ambient: 0,
    })
}

/// Gives this thread these of its permitted capabilities; what is no longer permitted is gone for
/// good.
pub(crate) fn set_capabilities(effective: u64, permitted: u64) -> Result<(), Errno> {
    const LINUX_CAPABILITY_VERSION_3: u32 = 0x2008_0522;
    let mut header = [LINUX_CAPABILITY_VERSION_3, 0];
    let low = |set: u64| (set & 0xffff_ffff) as u32;
    let high = |set: u64| (set >> 32) as u32;
    let mut data = [
        low(effective),
        low(permitted),
        0,
        high(effective),
        high(permitted),
        0,
    ];
    // SAFETY: version 3 reads a header of two words and twice three words.
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_mut_ptr(), data.as_mut_ptr()) };
    Errno::result(result).map(drop)
}

/// The user namespace that owns the namespace `fd` (ioctl_ns(2)).
pub(crate) fn owning_user_namespace(fd: BorrowedFd) -> Result<OwnedFd, Errno> {
    const NS_GET_USERNS: libc::Ioctl = 0xb701;
    // SAFETY: the ioctl takes no argument.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_USERNS) };
    owned_fd(c_long::from(result))
}

/// The user namespace above `fd`, which must be below our own (ioctl_ns(2)).
pub(crate) fn parent_user_namespace(fd: BorrowedFd) -> Result<OwnedFd, Errno> {
    const NS_GET_PARENT: libc::Ioctl = 0xb702;
    // SAFETY: the ioctl takes no argument.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_PARENT) };
    owned_fd(c_long::from(result))
}

/// The id that the process `pid` of our own pid namespace has in the pid namespace `fd`
/// (ioctl_ns(2), Linux 6.11).
pub(crate) fn process_id_in(fd: BorrowedFd, pid: u32) -> Result<u32, Errno> {
    const NS_GET_TGID_IN_PIDNS: libc::Ioctl = 0x8004_b709;
    // SAFETY: the ioctl takes its argument by value.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_TGID_IN_PIDNS, pid) };
    u32::try_from(Errno::result(result)?).map_err(|_| Errno::ESRCH)
}

/// Lets a write beyond RLIMIT_FSIZE fail (EFBIG), which would end this process otherwise.
pub(crate) fn ignore_file_size_signal() {
    // SAFETY: ignoring a signal runs no code.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Lets the allocator hand nothing over to per-thread arenas: a worker has few, short-lived
/// allocations, and each arena costs resident memory.
pub(crate) fn use_one_malloc_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt only sets a parameter.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1)
    };
}

/// Deaf to what ends programs in order: this process ends when its work is done.
pub(crate) fn ignore_termination() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        // SAFETY: ignoring a signal runs no code.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Starts `command` as nobody's child: in a session of its own, deaf to SIGTERM, with no file of
/// this process but its standard ones. This process must have one thread.
pub(crate) fn start_orphan(command: &mut Command) -> io::Result<()> {
    let leave = || {
        // SAFETY: this child has one thread, and goes on with calls that are async-signal-safe, as
        // after the first fork.
        match Errno::result(unsafe { libc::fork() })? {
            0 => {}
            // SAFETY: ends at once, without anything of the parent's being run.
            _ => unsafe { libc::_exit(0) },
        }
        nix::unistd::setsid()?;
        // SAFETY: ignoring a signal runs no code.
        unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
        // SAFETY: closes nothing before the program is executed, and nothing then that has an
        // owner.
        let marked =
            unsafe { libc::close_range(3, c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed()) };
        Errno::result(marked)?;
        Ok(())
    };
    // SAFETY: the closure allocates nothing and takes no lock.
    unsafe { command.pre_exec(leave) };
    // The child between us, which ends at once.
    command.spawn()?.wait().map(drop)
}
