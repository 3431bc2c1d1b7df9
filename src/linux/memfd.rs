//! memfd_create(2): files in memory.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::AtomicU64;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl, open};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::Mode;
use nix::unistd::ftruncate;

pub(crate) fn create(name: &CStr) -> Result<File, Errno> {
    memfd_create(name, MFdFlags::MFD_CLOEXEC).map(File::from)
}

/// Creates a memfd with these contents, whose offset is at the beginning.
pub(crate) fn with_contents(name: &CStr, contents: &[u8]) -> io::Result<File> {
    let mut file = create(name)?;
    file.write_all(contents)?;
    file.rewind()?;
    Ok(file)
}

/// Creates a memfd of `words` zero words, sealed so that no process can change its size: for
/// [`crate::linux::sys::SharedWords`].
pub(crate) fn sealed(name: &CStr, words: usize) -> Result<OwnedFd, Errno> {
    let memfd = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let length = words * size_of::<AtomicU64>();
    ftruncate(&memfd, length.try_into().map_err(|_| Errno::EOVERFLOW)?)?;
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&memfd, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(memfd)
}

/// Creates a memfd to which writes can be forbidden, see [`stop_growing`].
pub(crate) fn growing(name: &CStr) -> Result<File, Errno> {
    memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).map(File::from)
}

/// From now on, nobody can add anything to the memfd (EPERM).
pub(crate) fn stop_growing(memfd: impl AsFd) -> Result<(), Errno> {
    fcntl(memfd, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_GROW)).map(drop)
}

/// Opens the memfd again. A received file descriptor shares its open file description, to which
/// locks belong, with the sender. /proc must still be the host's.
pub(crate) fn reopened(memfd: impl AsFd) -> Result<OwnedFd, Errno> {
    open_again(memfd, OFlag::O_RDWR)
}

/// As [`reopened`], but the descriptor cannot be written to.
pub(crate) fn read_only(memfd: impl AsFd) -> Result<OwnedFd, Errno> {
    open_again(memfd, OFlag::O_RDONLY)
}

fn open_again(memfd: impl AsFd, access: OFlag) -> Result<OwnedFd, Errno> {
    let path = format!("/proc/self/fd/{}", memfd.as_fd().as_raw_fd());
    open(path.as_str(), access | OFlag::O_CLOEXEC, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::sys::SharedWords;

    #[test]
    fn only_memory_that_cannot_shrink_is_mapped() {
        let map = |memfd: OwnedFd, words| SharedWords::map(memfd.as_fd(), words).map(drop);
        let unsealed = with_contents(c"test", &[0; 4096]).unwrap();
        assert_eq!(map(unsealed.into(), 512), Err(Errno::EINVAL));
        assert_eq!(map(sealed(c"test", 512).unwrap(), 513), Err(Errno::EINVAL));
        assert_eq!(map(sealed(c"test", 512).unwrap(), 512), Ok(()));
    }
}
