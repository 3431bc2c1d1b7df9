//! The only unsafe room: one kernel call per function, no policy.
//!
//! What nix wraps safely is called from there; this file holds the rest. Functions return the kernel's own
//! errno and never interpret it. Paths are C strings: bytes, as the kernel sees them.

use std::ffi::CStr;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use libc::{c_int, c_long, c_uint, c_void};
use nix::errno::Errno;
use nix::sys::stat::FileStat;

use crate::credentials::Capabilities;

/// `struct seccomp_notif` in 64-bit words: 80 bytes since Linux 5.0, checked by SECCOMP_GET_NOTIF_SIZES at start.
pub(crate) const NOTIFICATION_WORDS: usize = 10;

const _: () = assert!(size_of::<libc::seccomp_notif>() == NOTIFICATION_WORDS * 8);

/// Receives one notification into `words`, which must be zero (seccomp_unotify(2)). The memory may be shared with
/// another process: atomics are the only view of it that Rust code has.
pub(crate) fn notification_receive(
    listener: BorrowedFd,
    words: &[AtomicU64; NOTIFICATION_WORDS],
) -> Result<(), Errno> {
    // SAFETY: the ioctl writes 80 bytes, the length of `words`; atomics may be written through a shared reference.
    let result = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_RECV,
            words.as_ptr(),
        )
    };
    Errno::result(result).map(drop)
}

/// Reads one packet into `words`, which may be shared as above; the result is its length in bytes.
pub(crate) fn read_words(fd: BorrowedFd, words: &[AtomicU64]) -> Result<usize, Errno> {
    let length = size_of_val(words);
    // SAFETY: the kernel writes at most the length of `words`; atomics may be written through a shared reference.
    let length = unsafe { libc::read(fd.as_raw_fd(), words.as_ptr().cast_mut().cast(), length) };
    usize::try_from(Errno::result(length)?).map_err(|_| Errno::EOVERFLOW)
}

/// Writes `words` as one packet.
pub(crate) fn write_words(fd: BorrowedFd, words: &[AtomicU64]) -> Result<(), Errno> {
    // SAFETY: the kernel reads the length of `words`.
    let length = unsafe { libc::write(fd.as_raw_fd(), words.as_ptr().cast(), size_of_val(words)) };
    Errno::result(length).map(drop)
}

/// Sends a reply to a notification.
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

/// Whether the notification `id` still waits for its reply; ENOENT if not, ENOTTY or EINVAL if `fd` is no listener.
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

/// Puts `file` into the target of the notification `id` and replies with its number there (SECCOMP_ADDFD_FLAG_SEND,
/// Linux 5.14).
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

/// The size of `struct seccomp_notif` that the running kernel writes.
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

/// A pidfd of the thread `tid` (Linux 6.9), or of the process `tid` where PIDFD_THREAD is unknown.
pub(crate) fn pidfd_open(tid: u32) -> Result<OwnedFd, Errno> {
    const PIDFD_THREAD: c_uint = libc::O_EXCL as c_uint;
    match pidfd_open_flags(tid, PIDFD_THREAD) {
        Err(Errno::EINVAL) => pidfd_open_flags(tid, 0),
        result => result,
    }
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

fn owned_fd(result: c_long) -> Result<OwnedFd, Errno> {
    let fd = RawFd::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just returned `fd`; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes over fds that recvmsg(2) put into this process.
///
/// The caller must have got them from SCM_RIGHTS just now and must not use the numbers again.
pub(crate) fn adopt_received_fds(fds: &[RawFd]) -> Vec<OwnedFd> {
    fds.iter()
        // SAFETY: the kernel installed these fds for this message; the caller gives them up.
        .map(|&fd| unsafe { OwnedFd::from_raw_fd(fd) })
        .collect()
}

/// Takes over the fds that systemd passed (sd_listen_fds(3)); to be called once, before anything opens files.
pub(crate) fn adopt_activation_fd(fd: RawFd) -> OwnedFd {
    // SAFETY: sd_listen_fds(3): the fds from 3 on belong to this process, and the caller asks once.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// getxattr(2), lgetxattr(2) when `follow` is false.
pub(crate) fn getxattr(
    path: &CStr,
    name: &CStr,
    value: &mut [u8],
    follow: bool,
) -> Result<usize, Errno> {
    let call = if follow {
        libc::getxattr
    } else {
        libc::lgetxattr
    };
    // SAFETY: both strings end in NUL; the kernel writes at most `value.len()` bytes into `value`.
    let length = unsafe {
        call(
            path.as_ptr(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    usize::try_from(Errno::result(length)?).map_err(|_| Errno::EOVERFLOW)
}

/// listxattr(2), llistxattr(2) when `follow` is false.
pub(crate) fn listxattr(path: &CStr, list: &mut [u8], follow: bool) -> Result<usize, Errno> {
    let call = if follow {
        libc::listxattr
    } else {
        libc::llistxattr
    };
    // SAFETY: the path ends in NUL; the kernel writes at most `list.len()` bytes into `list`.
    let length = unsafe { call(path.as_ptr(), list.as_mut_ptr().cast(), list.len()) };
    usize::try_from(Errno::result(length)?).map_err(|_| Errno::EOVERFLOW)
}

/// setxattr(2), with the caller's flags.
pub(crate) fn setxattr(path: &CStr, name: &CStr, value: &[u8], flags: c_int) -> Result<(), Errno> {
    // SAFETY: both strings end in NUL; the kernel reads `value.len()` bytes of `value`.
    let result = unsafe {
        libc::setxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            flags,
        )
    };
    Errno::result(result).map(drop)
}

/// removexattr(2)
pub(crate) fn removexattr(path: &CStr, name: &CStr) -> Result<(), Errno> {
    // SAFETY: both strings end in NUL.
    let result = unsafe { libc::removexattr(path.as_ptr(), name.as_ptr()) };
    Errno::result(result).map(drop)
}

/// getxattrat(2) (Linux 6.13).
pub(crate) fn getxattrat(
    dirfd: BorrowedFd,
    path: &CStr,
    name: &CStr,
    value: &mut [u8],
    follow: bool,
) -> Result<usize, Errno> {
    /// `struct xattr_args` of linux/xattr.h
    #[repr(C, align(8))]
    struct Arguments {
        value: u64,
        size: u32,
        flags: u32,
    }
    const SYS_GETXATTRAT: c_long = 464;
    let arguments = Arguments {
        value: value.as_mut_ptr() as u64,
        size: u32::try_from(value.len()).unwrap_or(u32::MAX),
        flags: 0,
    };
    let flags = if follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
    // SAFETY: both strings end in NUL; the kernel writes at most `size` bytes to `value`, which has as many.
    let length = unsafe {
        libc::syscall(
            SYS_GETXATTRAT,
            dirfd.as_raw_fd(),
            path.as_ptr(),
            flags,
            name.as_ptr(),
            &raw const arguments,
            size_of::<Arguments>(),
        )
    };
    usize::try_from(Errno::result(length)?).map_err(|_| Errno::EOVERFLOW)
}

/// fgetxattr(2).
pub(crate) fn fgetxattr(fd: BorrowedFd, name: &CStr, value: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: `name` ends in NUL; the kernel writes at most `value.len()` bytes into `value`.
    let length = unsafe {
        libc::fgetxattr(
            fd.as_raw_fd(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    usize::try_from(Errno::result(length)?).map_err(|_| Errno::EOVERFLOW)
}

/// statx(2) with the caller's flags and mask as they are.
pub(crate) fn statx(
    dirfd: BorrowedFd,
    path: &CStr,
    flags: c_int,
    mask: c_uint,
) -> Result<libc::statx, Errno> {
    let mut buffer = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: `path` ends in NUL; the kernel writes one `struct statx`.
    let result = unsafe {
        libc::statx(
            dirfd.as_raw_fd(),
            path.as_ptr(),
            flags,
            mask,
            buffer.as_mut_ptr(),
        )
    };
    Errno::result(result)?;
    // SAFETY: all-zero bytes are a valid `struct statx`, and the kernel has filled it in.
    Ok(unsafe { buffer.assume_init() })
}

/// Whether a null path with AT_EMPTY_PATH is an empty path (Linux 6.11) and no EFAULT.
pub(crate) fn null_path_is_empty() -> bool {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the kernel writes one `struct stat`, and takes or refuses the null path.
    let result = unsafe {
        libc::syscall(
            libc::SYS_newfstatat,
            libc::AT_FDCWD,
            std::ptr::null::<libc::c_char>(),
            stat.as_mut_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    result == 0
}

/// The bytes of `struct stat` as newfstatat(2) writes them: on 64-bit Linux libc's layout is the kernel's.
pub(crate) fn stat_bytes(stat: &FileStat) -> &[u8] {
    // SAFETY: `FileStat` is a C struct that the kernel has filled in completely, its padding is named fields.
    unsafe { std::slice::from_raw_parts((&raw const *stat).cast(), size_of::<FileStat>()) }
}

/// The bytes of `struct statx`.
pub(crate) fn statx_bytes(statx: &libc::statx) -> &[u8] {
    // SAFETY: `struct statx` was zeroed before the kernel filled it in, so every byte is initialised.
    unsafe { std::slice::from_raw_parts((&raw const *statx).cast(), size_of::<libc::statx>()) }
}

/// A file handle (open_by_handle_at(2)): survives renames, and a recycled inode gets another one.
#[repr(C)]
pub(crate) struct FileHandle {
    handle_bytes: c_uint,
    /// The file system's own handle type.
    pub(crate) handle_type: c_int,
    handle: [u8; libc::MAX_HANDLE_SZ as usize],
}

impl FileHandle {
    pub(crate) fn bytes(&self) -> &[u8] {
        let length = self.handle.len().min(self.handle_bytes as usize);
        &self.handle[..length]
    }
}

/// name_to_handle_at(2) of the file behind `fd`; `AT_HANDLE_FID` (Linux 6.5) is for file systems that cannot open
/// by handle, overlay among them.
pub(crate) fn file_handle(fd: BorrowedFd, identity_only: bool) -> Result<FileHandle, Errno> {
    const AT_HANDLE_FID: c_int = 0x200;
    let flags = libc::AT_EMPTY_PATH | if identity_only { AT_HANDLE_FID } else { 0 };
    let mut handle = FileHandle {
        handle_bytes: libc::MAX_HANDLE_SZ as c_uint,
        handle_type: 0,
        handle: [0; libc::MAX_HANDLE_SZ as usize],
    };
    let mut mount_id: c_int = 0;
    // SAFETY: `handle` has room for `handle_bytes` bytes after its header, the mount id for one int.
    let result = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            fd.as_raw_fd(),
            c"".as_ptr(),
            &raw mut handle,
            &raw mut mount_id,
            flags,
        )
    };
    Errno::result(result)?;
    Ok(handle)
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

/// Gives this thread these of its permitted capabilities; what is no longer permitted is gone for good.
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

/// The id that the process `pid` of our own pid namespace has in the pid namespace `fd` (ioctl_ns(2), Linux 6.11).
pub(crate) fn process_id_in(fd: BorrowedFd, pid: u32) -> Result<u32, Errno> {
    const NS_GET_TGID_IN_PIDNS: libc::Ioctl = 0x8004_b709;
    // SAFETY: the ioctl takes its argument by value.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_TGID_IN_PIDNS, pid) };
    u32::try_from(Errno::result(result)?).map_err(|_| Errno::ESRCH)
}

/// Memory shared with another process, seen as atomic words.
#[derive(Debug)]
pub(crate) struct SharedWords {
    address: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the mapping lives as long as the value, and atomics may be used from any thread.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// Maps `words` words of `memfd`, whose size must be sealed: a shrinking file would mean SIGBUS.
    pub(crate) fn map(memfd: BorrowedFd, words: usize) -> Result<Self, Errno> {
        // SAFETY: the kernel chooses the address, so no other mapping is touched.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                words * size_of::<AtomicU64>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                memfd.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        let address = NonNull::new(address.cast()).ok_or(Errno::ENOMEM)?;
        Ok(Self { address, words })
    }

    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has this many words, is page-aligned and lives as long as `self`; only atomics see it.
        unsafe { std::slice::from_raw_parts(self.address.as_ptr(), self.words) }
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        let length = self.words * size_of::<AtomicU64>();
        // SAFETY: exactly the mapping made in `map`; `words` lends it out no longer than `self` lives.
        unsafe { libc::munmap(self.address.as_ptr().cast::<c_void>(), length) };
    }
}

/// What an LMDB environment keeps when the machine goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Nothing, and its files may be broken: for a directory that does not outlive the boot.
    None,
    /// Every transaction that was committed.
    Full,
}

/// Opens the LMDB environment in `directory`.
pub(crate) fn open_lmdb(
    directory: &Path,
    map_size: usize,
    durability: Durability,
) -> heed::Result<heed::Env<heed::WithoutTls>> {
    let mut options = heed::EnvOpenOptions::new().read_txn_without_tls();
    options.map_size(map_size).max_readers(1024);
    if durability == Durability::None {
        // SAFETY: NO_SYNC gives up durability over a power cut, which the caller makes harmless by a directory for each
        // boot; it never makes memory unsound.
        unsafe { options.flags(heed::EnvFlags::NO_SYNC) };
    }
    // SAFETY: LMDB's map must not be changed but through LMDB; the directory is private to the user (0700).
    unsafe { options.open(directory) }
}

/// Lets the allocator hand nothing over to per-thread arenas: a worker has few, short-lived allocations, and each
/// arena costs resident memory.
pub(crate) fn use_one_malloc_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt only sets a parameter.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1)
    };
}

/// Closes every fd from `first` on; to be called before anything has opened files.
pub(crate) fn close_fds_from(first: c_uint) {
    // SAFETY: no memory is touched, and nothing in this process owns an fd yet.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, c_uint::MAX, 0) };
    // Linux 5.9 knows it, and 5.14 is asked for.
    debug_assert_eq!(closed, 0);
}

/// Whether the kernel knows SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (Linux 5.19). Loads nothing: the null filter is
/// EFAULT for known flags, EINVAL for unknown ones.
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

/// Loads a filter of `struct sock_filter`s for this thread; the result is its listener (seccomp_unotify(2)).
pub(crate) fn seccomp_load(program: &[u8], wait_killable: bool) -> Result<OwnedFd, Errno> {
    let instructions = program.len() / size_of::<libc::sock_filter>();
    let program = libc::sock_fprog {
        len: u16::try_from(instructions).map_err(|_| Errno::EINVAL)?,
        filter: program.as_ptr().cast_mut().cast(),
    };
    let mut flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    if wait_killable {
        flags |= libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    }
    // SAFETY: the kernel reads `len` instructions, which may lie at any address, and checks them.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    };
    owned_fd(fd)
}

/// The rows and columns of the terminal `fd`.
pub(crate) fn window_size(fd: BorrowedFd) -> Result<(u16, u16), Errno> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the ioctl writes one `winsize`.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    Errno::result(result)?;
    Ok((size.ws_row, size.ws_col))
}

/// Starts `command` as nobody's child: in a session of its own, deaf to SIGTERM, with no file of this process but its
/// standard ones. This process must have one thread.
pub(crate) fn start_orphan(command: &mut Command) -> io::Result<()> {
    let leave = || {
        // SAFETY: this child has one thread, and goes on with calls that are async-signal-safe, as after the first fork.
        match Errno::result(unsafe { libc::fork() })? {
            0 => {}
            // SAFETY: ends at once, without anything of the parent's being run.
            _ => unsafe { libc::_exit(0) },
        }
        nix::unistd::setsid()?;
        // SAFETY: ignoring a signal runs no code.
        unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
        // SAFETY: closes nothing before the program is executed, and nothing then that has an owner.
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

/// How io_uring_setup(2) refuses to set up a ring without a place to describe it: EFAULT where it could be had.
pub(crate) fn io_uring_setup() -> Errno {
    // SAFETY: the kernel refuses the null pointer before it does anything.
    unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, std::ptr::null::<c_void>()) };
    Errno::last()
}

/// bind(2) to an address as it is.
pub(crate) fn bind(socket: BorrowedFd, address: &[u8]) -> Result<(), Errno> {
    let length = libc::socklen_t::try_from(address.len()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the kernel reads `length` bytes of `address`, which has as many, and asks for no alignment.
    let result = unsafe { libc::bind(socket.as_raw_fd(), address.as_ptr().cast(), length) };
    Errno::result(result).map(drop)
}

/// Connects to a Unix socket without ever waiting: EAGAIN when the listener's queue is full. A path that begins with `@` is
/// an abstract name (unix(7)).
pub(crate) fn connect_unix(path: &Path) -> Result<UnixStream, Errno> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
    let address = match path.as_os_str().as_bytes() {
        [b'@', name @ ..] => UnixAddr::new_abstract(name)?,
        _ => UnixAddr::new(path)?,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let connection = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(connection.as_raw_fd(), &address)?;
    Ok(UnixStream::from(connection))
}

/// fsopen(2)
pub(crate) fn fsopen(file_system: &CStr) -> Result<OwnedFd, Errno> {
    const FSOPEN_CLOEXEC: c_uint = 1;
    // SAFETY: the name ends in NUL.
    let fd = unsafe { libc::syscall(libc::SYS_fsopen, file_system.as_ptr(), FSOPEN_CLOEXEC) };
    adopt(fd)
}

/// fsconfig(2): sets an option, one without a value as a flag.
pub(crate) fn fsconfig_set(
    context: BorrowedFd,
    key: &CStr,
    value: Option<&CStr>,
) -> Result<(), Errno> {
    const FSCONFIG_SET_FLAG: c_uint = 0;
    const FSCONFIG_SET_STRING: c_uint = 1;
    let (command, value) = match value {
        Some(value) => (FSCONFIG_SET_STRING, value.as_ptr()),
        None => (FSCONFIG_SET_FLAG, std::ptr::null()),
    };
    let fd = context.as_raw_fd();
    // SAFETY: the strings end in NUL; a flag has none for its value.
    let result = unsafe { libc::syscall(libc::SYS_fsconfig, fd, command, key.as_ptr(), value, 0) };
    Errno::result(result).map(drop)
}

/// fsconfig(2) and fsmount(2): makes the file system, and a mount of it that is nowhere yet.
pub(crate) fn fsmount(context: BorrowedFd, attributes: c_uint) -> Result<OwnedFd, Errno> {
    const FSCONFIG_CMD_CREATE: c_uint = 6;
    const FSMOUNT_CLOEXEC: c_uint = 1;
    let fd = context.as_raw_fd();
    let nothing = std::ptr::null::<c_void>();
    // SAFETY: the command takes neither key nor value.
    let result = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            fd,
            FSCONFIG_CMD_CREATE,
            nothing,
            nothing,
            0,
        )
    };
    Errno::result(result)?;
    // SAFETY: only numbers.
    let fd = unsafe { libc::syscall(libc::SYS_fsmount, fd, FSMOUNT_CLOEXEC, attributes) };
    adopt(fd)
}

/// move_mount(2) of a mount that is nowhere yet to an open directory.
pub(crate) fn attach_mount(mount: BorrowedFd, directory: BorrowedFd) -> Result<(), Errno> {
    const MOVE_MOUNT_F_EMPTY_PATH: c_uint = 0x4;
    const MOVE_MOUNT_T_EMPTY_PATH: c_uint = 0x40;
    // SAFETY: both paths are empty and end in NUL.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            directory.as_raw_fd(),
            c"".as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
        )
    };
    Errno::result(result).map(drop)
}

fn adopt(fd: libc::c_long) -> Result<OwnedFd, Errno> {
    let fd = RawFd::try_from(Errno::result(fd)?).map_err(|_| Errno::EOVERFLOW)?;
    // SAFETY: the kernel has just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
