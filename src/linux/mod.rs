//! The kernel's interfaces: system calls, notifications, procfs, mounts, user namespaces, locks
//! between processes, resource limits, programs on PATH.
//!
//! Only `sys` has unsafe code: one kernel call per function, without policy. Nothing here knows
//! what a syscall means to a container.

use std::borrow::Borrow;
use std::io;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::statfs::{FUSE_SUPER_MAGIC, FsType, fstatfs};
use nix::unistd::{SysconfVar, sysconf};

pub(crate) mod accounts;
pub(crate) mod attribute;
pub(crate) mod cgroups;
pub(crate) mod elf;
pub(crate) mod hash;
pub(crate) mod kernel;
pub(crate) mod limits;
pub(crate) mod lock;
pub(crate) mod memfd;
pub(crate) mod mountinfo;
pub(crate) mod name;
pub(crate) mod name_service;
pub(crate) mod procfs;
pub(crate) mod programs;
pub(crate) mod seccomp;
pub(crate) mod settings;
#[expect(
    unsafe_code,
    reason = "the only unsafe room: the system calls that no crate wraps"
)]
pub(crate) mod sys;
pub(crate) mod title;
pub(crate) mod tun;
pub(crate) mod userns;

/// The size of a page in bytes.
pub(crate) fn page_size() -> u64 {
    let size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    size.and_then(|size| u64::try_from(size).ok())
        .unwrap_or(4096)
}

/// EIO for what is no error of the kernel's.
pub(crate) fn errno_of(error: impl Borrow<io::Error>) -> Errno {
    error
        .borrow()
        .raw_os_error()
        .map_or(Errno::EIO, Errno::from_raw)
}

/// The type of the file system that a file is on.
pub(crate) fn file_system(file: impl AsFd) -> Result<FsType, Errno> {
    match fstatfs(file) {
        // The errno of a path: a server of FUSE (bindfs) follows a symbolic link to find that out.
        // What it answers does not matter otherwise, since the kernel sets the type.
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EACCES | Errno::EPERM) => {
            Ok(FUSE_SUPER_MAGIC)
        }
        found => found.map(|found| found.filesystem_type()),
    }
}
