//! shmctl(2), semctl(2), msgctl(2).

use nix::errno::Errno;

use super::get::store;
use super::object::{KERNELS_MODE, Object, Space, Who, is_kernels, maker, note};
use super::{READ, WRITE};
use crate::credentials::{EmulatedGid, EmulatedUid, Id};
use crate::linux::seccomp::Reply;
use crate::linux::sys::{self, Ipc};
use crate::target::{Abi, Call};
use crate::wire::board::Step;
use crate::wire::objects::{Known, Pair};

/// What a command does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    /// Shows the state of the object with an id.
    State,
    /// The same with an index.
    StateAt,
    /// The same, whoever may see it.
    StateOfAny,
    Set,
    Remove,
    /// Reads or changes values of semaphores.
    Use(u32),
    Lock,
    /// Not about one object.
    Other,
}

impl Command {
    fn of(kind: Ipc, command: i32) -> Self {
        match (kind, command) {
            (_, libc::IPC_STAT) => Self::State,
            (_, libc::IPC_SET) => Self::Set,
            (_, libc::IPC_RMID) => Self::Remove,
            (Ipc::SharedMemory, 13) | (Ipc::Semaphores, 18) | (Ipc::Queue, 11) => Self::StateAt,
            (Ipc::SharedMemory, 15) | (Ipc::Semaphores, 20) | (Ipc::Queue, 13) => Self::StateOfAny,
            // SHM_LOCK, SHM_UNLOCK
            (Ipc::SharedMemory, 11 | 12) => Self::Lock,
            // GETPID, GETVAL, GETALL, GETNCNT, GETZCNT
            (Ipc::Semaphores, 11..=15) => Self::Use(READ),
            // SETVAL, SETALL
            (Ipc::Semaphores, 16 | 17) => Self::Use(WRITE),
            _ => Self::Other,
        }
    }
}

pub(super) fn control(
    call: &Call,
    who: &Who,
    kind: Ipc,
    (id, command, argument): (i32, i32, u64),
) -> Result<Reply, Errno> {
    let command = Command::of(kind, command);
    // The kernel of a target with the first ids takes no others.
    let is_kernels = command != Command::Set && who.is_alone(call, kind);
    if command == Command::Other || is_kernels {
        // CONTINUE: the kernel's owners are right.
        return Ok(Reply::Continue);
    }
    let change = match command {
        Command::Set => match Change::read(call, kind, argument) {
            Some(change) => Some(change),
            // CONTINUE: EFAULT.
            None => return Ok(Reply::Continue),
        },
        _ => None,
    };
    let found = match command {
        Command::StateAt | Command::StateOfAny => Object::at(call, kind, id),
        _ => Object::find(call, kind, id),
    };
    let Some(object) = found else {
        if command == Command::Remove && call.journal.noted() == Some(Step::Changing) {
            // A worker removed it, and was killed before it replied.
            call.container
                .objects
                .remove(Space::of(call)?.name(kind, id));
            return Ok(Reply::Value(0));
        }
        // CONTINUE: there is no such object, or it is out of reach.
        return Ok(Reply::Continue);
    };
    let allowed = |allowed, errno| match allowed {
        // CONTINUE: the target has permission; to the kernel, every target has.
        true => Ok(Reply::Continue),
        false => Err(errno),
    };
    match (command, change) {
        (Command::State | Command::StateAt, _) if !who.may(READ, &object) => Err(Errno::EACCES),
        (Command::State | Command::StateAt | Command::StateOfAny, _) => {
            show(call, kind, (command, argument), object)
        }
        (Command::Use(access), _) => allowed(who.may(access, &object), Errno::EACCES),
        (Command::Lock, _) => allowed(who.may_lock(&object), Errno::EPERM),
        (Command::Set | Command::Remove, _) if !who.may_change(&object) => Err(Errno::EPERM),
        (Command::Set, Some(change)) => set(call, kind, object, &change),
        (Command::Remove, _) => remove(call, kind, &object),
        // CONTINUE: not about one object.
        (Command::Set | Command::Other, _) => Ok(Reply::Continue),
    }
}

/// Writes the state of an object with its emulated owner.
fn show(
    call: &Call,
    kind: Ipc,
    (command, argument): (Command, u64),
    object: Object,
) -> Result<Reply, Errno> {
    let Some(known) = object.known else {
        // CONTINUE: the kernel shows the right owner.
        return Ok(Reply::Continue);
    };
    if call.abi != Abi::Native {
        // CONTINUE: with the kernel's owner (docs/limits.md).
        return Ok(Reply::Continue);
    }
    let (owner, creator, mode) = (object.owner(), object.creator(), object.permissions());
    let mut state = object.state;
    state.show(owner, creator);
    state.set_mode(mode);
    state.show_processes(kind, |index, pid| {
        match (kind, index) {
            // The worker has made it.
            (Ipc::SharedMemory, 0) => maker(known).or_else(|| call.number_of(pid)),
            _ => Some(pid)
                .filter(|pid| *pid != 0)
                .and_then(|pid| call.number_of(pid)),
        }
        .unwrap_or(0)
    });
    call.write_to([(argument, state.bytes(kind))])?;
    Ok(Reply::Value(match command {
        Command::State => 0,
        _ => object.id.into(),
    }))
}

/// What IPC_SET sets.
#[derive(Debug)]
struct Change {
    uid: u32,
    gid: u32,
    mode: u32,
    /// Of a queue.
    bytes: u64,
}

impl Change {
    /// Reads the structure; `None`: it cannot be read.
    fn read(call: &Call, kind: Ipc, argument: u64) -> Option<Self> {
        /// The offset of `msg_qbytes` in `struct compat_msqid64_ds`.
        const SHORT_BYTES: usize = 68;
        const LONG_BYTES: usize = std::mem::offset_of!(libc::msqid_ds, msg_qbytes);
        let mut bytes = [0; 96];
        let is_native = call.abi == Abi::Native;
        let length = match (kind, is_native) {
            (Ipc::Queue, true) => LONG_BYTES + 8,
            (Ipc::Queue, false) => SHORT_BYTES + 4,
            _ => 24,
        };
        call.read_from(argument, &mut bytes[..length]).ok()?;
        let word = |at: usize| bytes[at..].first_chunk().copied().map(u32::from_ne_bytes);
        let queue_bytes = match is_native {
            true => u64::from_ne_bytes(bytes[LONG_BYTES..].first_chunk().copied()?),
            false => word(SHORT_BYTES)?.into(),
        };
        Some(Self {
            uid: word(4)?,
            gid: word(8)?,
            mode: word(20)? & 0o777,
            bytes: queue_bytes,
        })
    }
}

fn set(call: &Call, kind: Ipc, mut object: Object, change: &Change) -> Result<Reply, Errno> {
    let ids = EmulatedUid::new(change.uid).zip(EmulatedGid::new(change.gid));
    if ids.is_none() {
        // ipc/util.c, ipc_update_perm
        return Err(Errno::EINVAL);
    }
    let space = Space::of(call)?;
    let _lock = call.container.locks.lock_identities()?;
    call.ensure_waiting()?;
    let keeps_owner = object.state.owner() == [change.uid, change.gid];
    if object.known.is_none() && keeps_owner && is_kernels(change.mode) {
        // CONTINUE: the kernel's owner, who stays.
        return Ok(Reply::Continue);
    }
    let state = &mut object.state;
    state.set_mode(change.mode | KERNELS_MODE);
    if kind == Ipc::Queue {
        state.set_queue_bytes(change.bytes);
    }
    // The kernel's ids stay what they are.
    space.run(call, || sys::ipc_set(kind, object.id, state))?;
    let pair = |[uid, gid]: [u32; 2]| Pair { uid, gid };
    let known = Known {
        owner: pair([change.uid, change.gid]),
        creator: pair(object.creator()),
        note: note(object.known.and_then(maker).unwrap_or(0), change.mode),
    };
    store(call, &space, object.name, known)?;
    Ok(Reply::Value(0))
}

fn remove(call: &Call, kind: Ipc, object: &Object) -> Result<Reply, Errno> {
    if object.known.is_none() {
        // CONTINUE: there is nothing to forget.
        return Ok(Reply::Continue);
    }
    let space = Space::of(call)?;
    call.ensure_waiting()?;
    call.journal.note(Step::Changing);
    space
        .run(call, || {
            sys::ipc_remove(kind, object.id)?;
            // A segment stays until the last process detaches it.
            Ok(sys::ipc_state(kind, object.id).is_err())
        })
        .map(|is_gone| {
            if is_gone {
                call.container.objects.remove(object.name);
            }
            Reply::Value(0)
        })
}
