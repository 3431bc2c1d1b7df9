//! Other processes: those that a target names by pid, process group, user or pidfd, and what its
//! emulated credentials let it do to them.
//!
//! To the kernel all processes of a container are its root, and may do everything to each other.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fstat, fstatat};
use nix::unistd::{AccessFlags, access};

use super::{Call, PROCFS};
use crate::credentials::{Act, Credentials};
use crate::identity::Identities;
use crate::linux::name::Name;
use crate::linux::procfs::{self, Stat, Status};
use crate::linux::sys;

/// Namespaces are nested at most this deeply (user_namespaces(7), pid_namespaces(7)).
const MAX_DEPTH: usize = 33;

/// A process in the target's pid namespace. The pids in here are those of this process's own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member {
    pub(crate) pid: u32,
    /// The process group's id in the target's pid namespace.
    pub(crate) group: u32,
    /// The pid in the target's pid namespace.
    pub(crate) number: u32,
}

/// The target as one that does something to other processes.
#[derive(Debug)]
pub(crate) struct Actor {
    pub(crate) credentials: Credentials,
    process: Option<u32>,
}

impl Call<'_> {
    /// The target, if emulated credentials decide about it. `None`: the kernel's answer is right.
    pub(crate) fn actor(&self, act: Act) -> Result<Option<Actor>, Errno> {
        if !self.container.identities.anyone_changed() || self.is_nested() {
            return Ok(None);
        }
        let credentials = self.credentials()?;
        let capabilities = match credentials.capabilities {
            Some(sets) => sets.effective,
            None => sys::capabilities(self.pid())?.effective,
        };
        let is_capable = |capability: u64| capabilities & capability != 0;
        if act.capability().is_some_and(is_capable) {
            return Ok(None);
        }
        Ok(Some(Actor {
            credentials,
            process: Status::of(self.pid())?.tgid(),
        }))
    }

    /// Whether `actor`, which is the target, may do so to the thread `pid`.
    pub(crate) fn may_do(&self, actor: &Actor, act: Act, pid: u32) -> bool {
        if pid == self.pid() {
            return true;
        }
        let is_own = || Status::of(pid).is_ok_and(|status| status.tgid() == actor.process);
        if matches!(act, Act::Signal | Act::Trace) && is_own() {
            return true;
        }
        // A process outside of the container belongs to nobody in it.
        self.credentials_at(pid).is_some_and(|other| {
            actor.credentials.may(act, &other)
                && (!act.compares_capabilities() || self.exceeds(&actor.credentials, &other, pid))
        })
    }

    /// Whether the target, which has `own`, has all capabilities of the thread `pid`.
    fn exceeds(&self, own: &Credentials, other: &Credentials, pid: u32) -> bool {
        let sets = |known: &Credentials, pid| match known.capabilities {
            Some(sets) => Ok(sets),
            None => sys::capabilities(pid),
        };
        match (sets(own, self.pid()), sets(other, pid)) {
            (Ok(own), Ok(other)) => own.include_permitted(other),
            _ => false,
        }
    }

    /// The emulated credentials of the thread `pid`; `None` if it is not in this container.
    pub(crate) fn credentials_at(&self, pid: u32) -> Option<Credentials> {
        let container = self.container;
        if !is_within(
            PROCFS,
            &procfs::target(pid, "ns/user"),
            container.user_namespace?,
        ) {
            return None;
        }
        let index = Identities::record_now(pid).ok()?;
        Some(container.identities.get(index))
    }

    /// As [`Call::credentials_at`], of the process that the target knows as `number`.
    pub(crate) fn credentials_of(&self, number: u32) -> Option<Credentials> {
        self.credentials_at(self.thread_numbered(number)?)
    }

    /// The thread whose number is argument `index`; 0 is the target itself.
    pub(crate) fn thread_named(&self, index: usize) -> Option<u32> {
        match u32::try_from(self.int(index)).ok()? {
            0 => Some(self.pid()),
            number => self.thread_numbered(number),
        }
    }

    /// The pid of the thread that is `number` in the target's pid namespace.
    pub(crate) fn thread_numbered(&self, number: u32) -> Option<u32> {
        let own = Status::of(self.pid()).ok()?;
        if own.own_tid() == Some(number) {
            return Some(self.pid());
        }
        if own.tids().len() == 1 {
            // The target is in the pid namespace of this process.
            let name = procfs::target(number, "stat");
            return (access(&name, AccessFlags::F_OK) == Ok(())).then_some(number);
        }
        match sys::process_id_from(self.pid_namespace().ok()?.as_fd(), number) {
            Ok(pid) => Some(pid),
            // Before Linux 6.11.
            Err(Errno::ENOTTY) => self.search_thread(number, own.tids().len()),
            Err(_) => None,
        }
    }

    /// As [`Call::thread_numbered`]: looks at every thread; `depth` is that of the target's pid
    /// namespace.
    fn search_thread(&self, number: u32, depth: usize) -> Option<u32> {
        let namespace = identity(&self.pid_namespace().ok()?)?;
        let is_named = |tid: &u32| {
            let ids = Status::of(*tid).map(|status| status.tids());
            ids.is_ok_and(|ids| ids.get(depth - 1) == Some(&number))
        };
        processes()
            .into_iter()
            .filter(|pid| is_in_pid_namespace(*pid, namespace))
            .find_map(|pid| threads(pid).into_iter().find(is_named))
    }

    fn pid_namespace(&self) -> Result<OwnedFd, Errno> {
        open(PROCFS, &procfs::target(self.pid(), "ns/pid"))
    }

    /// The id of the process `pid` in the target's pid namespace; `None` if it has none there.
    pub(crate) fn number_of(&self, pid: u32) -> Option<u32> {
        match sys::process_id_in(self.pid_namespace().ok()?.as_fd(), pid) {
            Ok(number) => Some(number),
            // Before Linux 6.11: NStgid lists a process's ids from the outer namespaces inwards, so
            // its id in the target's namespace is at the position of the target's own last one.
            Err(Errno::ENOTTY) => {
                let depth = Status::of(self.pid()).ok()?.tgids().len();
                let numbers = Status::of(pid).ok()?.tgids();
                numbers.get(depth.checked_sub(1)?).copied()
            }
            Err(_) => None,
        }
    }

    /// All processes in the target's pid namespace and those below it.
    pub(crate) fn members(&self) -> Result<Vec<Member>, Errno> {
        let depth = Status::of(self.pid())?.tids().len();
        let namespace = identity(&self.pid_namespace()?).ok_or(Errno::ESRCH)?;
        let member = |pid: u32| {
            if depth > 1 && !is_in_pid_namespace(pid, namespace) {
                return None;
            }
            let status = Status::of(pid).ok()?;
            let at = depth.checked_sub(1)?;
            Some(Member {
                pid,
                group: *status.groups().get(at)?,
                number: *status.tgids().get(at)?,
            })
        };
        Ok(processes().into_iter().filter_map(member).collect())
    }

    /// The id of the target's process group in its pid namespace.
    pub(crate) fn own_group(&self) -> Result<u32, Errno> {
        let groups = Status::of(self.pid())?.groups();
        groups.last().copied().ok_or(Errno::ESRCH)
    }

    /// The id of the target's process in its pid namespace.
    pub(crate) fn own_number(&self) -> Result<u32, Errno> {
        Status::of(self.pid())?.own_tgid().ok_or(Errno::ESRCH)
    }

    /// Whether the target and the process `pid` are in one session.
    pub(crate) fn shares_session(&self, pid: u32) -> bool {
        const SESSION: usize = 6;
        let session = |pid: u32| Stat::of(pid).ok()?.field::<u32>(SESSION);
        session(pid).is_some_and(|other| Some(other) == session(self.pid()))
    }

    /// The pid of the process of the target's pidfd `fd`; `None` for another file, or if the
    /// process has ended.
    pub(crate) fn process_of_pidfd(&self, fd: i32) -> Option<u32> {
        procfs::pid_of(self.duplicate(fd).ok()?.as_fd())
    }

    /// Whether the target's emulated credentials lack `capability`. If not, the kernel decides.
    pub(crate) fn lacks(&self, capability: u64) -> Result<bool, Errno> {
        if !self.container.identities.anyone_changed() || self.is_nested() {
            return Ok(false);
        }
        let sets = self.credentials()?.capabilities;
        Ok(sets.is_some_and(|sets| sets.effective & capability == 0))
    }
}

/// The threads of a process.
pub(crate) fn threads(pid: u32) -> Vec<u32> {
    numbers_in(procfs::target(pid, "task").as_c_str())
}

/// All processes that this process sees.
fn processes() -> Vec<u32> {
    numbers_in(c".")
}

fn numbers_in(directory: &std::ffi::CStr) -> Vec<u32> {
    let names = procfs::list(directory).unwrap_or_default();
    names.iter().filter_map(|name| name.parse().ok()).collect()
}

fn open(directory: BorrowedFd, namespace: &Name) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    openat(directory, namespace, flags, Mode::empty())
}

fn identity(namespace: &OwnedFd) -> Option<(u64, u64)> {
    let stat = fstat(namespace).ok()?;
    Some((stat.st_dev, stat.st_ino))
}

fn is_in_pid_namespace(pid: u32, namespace: (u64, u64)) -> bool {
    is_within(PROCFS, &procfs::target(pid, "ns/pid"), namespace)
}

/// Whether the namespace `name` in a directory of procfs is `namespace` or below it.
pub(super) fn is_within(directory: BorrowedFd, name: &Name, namespace: (u64, u64)) -> bool {
    let stat = fstatat(directory, name, AtFlags::empty());
    if stat.is_ok_and(|stat| (stat.st_dev, stat.st_ino) == namespace) {
        return true;
    }
    let mut here = open(directory, name).ok();
    for _ in 0..MAX_DEPTH {
        let Some(file) = here else {
            return false;
        };
        if identity(&file) == Some(namespace) {
            return true;
        }
        here = sys::parent_namespace(file.as_fd()).ok();
    }
    false
}
