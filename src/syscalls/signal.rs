//! kill(2), rt_sigqueueinfo(2), rt_tgsigqueueinfo(2), pidfd_send_signal(2): who may send a signal.
//!
//! The kernel sends the signal if the target may send it to all processes that it names. If some
//! of them are not the target's, a worker sends it to the others, one by one.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::sync::OnceLock;

use nix::errno::Errno;

use crate::credentials::Act;
use crate::linux::seccomp::Reply;
use crate::linux::sys;
use crate::target::{Actor, Call, Member};

/// The number of signals (_NSIG).
const SIGNALS: i32 = 64;

pub(super) fn kill(call: &mut Call) -> Result<Reply, Errno> {
    let (pid, signal) = (call.int(0), call.int(1));
    match u32::try_from(pid) {
        Ok(number) if number > 0 => send_to(call, number, signal),
        // kill(2): −1 is everybody, −N the process group N, 0 the target's own.
        _ if pid == -1 => send_to_many(call, signal, None),
        _ => {
            let group = match pid {
                0 => call.own_group()?,
                pid => pid.unsigned_abs(),
            };
            send_to_many(call, signal, Some(group))
        }
    }
}

pub(super) fn rt_sigqueueinfo(call: &mut Call) -> Result<Reply, Errno> {
    if signal_in(call, 2).is_err() {
        // CONTINUE: EFAULT.
        return Ok(Reply::Continue);
    }
    match u32::try_from(call.int(0)) {
        Ok(number) => send_to(call, number, call.int(1)),
        // CONTINUE: ESRCH.
        Err(_) => Ok(Reply::Continue),
    }
}

pub(super) fn rt_tgsigqueueinfo(call: &mut Call) -> Result<Reply, Errno> {
    if signal_in(call, 3).is_err() {
        // CONTINUE: EFAULT.
        return Ok(Reply::Continue);
    }
    match u32::try_from(call.int(1)) {
        Ok(number) => send_to(call, number, call.int(2)),
        // CONTINUE: EINVAL.
        Err(_) => Ok(Reply::Continue),
    }
}

/// The first member of the siginfo to which argument `index` points: its signal.
fn signal_in(call: &Call, index: usize) -> Result<i32, Errno> {
    let mut bytes = [0; size_of::<libc::siginfo_t>()];
    call.read(index, &mut bytes)?;
    let first = bytes.first_chunk().copied().unwrap_or_default();
    Ok(i32::from_ne_bytes(first))
}

pub(super) fn pidfd_send_signal(call: &mut Call) -> Result<Reply, Errno> {
    /// PIDFD_SIGNAL_PROCESS_GROUP (linux/pidfd.h, Linux 6.9).
    const PROCESS_GROUP: u32 = 4;
    let Some(actor) = call.actor(Act::Signal)? else {
        // CONTINUE: the kernel decides.
        return Ok(Reply::Continue);
    };
    let signal = call.int(1);
    let Some(pid) = call.process_of_pidfd(call.int(0)) else {
        // CONTINUE: EBADF, or ESRCH.
        return Ok(Reply::Continue);
    };
    if call.register(2) != 0 && signal_in(call, 2) != Ok(signal) {
        // CONTINUE: EFAULT, or EINVAL.
        return Ok(Reply::Continue);
    }
    let flags = call.unsigned(3);
    if flags != 0 && !knows_flags() {
        // CONTINUE: EINVAL.
        return Ok(Reply::Continue);
    }
    match flags {
        PROCESS_GROUP => match call.number_of(pid) {
            Some(group) => send_to_many(call, signal, Some(group)),
            // CONTINUE: ESRCH, or EINVAL.
            None => Ok(Reply::Continue),
        },
        // One of the two other flags, for a process or a thread.
        0..=2 => send(call, &actor, pid, signal),
        // CONTINUE: EINVAL.
        _ => Ok(Reply::Continue),
    }
}

fn knows_flags() -> bool {
    static KNOWS: OnceLock<bool> = OnceLock::new();
    *KNOWS.get_or_init(sys::pidfd_send_knows_flags)
}

/// One process or thread, which the target knows as `number`.
fn send_to(call: &Call, number: u32, signal: i32) -> Result<Reply, Errno> {
    let Some(actor) = call.actor(Act::Signal)? else {
        // CONTINUE: the kernel decides.
        return Ok(Reply::Continue);
    };
    match call.thread_numbered(number) {
        Some(pid) => send(call, &actor, pid, signal),
        // CONTINUE: ESRCH.
        None => Ok(Reply::Continue),
    }
}

fn send(call: &Call, actor: &Actor, pid: u32, signal: i32) -> Result<Reply, Errno> {
    if !(0..=SIGNALS).contains(&signal) || may_send(call, actor, pid, signal) {
        // CONTINUE: the target may; or EINVAL.
        return Ok(Reply::Continue);
    }
    Err(Errno::EPERM)
}

/// kernel/signal.c, check_kill_permission.
fn may_send(call: &Call, actor: &Actor, pid: u32, signal: i32) -> bool {
    call.may_do(actor, Act::Signal, pid) || signal == libc::SIGCONT && call.shares_session(pid)
}

/// A process group, or all processes but the target's own and the first one of its pid namespace.
fn send_to_many(call: &Call, signal: i32, group: Option<u32>) -> Result<Reply, Errno> {
    let Some(actor) = call.actor(Act::Signal)? else {
        // CONTINUE: the kernel decides.
        return Ok(Reply::Continue);
    };
    if !(0..=SIGNALS).contains(&signal) {
        // CONTINUE: ESRCH, or EINVAL.
        return Ok(Reply::Continue);
    }
    let own = call.own_number()?;
    let is_meant = |member: &Member| match group {
        Some(group) => member.group == group,
        None => member.number > 1 && member.number != own,
    };
    let mut members = call.members()?;
    members.retain(is_meant);
    let allowed = |member: &&Member| may_send(call, &actor, member.pid, signal);
    if members.iter().all(|member| allowed(&member)) {
        // CONTINUE: the target may send to all of them; or ESRCH.
        return Ok(Reply::Continue);
    }
    if !members.iter().any(|member| allowed(&member)) {
        // kernel/signal.c, kill_something_info: for −1, EPERM of one process does not count.
        return match group {
            Some(_) => Err(Errno::EPERM),
            None => Ok(Reply::Value(0)),
        };
    }
    call.ensure_waiting()?;
    let mut told = HashSet::new();
    // The kernel stops forks meanwhile (kernel/fork.c, copy_process), so that the signal reaches
    // every process. Here, new ones are found by another look.
    while send_to_new(call, &actor, signal, &mut told, is_meant)? {}
    finish(call, signal, own, is_meant)
}

/// Sends the signal to those that have not got it yet. Returns whether there were any.
fn send_to_new(
    call: &Call,
    actor: &Actor,
    signal: i32,
    told: &mut HashSet<u32>,
    is_meant: impl Fn(&Member) -> bool,
) -> Result<bool, Errno> {
    /// Of an endless stream of new processes.
    const MOST: usize = 1 << 16;
    let own = call.own_number()?;
    let mut sent = false;
    for member in call.members()?.into_iter().filter(is_meant) {
        // The target itself comes last; a namespace's first process is safe from those in it.
        if member.number == own || is_safe(&member, signal) || told.len() > MOST {
            continue;
        }
        let Ok(process) = sys::process_pidfd(member.pid) else {
            continue;
        };
        if told.insert(member.pid) && may_send(call, actor, member.pid, signal) {
            // ESRCH: it has ended. Its pid was not another process's, as long as the pidfd is good.
            sent |= sys::pidfd_send(process.as_fd(), signal).is_ok();
        }
    }
    Ok(sent)
}

/// kernel/signal.c, sig_task_ignored: the kernel lets these signals of a worker, which is outside
/// of the pid namespace, kill or stop its first process.
fn is_safe(member: &Member, signal: i32) -> bool {
    member.number == 1 && matches!(signal, libc::SIGKILL | libc::SIGSTOP)
}

/// Replies. If the target is one of those that get the signal, it gets it behind the reply: a
/// signal could interrupt the call, which would then be restarted, and be sent to all again.
fn finish(
    call: &Call,
    signal: i32,
    own: u32,
    is_meant: impl Fn(&Member) -> bool,
) -> Result<Reply, Errno> {
    let members = call.members()?;
    let Some(itself) = members
        .iter()
        .find(|member| member.number == own && is_meant(member) && !is_safe(member, signal))
    else {
        return Ok(Reply::Value(0));
    };
    let process = sys::process_pidfd(itself.pid)?;
    call.listener
        .reply(call.notification.id, Ok(Reply::Value(0)))?;
    // ESRCH: it has been killed.
    let _ = sys::pidfd_send(process.as_fd(), signal);
    Ok(Reply::Sent(0))
}
