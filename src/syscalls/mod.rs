//! What targets ask for: [`TABLE`], one row per syscall. START HERE.
//!
//! The table is the only source: the filter (`crate::syscalls::profile`), the dispatch, the list in
//! docs/syscalls.md and the tests read it. To add a syscall:
//!
//! 1. add a row: its name as libseccomp spells it (its number as well, if that may be older), when
//!    it traps, and its handler;
//! 2. write the handler, named like the syscall, in the file of its man-page family; arguments are
//!    taken where the man page has them, `?` passes the kernel's own errno on, and
//!    `Reply::Continue` stands under a `// CONTINUE:` line;
//! 3. name it in docs/syscalls.md (a test compares) and give the probe in tests/programs/probe a
//!    call of it.

mod attribute;
mod capability;
mod chown;
mod describe;
mod exec;
mod getid;
mod i386;
mod limit;
mod make;
mod mount;
mod open;
mod permission;
pub(crate) mod profile;
mod setid;
mod site;
mod socket;
mod stat;
mod view;
mod xattr;

use libseccomp::{ScmpArch, ScmpSyscall};
use nix::errno::Errno;

pub(crate) use describe::{describe, describe_reply, describe_results, escaped};

use crate::linux::hash;
use crate::linux::seccomp::{Notification, Reply};
use crate::target::{Abi, Call};

/// Answers one call. `Err` is the errno that the target gets.
pub(crate) type Handler = fn(&mut Call) -> Result<Reply, Errno>;

/// Which calls of a syscall trap. BPF sees registers only, so no condition looks behind a pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trap {
    Always,
    /// Unless the ids in these two arguments are both −1.
    ChangesOwner {
        uid: u32,
        gid: u32,
    },
    /// If the mask in this argument has any of these bits.
    HasAny {
        arg: u32,
        bits: u64,
    },
    /// If this argument has these bits of the mask, and only these.
    Masked {
        arg: u32,
        mask: u64,
        bits: u64,
    },
}

/// What a row is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Emulate,
    /// As `Emulate`, also before the container has been joined: its runtime takes the ids of the
    /// container's user.
    EmulateEarly,
    /// As `EmulateEarly`, and nothing is asked about files: which root directory the target sees
    /// does not matter.
    EmulateIds,
    /// Only noticed, also before the container has been joined.
    Watch,
}

/// One syscall.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) trap: Trap,
    pub(crate) purpose: Purpose,
    pub(crate) handle: Handler,
    /// For libraries that are older than the syscall: since Linux 5.1 it has one number on all
    /// architectures.
    number: Option<u32>,
}

impl Row {
    /// The number, where only that names the call to this machine's libseccomp.
    pub(crate) fn bare_number(&self) -> Option<u32> {
        self.number
            .filter(|_| ScmpSyscall::from_name(self.name).is_err())
    }
}

/// Calls that are answered, or left to the kernel when its answer is the right one.
const fn emulated(name: &'static str, trap: Trap, handle: Handler) -> Row {
    let purpose = Purpose::Emulate;
    Row {
        name,
        trap,
        purpose,
        handle,
        number: None,
    }
}

/// As [`emulated`], for syscalls that libseccomp may have no name for.
const fn emulated_new(name: &'static str, number: u32, handle: Handler) -> Row {
    Row {
        number: Some(number),
        ..emulated(name, Trap::Always, handle)
    }
}

/// As [`emulated`], also before the container has been joined.
const fn emulated_early(name: &'static str, trap: Trap, handle: Handler) -> Row {
    Row {
        purpose: Purpose::EmulateEarly,
        ..emulated(name, trap, handle)
    }
}

/// As [`emulated_early`], for calls that have to do with ids only.
const fn emulated_ids(name: &'static str, trap: Trap, handle: Handler) -> Row {
    Row {
        purpose: Purpose::EmulateIds,
        ..emulated(name, trap, handle)
    }
}

/// Calls that always go on to the kernel.
const fn watched(name: &'static str, trap: Trap, handle: Handler) -> Row {
    let purpose = Purpose::Watch;
    Row {
        name,
        trap,
        purpose,
        handle,
        number: None,
    }
}

const fn changes_owner(uid: u32) -> Trap {
    Trap::ChangesOwner { uid, gid: uid + 1 }
}

/// After which the target may see another root, or have other ids.
const fn new_namespace(arg: u32) -> Trap {
    Trap::HasAny {
        arg,
        bits: libc::CLONE_NEWNS as u64 | libc::CLONE_NEWUSER as u64,
    }
}

const fn creates(flags: u32) -> Trap {
    // O_TMPFILE without the O_DIRECTORY that is part of it.
    const UNNAMED: i32 = libc::O_TMPFILE & !libc::O_DIRECTORY;
    Trap::HasAny {
        arg: flags,
        bits: (libc::O_CREAT | UNNAMED) as u64,
    }
}

/// RLIMIT_LOCKS is 10; there are 16 limits.
const fn of_locks(resource: u32) -> Trap {
    Trap::Masked {
        arg: resource,
        mask: 0b1111,
        bits: libc::RLIMIT_LOCKS as u64,
    }
}

/// PR_SET_KEEPCAPS is 8, PR_CAPBSET_DROP 24, PR_SET_SECUREBITS 28, PR_SET_TIMERSLACK 29,
/// PR_CAP_AMBIENT 47: bit 3 is what they have in common. Of the frequent ones only PR_SET_NAME has
/// it, too.
const ABOUT_CREDENTIALS: Trap = Trap::Masked {
    arg: 0,
    mask: 0b1000,
    bits: 0b1000,
};

/// What SO_PEERCRED, 17, and SO_PEERGROUPS, 59, have in common.
const ASKS_FOR_PEER: Trap = Trap::Masked {
    arg: 2,
    mask: 0b1_0101,
    bits: 0b1_0001,
};

const MAKES_FILE_SYSTEM: Trap = Trap::Masked {
    arg: 3,
    mask: mount::OTHER_BUSINESS,
    bits: 0,
};

/// Every syscall that is answered or watched.
pub(crate) static TABLE: &[Row] = &[
    // chown(2)
    emulated("chown", changes_owner(1), chown::chown),
    emulated("lchown", changes_owner(1), chown::lchown),
    emulated("fchown", changes_owner(1), chown::fchown),
    emulated("fchownat", changes_owner(2), chown::fchownat),
    // stat(2), statx(2)
    emulated("stat", Trap::Always, stat::stat),
    emulated("lstat", Trap::Always, stat::lstat),
    emulated("fstat", Trap::Always, stat::fstat),
    emulated("newfstatat", Trap::Always, stat::newfstatat),
    // Whatever its mask asks for: the kernel fills in ids, type and mode all the same.
    emulated("statx", Trap::Always, stat::statx),
    // setuid(2) and its relatives
    emulated_ids("setuid", Trap::Always, setid::setuid),
    emulated_ids("setgid", Trap::Always, setid::setgid),
    emulated_ids("setreuid", Trap::Always, setid::setreuid),
    emulated_ids("setregid", Trap::Always, setid::setregid),
    emulated_ids("setresuid", Trap::Always, setid::setresuid),
    emulated_ids("setresgid", Trap::Always, setid::setresgid),
    emulated_ids("setfsuid", Trap::Always, setid::setfsuid),
    emulated_ids("setfsgid", Trap::Always, setid::setfsgid),
    emulated_ids("setgroups", Trap::Always, setid::setgroups),
    // getuid(2) and its relatives
    emulated_ids("getuid", Trap::Always, getid::getuid),
    emulated_ids("geteuid", Trap::Always, getid::geteuid),
    emulated_ids("getgid", Trap::Always, getid::getgid),
    emulated_ids("getegid", Trap::Always, getid::getegid),
    emulated_ids("getresuid", Trap::Always, getid::getresuid),
    emulated_ids("getresgid", Trap::Always, getid::getresgid),
    emulated_ids("getgroups", Trap::Always, getid::getgroups),
    // capget(2), capset(2), prctl(2)
    emulated_ids("capget", Trap::Always, capability::capget),
    emulated_ids("capset", Trap::Always, capability::capset),
    emulated_ids("prctl", ABOUT_CREDENTIALS, capability::prctl),
    // execve(2), execveat(2)
    emulated_early("execve", Trap::Always, exec::execve),
    emulated_early("execveat", Trap::Always, exec::execveat),
    // getrlimit(2)
    emulated_ids("getrlimit", of_locks(0), limit::getrlimit),
    emulated_ids("setrlimit", of_locks(0), limit::setrlimit),
    emulated_ids("prlimit64", of_locks(1), limit::prlimit64),
    // open(2), openat2(2)
    emulated("open", creates(1), open::open),
    emulated("creat", Trap::Always, open::creat),
    emulated("openat", creates(2), open::openat),
    emulated("openat2", Trap::Always, open::openat2),
    // mkdir(2), mknod(2), symlink(2), bind(2)
    emulated("mkdir", Trap::Always, make::mkdir),
    emulated("mkdirat", Trap::Always, make::mkdirat),
    emulated("mknod", Trap::Always, make::mknod),
    emulated("mknodat", Trap::Always, make::mknodat),
    emulated("symlink", Trap::Always, make::symlink),
    emulated("symlinkat", Trap::Always, make::symlinkat),
    emulated("bind", Trap::Always, make::bind),
    // chmod(2), utime(2), utimensat(2), access(2), getxattr(2), listxattr(2), setxattr(2),
    // removexattr(2)
    emulated("chmod", Trap::Always, attribute::chmod),
    emulated("fchmod", Trap::Always, attribute::fchmod),
    emulated("fchmodat", Trap::Always, attribute::fchmodat),
    emulated_new("fchmodat2", 452, attribute::fchmodat2),
    emulated("utime", Trap::Always, attribute::utime),
    emulated("utimes", Trap::Always, attribute::utimes),
    emulated("futimesat", Trap::Always, attribute::futimesat),
    emulated("utimensat", Trap::Always, attribute::utimensat),
    emulated("getxattr", Trap::Always, xattr::getxattr),
    emulated("lgetxattr", Trap::Always, xattr::lgetxattr),
    emulated("fgetxattr", Trap::Always, xattr::fgetxattr),
    emulated("listxattr", Trap::Always, xattr::listxattr),
    emulated("llistxattr", Trap::Always, xattr::llistxattr),
    emulated("flistxattr", Trap::Always, xattr::flistxattr),
    emulated("setxattr", Trap::Always, xattr::setxattr),
    emulated("lsetxattr", Trap::Always, xattr::lsetxattr),
    emulated("fsetxattr", Trap::Always, xattr::fsetxattr),
    emulated("removexattr", Trap::Always, xattr::removexattr),
    emulated("lremovexattr", Trap::Always, xattr::lremovexattr),
    emulated("fremovexattr", Trap::Always, xattr::fremovexattr),
    emulated_new("setxattrat", 463, xattr::setxattrat),
    emulated_new("getxattrat", 464, xattr::getxattrat),
    emulated_new("listxattrat", 465, xattr::listxattrat),
    emulated_new("removexattrat", 466, xattr::removexattrat),
    emulated("access", Trap::Always, attribute::access),
    emulated("faccessat", Trap::Always, attribute::faccessat),
    emulated("faccessat2", Trap::Always, attribute::faccessat2),
    // mount(2)
    emulated("mount", MAKES_FILE_SYSTEM, mount::mount),
    // getsockopt(2)
    emulated("getsockopt", ASKS_FOR_PEER, socket::getsockopt),
    // What i386 calls these: with ids of 32 bits, and structures of its own.
    emulated("chown32", changes_owner(1), chown::chown),
    emulated("lchown32", changes_owner(1), chown::lchown),
    emulated("fchown32", changes_owner(1), chown::fchown),
    emulated("stat64", Trap::Always, stat::stat64),
    emulated("lstat64", Trap::Always, stat::lstat64),
    emulated("fstat64", Trap::Always, stat::fstat64),
    emulated("fstatat64", Trap::Always, stat::fstatat64),
    emulated_ids("setuid32", Trap::Always, setid::setuid),
    emulated_ids("setgid32", Trap::Always, setid::setgid),
    emulated_ids("setreuid32", Trap::Always, setid::setreuid),
    emulated_ids("setregid32", Trap::Always, setid::setregid),
    emulated_ids("setresuid32", Trap::Always, setid::setresuid),
    emulated_ids("setresgid32", Trap::Always, setid::setresgid),
    emulated_ids("setfsuid32", Trap::Always, setid::setfsuid),
    emulated_ids("setfsgid32", Trap::Always, setid::setfsgid),
    emulated_ids("setgroups32", Trap::Always, setid::setgroups),
    emulated_ids("getuid32", Trap::Always, getid::getuid),
    emulated_ids("geteuid32", Trap::Always, getid::geteuid),
    emulated_ids("getgid32", Trap::Always, getid::getgid),
    emulated_ids("getegid32", Trap::Always, getid::getegid),
    emulated_ids("getresuid32", Trap::Always, getid::getresuid),
    emulated_ids("getresgid32", Trap::Always, getid::getresgid),
    emulated_ids("getgroups32", Trap::Always, getid::getgroups),
    emulated_ids("ugetrlimit", of_locks(0), limit::ugetrlimit),
    emulated(
        "utimensat_time64",
        Trap::Always,
        attribute::utimensat_time64,
    ),
    // Calls after which a target may see another root directory, or live in another user namespace:
    // left to the kernel, but noticed.
    watched("chroot", Trap::Always, view::chroot),
    watched("pivot_root", Trap::Always, view::pivot_root),
    watched("fsopen", Trap::Always, view::fsopen),
    watched("setns", Trap::Always, view::setns),
    watched("unshare", new_namespace(0), view::unshare),
    watched("clone", new_namespace(0), view::clone),
    watched("clone3", Trap::Always, view::clone3),
    watched(
        "landlock_restrict_self",
        Trap::Always,
        view::landlock_restrict_self,
    ),
];

/// Tells this table from that of another version, whose rows are in other places.
pub(crate) fn fingerprint() -> u64 {
    hash::of_bytes(TABLE.iter().flat_map(|row| row.name.bytes().chain([0])))
}

/// The architectures whose calls are answered, as a notification names them and as libseccomp does.
/// Calls of others (32-bit ARM) are left to the kernel.
const ARCHITECTURES: [(u32, ScmpArch, Abi); 4] = [
    (AUDIT_ARCH_X86_64, ScmpArch::X8664, Abi::Native),
    (AUDIT_ARCH_AARCH64, ScmpArch::Aarch64, Abi::Native),
    // x32 calls bear the x86-64 architecture, and a bit in their number; their structures are those
    // of x86-64.
    (AUDIT_ARCH_X86_64 | X32, ScmpArch::X32, Abi::Native),
    (AUDIT_ARCH_I386, ScmpArch::X86, Abi::I386),
];

/// linux/audit.h
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const AUDIT_ARCH_AARCH64: u32 = 0xc000_00b7;
const AUDIT_ARCH_I386: u32 = 0x4000_0003;
/// Not linux/audit.h's: tells x32 from x86-64 here.
const X32: u32 = 1 << 16;
/// asm/unistd.h, __X32_SYSCALL_BIT
const X32_SYSCALL_BIT: i32 = 0x4000_0000;

/// A row, and how its calls are to be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    /// Its place in the table.
    pub(crate) index: usize,
    pub(crate) row: &'static Row,
    pub(crate) abi: Abi,
}

/// From a notification's architecture and number to the row.
#[derive(Debug)]
pub(crate) struct Dispatch {
    by_architecture: Vec<(u32, Vec<Option<Found>>)>,
}

impl Dispatch {
    pub(crate) fn new() -> Self {
        let by_architecture = ARCHITECTURES
            .iter()
            .map(|&(audit, arch, abi)| (audit, rows_by_number(arch, abi)))
            .collect();
        Self { by_architecture }
    }

    pub(crate) fn find(&self, notification: &Notification) -> Option<Found> {
        let (arch, number) = match (notification.arch, notification.syscall) {
            (AUDIT_ARCH_X86_64, number) if number > 0 && number & X32_SYSCALL_BIT != 0 => {
                (AUDIT_ARCH_X86_64 | X32, number & !X32_SYSCALL_BIT)
            }
            known => known,
        };
        let (_, rows) = self
            .by_architecture
            .iter()
            .find(|(audit, _)| *audit == arch)?;
        *rows.get(usize::try_from(number).ok()?)?
    }

    /// Whether calls of this architecture are answered.
    pub(crate) fn knows(&self, arch: u32) -> bool {
        self.by_architecture.iter().any(|(audit, _)| *audit == arch)
    }
}

/// The number of `row` on `arch`; libseccomp has negative pseudo-numbers for what an architecture
/// lacks.
fn number(row: &Row, arch: ScmpArch) -> Option<usize> {
    match ScmpSyscall::from_name_by_arch(row.name, arch) {
        Ok(syscall) => usize::try_from(i32::from(syscall)).ok(),
        Err(_) => usize::try_from(row.number?).ok(),
    }
}

fn rows_by_number(arch: ScmpArch, abi: Abi) -> Vec<Option<Found>> {
    let mut rows = Vec::new();
    for (index, row) in TABLE.iter().enumerate() {
        if let Some(number) = number(row, arch) {
            let number = match arch {
                ScmpArch::X32 => number & !(X32_SYSCALL_BIT.unsigned_abs() as usize),
                _ => number,
            };
            if rows.len() <= number {
                rows.resize(number + 1, None);
            }
            // chown on i386 is the call with 16-bit ids, where there is a chown32.
            let is_short = TABLE
                .iter()
                .any(|wide| wide.name.strip_suffix("32") == Some(row.name));
            let abi = match abi {
                Abi::I386 if is_short => Abi::I386ShortIds,
                abi => abi,
            };
            rows[number] = Some(Found { index, row, abi });
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(arch: u32, syscall: i32) -> Notification {
        Notification {
            id: 1,
            pid: 1,
            syscall,
            arch,
            args: [0; 6],
        }
    }

    #[test]
    fn every_name_is_known_to_libseccomp_or_has_a_number_and_stands_once() {
        for (index, row) in TABLE.iter().enumerate() {
            let known = |arch| number(row, arch).is_some();
            assert!(
                known(ScmpArch::X8664) || known(ScmpArch::X86),
                "{}",
                row.name
            );
            assert!(TABLE[..index].iter().all(|other| other.name != row.name));
        }
        // The last row of the counters is for what is in no row.
        assert!(TABLE.len() < crate::wire::tally::ROWS);
    }

    fn name(dispatch: &Dispatch, arch: u32, syscall: i32) -> Option<(&'static str, Abi)> {
        let found = dispatch.find(&call(arch, syscall))?;
        Some((found.row.name, found.abi))
    }

    #[test]
    fn numbers_are_those_of_the_architecture_that_the_call_came_from() {
        let dispatch = Dispatch::new();
        let name = |arch, syscall| name(&dispatch, arch, syscall).map(|(name, _)| name);
        assert_eq!(name(AUDIT_ARCH_X86_64, 92), Some("chown"));
        assert_eq!(name(AUDIT_ARCH_X86_64, 262), Some("newfstatat"));
        assert_eq!(name(AUDIT_ARCH_AARCH64, 54), Some("fchownat"));
        assert_eq!(name(AUDIT_ARCH_AARCH64, 79), Some("newfstatat"));
        // 92 is personality on arm64, which has no chown, stat, lstat at all.
        assert_eq!(name(AUDIT_ARCH_AARCH64, 92), None);
        assert_eq!(name(AUDIT_ARCH_X86_64, 464), Some("getxattrat"));
        assert_eq!(name(AUDIT_ARCH_AARCH64, 464), Some("getxattrat"));
        assert_eq!(name(AUDIT_ARCH_I386, 452), Some("fchmodat2"));
        assert_eq!(
            name(AUDIT_ARCH_X86_64, X32_SYSCALL_BIT | 466),
            Some("removexattrat")
        );
        assert_eq!(name(AUDIT_ARCH_X86_64, 0), None);
        assert_eq!(name(AUDIT_ARCH_X86_64, -1), None);
        assert_eq!(name(AUDIT_ARCH_X86_64, i32::MAX), None);
    }

    #[test]
    fn i386_and_x32_calls_are_never_taken_for_x86_64_ones() {
        let dispatch = Dispatch::new();
        let i386 = |number| name(&dispatch, AUDIT_ARCH_I386, number);
        assert_eq!(i386(182), Some(("chown", Abi::I386ShortIds)));
        assert_eq!(i386(212), Some(("chown32", Abi::I386)));
        assert_eq!(i386(195), Some(("stat64", Abi::I386)));
        assert_eq!(i386(106), Some(("stat", Abi::I386)));
        assert_eq!(i386(23), Some(("setuid", Abi::I386ShortIds)));
        assert_eq!(i386(92), None);
        let x32 = |number| name(&dispatch, AUDIT_ARCH_X86_64, X32_SYSCALL_BIT | number);
        assert_eq!(x32(92), Some(("chown", Abi::Native)));
        // Where x86-64 has execve, x32 has nothing.
        assert_eq!(x32(59), None);
        assert_eq!(x32(520), Some(("execve", Abi::Native)));
        assert_eq!(name(&dispatch, AUDIT_ARCH_X86_64, 520), None);
    }
}
