//! How executing a file changes credentials: set-user-ID and set-group-ID bits, file capabilities.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::sys::statvfs::{FsFlags, fstatvfs};

use super::{Call, Dirfd, Location, PROCFS};
use crate::credentials::{FileCapabilities, Program};
use crate::linux::procfs;
use crate::linux::sys;
use crate::owner::file_type;

/// The kernel follows this many interpreters (fs/exec.c, exec_binprm).
const MAX_INTERPRETERS: usize = 5;
/// BINPRM_BUF_SIZE: the kernel reads this many bytes to recognize a file's format.
const FIRST_BYTES: usize = 256;

impl Call<'_> {
    /// What executing `file` changes. For a script, the bits of its interpreter count (execve(2)).
    pub(crate) fn program(&self, file: OwnedFd) -> Result<Program, Errno> {
        let mut file = file;
        for _ in 0..MAX_INTERPRETERS {
            match interpreter(file.as_fd())? {
                Some(path) => {
                    let location = Location::new(Dirfd::Cwd, path.as_c_str(), AtFlags::empty());
                    file = self.resolve(&location)?;
                }
                None => return self.program_itself(file.as_fd()),
            }
        }
        Err(Errno::ELOOP)
    }

    /// What executing the target's present program has changed.
    pub(super) fn program_executed(&self) -> Result<Program, Errno> {
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let exe = procfs::target(self.pid(), "exe");
        let file = openat(PROCFS, &exe, flags, Mode::empty())?;
        self.program_itself(file.as_fd())
    }

    fn program_itself(&self, file: BorrowedFd) -> Result<Program, Errno> {
        let mut program = Program::default();
        let stat = fstat(file)?;
        if file_type(stat.st_mode) != SFlag::S_IFREG {
            return Ok(program);
        }
        let set_uid = stat.st_mode & libc::S_ISUID != 0;
        // fs/exec.c, bprm_fill_uid: S_ISGID without S_IXGRP once meant mandatory locking.
        let set_gid = stat.st_mode & libc::S_ISGID != 0 && stat.st_mode & libc::S_IXGRP != 0;
        let mut bytes = [0; 64];
        let name = procfs::own_fd(file);
        let capabilities = sys::getxattr(name.as_c_str(), c"security.capability", &mut bytes, true);
        program.capabilities = capabilities
            .ok()
            .and_then(|length| FileCapabilities::decode(&bytes[..length]));
        if !set_uid && !set_gid && program.capabilities.is_none() {
            return Ok(program);
        }
        // fs/exec.c, bprm_fill_uid: the kernel ignores the bits of files whose owner is not mapped,
        // too.
        if fstatvfs(file)?.flags().contains(FsFlags::ST_NOSUID)
            || !self.container.is_mapped(stat.st_uid)
        {
            return Ok(Program::default());
        }
        let shown = self.file_mode(file)?;
        program.set_uid = set_uid.then_some(shown.uid);
        program.set_gid = set_gid.then_some(shown.gid);
        Ok(program)
    }
}

/// The interpreter that the first line of a script names (execve(2)); `None` if `file` is not a
/// script.
fn interpreter(file: BorrowedFd) -> Result<Option<crate::linux::name::Name>, Errno> {
    let name = procfs::own_fd(file);
    // Opening a fifo would block, and no other type than a regular file can be executed.
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    if file_type(fstat(file)?.st_mode) != SFlag::S_IFREG {
        return Ok(None);
    }
    let opened = match openat(PROCFS, &name, flags, Mode::empty()) {
        // A file of another host user with execute permission only: an interpreter could not read
        // such a script either.
        Err(Errno::EACCES) => return Ok(None),
        result => result?,
    };
    let mut bytes = [0; FIRST_BYTES];
    let length = nix::sys::uio::pread(&opened, &mut bytes, 0)?;
    Ok(shebang(&bytes[..length]).map(|path| crate::linux::name::Name::new(path.to_vec())))
}

fn shebang(bytes: &[u8]) -> Option<&[u8]> {
    let line = bytes.strip_prefix(b"#!")?;
    let line = line.split(|byte| *byte == b'\n').next()?;
    line.split(|byte| matches!(byte, b' ' | b'\t' | 0))
        .find(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interpreter_is_the_first_word_behind_the_shebang() {
        let of = |text: &'static str| {
            shebang(text.as_bytes()).map(|path| String::from_utf8_lossy(path).into_owned())
        };
        assert_eq!(of("#!/bin/sh\nrest"), Some("/bin/sh".to_owned()));
        assert_eq!(
            of("#! \t/usr/bin/env python3 -u\n"),
            Some("/usr/bin/env".to_owned())
        );
        assert_eq!(of("#!/bin/true"), Some("/bin/true".to_owned()));
        for none in ["", "#", "#!", "#!\n/bin/sh", "\x7fELF"] {
            assert_eq!(of(none), None, "{none:?}");
        }
    }
}
