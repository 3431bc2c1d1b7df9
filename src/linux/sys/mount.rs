//! The mount API by file descriptors: fsopen(2), fsconfig(2), fsmount(2), open_tree(2),
//! mount_setattr(2), move_mount(2).

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use libc::{c_int, c_uint, c_void};
use nix::errno::Errno;

use super::owned_fd;

/// fsopen(2): returns a context for configuring the file system.
pub(crate) fn fsopen(file_system: &CStr) -> Result<OwnedFd, Errno> {
    const FSOPEN_CLOEXEC: c_uint = 1;
    // SAFETY: the name ends in NUL.
    let fd = unsafe { libc::syscall(libc::SYS_fsopen, file_system.as_ptr(), FSOPEN_CLOEXEC) };
    owned_fd(fd)
}

/// fsconfig(2): sets an option. Without a value it is a flag.
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
    // SAFETY: the strings end in NUL; for a flag the kernel requires a null value.
    let result = unsafe { libc::syscall(libc::SYS_fsconfig, fd, command, key.as_ptr(), value, 0) };
    Errno::result(result).map(drop)
}

/// fsconfig(2): creates the file system.
pub(crate) fn fsconfig_create(context: BorrowedFd) -> Result<(), Errno> {
    const FSCONFIG_CMD_CREATE: c_uint = 6;
    let nothing = std::ptr::null::<c_void>();
    // SAFETY: the command takes neither key nor value: both are null.
    let result = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            FSCONFIG_CMD_CREATE,
            nothing,
            nothing,
            0,
        )
    };
    Errno::result(result).map(drop)
}

/// fsmount(2): returns a detached mount of a file system that has been created.
pub(crate) fn fsmount(context: BorrowedFd, attributes: c_uint) -> Result<OwnedFd, Errno> {
    const FSMOUNT_CLOEXEC: c_uint = 1;
    let fd = context.as_raw_fd();
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::syscall(libc::SYS_fsmount, fd, FSMOUNT_CLOEXEC, attributes) };
    owned_fd(fd)
}

/// open_tree(2): a copy of what is mounted at `path` and below, not attached anywhere.
pub(crate) fn copy_mounts(path: &CStr) -> Result<OwnedFd, Errno> {
    const OPEN_TREE_CLONE: c_int = 1;
    const FLAGS: c_int = OPEN_TREE_CLONE | libc::O_CLOEXEC | libc::AT_RECURSIVE;
    // SAFETY: the path ends in NUL.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), FLAGS) };
    owned_fd(fd)
}

/// mount_setattr(2): makes a mount, and those below, read-only or writable.
pub(crate) fn set_mounts_read_only(mount: BorrowedFd, is_read_only: bool) -> Result<(), Errno> {
    const MOUNT_ATTR_RDONLY: u64 = 1;
    const FLAGS: c_int = libc::AT_EMPTY_PATH | libc::AT_RECURSIVE;
    /// `struct mount_attr`
    #[repr(C)]
    struct Attributes {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    let attributes = Attributes {
        set: if is_read_only { MOUNT_ATTR_RDONLY } else { 0 },
        clear: if is_read_only { 0 } else { MOUNT_ATTR_RDONLY },
        propagation: 0,
        user_namespace: 0,
    };
    // SAFETY: the path is empty and ends in NUL; the structure has the size that is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            FLAGS,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    Errno::result(result).map(drop)
}

/// move_mount(2): attaches a detached mount to an open directory, or to an open file.
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
