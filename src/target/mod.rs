//! Everything that is read from, or written to, a target: [`Call`].
//!
//! The registers of a call are fixed, but other threads may change the target's memory at any time:
//! each string is read once, and only these bytes are used. A pid may be recycled, so a handler
//! checks that the notification still waits ([`Call::ensure_waiting`]) before it changes anything
//! that it looked up by the target's pid.

mod container;
mod contexts;
mod creations;
mod expected;
mod identity;
mod memory;
mod path;
mod permission;
mod preload;
mod process;
mod program;
mod rights;
mod standard;
mod terminal;
mod unsafe_variables;
mod view;
mod walk;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, openat};
use nix::sys::stat::{Mode, fstat};
use nix::sys::statfs::FsType;

pub(crate) use container::Container;
pub(crate) use expected::Expected;
pub(crate) use identity::SYSFS_MAGIC;
pub(crate) use memory::read_path;
pub(crate) use path::{Dirfd, Location, Reached, Refusal, Walked};
pub(crate) use process::{Actor, Member, threads};
pub(crate) use view::View;
pub(crate) use walk::protection;

use crate::credentials::{EmulatedGid, EmulatedUid, Id, OwnerChange};
use crate::linux;
use crate::linux::name::Name;
use crate::linux::procfs;
use crate::linux::seccomp::{ListenerFd, Notification};
use crate::linux::sys;
use crate::owner::{Cache, Owner, OwnerCache};
use crate::wire::board::Journal;

/// State of a service thread, kept from call to call.
#[derive(Debug, Default)]
pub(crate) struct ThreadState {
    /// The root directory of this thread.
    pub(crate) view: View,
    /// `view` is not the container's root.
    away: bool,
    /// FileOwners that were read recently.
    pub(crate) owners: OwnerCache,
    /// What permission checks have found out about directories and files.
    rights: Mutex<Cache<permission::Rights, { permission::KNOWN }>>,
    /// Plain programs that were executed recently (see `program`).
    plain_programs: Cache<(), 128>,
    /// The last file had an emulated owner, so the next one probably has one, too.
    pub(crate) expects_owner: bool,
    /// The last owner was found in `owners`.
    pub(crate) expects_remembered: bool,
    fd_directories: FdDirectories,
}

impl ThreadState {
    pub(crate) fn new(view: View) -> Self {
        Self {
            view,
            ..Self::default()
        }
    }
}

/// The layout of a call's arguments and structures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Abi {
    /// The same as this program's.
    Native,
    /// That of 32-bit programs: i386, or 32-bit ARM.
    Compat,
    /// Their older calls, with ids of 16 bits.
    CompatShortIds,
}

/// One call of a target: its arguments with their types, and access to the memory and files that
/// they name.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) notification: &'a Notification,
    pub(crate) abi: Abi,
    pub(crate) listener: &'a ListenerFd,
    pub(crate) container: &'a Container,
    /// Records the steps that a next worker must not repeat.
    pub(crate) journal: Journal<'a>,
    pub(crate) thread: &'a mut ThreadState,
    /// When this thread took up the notification; the target was waiting then.
    pub(crate) received: Instant,
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the kernel takes the low 32 bits of the register for int and unsigned int arguments"
)]
impl Call<'_> {
    pub(crate) fn pid(&self) -> u32 {
        self.notification.pid
    }

    /// A whole register: an address or a long.
    pub(crate) fn register(&self, index: usize) -> u64 {
        self.notification.args[index]
    }

    /// An `int`: flags, a file descriptor.
    pub(crate) fn int(&self, index: usize) -> i32 {
        self.register(index) as i32
    }

    /// An `unsigned int`: a mask, an id.
    pub(crate) fn unsigned(&self, index: usize) -> u32 {
        self.register(index) as u32
    }

    pub(crate) fn dirfd(&self, index: usize) -> Dirfd {
        Dirfd::from_raw(self.int(index))
    }

    /// The two ids of chown(2), where −1 leaves an id unchanged.
    pub(crate) fn owner_change(&self, uid: usize, gid: usize) -> OwnerChange {
        OwnerChange {
            uid: self.uid(uid),
            gid: self.gid(gid),
        }
    }

    /// Reads the string that register `index` points at.
    pub(crate) fn path(&self, index: usize) -> Result<Name, Errno> {
        memory::read_path(self.pid(), self.register(index))
    }

    pub(crate) fn uid(&self, index: usize) -> Option<EmulatedUid> {
        EmulatedUid::new(self.id(index))
    }

    pub(crate) fn gid(&self, index: usize) -> Option<EmulatedGid> {
        EmulatedGid::new(self.id(index))
    }

    /// linux/highuid.h, low2highuid: a 16-bit −1 is −1.
    fn id(&self, index: usize) -> u32 {
        match (self.abi, self.unsigned(index)) {
            (Abi::CompatShortIds, id) if id & 0xffff == 0xffff => u32::MAX,
            (Abi::CompatShortIds, id) => id & 0xffff,
            (_, id) => id,
        }
    }

    /// The id that this call returns for `id`: linux/highuid.h, high2lowuid.
    pub(crate) fn shown_id(&self, id: u32) -> u32 {
        const OVERFLOW: u32 = 65534;
        match self.abi {
            Abi::CompatShortIds if id > 0xffff => OVERFLOW,
            _ => id,
        }
    }

    /// The bytes that this call writes for `ids`.
    pub(crate) fn id_bytes(&self, ids: impl IntoIterator<Item = u32>) -> Vec<u8> {
        let length = self.id_size();
        ids.into_iter()
            .flat_map(|id| self.shown_id(id).to_ne_bytes().into_iter().take(length))
            .collect()
    }

    /// The size of an id in memory, in bytes.
    pub(crate) fn id_size(&self) -> usize {
        match self.abi {
            Abi::CompatShortIds => size_of::<u16>(),
            _ => size_of::<u32>(),
        }
    }

    pub(crate) fn read_u64(&self, index: usize) -> Result<u64, Errno> {
        memory::read_u64(self.pid(), self.register(index))
    }

    /// Reads from where register `index` points; EFAULT if not all of `bytes` can be filled.
    pub(crate) fn read(&self, index: usize, bytes: &mut [u8]) -> Result<(), Errno> {
        memory::read_exact(self.pid(), self.register(index), bytes)
    }

    /// As [`Call::read`], from an address that is not in a register.
    pub(crate) fn read_from(&self, address: u64, bytes: &mut [u8]) -> Result<(), Errno> {
        memory::read_exact(self.pid(), address, bytes)
    }

    /// Writes a structure where register `index` points.
    ///
    /// The target is named by its pid, which must not have been recycled. The kernel allocates pids
    /// cyclically, and no machine creates even 300 processes, as many as the smallest pid namespace
    /// has pids, within 200 µs: only later does this ask the kernel, which costs half a
    /// microsecond. A notification from a feed may have waited for long before it was received
    /// here, so it is always checked.
    pub(crate) fn write(&self, index: usize, bytes: &[u8]) -> Result<(), Errno> {
        self.write_each([(index, bytes)])
    }

    /// As [`Call::write`], several structures at once: EFAULT at the first one that cannot be
    /// written.
    pub(crate) fn write_each<const N: usize>(
        &self,
        parts: [(usize, &[u8]); N],
    ) -> Result<(), Errno> {
        self.write_to(parts.map(|(index, bytes)| (self.register(index), bytes)))
    }

    /// As [`Call::write_each`], to addresses that are not in registers.
    pub(crate) fn write_to<const N: usize>(&self, parts: [(u64, &[u8]); N]) -> Result<(), Errno> {
        const TOO_SHORT_TO_RECYCLE_A_PID: Duration = Duration::from_micros(200);
        if self.listener.is_fed() || self.received.elapsed() > TOO_SHORT_TO_RECYCLE_A_PID {
            self.ensure_waiting()?;
        }
        memory::write_each(self.pid(), parts)
    }

    /// Fails with ESRCH if the target no longer waits: its pid may then name another process.
    /// Nothing receives this errno.
    pub(crate) fn ensure_waiting(&self) -> Result<(), Errno> {
        if self.listener.is_waiting(self.notification.id) {
            Ok(())
        } else {
            Err(Errno::ESRCH)
        }
    }

    /// Duplicates the target's file descriptor `fd`.
    pub(crate) fn duplicate(&self, fd: i32) -> Result<OwnedFd, Errno> {
        let pidfd = match sys::pidfd_open(self.pid()) {
            // Before Linux 6.9 (PIDFD_THREAD), only a thread group leader has a pidfd. The other
            // threads nearly always share its file descriptors.
            Err(Errno::EINVAL) => sys::pidfd_open(self.host_tgid()?)?,
            result => result?,
        };
        sys::pidfd_getfd(pidfd.as_fd(), fd)
    }

    /// Whether only the kernel can decide what the target may do to the open file `dirfd`: the file
    /// has no name (pipe, socket, memfd, deleted file), so its owner may be unknown; or it was
    /// opened with O_PATH, which fchmod(2) and the like refuse (EBADF).
    pub(crate) fn is_beyond_us(&self, dirfd: Dirfd) -> bool {
        let Dirfd::Fd(fd) = dirfd else {
            return false;
        };
        let decide = || {
            let file = self.duplicate(fd)?;
            let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
            Ok::<_, Errno>(
                flags.contains(OFlag::O_PATH)
                    || fstat(&file)?.st_nlink == 0
                    || is_nameless(file.as_fd())?,
            )
        };
        decide() == Ok(true)
    }

    /// Reads the owner attribute of the file that `reached` leads to, without opening the file.
    ///
    /// Starting at `PID/fd` of the host's procfs, which stays open, saves two lookups with their
    /// permission checks. That directory belongs to the task, not to the pid: once the target has
    /// ended, it is empty, even if another process has its pid.
    pub(crate) fn read_owner(
        &mut self,
        reached: &Reached,
        follow: bool,
    ) -> Result<Option<Owner>, Errno> {
        let owners = &self.container.owners;
        let directories = &mut self.thread.fd_directories;
        let short = reached.behind_fd().and_then(|rest| {
            let directory = directories.get(self.notification.pid)?;
            Some(owners.read_attribute_at(directory, rest, follow))
        });
        match short {
            Some(Err(Errno::ENOSYS)) => directories.disable(),
            // ENOENT: the file does not exist, or the directory is that of a dead task.
            None | Some(Err(Errno::ENOENT | Errno::ESRCH)) => {}
            Some(result) => return result,
        }
        let result = owners.read_attribute(reached.as_c_str(), follow);
        // The file exists, so the open directory is that of a dead task (or the kernel is too old).
        if short.is_some() && result != Err(Errno::ENOENT) {
            directories.forget(self.notification.pid);
        }
        result
    }
}

/// Whether the file is in no directory (pipe, socket, anonymous inode), so that its owner is not
/// known by a path.
pub(crate) fn is_nameless(file: BorrowedFd) -> Result<bool, Errno> {
    const NAMELESS: [FsType; 3] = [
        FsType(0x534f_434b), // SOCKFS_MAGIC
        FsType(0x5049_5045), // PIPEFS_MAGIC
        FsType(0x0904_1934), // ANON_INODE_FS_MAGIC
    ];
    Ok(NAMELESS.contains(&linux::file_system(file)?))
}

/// `PID/fd` of targets with many calls, as O_PATH descriptors: one for each remainder of a pid
/// divided by 8.
#[derive(Debug, Default)]
struct FdDirectories {
    open: [Option<(u32, OwnedFd)>; 8],
    last: u32,
    /// The kernel has no getxattrat(2).
    disabled: bool,
}

impl FdDirectories {
    /// Returns the directory, which is opened at a target's second call in a row: for a single
    /// call, opening costs more than it saves.
    fn get(&mut self, pid: u32) -> Option<BorrowedFd<'_>> {
        if self.disabled {
            return None;
        }
        let seen = std::mem::replace(&mut self.last, pid) == pid;
        let entry = &mut self.open[pid as usize % 8];
        if entry.as_ref().is_none_or(|(known, _)| *known != pid) {
            if !seen {
                return None;
            }
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let directory = openat(PROCFS, &procfs::target(pid, "fd"), flags, Mode::empty());
            *entry = Some((pid, directory.ok()?));
        }
        entry.as_ref().map(|(_, directory)| directory.as_fd())
    }

    /// Closes the directory of a target that has ended, and whose pid another one has.
    fn forget(&mut self, pid: u32) {
        self.open[pid as usize % 8] = None;
    }

    fn disable(&mut self) {
        *self = Self {
            disabled: true,
            ..Self::default()
        };
    }
}

/// AT_FDCWD: the working directory of the service threads, which is the host's procfs.
pub(crate) const PROCFS: BorrowedFd<'static> = nix::fcntl::AT_FDCWD;
