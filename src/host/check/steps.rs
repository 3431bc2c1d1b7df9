//! The parts of a check that need processes of their own: a process cannot leave a user namespace,
//! nor remove a filter.
//!
//! The processes are a target and its supervisor. As with a container and its worker, neither is
//! an ancestor of the other. Each prints its results as one JSON object.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{Gid, Uid, chown, fchown, setresgid, setresuid};
use sendfd::SendWithFd;
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error};
use crate::linux::errno_of;
use crate::linux::memfd;
use crate::linux::seccomp::{ListenerFd, Notification, ReceiveError, Reply, Slot};
use crate::linux::{sys, userns};
use crate::syscalls::Dispatch;
use crate::syscalls::{Scope, profile};
use crate::target::read_path;

/// A file that does not exist: only the supervisor can make a call with it succeed.
const MARK: &str = "/subuidless-check/no-such-file";
const CONTENT: &[u8] = b"from the supervisor\n";

/// The result of a system call: success, or an errno.
pub(super) type Tried = Result<(), i32>;

/// The results of the target, which does what the first process of a container does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Target {
    /// The failed step of creating a user namespace, and its errno.
    pub(super) namespace: Option<(String, i32)>,
    /// Mounting a procfs, as a container does.
    pub(super) procfs: Option<Tried>,
    pub(super) filter: Option<Tried>,
    pub(super) chown: Option<Tried>,
    /// Opening a file that the supervisor sends.
    pub(super) open: Option<Tried>,
    pub(super) content_arrived: bool,
}

/// The results of the supervisor, which does what a worker does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Supervisor {
    pub(super) sync_wake_up: bool,
    /// Opening the target's namespace in /proc.
    pub(super) procfs: Option<Tried>,
    /// Joining the target's user namespace.
    pub(super) join: Option<Tried>,
    pub(super) memory: Option<Tried>,
    pub(super) send_file: Option<Tried>,
}

fn tried<T>(result: Result<T, Errno>) -> Option<Tried> {
    Some(result.map(drop).map_err(|errno| errno as i32))
}

/// The target: enters a user namespace, loads the filter, and makes calls that succeed only if the
/// supervisor answers.
pub(crate) fn target() -> Result<(), Error> {
    let mut seen = Target::default();
    try_as_target(&mut seen);
    say(&seen)
}

fn try_as_target(seen: &mut Target) {
    // A mount namespace, too: creating one needs a capability in the new user namespace, which a
    // security module may deny.
    if let Err(refusal) = userns::enter_with_mounts() {
        seen.namespace = Some((refusal.step, refusal.errno as i32));
        return;
    }
    seen.procfs = fresh_procfs().ok();
    let Ok(link) = io::stdin().as_fd().try_clone_to_owned() else {
        return;
    };
    let filter = profile::program(Scope::default());
    let loaded = sys::seccomp_load(&filter, sys::seccomp_knows_wait_killable());
    seen.filter = tried(loaded.as_ref().map_err(|errno| *errno));
    let Ok(listener) = loaded else {
        return;
    };
    if UnixStream::from(link)
        .send_with_fd(b"+", &[listener.as_raw_fd()])
        .is_err()
    {
        return;
    }
    // While this process held the listener, a call would hang if the supervisor died, not fail with
    // ENOSYS.
    drop(listener);
    let ids = (Some(Uid::from_raw(42)), Some(Gid::from_raw(43)));
    seen.chown = tried(chown(MARK, ids.0, ids.1));
    let opened = File::options()
        .create(true)
        .append(true)
        .read(true)
        .open(MARK);
    seen.open = tried(opened.as_ref().map_err(errno_of));
    if let Ok(mut file) = opened {
        let mut content = Vec::new();
        seen.content_arrived = file.read_to_end(&mut content).is_ok() && content == CONTENT;
    }
}

/// Mounts a procfs in a process with namespaces of its own.
fn fresh_procfs() -> io::Result<Tried> {
    unshare(CloneFlags::CLONE_NEWPID)?;
    let Some(pid) = sys::fork_both()? else {
        const NOTHING: Option<&str> = None;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let mounted = unshare(CloneFlags::CLONE_NEWNS)
            .and_then(|()| mount(Some("proc"), "/proc", Some("proc"), flags, NOTHING));
        std::process::exit(mounted.map_or_else(|errno| errno as i32, |()| 0))
    };
    Ok(match sys::wait_for(pid)?.code() {
        Some(0) => Ok(()),
        code => Err(code.unwrap_or(libc::ECHILD)),
    })
}

/// The supervisor: answers those calls, as a worker does.
pub(crate) fn supervisor() -> Result<(), Error> {
    let mut seen = Supervisor::default();
    // If the target fails, its own results say so.
    let _ = try_as_supervisor(&mut seen);
    say(&seen)
}

fn try_as_supervisor(seen: &mut Supervisor) -> io::Result<()> {
    let link = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let Some(fd) = sys::receive(&link, &mut [0], 1)?.1.pop() else {
        return Ok(());
    };
    let listener = ListenerFd::new(fd)?;
    seen.sync_wake_up = listener.enable_sync_wake_up();
    let file = memfd::with_contents(c"subuidless-check", CONTENT)?;
    let dispatch = Dispatch::get();
    loop {
        // Before Linux 6.11, SECCOMP_IOCTL_NOTIF_RECV does not return when the target exits; only
        // POLLHUP tells.
        let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::NONE)?;
        if !listener.has_pending() {
            return Ok(());
        }
        let slot: Slot = Slot::default();
        let call = match listener.receive(&slot) {
            Ok(call) => call,
            Err(ReceiveError::Again) => continue,
            Err(_) => return Ok(()),
        };
        if seen.join.is_none() {
            join(seen, call.pid);
        }
        let reply = answer(seen, dispatch, &listener, &call, file.as_fd());
        // ENOENT: the target has exited.
        let _ = listener.reply(call.id, reply);
    }
}

fn join(seen: &mut Supervisor, pid: u32) {
    let namespace = File::open(format!("/proc/{pid}/ns/user"));
    seen.procfs = tried(namespace.as_ref().map_err(errno_of));
    seen.join = match namespace {
        Ok(namespace) => tried(setns(namespace, CloneFlags::CLONE_NEWUSER)),
        Err(error) => tried::<()>(Err(errno_of(error))),
    };
}

fn answer(
    seen: &mut Supervisor,
    dispatch: &Dispatch,
    listener: &ListenerFd,
    call: &Notification,
    file: BorrowedFd,
) -> Result<Reply, Errno> {
    let name = dispatch.find(call).map_or("", |found| found.row.name);
    let path = match name {
        "chown" | "open" => call.args[0],
        "fchownat" | "openat" => call.args[1],
        // CONTINUE: not a call of the check.
        _ => return Ok(Reply::Continue),
    };
    let read = read_path(call.pid, path);
    seen.memory = tried(read.as_ref().map_err(|errno| *errno));
    if !read.is_ok_and(|path| path.as_c_str().to_bytes() == MARK.as_bytes()) {
        // CONTINUE: not a call of the check, either.
        return Ok(Reply::Continue);
    }
    if name.contains("chown") {
        return Ok(Reply::Value(0));
    }
    let sent = listener.reply_with_file(call.id, file, true);
    seen.send_file = tried(sent);
    sent
}

/// A command of `run`: becomes another user, after it has given it a file.
pub(crate) fn command() -> Result<(), Error> {
    const UID: u32 = 42;
    const GID: u32 = 43;
    let (uid, gid) = (Uid::from_raw(UID), Gid::from_raw(GID));
    let file = tempfile::tempfile().doing("creating a temporary file")?;
    fchown(&file, Some(uid), Some(gid)).doing("fchown")?;
    let seen = file.metadata().doing("fstat")?;
    setresgid(gid, gid, gid).doing("setresgid")?;
    setresuid(uid, uid, uid).doing("setresuid")?;
    let found = [
        (seen.uid(), seen.gid()),
        (Uid::current().as_raw(), Gid::current().as_raw()),
    ];
    match found == [(UID, GID); 2] {
        true => Ok(()),
        false => Err(Error::doing(
            "looking at its ids",
            io::Error::other(format!("{found:?} of a file and a process of {UID}:{GID}")),
        )),
    }
}

fn say(seen: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_string(seen).unwrap_or_default();
    writeln!(io::stdout(), "{text}").doing("writing to standard output")
}
