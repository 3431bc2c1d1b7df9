//! Processes: pidfds, limits, capabilities, namespaces; signals and allocator of this one.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use libc::{c_long, c_uint};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::owned_fd;
use crate::credentials::Capabilities;

/// A pidfd of the thread `tid` (PIDFD_THREAD, Linux 6.9). On older kernels, a pidfd of the process
/// `tid`; EINVAL there if `tid` is not a thread group leader.
pub(crate) fn pidfd_open(tid: u32) -> Result<OwnedFd, Errno> {
    const PIDFD_THREAD: c_uint = libc::O_EXCL as c_uint;
    match pidfd_open_flags(tid, PIDFD_THREAD) {
        Err(Errno::EINVAL) => pidfd_open_flags(tid, 0),
        result => result,
    }
}

/// A pidfd of the process `pid`. It becomes readable when the last thread has exited. A pidfd of a
/// thread does so when that thread exits or calls execve(2) (Linux 6.9 to 6.14).
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
    pidfd_send(process, signal as libc::c_int)
}

/// As [`pidfd_send_signal`], for any number: 0 and realtime signals, too.
pub(crate) fn pidfd_send(process: BorrowedFd, signal: libc::c_int) -> Result<(), Errno> {
    pidfd_send_with(process, signal, 0)
}

/// Whether pidfd_send_signal(2) knows flags (Linux 6.9); otherwise each is EINVAL.
pub(crate) fn pidfd_send_knows_flags() -> bool {
    const PIDFD_SIGNAL_THREAD_GROUP: c_uint = 2;
    process_pidfd(std::process::id())
        .is_ok_and(|own| pidfd_send_with(own.as_fd(), 0, PIDFD_SIGNAL_THREAD_GROUP).is_ok())
}

fn pidfd_send_with(process: BorrowedFd, signal: libc::c_int, flags: c_uint) -> Result<(), Errno> {
    // SAFETY: a null siginfo is allowed: the kernel fills one in as for kill(2).
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            flags,
        )
    };
    Errno::result(result).map(drop)
}

fn pidfd_open_flags(tid: u32, flags: c_uint) -> Result<OwnedFd, Errno> {
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, tid, flags) };
    owned_fd(fd)
}

/// A duplicate of the file descriptor `fd` of the pidfd's process (Linux 5.6): the same open file
/// description.
pub(crate) fn pidfd_getfd(pidfd: BorrowedFd, fd: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0) };
    owned_fd(fd)
}

/// kcmp(2), KCMP_FILE: whether two descriptors of this process have the same open file description.
pub(crate) fn are_same_file(one: BorrowedFd, other: BorrowedFd) -> Result<bool, Errno> {
    const KCMP_FILE: libc::c_int = 0;
    let own = nix::unistd::getpid().as_raw();
    let (one, other) = (one.as_raw_fd(), other.as_raw_fd());
    // SAFETY: no pointers are passed.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, own, own, KCMP_FILE, one, other) };
    Ok(Errno::result(order)? == 0)
}

/// The soft and hard RLIMIT_LOCKS of the process of the thread `tid`.
pub(crate) fn lock_limit(tid: u32) -> Result<(u64, u64), Errno> {
    let mut limit = libc::rlimit64 {
        rlim_cur: 0,
        rlim_max: 0,
    };
    let tid = libc::pid_t::try_from(tid).map_err(|_| Errno::ESRCH)?;
    // SAFETY: the new limit is null; the kernel writes one `rlimit64`.
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
    // SAFETY: the kernel reads one `rlimit64`; the old limit is null.
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

/// The capability sets of the thread `tid` (0 for this one), by capget(2), which does not return
/// the ambient set: it is 0 in the result.
pub(crate) fn capabilities(tid: u32) -> Result<Capabilities, Errno> {
    const LINUX_CAPABILITY_VERSION_3: u32 = 0x2008_0522;
    let mut header = [LINUX_CAPABILITY_VERSION_3, tid];
    let mut data = [0u32; 6];
    // SAFETY: for version 3 the kernel reads and writes a header of two words, and writes twice
    // three words of data.
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

/// Sets the effective and permitted capabilities of this thread, and clears the inheritable ones.
/// A capability that is no longer permitted cannot be regained.
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
    // SAFETY: for version 3 the kernel reads and writes a header of two words, and reads twice
    // three words of data.
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

/// The parent of the user or pid namespace `fd`, which must be below this process's own
/// (ioctl_ns(2)).
pub(crate) fn parent_namespace(fd: BorrowedFd) -> Result<OwnedFd, Errno> {
    const NS_GET_PARENT: libc::Ioctl = 0xb702;
    // SAFETY: the ioctl takes no argument.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_PARENT) };
    owned_fd(c_long::from(result))
}

/// The kind of the namespace `fd`, as a CLONE_NEW* flag (ioctl_ns(2)). ENOTTY for another file.
pub(crate) fn namespace_kind(fd: BorrowedFd) -> Result<libc::c_int, Errno> {
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: the ioctl takes no argument.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) })
}

/// The id in the pid namespace `fd` of the process that is `pid` in this process's own pid
/// namespace (ioctl_ns(2), Linux 6.11).
pub(crate) fn process_id_in(fd: BorrowedFd, pid: u32) -> Result<u32, Errno> {
    const NS_GET_TGID_IN_PIDNS: libc::Ioctl = 0x8004_b709;
    // SAFETY: the ioctl takes its argument by value.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_TGID_IN_PIDNS, pid) };
    u32::try_from(Errno::result(result)?).map_err(|_| Errno::ESRCH)
}

/// The id in this process's own pid namespace of the thread that is `number` in the pid namespace
/// `fd` (ioctl_ns(2), Linux 6.11).
pub(crate) fn process_id_from(fd: BorrowedFd, number: u32) -> Result<u32, Errno> {
    const NS_GET_PID_FROM_PIDNS: libc::Ioctl = 0x8004_b706;
    // SAFETY: the ioctl takes its argument by value.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_PID_FROM_PIDNS, number) };
    u32::try_from(Errno::result(result)?)
        .ok()
        .filter(|pid| *pid != 0)
        .ok_or(Errno::ESRCH)
}

/// Fills in struct pidfd_info (linux/pidfd.h, Linux 6.13) of the process that `pidfd` refers to, as
/// far as `info` has room, and returns what the kernel has filled in, a mask as `mask` is.
pub(crate) fn process_info(pidfd: BorrowedFd, mask: u64, info: &mut [u8]) -> Result<u64, Errno> {
    const PIDFD_GET_INFO: libc::Ioctl = 0xc000_ff0b;
    /// The bits for the size in an ioctl's request.
    const LONGEST: usize = (1 << 14) - 1;
    let size = info.len();
    let first: &mut [u8; 8] = info.first_chunk_mut().ok_or(Errno::EINVAL)?;
    *first = mask.to_ne_bytes();
    if size > LONGEST {
        return Err(Errno::EINVAL);
    }
    let request = PIDFD_GET_INFO | (size as libc::Ioctl) << 16;
    // SAFETY: the kernel reads 8 bytes and writes at most as many as the request says, which are
    // those of `info`.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), request, info.as_mut_ptr()) };
    Errno::result(result)?;
    let first = info.first_chunk().copied().unwrap_or_default();
    Ok(u64::from_ne_bytes(first))
}

/// Sets the nice value of the thread `tid`: setpriority(2).
pub(crate) fn set_nice(tid: u32, nice: libc::c_int) -> Result<(), Errno> {
    // SAFETY: no pointers are passed.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, tid, nice) };
    Errno::result(result).map(drop)
}

/// Sets the I/O priority of the thread `tid`: ioprio_set(2).
pub(crate) fn set_io_priority(tid: u32, priority: libc::c_int) -> Result<(), Errno> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    // SAFETY: no pointers are passed.
    let result = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, tid, priority) };
    Errno::result(result).map(drop)
}

/// Ignores SIGXFSZ: a write beyond RLIMIT_FSIZE fails with EFBIG instead of killing this process.
pub(crate) fn ignore_file_size_signal() {
    // SAFETY: ignoring a signal runs no code.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Makes malloc use one arena for all threads: a worker has few, short-lived allocations, and each
/// arena costs resident memory.
pub(crate) fn use_one_malloc_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt only sets a parameter.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1)
    };
}

/// Ignores SIGTERM, SIGINT and SIGHUP: this process exits when its work is done.
pub(crate) fn ignore_termination() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        // SAFETY: ignoring a signal runs no code.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Sends SIGIO to the process `pid` when a pipe becomes readable, or all its writers have gone
/// (fcntl(2), O_ASYNC).
pub(crate) fn send_sigio(pipe: BorrowedFd, pid: u32) -> Result<(), Errno> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| Errno::ESRCH)?;
    // SAFETY: no pointers are passed.
    Errno::result(unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETOWN, pid) })?;
    // SAFETY: no pointers are passed.
    let set = unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETFL, libc::O_ASYNC) };
    Errno::result(set).map(drop)
}

/// Ignores SIGCHLD: no zombies remain of this process's children (wait(2)).
pub(crate) fn ignore_children() {
    // SAFETY: ignoring a signal runs no code.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// The opposite of [`ignore_children`], which this process may have inherited.
pub(crate) fn heed_children() {
    // SAFETY: the default runs no code.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Lets a signal that all threads block have its default effect on this process. Returns after a
/// stop, or if the signal has none.
pub(crate) fn take_signal(signal: libc::c_int) {
    // SAFETY: all-zero bytes are a valid `sigset_t`.
    let mut only: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: changes only `only`.
    unsafe { libc::sigaddset(&raw mut only, signal) };
    // SAFETY: the default runs no code.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
    // SAFETY: no pointers are passed.
    unsafe { libc::raise(signal) };
    for how in [libc::SIG_UNBLOCK, libc::SIG_BLOCK] {
        // SAFETY: reads `only`.
        unsafe { libc::pthread_sigmask(how, &raw const only, std::ptr::null_mut()) };
    }
}

/// Starts `command` as an orphan, by a second fork: in a session of its own, with SIGTERM ignored,
/// and without files of this process except the standard ones. This process must have one thread.
pub(crate) fn start_orphan(command: &mut Command) -> io::Result<()> {
    let leave = || {
        // SAFETY: this child has one thread, and its child calls only async-signal-safe functions
        // until execve(2), as required after the first fork.
        match Errno::result(unsafe { libc::fork() })? {
            0 => {}
            // SAFETY: _exit runs no destructor or exit handler of the parent.
            _ => unsafe { libc::_exit(0) },
        }
        nix::unistd::setsid()?;
        // SAFETY: ignoring a signal runs no code.
        unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
        // SAFETY: only marks the file descriptors: they are closed by execve(2), when no value that
        // owns them exists any more.
        let marked =
            unsafe { libc::close_range(3, c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed()) };
        Errno::result(marked)?;
        Ok(())
    };
    // SAFETY: the closure is async-signal-safe: it allocates nothing and takes no lock.
    unsafe { command.pre_exec(leave) };
    // The intermediate child, which exits at once.
    command.spawn()?.wait().map(drop)
}

/// The layout of a process's memory, as far as it is only told to others (proc_pid_stat(5)): first
/// and last address.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MemoryMap {
    pub(crate) code: (u64, u64),
    pub(crate) data: (u64, u64),
    pub(crate) heap: u64,
    pub(crate) stack: u64,
    pub(crate) environment: (u64, u64),
}

/// Lets /proc/PID/cmdline of this process show `text` (PR_SET_MM_MAP, Linux 3.18). The rest of the
/// layout stays as it is in `map`.
pub(crate) fn set_command_line(map: MemoryMap, text: &'static [u8]) -> Result<(), Errno> {
    /// `struct prctl_mm_map`
    #[repr(C)]
    struct PrctlMap {
        addresses: [u64; 11],
        auxv: u64,
        auxv_size: u32,
        executable: u32,
    }
    // SAFETY: 0 moves nothing.
    let break_ = unsafe { libc::sbrk(0) };
    let begin = text.as_ptr().addr() as u64;
    let map = PrctlMap {
        addresses: [
            map.code.0,
            map.code.1,
            map.data.0,
            map.data.1,
            map.heap,
            break_.addr() as u64,
            map.stack,
            begin,
            begin + text.len() as u64,
            map.environment.0,
            map.environment.1,
        ],
        // Both stay as they are.
        auxv: 0,
        auxv_size: 0,
        executable: u32::MAX,
    };
    // SAFETY: the kernel reads one `prctl_mm_map`, and checks the addresses in it.
    let result = unsafe {
        libc::prctl(
            libc::PR_SET_MM,
            libc::PR_SET_MM_MAP,
            &raw const map,
            size_of::<PrctlMap>(),
            0,
        )
    };
    Errno::result(result).map(drop)
}
