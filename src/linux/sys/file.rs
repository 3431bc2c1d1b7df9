//! Files: attributes, status, handles.

use std::ffi::CStr;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{c_int, c_long, c_uint};
use nix::errno::Errno;
use nix::sys::stat::FileStat;

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
    // SAFETY: both strings end in NUL; the kernel writes at most `size` bytes to `value`, which has
    // as many.
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

/// The bytes of `struct stat` as newfstatat(2) writes them: on 64-bit Linux libc's layout is the
/// kernel's.
pub(crate) fn stat_bytes(stat: &FileStat) -> &[u8] {
    // SAFETY: `FileStat` is a C struct that the kernel has filled in completely, its padding is
    // named fields.
    unsafe { std::slice::from_raw_parts((&raw const *stat).cast(), size_of::<FileStat>()) }
}

/// The bytes of `struct statx`.
pub(crate) fn statx_bytes(statx: &libc::statx) -> &[u8] {
    // SAFETY: `struct statx` was zeroed before the kernel filled it in, so every byte is
    // initialised.
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

/// name_to_handle_at(2) of the file behind `fd`; `AT_HANDLE_FID` (Linux 6.5) is for file systems
/// that cannot open by handle, overlay among them.
pub(crate) fn file_handle(fd: BorrowedFd, identity_only: bool) -> Result<FileHandle, Errno> {
    const AT_HANDLE_FID: c_int = 0x200;
    let flags = libc::AT_EMPTY_PATH | if identity_only { AT_HANDLE_FID } else { 0 };
    let mut handle = FileHandle {
        handle_bytes: libc::MAX_HANDLE_SZ as c_uint,
        handle_type: 0,
        handle: [0; libc::MAX_HANDLE_SZ as usize],
    };
    let mut mount_id: c_int = 0;
    // SAFETY: `handle` has room for `handle_bytes` bytes after its header, the mount id for one
    // int.
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

/// MS_NOSYMFOLLOW as statfs(2) gives it back (Linux 5.10).
pub(crate) const ST_NOSYMFOLLOW: u64 = 0x2000;

/// The flags of the mount that a file lies on (statvfs(3)).
pub(crate) fn mount_flags(fd: BorrowedFd) -> Result<u64, Errno> {
    let mut buffer = MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the kernel's answer is written to one `statvfs`.
    let result = unsafe { libc::fstatvfs(fd.as_raw_fd(), buffer.as_mut_ptr()) };
    Errno::result(result)?;
    // SAFETY: all-zero bytes are a valid `statvfs`, and it has been filled in.
    Ok(unsafe { buffer.assume_init() }.f_flag)
}
