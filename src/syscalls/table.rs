//! [`TABLE`]: one row for every syscall that is emulated or observed.

use libseccomp::ScmpSyscall;
use nix::errno::Errno;

use super::lookup::Lookup;
use super::{
    attribute, capability, chown, entry, exec, fast, getid, ioctl, ipc, limit, lookup, make, mount,
    open, path, priority, setid, signal, socket, stat, trace, view, xattr,
};
use crate::linux::hash;
use crate::linux::seccomp::Reply;
use crate::target::Call;
use crate::wire::permissions::Permissions;
use Argument::*;
use Trap::{Always, Never};

/// Handles one call. `Err` is the errno for the target.
pub(crate) type Handler = fn(&mut Call) -> Result<Reply, Errno>;

/// Which calls of a syscall trap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trap {
    Always,
    Never,
    If(Condition),
    IfEither(Condition, Condition),
}

/// What a filter tests. It sees only registers, so no condition depends on memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// The argument, an `int` or an id, is not `value`.
    IsNot { arg: u32, value: u32 },
    /// The argument has any of these bits.
    HasAny { arg: u32, bits: u64 },
    /// The argument has, of the bits in `mask`, exactly `bits`.
    Masked { arg: u32, mask: u64, bits: u64 },
}

/// When, and how far, a worker answers the calls of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Answered once the worker has joined the container.
    Emulate,
    /// Answered before that, too: the runtime takes the ids of the container's user.
    EmulateEarly,
    /// As `EmulateEarly`. The call does not concern files, so the target's root directory does not
    /// matter.
    EmulateIds,
    /// Left to the kernel, unless the target lacks a capability for it; the handler takes note of
    /// the call, even before the container has been joined.
    Observe,
}

/// What a filter is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Scope {
    /// Processes may have the preloaded library.
    pub(crate) is_fast: bool,
    pub(crate) permissions: Permissions,
}

impl Scope {
    /// With the fast path, and as few permissions as possible.
    pub(crate) const LEAST: Self = Self {
        is_fast: true,
        permissions: Permissions::Owner,
    };
}

/// One syscall.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    trap: Trap,
    pub(crate) purpose: Purpose,
    pub(crate) handle: Handler,
    pub(super) arguments: &'static [Argument],
    /// The arguments that are paths which the caller must be allowed to look up. Handlers check
    /// paths that are in memory, and those of access(2).
    pub(crate) lookups: &'static [Lookup],
    /// The functions of libc for which the preloaded library makes this call itself: with the fast
    /// path, the filter allows such a call. `None`: the library never makes it.
    pub(crate) fast: Option<&'static [&'static str]>,
    /// What traps with the fast path; `None`: the same as without.
    trap_if_fast: Option<Trap>,
    /// What traps if all permissions are checked; `None`: the same as if not.
    trap_if_full: Option<Trap>,
    /// The syscall's number, for libseccomp releases without its name: syscalls that are newer than
    /// Linux 5.1 have the same number on all architectures.
    pub(super) number: Option<u32>,
}

impl Row {
    /// The number, if the libseccomp of this machine does not know the name.
    pub(crate) fn bare_number(&self) -> Option<u32> {
        self.number
            .filter(|_| ScmpSyscall::from_name(self.name).is_err())
    }

    /// The condition under which a filter notifies calls.
    pub(crate) fn trap(&self, scope: Scope) -> Trap {
        let is_full = scope.permissions == Permissions::Full;
        self.trap_if_full
            .filter(|_| is_full)
            .or(self.trap_if_fast.filter(|_| scope.is_fast))
            .unwrap_or(self.trap)
    }

    /// The caller needs search permission on the way to these paths.
    const fn looks_up(self, lookups: &'static [Lookup]) -> Self {
        Self { lookups, ..self }
    }

    /// The preloaded library makes it in place of these functions.
    const fn fast(self, symbols: &'static [&'static str]) -> Self {
        Self {
            fast: Some(symbols),
            ..self
        }
    }

    /// All calls are notified if all permissions are checked.
    const fn if_full(self) -> Self {
        Self {
            trap_if_full: Some(Always),
            ..self
        }
    }

    /// With the fast path, other calls are notified.
    const fn if_fast(self, trap: Trap) -> Self {
        Self {
            trap_if_fast: Some(trap),
            ..self
        }
    }
}

/// A row of calls that are answered, or left to the kernel if its answer is right.
const fn emulated(
    name: &'static str,
    trap: Trap,
    handle: Handler,
    arguments: &'static [Argument],
) -> Row {
    let purpose = Purpose::Emulate;
    Row {
        name,
        trap,
        purpose,
        handle,
        arguments,
        lookups: &[],
        fast: None,
        trap_if_fast: None,
        trap_if_full: None,
        number: None,
    }
}

/// As [`emulated`], for calls from which only permissions keep a caller: they are left alone unless
/// all permissions are checked.
const fn restricted(name: &'static str, handle: Handler, arguments: &'static [Argument]) -> Row {
    emulated(name, Never, handle, arguments).if_full()
}

/// As [`emulated`], for syscalls whose name libseccomp may not know.
const fn numbered(
    name: &'static str,
    number: u32,
    handle: Handler,
    arguments: &'static [Argument],
) -> Row {
    Row {
        number: Some(number),
        ..emulated(name, Always, handle, arguments)
    }
}

/// As [`emulated`], and answered before the container has been joined, too.
const fn emulated_early(
    name: &'static str,
    trap: Trap,
    handle: Handler,
    arguments: &'static [Argument],
) -> Row {
    Row {
        purpose: Purpose::EmulateEarly,
        ..emulated(name, trap, handle, arguments)
    }
}

/// As [`emulated_early`], for calls that do not concern files.
const fn emulated_ids(
    name: &'static str,
    trap: Trap,
    handle: Handler,
    arguments: &'static [Argument],
) -> Row {
    Row {
        purpose: Purpose::EmulateIds,
        ..emulated(name, trap, handle, arguments)
    }
}

/// A row of calls that the kernel executes.
const fn observed(
    name: &'static str,
    trap: Trap,
    handle: Handler,
    arguments: &'static [Argument],
) -> Row {
    Row {
        purpose: Purpose::Observe,
        ..emulated(name, trap, handle, arguments)
    }
}

/// Calls that change an owner; the gid is the argument behind `uid`. An id of −1 stays as it is.
const fn changes_owner(uid: u32) -> Trap {
    Trap::IfEither(is_not(uid, u32::MAX), is_not(uid + 1, u32::MAX))
}

const fn is_not(arg: u32, value: u32) -> Condition {
    Condition::IsNot { arg, value }
}

/// Calls that make or join a namespace, which may take CAP_SYS_ADMIN.
const fn new_namespace(arg: u32) -> Trap {
    Trap::If(Condition::HasAny {
        arg,
        bits: view::NAMESPACES,
    })
}

/// Calls that may create a file; `flags` is the argument with the flags of open(2).
const fn creates(flags: u32) -> Trap {
    // O_TMPFILE includes O_DIRECTORY, which alone creates nothing.
    const UNNAMED: i32 = libc::O_TMPFILE & !libc::O_DIRECTORY;
    Trap::If(Condition::HasAny {
        arg: flags,
        bits: (libc::O_CREAT | UNNAMED) as u64,
    })
}

/// RLIMIT_LOCKS (10). The mask is enough because there are 16 limits.
const fn is_of_locks(resource: u32) -> Condition {
    Condition::Masked {
        arg: resource,
        mask: 0b1111,
        bits: libc::RLIMIT_LOCKS as u64,
    }
}

/// Calls that concern RLIMIT_LOCKS.
const fn of_locks(resource: u32) -> Trap {
    Trap::If(is_of_locks(resource))
}

/// A pid of 0 stands for the caller.
const OF_ANOTHER: Condition = is_not(0, 0);

/// `which` and `who` of setpriority(2): not (PRIO_PROCESS, 0), which is the caller.
const PRIORITY_OF_ANOTHER: Trap = Trap::IfEither(is_not(0, 0), is_not(1, 0));
/// The same of ioprio_set(2): not (IOPRIO_WHO_PROCESS, 0).
const IO_PRIORITY_OF_ANOTHER: Trap = Trap::IfEither(is_not(0, 1), is_not(1, 0));

/// PTRACE_ATTACH (0x10) and PTRACE_SEIZE (0x4206). The masks match neither the operations that a
/// debugger repeats (PTRACE_CONT, PTRACE_SYSCALL, PTRACE_GETREGS, PTRACE_GETREGSET and the like),
/// nor PTRACE_TRACEME.
const ATTACHES: Trap = Trap::IfEither(
    Condition::Masked {
        arg: 0,
        mask: 0b1_1001,
        bits: 0b1_0000,
    },
    Condition::Masked {
        arg: 0,
        mask: 0x400f,
        bits: 0x4006,
    },
);

/// Calls of open_tree(2) with OPEN_TREE_CLONE.
const CLONES_MOUNT: Trap = Trap::If(Condition::HasAny { arg: 2, bits: 1 });

/// PR_SET_KEEPCAPS (8), PR_CAPBSET_DROP (24), PR_SET_SECUREBITS (28), PR_SET_TIMERSLACK (29) and
/// PR_CAP_AMBIENT (47) all have bit 3. Of the other frequent operations, only PR_SET_NAME (15) has
/// it.
const IS_ABOUT_CREDENTIALS: Condition = Condition::HasAny {
    arg: 0,
    bits: 0b1000,
};

/// The same and PR_SET_SECCOMP (22), which does not have bit 3.
const ABOUT_CREDENTIALS_OR_SECCOMP: Trap = Trap::IfEither(
    IS_ABOUT_CREDENTIALS,
    Condition::Masked {
        arg: 0,
        mask: 0b11_1111,
        bits: libc::PR_SET_SECCOMP as u64,
    },
);

/// The bits that SO_PEERCRED (17) and SO_PEERGROUPS (59) have in common.
const ASKS_FOR_PEER: Trap = Trap::If(Condition::Masked {
    arg: 2,
    mask: 0b1_0101,
    bits: 0b1_0001,
});

/// TIOCGPTN (0x8004_5430), with which the name of a terminal is found, and TIOCSPTLCK
/// (0x4004_5431), without which it cannot be opened.
const MAKES_TERMINAL: Condition = Condition::Masked {
    arg: 1,
    mask: 0x3fff_fffe,
    bits: 0x0004_5430,
};

/// PIDFD_GET_INFO; the upper half is the size of the structure.
const ASKS_FOR_PROCESS: Condition = Condition::Masked {
    arg: 1,
    mask: 0xffff,
    bits: ioctl::PIDFD_GET_INFO as u64,
};

/// Each row: name, which calls trap (or the number), handler, and the arguments as `subuidless
/// trace` shows them.
#[rustfmt::skip]
pub(crate) static TABLE: &[Row] = &[
    // chown(2)
    emulated("chown",    changes_owner(1), chown::chown,    &[Path, Id, Id]).looks_up(lookup::PATH),
    emulated("lchown",   changes_owner(1), chown::lchown,   &[Path, Id, Id]).looks_up(lookup::LINK),
    emulated("fchown",   changes_owner(1), chown::fchown,   &[Fd, Id, Id]).fast(fast::FCHOWN),
    emulated("fchownat", changes_owner(2), chown::fchownat, &[Dirfd, Path, Id, Id, AtFlags])
        .looks_up(lookup::UNLESS_FLAG_4).fast(fast::FCHOWNAT),
    // stat(2), statx(2)
    emulated("stat",       Always, stat::stat,       &[Path, Stat]).looks_up(lookup::PATH),
    emulated("lstat",      Always, stat::lstat,      &[Path, Stat]).looks_up(lookup::LINK),
    emulated("fstat",      Always, stat::fstat,      &[Fd, Stat]).fast(fast::FSTAT),
    emulated("newfstatat", Always, stat::newfstatat, &[Dirfd, Path, Stat, AtFlags])
        .looks_up(lookup::UNLESS_FLAG_3).fast(fast::NEWFSTATAT),
    // Whatever the mask: the kernel fills in ids, type and mode even if they are not requested.
    emulated("statx", Always, stat::statx, &[Dirfd, Path, AtFlags, Hex, Statx])
        .looks_up(lookup::UNLESS_FLAG_2).fast(fast::STATX),
    // setuid(2) and its relatives
    emulated_ids("setuid",    Always, setid::setuid,    &[Id]),
    emulated_ids("setgid",    Always, setid::setgid,    &[Id]),
    emulated_ids("setreuid",  Always, setid::setreuid,  &[Id, Id]),
    emulated_ids("setregid",  Always, setid::setregid,  &[Id, Id]),
    emulated_ids("setresuid", Always, setid::setresuid, &[Id, Id, Id]),
    emulated_ids("setresgid", Always, setid::setresgid, &[Id, Id, Id]),
    emulated_ids("setfsuid",  Always, setid::setfsuid,  &[Id]),
    emulated_ids("setfsgid",  Always, setid::setfsgid,  &[Id]),
    emulated_ids("setgroups", Always, setid::setgroups, &[Int, Groups]),
    // getuid(2) and its relatives
    emulated_ids("getuid",    Always, getid::getuid,    &[]).fast(fast::GETUID),
    emulated_ids("geteuid",   Always, getid::geteuid,   &[]).fast(fast::GETEUID),
    emulated_ids("getgid",    Always, getid::getgid,    &[]).fast(fast::GETGID),
    emulated_ids("getegid",   Always, getid::getegid,   &[]).fast(fast::GETEGID),
    emulated_ids("getresuid", Always, getid::getresuid, &[IdOut, IdOut, IdOut])
        .fast(fast::GETRESUID),
    emulated_ids("getresgid", Always, getid::getresgid, &[IdOut, IdOut, IdOut])
        .fast(fast::GETRESGID),
    emulated_ids("getgroups", Always, getid::getgroups, &[Int, Ptr]).fast(fast::GETGROUPS),
    // capget(2), capset(2), prctl(2)
    emulated_ids("capget", Always,            capability::capget, &[Ptr, Ptr]).fast(fast::HELPER),
    emulated_ids("capset", Always,            capability::capset, &[Ptr, Ptr]),
    emulated_ids("prctl", Trap::If(IS_ABOUT_CREDENTIALS), capability::prctl,
        &[Prctl, Hex, Hex, Hex, Hex])
        .if_fast(ABOUT_CREDENTIALS_OR_SECCOMP),
    // execve(2), execveat(2)
    emulated_early("execve",   Always, exec::execve,   &[Path, Ptr, Ptr]).looks_up(lookup::PATH),
    emulated_early("execveat", Always, exec::execveat, &[Dirfd, Path, Ptr, Ptr, AtFlags])
        .looks_up(lookup::UNLESS_FLAG_4),
    // getrlimit(2)
    emulated_ids("getrlimit", of_locks(0), limit::getrlimit, &[Resource, Ptr]).fast(fast::HELPER),
    emulated_ids("setrlimit", of_locks(0), limit::setrlimit, &[Resource, Ptr]),
    emulated_ids("prlimit64", Trap::IfEither(OF_ANOTHER, is_of_locks(1)), limit::prlimit64,
        &[Int, Resource, Ptr, Ptr]),
    // kill(2), sigqueue(3), pidfd_send_signal(2)
    emulated_ids("kill",              Always, signal::kill,              &[Int, Int]),
    emulated_ids("rt_sigqueueinfo",   Always, signal::rt_sigqueueinfo,   &[Int, Int, Ptr]),
    emulated_ids("rt_tgsigqueueinfo", Always, signal::rt_tgsigqueueinfo, &[Int, Int, Int, Ptr]),
    emulated_ids("pidfd_send_signal", Always, signal::pidfd_send_signal, &[Fd, Int, Ptr, Hex]),
    // setpriority(2), ioprio_set(2), sched(7)
    emulated_ids("setpriority", PRIORITY_OF_ANOTHER,    priority::setpriority, &[Int, Int, Int]),
    emulated_ids("ioprio_set",  IO_PRIORITY_OF_ANOTHER, priority::ioprio_set,  &[Int, Int, Hex]),
    emulated_ids("sched_setaffinity", Trap::If(OF_ANOTHER), priority::sched_setaffinity,
        &[Int, Size, Ptr]),
    emulated_ids("sched_setscheduler", Trap::If(OF_ANOTHER), priority::sched_setscheduler,
        &[Int, Int, Ptr]),
    emulated_ids("sched_setparam", Trap::If(OF_ANOTHER), priority::sched_setparam, &[Int, Ptr]),
    emulated_ids("sched_setattr",  Trap::If(OF_ANOTHER), priority::sched_setattr,
        &[Int, Ptr, Hex]),
    // ptrace(2), process_vm_readv(2), pidfd_getfd(2)
    emulated_ids("ptrace", ATTACHES, trace::ptrace, &[Hex, Int, Ptr, Hex]),
    emulated_ids("process_vm_readv",  Always, trace::process_vm_readv,
        &[Int, Ptr, Size, Ptr, Size, Hex]),
    emulated_ids("process_vm_writev", Always, trace::process_vm_writev,
        &[Int, Ptr, Size, Ptr, Size, Hex]),
    emulated_ids("pidfd_getfd", Always, trace::pidfd_getfd, &[Fd, Int, Hex]),
    // open(2), openat2(2)
    emulated("open",    creates(1), open::open,    &[Path, OpenFlags, Mode]).if_full(),
    emulated("creat",   Always,     open::creat,   &[Path, Mode]),
    emulated("openat",  creates(2), open::openat,  &[Dirfd, Path, OpenFlags, Mode])
        .if_full().fast(fast::OPENAT),
    emulated("openat2", Always,     open::openat2, &[Dirfd, Path, Ptr, Size]),
    // mkdir(2), mknod(2), symlink(2), bind(2)
    emulated("mkdir",     Always, make::mkdir,     &[Path, Mode]).looks_up(lookup::NAME),
    emulated("mkdirat",   Always, make::mkdirat,   &[Dirfd, Path, Mode])
        .looks_up(lookup::NAME_AT).fast(fast::MKDIRAT),
    emulated("mknod",     Always, make::mknod,     &[Path, Mode, Device]).looks_up(lookup::NAME),
    emulated("mknodat",   Always, make::mknodat,   &[Dirfd, Path, Mode, Device])
        .looks_up(lookup::NAME_AT).fast(fast::MKNODAT),
    emulated("symlink",   Always, make::symlink,   &[Path, Path]).looks_up(lookup::SECOND_NAME),
    emulated("symlinkat", Always, make::symlinkat, &[Path, Dirfd, Path])
        .looks_up(lookup::SECOND_NAME_AT).fast(fast::SYMLINKAT),
    emulated("bind",      Always, make::bind,      &[Fd, Ptr, Int]),
    // chmod(2), utime(2), utimensat(2)
    emulated("chmod",     Always, attribute::chmod,     &[Path, Mode]).looks_up(lookup::PATH),
    emulated("fchmod",    Always, attribute::fchmod,    &[Fd, Mode]).fast(fast::FCHMOD),
    emulated("fchmodat",  Always, attribute::fchmodat,  &[Dirfd, Path, Mode])
        .looks_up(lookup::AT).fast(fast::FCHMODAT),
    numbered("fchmodat2", 452,    attribute::fchmodat2, &[Dirfd, Path, Mode, AtFlags])
        .looks_up(lookup::UNLESS_FLAG_3),
    emulated("utime",     Always, attribute::utime,     &[Path, Ptr]).looks_up(lookup::PATH),
    emulated("utimes",    Always, attribute::utimes,    &[Path, Ptr]).looks_up(lookup::PATH),
    emulated("futimesat", Always, attribute::futimesat, &[Dirfd, Path, Ptr]).looks_up(lookup::AT),
    emulated("utimensat", Always, attribute::utimensat, &[Dirfd, Path, Ptr, AtFlags])
        .looks_up(lookup::UNLESS_FLAG_3).fast(fast::UTIMENSAT),
    // getxattr(2), listxattr(2), setxattr(2), removexattr(2)
    emulated("getxattr",   Always, xattr::getxattr,   &[Path, Path, Ptr, Size])
        .looks_up(lookup::PATH).fast(fast::GETXATTR),
    emulated("lgetxattr",  Always, xattr::lgetxattr,  &[Path, Path, Ptr, Size])
        .looks_up(lookup::LINK).fast(fast::LGETXATTR),
    emulated("fgetxattr",  Always, xattr::fgetxattr,  &[Fd, Path, Ptr, Size]).fast(fast::FGETXATTR),
    emulated("listxattr",  Always, xattr::listxattr,  &[Path, Ptr, Size])
        .looks_up(lookup::PATH).fast(fast::LISTXATTR),
    emulated("llistxattr", Always, xattr::llistxattr, &[Path, Ptr, Size])
        .looks_up(lookup::LINK).fast(fast::LLISTXATTR),
    emulated("flistxattr", Always, xattr::flistxattr, &[Fd, Ptr, Size]).fast(fast::FLISTXATTR),
    emulated("setxattr",     Always, xattr::setxattr,     &[Path, Path, Ptr, Size, XattrFlags])
        .looks_up(lookup::PATH).fast(fast::SETXATTR),
    emulated("lsetxattr",    Always, xattr::lsetxattr,    &[Path, Path, Ptr, Size, XattrFlags])
        .looks_up(lookup::LINK).fast(fast::LSETXATTR),
    emulated("fsetxattr",    Always, xattr::fsetxattr,    &[Fd, Path, Ptr, Size, XattrFlags])
        .fast(fast::FSETXATTR),
    emulated("removexattr",  Always, xattr::removexattr,  &[Path, Path])
        .looks_up(lookup::PATH).fast(fast::REMOVEXATTR),
    emulated("lremovexattr", Always, xattr::lremovexattr, &[Path, Path])
        .looks_up(lookup::LINK).fast(fast::LREMOVEXATTR),
    emulated("fremovexattr", Always, xattr::fremovexattr, &[Fd, Path]).fast(fast::FREMOVEXATTR),
    numbered("setxattrat",    463, xattr::setxattrat,    &[Dirfd, Path, AtFlags, Path, Ptr, Size])
        .looks_up(lookup::UNLESS_FLAG_2),
    numbered("getxattrat",    464, xattr::getxattrat,    &[Dirfd, Path, AtFlags, Path, Ptr, Size])
        .looks_up(lookup::UNLESS_FLAG_2).fast(fast::HELPER),
    numbered("listxattrat",   465, xattr::listxattrat,   &[Dirfd, Path, AtFlags, Ptr, Size])
        .looks_up(lookup::UNLESS_FLAG_2),
    numbered("removexattrat", 466, xattr::removexattrat, &[Dirfd, Path, AtFlags, Path])
        .looks_up(lookup::UNLESS_FLAG_2),
    // file_getattr(2), file_setattr(2)
    numbered("file_getattr", 468, path::look_up,           &[Dirfd, Path, Ptr, Size, AtFlags])
        .looks_up(lookup::UNLESS_FLAG_4),
    numbered("file_setattr", 469, attribute::file_setattr, &[Dirfd, Path, Ptr, Size, AtFlags])
        .looks_up(lookup::UNLESS_FLAG_4),
    // access(2)
    emulated("access",     Always, attribute::access,     &[Path, AccessMode]),
    emulated("faccessat",  Always, attribute::faccessat,  &[Dirfd, Path, AccessMode])
        .fast(fast::FACCESSAT),
    emulated("faccessat2", Always, attribute::faccessat2, &[Dirfd, Path, AccessMode, AtFlags])
        .fast(fast::FACCESSAT2),
    // unlink(2), rmdir(2), rename(2), link(2)
    restricted("unlink",    entry::unlink,    &[Path]).looks_up(lookup::NAME).fast(fast::UNLINK),
    restricted("unlinkat",  entry::unlinkat,  &[Dirfd, Path, Hex])
        .looks_up(lookup::NAME_AT).fast(fast::UNLINKAT),
    restricted("rmdir",     entry::rmdir,     &[Path]).looks_up(lookup::NAME).fast(fast::RMDIR),
    restricted("rename",    entry::rename,    &[Path, Path])
        .looks_up(lookup::TWO_NAMES).fast(fast::RENAME),
    restricted("renameat",  entry::renameat,  &[Dirfd, Path, Dirfd, Path])
        .looks_up(lookup::TWO_NAMES_AT).fast(fast::RENAMEAT),
    restricted("renameat2", entry::renameat2, &[Dirfd, Path, Dirfd, Path, Hex])
        .looks_up(lookup::TWO_NAMES_AT).fast(fast::RENAMEAT2),
    restricted("link",      entry::link,      &[Path, Path])
        .looks_up(lookup::LINK_AND_NAME).fast(fast::LINK),
    restricted("linkat",    entry::linkat,    &[Dirfd, Path, Dirfd, Path, AtFlags])
        .looks_up(lookup::FILE_AND_NAME_AT).fast(fast::LINKAT),
    // chdir(2), truncate(2), connect(2) and others, which take permission
    restricted("chdir",      path::chdir,    &[Path]).looks_up(lookup::PATH).fast(fast::CHDIR),
    restricted("fchdir",     path::fchdir,   &[Fd]).fast(fast::FCHDIR),
    restricted("truncate",   path::truncate, &[Path, Size])
        .looks_up(lookup::PATH).fast(fast::TRUNCATE),
    restricted("readlink",   path::look_up,  &[Path, Ptr, Size])
        .looks_up(lookup::LINK).fast(fast::READLINK),
    restricted("readlinkat", path::look_up,  &[Dirfd, Path, Ptr, Size])
        .looks_up(lookup::LINK_AT).fast(fast::READLINKAT),
    restricted("statfs",     path::look_up,  &[Path, Ptr]).looks_up(lookup::PATH),
    restricted("connect",    path::connect,  &[Fd, Ptr, Int]).fast(fast::CONNECT),
    restricted("inotify_add_watch", path::inotify_add_watch, &[Fd, Path, Hex])
        .looks_up(lookup::WATCHED),
    restricted("name_to_handle_at", path::look_up, &[Dirfd, Path, Ptr, Ptr, AtFlags])
        .looks_up(lookup::IF_FLAG_4),
    // sysvipc(7)
    emulated_ids("shmget", Always, ipc::shmget, &[Int, Size, Hex]),
    emulated_ids("shmat",  Always, ipc::shmat,  &[Int, Ptr, Hex]),
    emulated_ids("shmctl", Always, ipc::shmctl, &[Int, Int, Ptr]),
    emulated_ids("semget", Always, ipc::semget, &[Int, Int, Hex]),
    emulated_ids("semop",  Always, ipc::semop,  &[Int, Ptr, Size]).fast(fast::SEMOP),
    emulated_ids("semtimedop", Always, ipc::semop, &[Int, Ptr, Size, Ptr])
        .fast(fast::SEMTIMEDOP),
    emulated_ids("semctl", Always, ipc::semctl, &[Int, Int, Int, Ptr]),
    emulated_ids("msgget", Always, ipc::msgget, &[Int, Hex]),
    emulated_ids("msgsnd", Always, ipc::msgsnd, &[Int, Ptr, Size, Hex]),
    emulated_ids("msgrcv", Always, ipc::msgrcv, &[Int, Ptr, Size, Int, Hex]),
    emulated_ids("msgctl", Always, ipc::msgctl, &[Int, Int, Ptr]),
    // ioctl(2)
    emulated("ioctl", Trap::IfEither(MAKES_TERMINAL, ASKS_FOR_PROCESS), ioctl::ioctl,
        &[Fd, Hex, Ptr]),
    // mount(2), umount2(2), fsopen(2)'s family
    emulated("mount",         Always, mount::mount,          &[Path, Path, Path, Hex, Path])
        .looks_up(lookup::SECOND),
    emulated("umount2",       Always, mount::umount2,        &[Path, Hex]).looks_up(lookup::PATH),
    emulated("open_tree",     CLONES_MOUNT, mount::open_tree, &[Dirfd, Path, Hex]),
    emulated("fsconfig",      Always, mount::fsconfig,       &[Fd, Hex, Path, Path, Int]),
    emulated("fsmount",       Always, mount::fsmount,        &[Fd, Hex, Hex]),
    emulated("move_mount",    Always, mount::move_mount,     &[Dirfd, Path, Dirfd, Path, Hex]),
    emulated("fspick",        Always, mount::fspick,         &[Dirfd, Path, Hex]),
    emulated("mount_setattr", Always, mount::mount_setattr,  &[Dirfd, Path, AtFlags, Ptr, Size]),
    numbered("open_tree_attr", 467,   mount::open_tree_attr, &[Dirfd, Path, Hex, Ptr, Size])
        .looks_up(lookup::UNLESS_FLAG_2),
    // sethostname(2), setdomainname(2), reboot(2), open_by_handle_at(2)
    emulated_ids("sethostname",   Always, capability::sethostname,   &[Ptr, Size]),
    emulated_ids("setdomainname", Always, capability::setdomainname, &[Ptr, Size]),
    emulated_ids("reboot",        Always, capability::reboot,        &[Hex, Hex, Hex, Ptr]),
    emulated_ids("open_by_handle_at", Always, capability::open_by_handle_at,
        &[Fd, Ptr, OpenFlags]),
    // getsockopt(2)
    emulated("getsockopt", ASKS_FOR_PEER, socket::getsockopt, &[Fd, Int, Int, Ptr, Ptr]),
    // The same calls of 32-bit programs: with 32-bit ids, or with structures of their own.
    emulated("chown32",  changes_owner(1), chown::chown,  &[Path, Id, Id]).looks_up(lookup::PATH),
    emulated("lchown32", changes_owner(1), chown::lchown, &[Path, Id, Id]).looks_up(lookup::LINK),
    emulated("fchown32", changes_owner(1), chown::fchown, &[Fd, Id, Id]),
    emulated("stat64",    Always, stat::stat64,    &[Path, Stat]).looks_up(lookup::PATH),
    emulated("lstat64",   Always, stat::lstat64,   &[Path, Stat]).looks_up(lookup::LINK),
    emulated("fstat64",   Always, stat::fstat64,   &[Fd, Stat]),
    emulated("fstatat64", Always, stat::fstatat64, &[Dirfd, Path, Stat, AtFlags])
        .looks_up(lookup::UNLESS_FLAG_3),
    emulated_ids("setuid32",    Always, setid::setuid,    &[Id]),
    emulated_ids("setgid32",    Always, setid::setgid,    &[Id]),
    emulated_ids("setreuid32",  Always, setid::setreuid,  &[Id, Id]),
    emulated_ids("setregid32",  Always, setid::setregid,  &[Id, Id]),
    emulated_ids("setresuid32", Always, setid::setresuid, &[Id, Id, Id]),
    emulated_ids("setresgid32", Always, setid::setresgid, &[Id, Id, Id]),
    emulated_ids("setfsuid32",  Always, setid::setfsuid,  &[Id]),
    emulated_ids("setfsgid32",  Always, setid::setfsgid,  &[Id]),
    emulated_ids("setgroups32", Always, setid::setgroups, &[Int, Groups]),
    emulated_ids("getuid32",    Always, getid::getuid,    &[]),
    emulated_ids("geteuid32",   Always, getid::geteuid,   &[]),
    emulated_ids("getgid32",    Always, getid::getgid,    &[]),
    emulated_ids("getegid32",   Always, getid::getegid,   &[]),
    emulated_ids("getresuid32", Always, getid::getresuid, &[IdOut, IdOut, IdOut]),
    emulated_ids("getresgid32", Always, getid::getresgid, &[IdOut, IdOut, IdOut]),
    emulated_ids("getgroups32", Always, getid::getgroups, &[Int, Ptr]),
    emulated_ids("ugetrlimit", of_locks(0), limit::ugetrlimit, &[Resource, Ptr]),
    emulated_ids("ipc", Always, ipc::ipc, &[Int, Int, Int, Int, Ptr]),
    emulated_ids("semtimedop_time64", Always, ipc::semop, &[Int, Ptr, Size, Ptr]),
    emulated("utimensat_time64", Always, attribute::utimensat_time64, &[Dirfd, Path, Ptr, AtFlags])
        .looks_up(lookup::UNLESS_FLAG_3),
    restricted("truncate64", path::truncate, &[Path, Size]).looks_up(lookup::PATH),
    restricted("statfs64",   path::look_up,  &[Path, Size, Ptr]).looks_up(lookup::PATH),
    emulated("umount", Always, mount::umount, &[Path]).looks_up(lookup::PATH),
    // Calls after which a target may see another root directory, live in another user namespace, or
    // be restricted: noticed, and left to the kernel if the target has the capability.
    observed("chroot",     Always, view::chroot,     &[Path]).looks_up(lookup::PATH),
    observed("pivot_root", Always, view::pivot_root, &[Path, Path]).looks_up(lookup::BOTH),
    observed("fsopen",     Always, view::fsopen,     &[Path, Hex]),
    observed("setns",      Always, view::setns,      &[Fd, CloneFlags]),
    observed("unshare", new_namespace(0), view::unshare, &[CloneFlags]),
    observed("clone",   new_namespace(0), view::clone,   &[CloneFlags, Ptr, Ptr, Ptr, Ptr]),
    observed("clone3",  Always,           view::clone3,  &[Ptr, Size]),
    observed("landlock_restrict_self", Always, view::landlock_restrict_self, &[Fd, Hex]),
    observed("seccomp", Never, view::seccomp, &[Int, Hex, Ptr]).if_fast(Always),
];

/// A hash of the names in their order: it tells this table from that of another version of this
/// program, whose counters belong to other rows.
pub(crate) fn fingerprint() -> u64 {
    hash::of_bytes(TABLE.iter().flat_map(|row| row.name.bytes().chain([0])))
}

/// The kind of an argument, for `subuidless trace`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Argument {
    Path,
    Dirfd,
    Fd,
    Id,
    Int,
    Size,
    Hex,
    Ptr,
    Mode,
    Device,
    OpenFlags,
    AtFlags,
    AccessMode,
    CloneFlags,
    XattrFlags,
    Resource,
    Prctl,
    /// A list of ids; the argument before it is their number.
    Groups,
    /// A structure that the call writes; its owner is shown.
    Stat,
    Statx,
    IdOut,
}
