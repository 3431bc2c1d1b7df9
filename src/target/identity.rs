//! Who a target is: its emulated credentials, and how a call changes them.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlink};
use nix::sys::stat::{Mode, fstat, fstatat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use super::walk::is_procfs_root;
use super::{Call, Location, PROCFS};
use crate::credentials::{
    Capabilities, Change, Circumstances, Credentials, EmulatedGid, EmulatedUid, FileMode, Ids,
    Subject,
};
use crate::identity::{ChangeLock, Identities, Index, Lookup};
use crate::linux::name::Name;
use crate::linux::procfs::{self, Status};
use crate::linux::sys;
use crate::owner::{Owner, Version, carries_xattrs, file_type};
use crate::wire::board::Step;

impl Call<'_> {
    /// Whether nothing of a container's identities applies, because the target lives in a user
    /// namespace below.
    pub(crate) fn is_nested(&self) -> bool {
        self.container.identities.anyone_nested() && self.is_in_namespace() == Ok(false)
    }

    /// Whether the target lives in the very user namespace that was joined, as it is now. What
    /// clone3(2) was noticed to ask for is in memory that may have changed before the kernel read
    /// it, so [`Call::is_nested`] is not for lending capabilities.
    pub(crate) fn is_in_namespace(&self) -> Result<bool, Errno> {
        let path = procfs::target(self.pid(), "ns/user");
        let stat = fstatat(PROCFS, &path, AtFlags::empty())?;
        Ok(self.container.user_namespace == Some((stat.st_dev, stat.st_ino)))
    }

    /// The number of the target's record.
    pub(crate) fn who(&self) -> Result<Index, Errno> {
        match Identities::settled_record(self.pid())? {
            Some(index) => Ok(index),
            None => self.who_in(&self.container.identities.lock()),
        }
    }

    /// The same, when something is to be done about it.
    pub(crate) fn who_in(&self, lock: &ChangeLock) -> Result<Index, Errno> {
        let identities = &self.container.identities;
        match identities.find(lock, self.pid())? {
            Lookup::Record(index) => Ok(index),
            Lookup::Unchecked(index) if !self.container.is_joined() => Ok(index),
            Lookup::Unchecked(index) => {
                // The file is known by now, and so is what it was executed as.
                let program = self.program_executed()?;
                let after = identities
                    .get(index)
                    .after_exec(&program, &self.circumstances()?);
                let record = identities.number(&after, &self.container.locks)?;
                self.ensure_waiting()?;
                identities.checked(lock, self.pid(), record)?;
                Ok(record)
            }
        }
    }

    pub(crate) fn credentials(&self) -> Result<Credentials, Errno> {
        Ok(self.container.identities.get(self.who()?))
    }

    pub(crate) fn ids(&self) -> Result<(Ids<EmulatedUid>, Ids<EmulatedGid>), Errno> {
        Ok(self.container.identities.ids(self.who()?))
    }

    /// What the kernel knows of the target beside ids.
    pub(crate) fn circumstances(&self) -> Result<Circumstances, Errno> {
        let status = Status::of(self.pid())?;
        let kernel = status.capabilities().ok_or(Errno::ESRCH)?;
        Ok(Circumstances {
            kernel,
            bounding: status.bounding().ok_or(Errno::ESRCH)?,
            no_new_privs: status.no_new_privs(),
        })
    }

    /// The capabilities that the kernel has for the target.
    pub(crate) fn kernel_capabilities(&self) -> Result<Capabilities, Errno> {
        let sets = sys::capabilities(self.pid())?;
        if sets.inheritable == 0 {
            // Nothing is ambient that is not inheritable.
            return Ok(sets);
        }
        Ok(self.circumstances()?.kernel)
    }

    /// Runs `change` on the target's credentials, and records what has become of them. The result
    /// is the call's value.
    pub(crate) fn change_credentials(
        &self,
        change: impl FnOnce(&mut Change) -> Result<u32, Errno>,
    ) -> Result<u32, Errno> {
        let container = self.container;
        let lock = container.identities.lock();
        if let Some(Step::Assigning { record, value }) = self.journal.noted() {
            // By a worker that was killed then: a swap of ids done twice would be none.
            let record = Index::from_raw(record);
            container.identities.assign(&lock, self.pid(), record)?;
            return Ok(value);
        }
        let before = container.identities.get(self.who_in(&lock)?);
        let mut credentials = Change::of(before.clone(), || self.kernel_capabilities())?;
        let value = change(&mut credentials)?;
        let after = credentials.finish();
        if after != before {
            let record = container.identities.number(&after, &container.locks)?;
            self.ensure_waiting()?;
            self.journal.note(Step::Assigning {
                record: record.as_raw(),
                value,
            });
            container.identities.assign(&lock, self.pid(), record)?;
        }
        Ok(value)
    }

    /// Makes the runtime's process, about to execute the container's program, whom that program is
    /// to be; the runtime itself has been told to leave the ids alone. `false`: there is nothing to
    /// do, or it is done.
    pub(crate) fn become_user(&self) -> Result<bool, Errno> {
        let container = self.container;
        let Some(user) = container.expected_user() else {
            return Ok(false);
        };
        let lock = container.identities.lock();
        let before = container.identities.get(self.who_in(&lock)?);
        let capabilities = match user.uid.effective {
            EmulatedUid::ROOT => before.capabilities,
            // As the runtime has set them: what of them is left after execve(2) is for its rules to
            // say.
            _ => Some(
                before
                    .capabilities
                    .map_or_else(|| Ok(self.circumstances()?.kernel), Ok::<_, Errno>)?,
            ),
        };
        let credentials = Credentials {
            securebits: before.securebits,
            capabilities,
            ..user.clone()
        };
        let record = container
            .identities
            .number(&credentials, &container.locks)?;
        self.ensure_waiting()?;
        container.identities.assign(&lock, self.pid(), record)?;
        container.set_user_taken_up();
        if container.is_joined() {
            container.give_terminal(self.pid());
        }
        Ok(true)
    }

    /// The target as one who asks something of a file.
    pub(crate) fn subject(&self) -> Result<Subject, Errno> {
        self.subject_of(self.who_among_files()?)
    }

    /// The target, whose record is known to be `who`.
    pub(crate) fn subject_of(&self, who: Index) -> Result<Subject, Errno> {
        let credentials = self.container.identities.get(who);
        let capabilities = match credentials.capabilities {
            Some(sets) => sets.effective,
            None => sys::capabilities(self.pid())?.effective,
        };
        Ok(credentials.subject(capabilities))
    }

    /// The target as access(2) sees it.
    pub(crate) fn subject_by_real_ids(&self) -> Result<Subject, Errno> {
        let credentials = self.container.identities.get(self.who_among_files()?);
        let sets = match credentials.capabilities {
            Some(sets) => sets,
            None => sys::capabilities(self.pid())?,
        };
        Ok(credentials.by_real_ids(sets))
    }

    /// Who the target is among files: [`Index::INITIAL`] where nobody has changed ids.
    pub(crate) fn who_among_files(&self) -> Result<Index, Errno> {
        if self.container.identities.anyone_changed() {
            self.who()
        } else {
            Ok(Index::INITIAL)
        }
    }

    /// The shown owner and the mode of an open file.
    pub(crate) fn file_mode(&self, file: BorrowedFd) -> Result<FileMode, Errno> {
        self.mode_and_owner(file).map(|(mode, _)| mode)
    }

    /// The same, and what is recorded.
    pub(crate) fn mode_and_owner(&self, file: BorrowedFd) -> Result<(FileMode, Owner), Errno> {
        let stat = fstat(file)?;
        let owner = match self.container.owners.load(file, file_type(stat.st_mode))? {
            None => self.process_owner(file)?,
            owner => owner,
        };
        let owner = owner.unwrap_or_default();
        let mode = FileMode::new(owner.uid, owner.gid, &stat).ok_or(Errno::EOVERFLOW)?;
        Ok((mode, owner))
    }

    /// The same of a file that is only named. It costs two system calls, mostly, and the two may
    /// see different files where somebody exchanges them.
    pub(crate) fn mode_of(&mut self, location: &Location) -> Result<FileMode, Errno> {
        match self.mode_by_name(location) {
            Some(mode) => Ok(mode),
            None => self.file_mode(self.resolve(location)?.as_fd()),
        }
    }

    fn mode_by_name(&mut self, location: &Location) -> Option<FileMode> {
        let reached = self.name(location)?;
        let flags = match location.follow {
            true => AtFlags::empty(),
            false => AtFlags::AT_SYMLINK_NOFOLLOW,
        };
        let stat = fstatat(PROCFS, reached.as_c_str(), flags).ok()?;
        let carries = carries_xattrs(file_type(stat.st_mode));
        let owner = match self.thread.owners.get(Version::of(&stat)) {
            _ if !carries => None,
            Some(owner) => Some(owner),
            None => self.read_owner(&reached, location.follow).ok()?,
        };
        if owner.is_none()
            && self
                .container
                .owners
                .may_be_in_side_store(file_type(stat.st_mode))
        {
            return None;
        }
        let (uid, gid) = (
            owner.and_then(|owner| owner.uid),
            owner.and_then(|owner| owner.gid),
        );
        FileMode::new(uid, gid, &stat)
    }

    /// The target's umask(2).
    pub(crate) fn umask(&self) -> Result<u32, Errno> {
        Status::of(self.pid())?.umask().ok_or(Errno::ESRCH)
    }

    /// The credentials of another process, by the number that it has for the target.
    pub(crate) fn credentials_of(&self, pid: u32) -> Option<Credentials> {
        let directory = format!("/proc/{pid}");
        record_in(directory.as_bytes()).map(|index| self.container.identities.get(index))
    }

    /// The owner of a file that has no other one because it belongs to a process, in whose
    /// directory of procfs it lies: the process's effective ids (proc_pid(5)).
    pub(crate) fn process_owner(&self, file: BorrowedFd) -> Result<Option<Owner>, Errno> {
        if !self.container.identities.anyone_changed()
            || fstatfs(file)?.filesystem_type() != PROC_SUPER_MAGIC
        {
            return Ok(None);
        }
        let path = readlink(&procfs::own_fd(file))?.into_encoded_bytes();
        let Some(index) = process_directory(&path).and_then(record_in) else {
            return Ok(None);
        };
        let (uid, gid) = self.container.identities.ids(index);
        let stat = fstat(file)?;
        Ok(Some(Owner::shown_as(uid.effective, gid.effective, &stat))
            .filter(|owner| !owner.is_unset()))
    }
}

/// The record of a process that has a directory in a procfs.
///
/// It may be the container's, whose numbers mean nothing here: what is written in the directory
/// itself says it all. The path is only a guess, and anything may have been mounted on it.
fn record_in(directory: &[u8]) -> Option<Index> {
    /// The text has some 1,500 bytes.
    const LARGEST: usize = 8192;
    let open_in = |from: BorrowedFd, name: &CStr, flags: OFlag| {
        openat(
            from,
            name,
            flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
        .ok()
    };
    let is_procfs = |file: BorrowedFd| {
        fstatfs(file).is_ok_and(|found| found.filesystem_type() == PROC_SUPER_MAGIC)
    };
    let directory = Name::new(directory.to_vec());
    let path = OFlag::O_PATH | OFlag::O_DIRECTORY;
    let directory = open_in(PROCFS, directory.as_c_str(), path)?;
    if !is_procfs_root(&open_in(directory.as_fd(), c"..", path)?).ok()? {
        return None;
    }
    let file = open_in(directory.as_fd(), c"limits", OFlag::O_PATH)?;
    if !is_procfs(file.as_fd()) {
        return None;
    }
    // O_PATH has opened nothing yet that could block.
    let readable = openat(
        PROCFS,
        &procfs::own_fd(file.as_fd()),
        OFlag::O_CLOEXEC,
        Mode::empty(),
    );
    let mut bytes = vec![0; LARGEST];
    let length = nix::unistd::read(readable.ok()?, &mut bytes).ok()?;
    lock_limit(std::str::from_utf8(&bytes[..length]).ok()?).map(Identities::of_limit)
}

/// `/proc/PID` of a path in there.
fn process_directory(path: &[u8]) -> Option<&[u8]> {
    let mut end = 0;
    for component in path.split(|byte| *byte == b'/') {
        end += component.len();
        if !component.is_empty() && component.iter().all(u8::is_ascii_digit) {
            return Some(&path[..end]);
        }
        end += 1;
    }
    None
}

/// The soft RLIMIT_LOCKS in the text of /proc/PID/limits.
fn lock_limit(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max file locks"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_the_first_number_in_a_path_of_procfs() {
        let of = |path: &'static str| process_directory(path.as_bytes());
        assert_eq!(of("/proc/12/task/13/fd"), Some(&b"/proc/12"[..]));
        assert_eq!(of("/proc/1"), Some(&b"/proc/1"[..]));
        assert_eq!(of("/proc/sys/kernel"), None);
    }

    #[test]
    fn the_limit_is_found_among_others() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
            Max file locks            6589973123456789     unlimited            locks\n";
        assert_eq!(lock_limit(limits), Some(6_589_973_123_456_789));
        let none = "Max file locks            unlimited            unlimited            locks\n";
        assert_eq!(lock_limit(none), None);
    }
}
