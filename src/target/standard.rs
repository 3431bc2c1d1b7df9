//! The owner of a process's terminal. A runtime calls fchown(2) for standard input, output and
//! error; below the front it is told that the user is root, so the worker does this.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat, stat};
use tracing::debug;

use super::{Container, PROCFS};
use crate::credentials::{EmulatedUid, Id};
use crate::linux::procfs;
use crate::owner::{Owner, file_type};

/// In the container's own devpts.
const PTMX: &str = "/dev/pts/ptmx";

impl Container {
    /// Gives the terminal of the process `pid` to the user that the process has become, once.
    ///
    /// In a new container, and at each exec, a terminal may have the number of an earlier one: this
    /// replaces the owner of that one.
    pub(crate) fn give_terminal(&self, pid: u32) {
        let Some(user) = self.user_of_terminal(pid) else {
            return;
        };
        for fd in 0..=2 {
            match self.give(pid, fd, user) {
                Ok(true) => break,
                Ok(false) => {}
                Err(errno) => debug!(pid, fd, %errno, "cannot give the terminal to the user"),
            }
        }
        self.set_terminal_given();
    }

    /// Returns `false` if the file is not a terminal of the container.
    fn give(&self, pid: u32, fd: i32, user: EmulatedUid) -> Result<bool, Errno> {
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let file: OwnedFd = openat(PROCFS, &procfs::target_fd(pid, fd), flags, Mode::empty())?;
        let found = fstat(&file)?;
        let Ok(ptmx) = stat(PTMX) else {
            return Ok(false);
        };
        if file_type(found.st_mode) != SFlag::S_IFCHR || ptmx.st_dev != found.st_dev {
            return Ok(false);
        }
        let known = self.owners.load(file.as_fd(), SFlag::S_IFCHR)?;
        let gid = self.identities.initial.gid.fs;
        let owner = Owner {
            uid: Some(user).filter(|user| user.as_raw() != found.st_uid),
            ..self.owner_of_new_terminal(pid, (&ptmx, &found), (user, gid))
        };
        if known.unwrap_or_default() != owner {
            let change = (known, owner);
            self.owners.store(file.as_fd(), &found, change, Some(pid))?;
        }
        Ok(true)
    }
}
