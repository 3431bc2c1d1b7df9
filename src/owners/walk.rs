//! A walk through a tree by directory file descriptors. It never follows a symbolic link, and a
//! concurrent rename cannot lead it out of the tree.

use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};

use crate::linux::errno_of;
use crate::linux::name::Name;
use crate::linux::procfs;
use crate::owner::file_type;

/// An open file of the tree.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TreeFile<'a> {
    /// Relative to the top; `.` is the top itself.
    pub(crate) path: &'a [u8],
    pub(crate) file: BorrowedFd<'a>,
    pub(crate) stat: &'a FileStat,
}

/// The path of a file of the tree of `top`, where `below` is that of [`TreeFile`].
pub(crate) fn join(top: &Path, below: &[u8]) -> Vec<u8> {
    let top = top.as_os_str().as_bytes();
    match below {
        b"." => top.to_vec(),
        below if top.ends_with(b"/") => [top, below].concat(),
        below => [top, b"/", below].concat(),
    }
}

#[derive(Debug)]
struct Level {
    directory: OwnedFd,
    /// The names still to visit, in reverse order.
    names: Vec<OsString>,
    /// The length of the directory's path.
    length: usize,
}

/// A walk through a tree, each directory sorted by the bytes of its names.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// Skips files on file systems other than that of the top.
    pub(crate) one_file_system: bool,
    /// Visits only the top.
    pub(crate) top_only: bool,
    /// Below the top, visits only directories.
    pub(super) directories_only: bool,
    levels: Vec<Level>,
    path: Vec<u8>,
}

impl Walk {
    /// Calls `visit` for `top` and everything below it, with a path and an errno for a file that
    /// cannot be opened or listed. Stops at the first error that `visit` returns.
    pub(crate) fn run<E>(
        mut self,
        top: OwnedFd,
        mut visit: impl FnMut(Result<TreeFile, (&[u8], Errno)>) -> Result<(), E>,
    ) -> Result<(), E> {
        let device = match fstat(&top) {
            Ok(stat) => stat.st_dev,
            Err(errno) => return visit(Err((b".", errno))),
        };
        self.enter(top, device, &mut visit)?;
        while let Some(level) = self.levels.last_mut() {
            self.path.truncate(level.length);
            let Some(name) = level.names.pop() else {
                self.levels.pop();
                continue;
            };
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend(name.as_bytes());
            let name = Name::new(name.into_vec());
            let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            match openat(&level.directory, &name, flags, Mode::empty()) {
                Ok(file) => self.enter(file, device, &mut visit)?,
                // Removed since the directory was listed.
                Err(Errno::ENOENT) => {}
                Err(errno) => visit(Err((&self.path, errno)))?,
            }
        }
        Ok(())
    }

    /// Visits a file, and lists it if it is a directory.
    fn enter<E>(
        &mut self,
        file: OwnedFd,
        device: u64,
        visit: &mut impl FnMut(Result<TreeFile, (&[u8], Errno)>) -> Result<(), E>,
    ) -> Result<(), E> {
        let path = match self.path.as_slice() {
            b"" => b".",
            path => path,
        };
        let stat = match fstat(&file) {
            Ok(stat) => stat,
            Err(errno) => return visit(Err((path, errno))),
        };
        if self.one_file_system && stat.st_dev != device {
            return Ok(());
        }
        visit(Ok(TreeFile {
            path,
            file: file.as_fd(),
            stat: &stat,
        }))?;
        if self.top_only || file_type(stat.st_mode) != SFlag::S_IFDIR {
            return Ok(());
        }
        match names(file.as_fd(), self.directories_only) {
            Ok(names) => self.levels.push(Level {
                directory: file,
                names,
                length: self.path.len(),
            }),
            Err(errno) => visit(Err((path, errno)))?,
        }
        Ok(())
    }
}

/// The names in a directory, or those of directories in it, in reverse order.
fn names(directory: BorrowedFd, directories_only: bool) -> Result<Vec<OsString>, Errno> {
    let list = || {
        let path = procfs::own_fd(directory);
        let path = std::ffi::OsStr::from_bytes(path.as_c_str().to_bytes());
        let is_skipped = |entry: &fs::DirEntry| {
            directories_only && entry.file_type().is_ok_and(|kind| !kind.is_dir())
        };
        fs::read_dir(Path::new("/proc").join(path))?
            .filter(|entry| !entry.as_ref().is_ok_and(is_skipped))
            .map(|entry| Ok(entry?.file_name()))
            .collect::<std::io::Result<Vec<_>>>()
    };
    let mut names = list().map_err(errno_of)?;
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names)
}
