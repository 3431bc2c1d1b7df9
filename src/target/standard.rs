//! What a runtime does to a process's standard input, output and error for its user: fchown(2),
//! with ids that it has been told to leave alone.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat, stat};
use tracing::debug;

use super::{Container, PROCFS};
use crate::credentials::{EmulatedUid, Id};
use crate::linux::procfs;
use crate::owner::{Owner, file_type};

/// Where the container's own terminals are.
const TERMINALS: &str = "/dev/pts";

impl Container {
    /// Gives the terminal of the process `pid` to the user whom the process has become, once.
    ///
    /// In a new container, and at every exec, a terminal bears the number of one that was there
    /// before: what that one's owner was must not count any more, either.
    pub(crate) fn give_terminal(&self, pid: u32) {
        let Some(user) = self.user_of_terminal() else {
            return;
        };
        for fd in 0..=2 {
            match self.give(pid, fd, user) {
                Ok(true) => break,
                Ok(false) => {}
                Err(errno) => debug!(pid, fd, %errno, "cannot look for a terminal"),
            }
        }
        self.set_terminal_given();
    }

    /// `false`: is no terminal of the container.
    fn give(&self, pid: u32, fd: i32, user: EmulatedUid) -> Result<bool, Errno> {
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let file: OwnedFd = openat(PROCFS, &procfs::target_fd(pid, fd), flags, Mode::empty())?;
        let found = fstat(&file)?;
        let is_terminal = file_type(found.st_mode) == SFlag::S_IFCHR
            && stat(TERMINALS).is_ok_and(|own| own.st_dev == found.st_dev);
        if !is_terminal {
            return Ok(false);
        }
        let known = self.owners.load(file.as_fd(), SFlag::S_IFCHR)?;
        let owner = Owner {
            uid: Some(user).filter(|user| user.as_raw() != found.st_uid),
            ..Owner::default()
        };
        if known.unwrap_or_default() != owner {
            let change = (known, owner);
            self.owners.store(file.as_fd(), &found, change, Some(pid))?;
        }
        Ok(true)
    }
}
