//! Extended attributes of any size, and lists of their names.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use super::{procfs, sys};

/// The most bytes of a value or a list of names: XATTR_SIZE_MAX, XATTR_LIST_MAX.
pub(crate) const LARGEST: usize = 65_536;

/// Returns the value of the attribute `name`. ENODATA if there is none.
pub(crate) fn value(path: &CStr, name: &CStr, follow: bool) -> Result<Vec<u8>, Errno> {
    read(|buffer| sys::getxattr(path, name, buffer, follow))
}

/// Returns the attribute of an open file, also one with O_PATH; `None` if it has none.
pub(crate) fn of_file(file: BorrowedFd, name: &CStr) -> Result<Option<Vec<u8>>, Errno> {
    match value(procfs::own_fd(file).as_c_str(), name, true) {
        Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(None),
        value => value.map(Some),
    }
}

/// Returns the names of all attributes, each followed by a NUL.
pub(crate) fn names(path: &CStr, follow: bool) -> Result<Vec<u8>, Errno> {
    read(|buffer| sys::listxattr(path, buffer, follow))
}

/// Calls `read` with a small buffer, and with one of the largest size if that is too small.
fn read(read: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0; 512];
    loop {
        match read(&mut value) {
            Ok(length) => {
                value.truncate(length);
                return Ok(value);
            }
            Err(Errno::ERANGE) if value.len() < LARGEST => value.resize(LARGEST, 0),
            Err(errno) => return Err(errno),
        }
    }
}
