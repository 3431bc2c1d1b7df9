//! Ids and credentials as a target sees them, and the kernel's rules for them.
//!
//! Pure: no system calls. nix's `Uid` and `Gid` are always ids of the host; [`EmulatedUid`] and
//! [`EmulatedGid`] are those that the container sees. [`Credentials`] are those of credentials(7).
//! `set` has the calls that change them, `exec` the effect of execve(2), `access` the permission
//! checks for files, `ipc` those for System V IPC, `process` those for other processes.

mod access;
mod exec;
mod ipc;
mod process;
mod set;
#[cfg(test)]
mod tests;

pub(crate) use access::{Access, FileMode, OwnerChange, Subject};
pub(crate) use exec::{Circumstances, FileCapabilities, Program};
pub(crate) use ipc::{IpcMode, IpcSubject};
pub(crate) use process::Act;
pub(crate) use set::{Change, MAX_GROUPS};

/// The names of capabilities(7), indexed by number, without `CAP_`.
pub(crate) const CAPABILITY_NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A user id inside the container; never −1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EmulatedUid(u32);

/// A group id inside the container; never −1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EmulatedGid(u32);

/// (uid_t) −1: "do not change" in chown(2), "not set" in `user.rootlesscontainers`.
const UNCHANGED: u32 = u32::MAX;

/// An emulated uid or gid.
pub(crate) trait Id: Copy + Eq {
    /// Returns `None` for −1.
    fn new(id: u32) -> Option<Self>;
    fn as_raw(self) -> u32;
}

impl Id for EmulatedUid {
    fn new(id: u32) -> Option<Self> {
        (id != UNCHANGED).then_some(Self(id))
    }

    fn as_raw(self) -> u32 {
        self.0
    }
}

impl EmulatedUid {
    pub(crate) const ROOT: Self = Self(0);
}

impl Id for EmulatedGid {
    fn new(id: u32) -> Option<Self> {
        (id != UNCHANGED).then_some(Self(id))
    }

    fn as_raw(self) -> u32 {
        self.0
    }
}

impl EmulatedGid {
    pub(crate) const ROOT: Self = Self(0);
}

/// The bits of capability sets, as in capget(2).
pub(crate) mod capability {
    pub(crate) const CHOWN: u64 = 1 << 0;
    pub(crate) const DAC_OVERRIDE: u64 = 1 << 1;
    pub(crate) const DAC_READ_SEARCH: u64 = 1 << 2;
    pub(crate) const FOWNER: u64 = 1 << 3;
    pub(crate) const FSETID: u64 = 1 << 4;
    pub(crate) const KILL: u64 = 1 << 5;
    pub(crate) const SETGID: u64 = 1 << 6;
    pub(crate) const SETUID: u64 = 1 << 7;
    pub(crate) const SETPCAP: u64 = 1 << 8;
    pub(crate) const LINUX_IMMUTABLE: u64 = 1 << 9;
    pub(crate) const IPC_LOCK: u64 = 1 << 14;
    pub(crate) const IPC_OWNER: u64 = 1 << 15;
    pub(crate) const SYS_CHROOT: u64 = 1 << 18;
    pub(crate) const SYS_PTRACE: u64 = 1 << 19;
    pub(crate) const SYS_ADMIN: u64 = 1 << 21;
    pub(crate) const SYS_BOOT: u64 = 1 << 22;
    pub(crate) const SYS_NICE: u64 = 1 << 23;
    pub(crate) const SYS_RESOURCE: u64 = 1 << 24;
    pub(crate) const MKNOD: u64 = 1 << 27;
    pub(crate) const SETFCAP: u64 = 1 << 31;
    pub(crate) const MAC_OVERRIDE: u64 = 1 << 32;
    /// Those with which owners and modes of files do not restrict a process.
    pub(crate) const OVER_FILES: u64 = DAC_OVERRIDE | FOWNER | FSETID;
}

/// The bits of PR_SET_SECUREBITS (prctl(2), capabilities(7)).
pub(crate) mod securebits {
    pub(crate) const NOROOT: u32 = 1 << 0;
    pub(crate) const NO_SETUID_FIXUP: u32 = 1 << 2;
    pub(crate) const KEEP_CAPS: u32 = 1 << 4;
    pub(crate) const KEEP_CAPS_LOCKED: u32 = 1 << 5;
    pub(crate) const NO_CAP_AMBIENT_RAISE: u32 = 1 << 6;
}

/// The four uids, or the four gids, of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ids<T> {
    pub(crate) real: T,
    pub(crate) effective: T,
    pub(crate) saved: T,
    pub(crate) fs: T,
}

impl<T: Id> Ids<T> {
    pub(crate) fn all(id: T) -> Self {
        Self {
            real: id,
            effective: id,
            saved: id,
            fs: id,
        }
    }
}

/// The capability sets of a thread, except the bounding set: that is always the kernel's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Capabilities {
    pub(crate) permitted: u64,
    pub(crate) effective: u64,
    pub(crate) inheritable: u64,
    pub(crate) ambient: u64,
}

/// The credentials of a thread.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Credentials {
    pub(crate) uid: Ids<EmulatedUid>,
    pub(crate) gid: Ids<EmulatedGid>,
    /// Supplementary groups, sorted as in the kernel.
    pub(crate) groups: Vec<EmulatedGid>,
    pub(crate) securebits: u32,
    /// `None`: the same as the thread's capabilities to the kernel.
    pub(crate) capabilities: Option<Capabilities>,
}

impl Credentials {
    /// The credentials of a thread that has never changed them.
    pub(crate) fn initial(uid: EmulatedUid, gid: EmulatedGid, groups: Vec<EmulatedGid>) -> Self {
        Self {
            uid: Ids::all(uid),
            gid: Ids::all(gid),
            groups: sorted(groups),
            securebits: 0,
            capabilities: None,
        }
    }
}

/// The kernel sorts supplementary groups (kernel/groups.c, groups_sort).
fn sorted(mut groups: Vec<EmulatedGid>) -> Vec<EmulatedGid> {
    groups.sort_unstable();
    groups
}
