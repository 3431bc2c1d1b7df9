//! The calls that the preloaded library makes itself (the crate `subuidless_fast`), and the one
//! with which it asks whether it may.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use subuidless_fast::facts::{HELLO, MAGIC, MAGIC_ABOVE_INT, SENDER, STATUS};

use crate::credentials::{Id, capability};
use crate::linux::memfd;
use crate::linux::procfs;
use crate::linux::seccomp::Reply;
use crate::linux::sys;
use crate::target::{Abi, Call, PROCFS};
use crate::wire::facts::Facts;

/// The functions of libc that the library replaces, by the call that it makes for them.
pub(super) const NEWFSTATAT: &[&str] = &[
    "stat",
    "stat64",
    "lstat",
    "lstat64",
    "fstatat",
    "fstatat64",
    "__xstat",
    "__xstat64",
    "__lxstat",
    "__lxstat64",
    "__fxstatat",
    "__fxstatat64",
];
/// opendir(3) makes the call inside the C library.
pub(super) const FSTAT: &[&str] = &[
    "fstat",
    "fstat64",
    "__fxstat",
    "__fxstat64",
    "opendir",
    "fdopendir",
];
pub(super) const STATX: &[&str] = &["statx"];
pub(super) const GETXATTR: &[&str] = &["getxattr"];
pub(super) const LGETXATTR: &[&str] = &["lgetxattr"];
pub(super) const FGETXATTR: &[&str] = &["fgetxattr"];
pub(super) const LISTXATTR: &[&str] = &["listxattr"];
pub(super) const LLISTXATTR: &[&str] = &["llistxattr"];
pub(super) const FLISTXATTR: &[&str] = &["flistxattr"];
pub(super) const FCHOWN: &[&str] = &["fchown"];
pub(super) const FCHOWNAT: &[&str] = &["chown", "lchown", "fchownat"];
pub(super) const GETUID: &[&str] = &["getuid"];
pub(super) const GETEUID: &[&str] = &["geteuid"];
pub(super) const GETGID: &[&str] = &["getgid"];
pub(super) const GETEGID: &[&str] = &["getegid"];
/// Functions of messages check and ask for ids by it.
pub(super) const GETRESUID: &[&str] = &["getresuid", "sendmsg", "sendmmsg", "recvmsg", "recvmmsg"];
pub(super) const GETRESGID: &[&str] = &["getresgid"];
/// Never made by the library: it knows the answer, or leaves the call to the worker.
pub(super) const GETGROUPS: &[&str] = &["getgroups"];
pub(super) const UNLINK: &[&str] = &["unlink", "remove"];
pub(super) const UNLINKAT: &[&str] = &["unlinkat"];
pub(super) const RMDIR: &[&str] = &["rmdir"];
pub(super) const RENAME: &[&str] = &["rename"];
pub(super) const RENAMEAT: &[&str] = &["renameat"];
pub(super) const RENAMEAT2: &[&str] = &["renameat2"];
pub(super) const LINK: &[&str] = &["link"];
pub(super) const LINKAT: &[&str] = &["linkat"];
pub(super) const CHDIR: &[&str] = &["chdir"];
pub(super) const FCHDIR: &[&str] = &["fchdir"];
pub(super) const TRUNCATE: &[&str] = &["truncate", "truncate64"];
pub(super) const READLINK: &[&str] = &["readlink"];
pub(super) const READLINKAT: &[&str] = &["readlinkat"];
pub(super) const CONNECT: &[&str] = &["connect"];
pub(super) const OPENAT: &[&str] = &[
    "open",
    "open64",
    "openat",
    "openat64",
    "creat",
    "creat64",
    "__open_2",
    "__open64_2",
    "__openat_2",
    "__openat64_2",
];
pub(super) const MKDIRAT: &[&str] = &["mkdir", "mkdirat"];
pub(super) const MKNODAT: &[&str] = &["mkfifo", "mkfifoat"];
pub(super) const SYMLINKAT: &[&str] = &["symlink", "symlinkat"];
pub(super) const FCHMOD: &[&str] = &["fchmod"];
pub(super) const FCHMODAT: &[&str] = &["chmod", "fchmodat"];
pub(super) const UTIMENSAT: &[&str] = &["utimensat", "futimens"];
pub(super) const FACCESSAT: &[&str] = &["access", "faccessat"];
pub(super) const FACCESSAT2: &[&str] = &["eaccess", "euidaccess"];
pub(super) const SETXATTR: &[&str] = &["setxattr"];
pub(super) const LSETXATTR: &[&str] = &["lsetxattr"];
pub(super) const FSETXATTR: &[&str] = &["fsetxattr"];
pub(super) const REMOVEXATTR: &[&str] = &["removexattr"];
pub(super) const LREMOVEXATTR: &[&str] = &["lremovexattr"];
pub(super) const FREMOVEXATTR: &[&str] = &["fremovexattr"];
pub(super) const SEMOP: &[&str] = &["semop"];
pub(super) const SEMTIMEDOP: &[&str] = &["semtimedop"];
/// Replaces no function: with these calls the library reads and stores owners, and finds out which
/// credentials the process has.
pub(super) const HELPER: &[&str] = &[];

/// The answer to a call that only the library makes. `None`: the call is one like any other.
pub(crate) fn answer(call: &Call) -> Option<Result<Reply, Errno>> {
    let facts = call.container.facts.as_ref()?;
    if call.register(5) == HELLO {
        return Some(introduce(call, facts));
    }
    if call.register(5) == STATUS {
        return Some(show_status(call));
    }
    if call.register(5) == SENDER {
        return Some(show_sender(call));
    }
    let is_marked =
        call.register(5) == MAGIC || call.register(0) >> u32::BITS == MAGIC_ABOVE_INT >> u32::BITS;
    // The filter should have allowed the call, so the profile is not ours. The library would take
    // an emulated answer for the kernel's.
    is_marked.then_some(Err(Errno::ENOSYS))
}

/// Gives the library in the target the page of facts, if it may answer calls at all.
fn introduce(call: &Call, facts: &Facts) -> Result<Reply, Errno> {
    let container = call.container;
    if call.abi != Abi::Native || !container.is_joined() || call.is_nested() {
        return Err(Errno::ENOSYS);
    }
    container.publish();
    facts.describe(
        container.mapped_uids.only(),
        container.identities.initial.groups.len(),
    );
    // Read before the check: a filter that is loaded from now on changes the number.
    let filters = facts.filters();
    if facts.is_filtered(call.pid())? {
        return Err(Errno::ENOSYS);
    }
    // Any later loss of capabilities without execve(2) is seen, too: capset(2).
    let has_all = capability::CHOWN | capability::OVER_FILES;
    if sys::capabilities(call.pid())?.effective & has_all != has_all {
        container.expect_limited();
        container.publish();
    }
    let mut words = [0; 16];
    call.read(1, &mut words)?;
    let is_mapped = words[8..] != [0; 8];
    call.write(1, [filters, HELLO].map(u64::to_ne_bytes).as_flattened())?;
    match is_mapped {
        true => Ok(Reply::Value(0)),
        false => call
            .listener
            .reply_with_file(call.notification.id, facts.as_fd(), true),
    }
}

/// Tells the target the ids of the process that has sent it a message: net/core/scm.c, scm_send.
fn show_sender(call: &Call) -> Result<Reply, Errno> {
    let mut words = [0; 16];
    call.read(0, &mut words)?;
    let [pid, ..] = *words.as_chunks::<4>().0 else {
        return Err(Errno::EFAULT);
    };
    let pid = u32::from_ne_bytes(pid);
    let sender = call.credentials_of(pid).filter(|_| !call.is_nested());
    if let Some(sender) = sender {
        let ids = [sender.uid.real.as_raw(), sender.gid.real.as_raw()];
        let words = [pid, ids[0], ids[1], 1].map(u32::to_ne_bytes);
        call.write(0, words.as_flattened())?;
    }
    Ok(Reply::Value(0))
}

/// Gives the target the file `/proc/PID/status` that it has opened, with emulated credentials.
fn show_status(call: &Call) -> Result<Reply, Errno> {
    let file = call.duplicate(call.int(0))?;
    let status = call.emulated_status(file.as_fd())?.ok_or(Errno::ENOENT)?;
    let shown = memfd::with_contents(c"status", status.as_bytes()).map_err(|_| Errno::EMFILE)?;
    let own = procfs::own_fd(shown.as_fd());
    let shown = openat(PROCFS, &own, OFlag::O_CLOEXEC, Mode::empty())?;
    call.listener
        .reply_with_file(call.notification.id, shown.as_fd(), true)
}
