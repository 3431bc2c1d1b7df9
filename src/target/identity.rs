//! A target's emulated credentials, how a call changes them, and the owners of files in procfs,
//! which follow from them.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlink};
use nix::sys::stat::{Mode, fstat, fstatat};
use nix::sys::statfs::{FsType, PROC_SUPER_MAGIC};

use super::process::is_within;
use super::walk::is_procfs_root;
use super::{Call, Location, PROCFS};
use crate::credentials::{
    Capabilities, Change, Circumstances, Credentials, EmulatedGid, EmulatedUid, FileMode, Ids,
    Subject, capability,
};
use crate::identity::{ChangeLock, Identities, Index, Lookup};
use crate::linux;
use crate::linux::name::Name;
use crate::linux::procfs::{self, Status};
use crate::linux::sys;
use crate::owner::{Owner, Version, carries_xattrs, file_type};
use crate::wire::board::Step;
use crate::wire::permissions::Permissions;

pub(crate) const SYSFS_MAGIC: FsType = FsType(0x6265_6572);

impl Call<'_> {
    /// Whether emulated credentials do not apply because the target lives in a user namespace below
    /// the container's.
    pub(crate) fn is_nested(&self) -> bool {
        self.container.identities.anyone_nested() && self.is_in_namespace() == Ok(false)
    }

    /// Whether the target lives in the user namespace that the worker joined; this is always read
    /// from procfs. [`Call::is_nested`] relies on the flags of clone3(2), which are in memory that
    /// may have changed before the kernel read it, so it must not decide whether a worker uses its
    /// capabilities for the target.
    pub(crate) fn is_in_namespace(&self) -> Result<bool, Errno> {
        let path = procfs::target(self.pid(), "ns/user");
        let stat = fstatat(PROCFS, &path, AtFlags::empty())?;
        Ok(self.container.user_namespace == Some((stat.st_dev, stat.st_ino)))
    }

    /// The record of the target's credentials.
    pub(crate) fn who(&self) -> Result<Index, Errno> {
        match Identities::settled_record(self.pid())? {
            Some(index) => Ok(index),
            None => self.who_in(&self.container.identities.lock()),
        }
    }

    /// As [`Call::who`], with the lock held, so that the cookie can be changed afterwards.
    pub(crate) fn who_in(&self, lock: &ChangeLock) -> Result<Index, Errno> {
        let identities = &self.container.identities;
        match identities.find(lock, self.pid())? {
            Lookup::Record(index) => Ok(index),
            // The program cannot be inspected yet: until then, its set-ID bits do not count.
            Lookup::Unchecked(index) if !self.container.is_joined() => Ok(index),
            Lookup::Unchecked(index) => {
                // The worker has joined, so /proc/PID/exe can be inspected, and execve(2) has
                // succeeded.
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

    /// The target's state that execve(2) and capset(2) depend on, from /proc/PID/status.
    pub(crate) fn circumstances(&self) -> Result<Circumstances, Errno> {
        let status = Status::of(self.pid())?;
        let kernel = status.capabilities().ok_or(Errno::ESRCH)?;
        Ok(Circumstances {
            kernel,
            bounding: status.bounding().ok_or(Errno::ESRCH)?,
            no_new_privs: status.no_new_privs(),
        })
    }

    /// The target's capabilities in the kernel.
    pub(crate) fn kernel_capabilities(&self) -> Result<Capabilities, Errno> {
        let sets = sys::capabilities(self.pid())?;
        if sets.inheritable == 0 {
            // capget(2) does not return the ambient set, which is a subset of the inheritable one:
            // it is empty, and /proc/PID/status need not be read.
            return Ok(sets);
        }
        Ok(self.circumstances()?.kernel)
    }

    /// Runs `change` on the target's credentials, and assigns the result to the target. Returns the
    /// call's value.
    pub(crate) fn change_credentials(
        &self,
        change: impl FnOnce(&mut Change) -> Result<u32, Errno>,
    ) -> Result<u32, Errno> {
        let container = self.container;
        let lock = container.identities.lock();
        if let Some(Step::Assigning { record, value }) = self.journal.noted() {
            // A worker noted this and was killed, perhaps after the change. To compute the change
            // again would be wrong: a second swap of ids undoes the first.
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
            // Before the change, so that the next worker repeats exactly this assignment.
            self.journal.note(Step::Assigning {
                record: record.as_raw(),
                value,
            });
            container.identities.assign(&lock, self.pid(), record)?;
        }
        Ok(value)
    }

    /// Gives the runtime's process, which is about to execute the container's program, the
    /// credentials of the program's user; the front has told the runtime not to change ids. Returns
    /// `false` if no user is announced, or if this is done already.
    pub(crate) fn become_user(&self) -> Result<bool, Errno> {
        let container = self.container;
        let Some(user) = container.expected_user() else {
            return Ok(false);
        };
        let lock = container.identities.lock();
        let before = container.identities.get(self.who_in(&lock)?);
        let capabilities = match user.uid.effective {
            EmulatedUid::ROOT => before.capabilities,
            // As the runtime has set them; execve(2) then decides which of them remain.
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

    /// The target as the subject of a permission check of a file.
    pub(crate) fn subject(&self) -> Result<Subject, Errno> {
        self.subject_of(self.who_among_files()?)
    }

    /// The target as the subject of permission checks, unless neither owners nor modes restrict it:
    /// it is the container's root, or lives in another user namespace. `None`, too, if only some
    /// permissions are checked ([`Permissions::Owner`]), of which this is none.
    pub(crate) fn restricted(&self) -> Result<Option<Subject>, Errno> {
        if self.container.service.permissions != Permissions::Full {
            return Ok(None);
        }
        let subject = self.subject()?;
        let is_free = subject.has(capability::OVER_FILES) || self.is_nested();
        Ok((!is_free).then_some(subject))
    }

    /// As [`Call::subject`], if the target's record is already known to be `who`.
    pub(crate) fn subject_of(&self, who: Index) -> Result<Subject, Errno> {
        let credentials = self.container.identities.get(who);
        let capabilities = match credentials.capabilities {
            Some(sets) => sets.effective,
            None => sys::capabilities(self.pid())?.effective,
        };
        Ok(credentials.subject(capabilities))
    }

    /// As [`Call::subject`], with the real ids: for access(2).
    pub(crate) fn subject_by_real_ids(&self) -> Result<Subject, Errno> {
        let credentials = self.container.identities.get(self.who_among_files()?);
        let sets = match credentials.capabilities {
            Some(sets) => sets,
            None => sys::capabilities(self.pid())?,
        };
        Ok(credentials.by_real_ids(sets))
    }

    /// The target's record for permission checks. If no process has changed credentials, this takes
    /// no system call: it is [`Index::INITIAL`].
    pub(crate) fn who_among_files(&self) -> Result<Index, Errno> {
        if self.container.identities.anyone_changed() {
            self.who()
        } else {
            Ok(Index::INITIAL)
        }
    }

    /// The mode and the emulated owner of an open file.
    pub(crate) fn file_mode(&self, file: BorrowedFd) -> Result<FileMode, Errno> {
        self.mode_and_owner(file).map(|(mode, _)| mode)
    }

    /// As [`Call::file_mode`], together with the stored owner.
    pub(crate) fn mode_and_owner(&self, file: BorrowedFd) -> Result<(FileMode, Owner), Errno> {
        let stat = fstat(file)?;
        let kind = file_type(stat.st_mode);
        let (owners, creations) = (&self.container.owners, &self.container.creations);
        // Before the owner is read: a creation that has ended by then has stored it.
        let latest = creations.latest();
        let mut loaded = owners.load(file, kind)?;
        if let Some(latest) = latest
            && loaded.is_none()
        {
            creations.wait(latest);
            loaded = owners.load(file, kind)?;
        }
        let owner = match loaded {
            None => self.kernel_owner(file, stat.st_uid)?,
            owner => owner,
        };
        let owner = owner.unwrap_or_default();
        let shown = self.container.shown(owner);
        let mode = FileMode::new(shown.uid, shown.gid, &stat).ok_or(Errno::EOVERFLOW)?;
        Ok((mode, owner))
    }

    /// As [`Call::file_mode`], of a file that is only named. Mostly this takes two system calls. If
    /// another process replaces the file between them, they see different files.
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
        let is_any_new = self.container.creations.latest().is_some();
        // A cached owner of this very version saves a getxattr(2).
        let owner = match self.thread.owners.get(Version::of(&stat)) {
            _ if !carries => None,
            Some(owner) => Some(owner),
            None => self.read_owner(&reached, location.follow).ok()?,
        };
        let owners = &self.container.owners;
        if owner.is_none() && (is_any_new || owners.may_be_elsewhere(file_type(stat.st_mode))) {
            return None;
        }
        let shown = self.container.shown(owner.unwrap_or_default());
        FileMode::new(shown.uid, shown.gid, &stat)
    }

    /// The target's umask(2).
    pub(crate) fn umask(&self) -> Result<u32, Errno> {
        Status::of(self.pid())?.umask().ok_or(Errno::ESRCH)
    }

    /// The owner of a file that the kernel has made: in `/proc/PID` the effective ids of that
    /// process (proc_pid(5)), elsewhere in procfs and in sysfs root. Returns `None` for all other
    /// files, and if the kernel already shows these ids: `uid`.
    pub(crate) fn kernel_owner(&self, file: BorrowedFd, uid: u32) -> Result<Option<Owner>, Errno> {
        if let Some((index, _)) = self.process_behind(file)? {
            let (uid, gid) = self.container.identities.ids(index);
            let stat = fstat(file)?;
            return Ok(Some(Owner::shown_as(uid.effective, gid.effective, &stat))
                .filter(|owner| !owner.is_unset()));
        }
        Ok(self.is_of_kernel(file, uid)?.then_some(Owner {
            uid: Some(EmulatedUid::ROOT),
            gid: Some(EmulatedGid::ROOT),
            ..Owner::default()
        }))
    }

    /// As [`Call::is_of_kernel`], of a file whose owner and mode the root of the host may set:
    /// nobody may set those of /proc/sys (fs/proc/proc_sysctl.c, proc_sys_setattr).
    pub(crate) fn is_settable_of_kernel(&self, file: BorrowedFd, uid: u32) -> Result<bool, Errno> {
        if !self.is_of_kernel(file, uid)? {
            return Ok(false);
        }
        let path = readlink(&procfs::own_fd(file))?.into_encoded_bytes();
        let is_sysctl = linux::file_system(file)? == PROC_SUPER_MAGIC
            && prefixes(&path, |name| name == b"sys").any(|path| open_process(path).is_some());
        Ok(!is_sysctl)
    }

    /// Whether a file whose st_uid is `uid` is one of procfs or sysfs that belongs to the root of
    /// the host, which the user namespace does not map, but for those of processes: they may be
    /// other host users'.
    pub(crate) fn is_of_kernel(&self, file: BorrowedFd, uid: u32) -> Result<bool, Errno> {
        if self.container.is_mapped(uid) {
            return Ok(false);
        }
        match linux::file_system(file)? {
            SYSFS_MAGIC => Ok(true),
            PROC_SUPER_MAGIC => {
                let path = readlink(&procfs::own_fd(file))?.into_encoded_bytes();
                let process = process_directory(&path);
                Ok(process.and_then(open_process).is_none())
            }
            _ => Ok(false),
        }
    }

    /// The text of the file `/proc/PID/status`, with the emulated credentials of that process.
    /// `None`: `file` is another one, or the kernel shows the right ones.
    pub(crate) fn emulated_status(&self, file: BorrowedFd) -> Result<Option<String>, Errno> {
        match self.process_behind(file)? {
            Some((index, path)) if path.ends_with(b"/status") => {
                let credentials = self.container.identities.get(index);
                Status::of_file(file)?.with(&credentials).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The record of the process to which a file in `/proc/PID` belongs, and the file's path.
    /// `None` for all other files, and if no process has changed credentials.
    fn process_behind(&self, file: BorrowedFd) -> Result<Option<(Index, Vec<u8>)>, Errno> {
        if !self.container.identities.anyone_changed()
            || linux::file_system(file)? != PROC_SUPER_MAGIC
        {
            return Ok(None);
        }
        let path = readlink(&procfs::own_fd(file))?.into_encoded_bytes();
        let namespace = self.container.user_namespace;
        let index = process_directory(&path)
            .zip(namespace)
            .and_then(|(process, namespace)| record_in(process, namespace));
        Ok(index.map(|index| (index, path)))
    }
}

/// The record of the process whose directory in a procfs is `directory`.
///
/// The procfs may be the container's, and its pids are not those of the host's procfs. So the limit
/// is read from this directory, and not by pid. The path is only a guess, and anything may be
/// mounted on it: every file is checked to be one of procfs.
///
/// A process outside of the user namespace has a record in the table of another container, if any.
fn record_in(directory: &[u8], namespace: (u64, u64)) -> Option<Index> {
    /// In bytes; the text has about 1,500.
    const LARGEST: usize = 8192;
    let is_procfs = |file: BorrowedFd| linux::file_system(file) == Ok(PROC_SUPER_MAGIC);
    let directory = open_process(directory)?;
    if !is_within(
        directory.as_fd(),
        &Name::format(format_args!("ns/user")),
        namespace,
    ) {
        return None;
    }
    let file = open_in(directory.as_fd(), c"limits", OFlag::O_PATH)?;
    if !is_procfs(file.as_fd()) {
        return None;
    }
    // `file` is known to be of procfs, so opening it for reading cannot block.
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

/// Opens a directory that is directly in a procfs; one of its other directories may have a number
/// for a name, too.
fn open_process(directory: &[u8]) -> Option<OwnedFd> {
    let path = OFlag::O_PATH | OFlag::O_DIRECTORY;
    let directory = open_in(PROCFS, Name::new(directory.to_vec()).as_c_str(), path)?;
    let above = open_in(directory.as_fd(), c"..", path)?;
    is_procfs_root(&above).ok()?.then_some(directory)
}

fn open_in(from: BorrowedFd, name: &CStr, flags: OFlag) -> Option<OwnedFd> {
    let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(from, name, flags, Mode::empty()).ok()
}

/// The part of a path in procfs that ends with the first number: `/proc/PID`.
fn process_directory(path: &[u8]) -> Option<&[u8]> {
    let is_number = |name: &[u8]| !name.is_empty() && name.iter().all(u8::is_ascii_digit);
    prefixes(path, is_number).next()
}

/// The parts of a path that end with a component that `is_meant`.
fn prefixes(path: &[u8], is_meant: impl Fn(&[u8]) -> bool) -> impl Iterator<Item = &[u8]> {
    let mut end = 0;
    path.split(|byte| *byte == b'/')
        .filter_map(move |component| {
            let part = &path[..end + component.len()];
            end = part.len() + 1;
            is_meant(component).then_some(part)
        })
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
