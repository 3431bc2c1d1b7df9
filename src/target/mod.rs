//! What is taken from, or handed to, a target: [`Call`].
//!
//! A call's registers are fixed, the target's memory is not: each string is read once, and what was
//! read is what counts. Everything that is looked up by the target's pid is checked against the
//! notification before it is acted on.

mod container;
mod identity;
mod memory;
mod path;
mod program;
mod rights;
mod standard;
mod view;
mod walk;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, openat};
use nix::sys::stat::{Mode, fstat};
use nix::sys::statfs::{FsType, fstatfs};

pub(crate) use container::Container;
pub(crate) use memory::read_path;
pub(crate) use path::{Dirfd, Location, Reached};
pub(crate) use view::View;

use crate::credentials::{EmulatedGid, EmulatedUid, Id, OwnerChange};
use crate::linux::name::Name;
use crate::linux::procfs;
use crate::linux::seccomp::{ListenerFd, Notification};
use crate::linux::sys;
use crate::owner::{Owner, OwnerCache};
use crate::wire::board::Journal;

/// What a service thread keeps from call to call.
#[derive(Debug, Default)]
pub(crate) struct ThreadState {
    /// The root directory that this thread sees.
    pub(crate) view: View,
    /// `view` is not the container's own root.
    away: bool,
    /// Owners read lately.
    pub(crate) owners: OwnerCache,
    /// The last file looked at had an owner, so the next one probably has one too.
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

/// How a call's arguments and structures are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Abi {
    /// As this program's own.
    Native,
    I386,
    /// i386's first calls, with ids of 16 bits.
    I386ShortIds,
}

/// One call of a target: its arguments with their types, and the ways to what they point at.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) notification: &'a Notification,
    pub(crate) abi: Abi,
    pub(crate) listener: &'a ListenerFd,
    pub(crate) container: &'a Container,
    /// What must not be done twice.
    pub(crate) journal: Journal<'a>,
    pub(crate) thread: &'a mut ThreadState,
    /// When the notification was taken up; the target was waiting then.
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

    /// A register as it is: an address or a long.
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

    /// chown(2)'s pair of ids, in which −1 leaves one as it is.
    pub(crate) fn owner_change(&self, uid: usize, gid: usize) -> OwnerChange {
        OwnerChange {
            uid: self.uid(uid),
            gid: self.gid(gid),
        }
    }

    /// The string that register `index` points at.
    pub(crate) fn path(&self, index: usize) -> Result<Name, Errno> {
        memory::read_path(self.pid(), self.register(index))
    }

    pub(crate) fn uid(&self, index: usize) -> Option<EmulatedUid> {
        EmulatedUid::new(self.id(index))
    }

    pub(crate) fn gid(&self, index: usize) -> Option<EmulatedGid> {
        EmulatedGid::new(self.id(index))
    }

    /// linux/highuid.h, low2highuid: (uid16_t) −1 is −1.
    fn id(&self, index: usize) -> u32 {
        match (self.abi, self.unsigned(index)) {
            (Abi::I386ShortIds, id) if id & 0xffff == 0xffff => u32::MAX,
            (Abi::I386ShortIds, id) => id & 0xffff,
            (_, id) => id,
        }
    }

    /// An id as this call gives it: linux/highuid.h, high2lowuid.
    pub(crate) fn shown_id(&self, id: u32) -> u32 {
        const OVERFLOW: u32 = 65534;
        match self.abi {
            Abi::I386ShortIds if id > 0xffff => OVERFLOW,
            _ => id,
        }
    }

    /// The bytes of ids as this call writes them.
    pub(crate) fn id_bytes(&self, ids: impl IntoIterator<Item = u32>) -> Vec<u8> {
        let length = self.id_size();
        ids.into_iter()
            .flat_map(|id| self.shown_id(id).to_ne_bytes().into_iter().take(length))
            .collect()
    }

    /// The size of an id in memory, in bytes.
    pub(crate) fn id_size(&self) -> usize {
        match self.abi {
            Abi::I386ShortIds => size_of::<u16>(),
            _ => size_of::<u32>(),
        }
    }

    pub(crate) fn read_u64(&self, index: usize) -> Result<u64, Errno> {
        memory::read_u64(self.pid(), self.register(index))
    }

    /// Bytes from where register `index` points; EFAULT if there are fewer.
    pub(crate) fn read(&self, index: usize, bytes: &mut [u8]) -> Result<(), Errno> {
        memory::read_exact(self.pid(), self.register(index), bytes)
    }

    /// As [`Call::read`], from an address that was read itself.
    pub(crate) fn read_from(&self, address: u64, bytes: &mut [u8]) -> Result<(), Errno> {
        memory::read_exact(self.pid(), address, bytes)
    }

    /// Writes a structure where register `index` points.
    ///
    /// The target's thread is named by its pid, which must not have been recycled. Pids are given
    /// out in turn, and no machine makes even the 300 processes of the smallest pid namespace
    /// within the time that is allowed here without asking; asking costs half a microsecond. A
    /// notification that came by way of a feed may have waited for long.
    pub(crate) fn write(&self, index: usize, bytes: &[u8]) -> Result<(), Errno> {
        self.write_each([(index, bytes)])
    }

    /// As [`Call::write`], several at once: EFAULT at the first that cannot be written.
    pub(crate) fn write_each<const N: usize>(
        &self,
        parts: [(usize, &[u8]); N],
    ) -> Result<(), Errno> {
        self.write_to(parts.map(|(index, bytes)| (self.register(index), bytes)))
    }

    /// As [`Call::write_each`], to addresses.
    pub(crate) fn write_to<const N: usize>(&self, parts: [(u64, &[u8]); N]) -> Result<(), Errno> {
        const TOO_SHORT_TO_RECYCLE_A_PID: Duration = Duration::from_micros(200);
        if self.listener.is_fed() || self.received.elapsed() > TOO_SHORT_TO_RECYCLE_A_PID {
            self.ensure_waiting()?;
        }
        memory::write_each(self.pid(), parts)
    }

    /// ESRCH once the target no longer waits: then its pid may name somebody else, and nobody gets
    /// the errno.
    pub(crate) fn ensure_waiting(&self) -> Result<(), Errno> {
        if self.listener.is_waiting(self.notification.id) {
            Ok(())
        } else {
            Err(Errno::ESRCH)
        }
    }

    /// A duplicate of the target's open file `fd`.
    pub(crate) fn duplicate(&self, fd: i32) -> Result<OwnedFd, Errno> {
        let pidfd = match sys::pidfd_open(self.pid()) {
            // Before Linux 6.9 only a process's first thread has a pidfd; the others nearly always
            // share its files.
            Err(Errno::EINVAL) => sys::pidfd_open(self.host_tgid()?)?,
            result => result?,
        };
        sys::pidfd_getfd(pidfd.as_fd(), fd)
    }

    /// Whether only the kernel can tell whose the open file `dirfd` is: one without a name (pipes,
    /// sockets, memfds) belongs to whoever has made it, and one that was opened with O_PATH is none
    /// to fchmod(2) and its like.
    pub(crate) fn is_beyond_us(&self, dirfd: Dirfd) -> bool {
        let Dirfd::Fd(fd) = dirfd else {
            return false;
        };
        let look = || {
            let file = self.duplicate(fd)?;
            let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
            Ok::<_, Errno>(
                flags.contains(OFlag::O_PATH)
                    || fstat(&file)?.st_nlink == 0
                    || is_nameless(file.as_fd())?,
            )
        };
        look() == Ok(true)
    }

    /// The fake owner of what `reached` leads to, without opening it.
    ///
    /// From a directory that stays open, `PID/fd` of the host's procfs, the way is shorter by two
    /// look-ups and their checks. Once the target has ended nothing exists in there any more,
    /// whoever bears its pid.
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
            None | Some(Err(Errno::ENOENT | Errno::ESRCH)) => {}
            Some(result) => return result,
        }
        let result = owners.read_attribute(reached.as_c_str(), follow);
        if short.is_some() && result != Err(Errno::ENOENT) {
            directories.forget(self.notification.pid);
        }
        result
    }
}

/// Whether the file lies in no directory: pipes, sockets, memfds. Nobody can be asked whose it is.
pub(crate) fn is_nameless(file: BorrowedFd) -> Result<bool, Errno> {
    const NAMELESS: [FsType; 3] = [
        FsType(0x534f_434b), // SOCKFS_MAGIC
        FsType(0x5049_5045), // PIPEFS_MAGIC
        FsType(0x0904_1934), // ANON_INODE_FS_MAGIC
    ];
    Ok(NAMELESS.contains(&fstatfs(file)?.filesystem_type()))
}

/// `PID/fd` of targets that call again and again, as O_PATH fds.
#[derive(Debug, Default)]
struct FdDirectories {
    open: [Option<(u32, OwnedFd)>; 8],
    last: u32,
    /// The kernel has no getxattrat(2).
    disabled: bool,
}

impl FdDirectories {
    /// Opened at a target's second call in a row: for a single one it would not pay.
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

    /// The target whose directory is open has ended, another one bears its pid.
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

/// nix's AT_FDCWD: the service threads' working directory, the host's procfs.
pub(crate) const PROCFS: BorrowedFd<'static> = nix::fcntl::AT_FDCWD;
