//! Files: extended attributes, status, handles.

use std::ffi::CStr;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{c_char, c_int, c_long, c_uint};
use nix::errno::Errno;
use nix::sys::stat::FileStat;

/// getxattr(2); lgetxattr(2) if `follow` is false.
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

/// listxattr(2); llistxattr(2) if `follow` is false.
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

/// setxattr(2).
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

/// removexattr(2).
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
    // SAFETY: both strings end in NUL; the kernel reads one `Arguments`, and writes at most `size`
    // bytes into `value`, which is at least that long.
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

/// statx(2).
pub(crate) fn statx(
    dirfd: BorrowedFd,
    path: &CStr,
    flags: c_int,
    mask: c_uint,
) -> Result<libc::statx, Errno> {
    let mut buffer = MaybeUninit::<libc::statx>::zeroed();
    // Not `libc::statx`: std declares that as a weak symbol, and a statically linked program that
    // is optimized as a whole would then be without the function.
    // SAFETY: `path` ends in NUL; the kernel writes one `struct statx`.
    let result = unsafe {
        libc::syscall(
            libc::SYS_statx,
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

/// Whether this kernel takes a null path for an empty one, instead of failing with EFAULT: since
/// Linux 6.11 with AT_EMPTY_PATH alone and a file descriptor, later with other flags and AT_FDCWD,
/// too. `by_statx`: of statx(2); otherwise of fstatat(2).
pub(crate) fn takes_null_path(dirfd: BorrowedFd, flags: c_int, by_statx: bool) -> bool {
    let null = std::ptr::null::<c_char>();
    let mut buffer = MaybeUninit::<libc::statx>::zeroed();
    let dirfd = dirfd.as_raw_fd();
    let buffer = buffer.as_mut_ptr();
    let result = match by_statx {
        // SAFETY: the kernel writes one `struct statx`, and never dereferences the null path.
        true => unsafe { libc::syscall(libc::SYS_statx, dirfd, null, flags, 0, buffer) },
        // SAFETY: the kernel writes one `struct stat`, which is smaller, and the same.
        false => unsafe { libc::syscall(libc::SYS_newfstatat, dirfd, null, buffer, flags) },
    };
    Errno::result(result).err() != Some(Errno::EFAULT)
}

const _: () = assert!(size_of::<libc::stat>() <= size_of::<libc::statx>());

/// The bytes of `struct stat` as newfstatat(2) writes them: on 64-bit Linux the layouts of libc and
/// kernel are equal.
pub(crate) fn stat_bytes(stat: &FileStat) -> &[u8] {
    // SAFETY: every byte of `FileStat` is initialized: the kernel has written all of it, and the
    // padding consists of named fields.
    unsafe { std::slice::from_raw_parts((&raw const *stat).cast(), size_of::<FileStat>()) }
}

/// The bytes of `struct statx`.
pub(crate) fn statx_bytes(statx: &libc::statx) -> &[u8] {
    // SAFETY: `statx` zeroes the struct before the kernel fills it in, so every byte is
    // initialized.
    unsafe { std::slice::from_raw_parts((&raw const *statx).cast(), size_of::<libc::statx>()) }
}

/// A file handle (open_by_handle_at(2)). It does not change with renames; a recycled inode gets
/// another one.
#[repr(C)]
pub(crate) struct FileHandle {
    handle_bytes: c_uint,
    /// The handle type, which the file system chooses.
    pub(crate) handle_type: c_int,
    handle: [u8; libc::MAX_HANDLE_SZ as usize],
}

impl FileHandle {
    /// The handle, without its header.
    pub(crate) fn bytes(&self) -> &[u8] {
        let length = self.handle.len().min(self.handle_bytes as usize);
        &self.handle[..length]
    }
}

/// name_to_handle_at(2) of an open file. `identity_only` sets AT_HANDLE_FID (Linux 6.5), which file
/// systems support that cannot open by handle, such as overlay.
pub(crate) fn file_handle(fd: BorrowedFd, identity_only: bool) -> Result<FileHandle, Errno> {
    const AT_HANDLE_FID: c_int = 0x200;
    let flags = libc::AT_EMPTY_PATH | if identity_only { AT_HANDLE_FID } else { 0 };
    let mut handle = FileHandle {
        handle_bytes: libc::MAX_HANDLE_SZ as c_uint,
        handle_type: 0,
        handle: [0; libc::MAX_HANDLE_SZ as usize],
    };
    let mut mount_id: c_int = 0;
    // SAFETY: the path ends in NUL; `handle` has room for `handle_bytes` bytes after its header;
    // the kernel writes one int to `mount_id`.
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

/// The UUID of the XFS that a file is on (fs/xfs/libxfs/xfs_fs.h, XFS_IOC_FSGEOMETRY_V1), which any
/// user may ask for. The file must not be open with O_PATH.
pub(crate) fn xfs_uuid(fd: BorrowedFd) -> Result<[u8; 16], Errno> {
    const XFS_IOC_FSGEOMETRY_V1: libc::Ioctl = 0x8070_5864_u32 as libc::Ioctl;
    /// `struct xfs_fsop_geom_v1`
    #[repr(C)]
    struct Geometry {
        before: [u64; 8],
        uuid: [u8; 16],
        behind: [u64; 4],
    }
    let mut geometry = MaybeUninit::<Geometry>::zeroed();
    // SAFETY: the kernel writes one `struct xfs_fsop_geom_v1`, of as many bytes.
    let result =
        unsafe { libc::ioctl(fd.as_raw_fd(), XFS_IOC_FSGEOMETRY_V1, geometry.as_mut_ptr()) };
    Errno::result(result)?;
    // SAFETY: all-zero bytes are a valid `Geometry`, and the kernel has filled it in.
    Ok(unsafe { geometry.assume_init() }.uuid)
}

/// The flag of MS_NOSYMFOLLOW in the result of statfs(2) (Linux 5.10).
pub(crate) const ST_NOSYMFOLLOW: u64 = 0x2000;

/// The flags of the mount that an open file is on (statvfs(3)).
pub(crate) fn mount_flags(fd: BorrowedFd) -> Result<u64, Errno> {
    let mut buffer = MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: libc writes one `statvfs`.
    let result = unsafe { libc::fstatvfs(fd.as_raw_fd(), buffer.as_mut_ptr()) };
    Errno::result(result)?;
    // SAFETY: all-zero bytes are a valid `statvfs`, and libc has filled it in.
    Ok(unsafe { buffer.assume_init() }.f_flag)
}
