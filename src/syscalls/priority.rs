//! setpriority(2), ioprio_set(2), sched_setaffinity(2), sched_setscheduler(2) and its relatives:
//! who may change how another process is scheduled.

use nix::errno::Errno;

use super::permission::allow;
use crate::credentials::{Act, EmulatedUid, Id};
use crate::linux::seccomp::Reply;
use crate::linux::sys;
use crate::target::{Call, Member, threads};

pub(super) fn setpriority(call: &mut Call) -> Result<Reply, Errno> {
    // linux/resource.h: PRIO_PROCESS, PRIO_PGRP, PRIO_USER.
    let whose = match call.int(0) {
        0 => Whose::Thread,
        1 => Whose::Group,
        2 => Whose::User,
        // CONTINUE: EINVAL.
        _ => return Ok(Reply::Continue),
    };
    let nice = call.int(2).clamp(-20, 19);
    let set = |tid: u32| sys::set_nice(tid, nice);
    let user = match call.unsigned(1) {
        0 => Some(call.credentials()?.uid.real),
        user => EmulatedUid::new(user),
    };
    change(call, (whose, user), Act::Renice, Faults::Collected, set)
}

pub(super) fn ioprio_set(call: &mut Call) -> Result<Reply, Errno> {
    // linux/ioprio.h: IOPRIO_WHO_PROCESS, IOPRIO_WHO_PGRP, IOPRIO_WHO_USER.
    let whose = match call.int(0) {
        1 => Whose::Thread,
        2 => Whose::Group,
        3 => Whose::User,
        // CONTINUE: EINVAL.
        _ => return Ok(Reply::Continue),
    };
    let priority = call.int(2);
    // block/ioprio.c, ioprio_check_cap: a bad one is EINVAL before anybody is looked for.
    if sys::set_io_priority(u32::MAX >> 1, priority) != Err(Errno::ESRCH) {
        // CONTINUE: EINVAL, or EPERM.
        return Ok(Reply::Continue);
    }
    let set = |tid: u32| sys::set_io_priority(tid, priority);
    // block/ioprio.c takes a user of 0 for root in the end.
    let user = EmulatedUid::new(call.unsigned(1));
    change(
        call,
        (whose, user),
        Act::ChangeIoPriority,
        Faults::First,
        set,
    )
}

/// Those whose priority a call sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Thread,
    Group,
    User,
}

/// The errno of a call for several threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Faults {
    /// That of the first fault, which ends the call (block/ioprio.c).
    First,
    /// That of the last fault; the call goes on (kernel/sys.c, set_one_prio).
    Collected,
}

/// Sets a priority by `set`; argument 1 is the number of the thread or group.
fn change(
    call: &Call,
    (whose, user): (Whose, Option<EmulatedUid>),
    act: Act,
    faults: Faults,
    set: impl Fn(u32) -> Result<(), Errno>,
) -> Result<Reply, Errno> {
    // To the kernel all users of the container are one.
    let is_decided_here =
        whose == Whose::User && call.container.identities.anyone_changed() && !call.is_nested();
    let actor = match call.actor(act)? {
        None if !is_decided_here => {
            // CONTINUE: the kernel decides.
            return Ok(Reply::Continue);
        }
        actor => actor,
    };
    let may = |tid: u32| match &actor {
        Some(actor) => call.may_do(actor, act, tid),
        None => true,
    };
    if whose == Whose::Thread {
        return match call.thread_named(1) {
            Some(tid) => allow(may(tid), Errno::EPERM),
            // CONTINUE: ESRCH.
            None => Ok(Reply::Continue),
        };
    }
    let meant = match whose {
        Whose::User => threads_of_user(call, user)?,
        _ => threads_of_group(call)?,
    };
    if whose == Whose::Group && meant.iter().all(|tid| may(*tid)) {
        // CONTINUE: the target may; or ESRCH.
        return Ok(Reply::Continue);
    }
    call.ensure_waiting()?;
    let mut result = match meant.is_empty() {
        true => Err(Errno::ESRCH),
        false => Ok(Reply::Value(0)),
    };
    for tid in meant {
        let done = match may(tid) {
            true => set(tid),
            false => Err(Errno::EPERM),
        };
        match done {
            // It has ended meanwhile.
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) if faults == Faults::First => return Err(errno),
            Err(errno) => result = Err(errno),
        }
    }
    result
}

/// The threads of the process group that argument 1 names; 0 is the target's own.
fn threads_of_group(call: &Call) -> Result<Vec<u32>, Errno> {
    let group = match call.unsigned(1) {
        0 => call.own_group()?,
        group => group,
    };
    let members = call.members()?.into_iter();
    let in_group = members.filter(|member: &Member| member.group == group);
    Ok(in_group.flat_map(|member| threads(member.pid)).collect())
}

fn threads_of_user(call: &Call, user: Option<EmulatedUid>) -> Result<Vec<u32>, Errno> {
    let is_theirs = |tid: &u32| {
        let credentials = call.credentials_at(*tid);
        credentials.is_some_and(|credentials| Some(credentials.uid.real) == user)
    };
    let all = call
        .members()?
        .into_iter()
        .flat_map(|member| threads(member.pid));
    Ok(all.filter(is_theirs).collect())
}

pub(super) fn sched_setaffinity(call: &mut Call) -> Result<Reply, Errno> {
    // kernel/sched/syscalls.c: the set is read first.
    check(call, Act::ChooseCpus, |call| {
        let mut first = [0];
        let length = call.unsigned(1).min(1) as usize;
        call.read(2, &mut first[..length])
    })
}

pub(super) fn sched_setscheduler(call: &mut Call) -> Result<Reply, Errno> {
    check(call, Act::Schedule, |call| {
        is_valid(call.int(1), priority(call, 2)?)
    })
}

pub(super) fn sched_setparam(call: &mut Call) -> Result<Reply, Errno> {
    check(call, Act::Schedule, |call| priority(call, 1).map(drop))
}

pub(super) fn sched_setattr(call: &mut Call) -> Result<Reply, Errno> {
    check(call, Act::Schedule, |call| {
        // struct sched_attr: size, policy, flags, nice, priority.
        let mut words = [0; 28];
        call.read(1, &mut words)?;
        let word = |at: usize| words[at..].first_chunk().copied().unwrap_or_default();
        let [policy, priority] = [4, 24].map(|at| i32::from_ne_bytes(word(at)));
        match call.unsigned(2) {
            0 => is_valid(policy, priority),
            _ => Err(Errno::EINVAL),
        }
    })
}

fn priority(call: &Call, index: usize) -> Result<i32, Errno> {
    let mut bytes = [0; 4];
    call.read(index, &mut bytes)?;
    Ok(i32::from_ne_bytes(bytes))
}

/// kernel/sched/syscalls.c, __sched_setscheduler: EINVAL comes before EPERM.
fn is_valid(policy: i32, priority: i32) -> Result<(), Errno> {
    // SCHED_RESET_ON_FORK may be added.
    match policy & !libc::SCHED_RESET_ON_FORK {
        libc::SCHED_FIFO | libc::SCHED_RR if (1..=99).contains(&priority) => Ok(()),
        libc::SCHED_OTHER | libc::SCHED_BATCH | libc::SCHED_IDLE if priority == 0 => Ok(()),
        _ => Err(Errno::EINVAL),
    }
}

/// Lets the kernel execute a call for the thread that argument 0 names, if the target may do so.
/// `read` fails as the kernel does before it looks at the thread's owner.
fn check(
    call: &Call,
    act: Act,
    read: impl FnOnce(&Call) -> Result<(), Errno>,
) -> Result<Reply, Errno> {
    let Some(actor) = call.actor(act)? else {
        // CONTINUE: the kernel decides.
        return Ok(Reply::Continue);
    };
    let Some(tid) = call.thread_named(0) else {
        // CONTINUE: EINVAL, or ESRCH.
        return Ok(Reply::Continue);
    };
    if read(call).is_err() {
        // CONTINUE: the kernel finds the same fault.
        return Ok(Reply::Continue);
    }
    allow(call.may_do(&actor, act, tid), Errno::EPERM)
}
