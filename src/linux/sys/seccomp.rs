//! seccomp(2), seccomp_unotify(2): filters and notifications.

use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU64;

use libc::{c_uint, c_void};
use nix::errno::Errno;

use super::owned_fd;

/// The size of `struct seccomp_notif` in 64-bit words: 80 bytes since Linux 5.0; checked at start
/// with SECCOMP_GET_NOTIF_SIZES.
pub(crate) const NOTIFICATION_WORDS: usize = 10;

const _: () = assert!(size_of::<libc::seccomp_notif>() == NOTIFICATION_WORDS * 8);

/// Receives one notification into `words`, which must be zero (seccomp_unotify(2)). The memory may
/// be shared with another process: Rust code accesses it as atomics only.
pub(crate) fn notification_receive(
    listener: BorrowedFd,
    words: &[AtomicU64; NOTIFICATION_WORDS],
) -> Result<(), Errno> {
    // SAFETY: the ioctl writes 80 bytes, the length of `words`; atomics may be written through a
    // shared reference.
    let result = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_RECV,
            words.as_ptr(),
        )
    };
    Errno::result(result).map(drop)
}

/// Reads one packet into `words`, which may be shared like those of [`notification_receive`].
/// Returns its length in bytes.
pub(crate) fn read_words(fd: BorrowedFd, words: &[AtomicU64]) -> Result<usize, Errno> {
    let length = size_of_val(words);
    // SAFETY: the kernel writes at most the length of `words`; atomics may be written through a
    // shared reference.
    let length = unsafe { libc::read(fd.as_raw_fd(), words.as_ptr().cast_mut().cast(), length) };
    usize::try_from(Errno::result(length)?).map_err(|_| Errno::EOVERFLOW)
}

/// Writes `words` as one packet.
pub(crate) fn write_words(fd: BorrowedFd, words: &[AtomicU64]) -> Result<(), Errno> {
    // SAFETY: the kernel reads the length of `words`.
    let length = unsafe { libc::write(fd.as_raw_fd(), words.as_ptr().cast(), size_of_val(words)) };
    Errno::result(length).map(drop)
}

/// Replies to a notification (SECCOMP_IOCTL_NOTIF_SEND).
pub(crate) fn notification_send(
    listener: BorrowedFd,
    response: &libc::seccomp_notif_resp,
) -> Result<(), Errno> {
    // SAFETY: the ioctl reads one `seccomp_notif_resp`.
    let result = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_SEND,
            &raw const *response,
        )
    };
    Errno::result(result).map(drop)
}

/// Succeeds if the notification `id` still waits for its reply. ENOENT if not; ENOTTY or EINVAL if
/// `fd` is not a listener.
pub(crate) fn notification_id_valid(fd: BorrowedFd, id: u64) -> Result<(), Errno> {
    // SAFETY: the ioctl reads one u64.
    let result = unsafe {
        libc::ioctl(
            fd.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_ID_VALID,
            &raw const id,
        )
    };
    Errno::result(result).map(drop)
}

/// Installs `file` in the target of the notification `id` and replies with the new file descriptor,
/// in one step (SECCOMP_ADDFD_FLAG_SEND, Linux 5.14).
pub(crate) fn notification_send_file(
    listener: BorrowedFd,
    id: u64,
    file: BorrowedFd,
    close_on_exec: bool,
) -> Result<u32, Errno> {
    const SEND: u32 = 1 << 1;
    let close_on_exec = if close_on_exec { libc::O_CLOEXEC } else { 0 };
    let request = libc::seccomp_notif_addfd {
        id,
        flags: SEND,
        srcfd: file.as_raw_fd().cast_unsigned(),
        newfd: 0,
        newfd_flags: close_on_exec.cast_unsigned(),
    };
    // SAFETY: the ioctl reads one `seccomp_notif_addfd`.
    let result = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_ADDFD,
            &raw const request,
        )
    };
    u32::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)
}

/// Sets the listener's flags (Linux 6.6).
pub(crate) fn notification_set_flags(listener: BorrowedFd, flags: u64) -> Result<(), Errno> {
    // SAFETY: this ioctl takes its argument by value.
    let result = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS,
            flags,
        )
    };
    Errno::result(result).map(drop)
}

/// The size in bytes of the running kernel's `struct seccomp_notif`.
pub(crate) fn notification_size() -> Result<u16, Errno> {
    let mut sizes = libc::seccomp_notif_sizes {
        seccomp_notif: 0,
        seccomp_notif_resp: 0,
        seccomp_data: 0,
    };
    // SAFETY: the operation writes one `seccomp_notif_sizes`.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_GET_NOTIF_SIZES,
            0,
            &raw mut sizes,
        )
    };
    Errno::result(result)?;
    Ok(sizes.seccomp_notif)
}

/// Whether the kernel knows SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (Linux 5.19). Loads no filter: a
/// null pointer fails with EFAULT, after unknown flags would have failed with EINVAL.
pub(crate) fn seccomp_knows_wait_killable() -> bool {
    const NEW_LISTENER: c_uint = 1 << 3;
    const WAIT_KILLABLE_RECV: c_uint = 1 << 5;
    // SAFETY: the kernel refuses the null pointer before it changes anything.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            NEW_LISTENER | WAIT_KILLABLE_RECV,
            std::ptr::null::<c_void>(),
        )
    };
    result == -1 && Errno::last() == Errno::EFAULT
}

/// Loads a filter, an array of `struct sock_filter`, for this thread. Returns its listener
/// (seccomp_unotify(2)).
pub(crate) fn seccomp_load(program: &[u8], wait_killable: bool) -> Result<OwnedFd, Errno> {
    let mut flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    if wait_killable {
        flags |= libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    }
    owned_fd(seccomp_set_filter(program, flags)?)
}

/// Loads a filter without a listener for this thread.
pub(crate) fn seccomp_restrict(program: &[u8]) -> Result<(), Errno> {
    seccomp_set_filter(program, 0).map(drop)
}

fn seccomp_set_filter(program: &[u8], flags: libc::c_ulong) -> Result<libc::c_long, Errno> {
    let instructions = program.len() / size_of::<libc::sock_filter>();
    let program = libc::sock_fprog {
        len: u16::try_from(instructions).map_err(|_| Errno::EINVAL)?,
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: the kernel reads one `sock_fprog` and `len` instructions, which are within `program`
    // and need no alignment, and checks them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    };
    Errno::result(result)
}

/// Returns the errno of io_uring_setup(2) with a null pointer: EFAULT if the call is available to
/// this process.
pub(crate) fn io_uring_setup() -> Errno {
    // SAFETY: the kernel refuses the null pointer before it does anything.
    unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, std::ptr::null::<c_void>()) };
    Errno::last()
}
