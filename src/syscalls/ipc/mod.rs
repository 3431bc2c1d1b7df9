//! System V IPC (sysvipc(7)): shmget(2), semop(2), msgctl(2) and the like; ipc(2) of i386.
//!
//! To the kernel all objects of a container belong to its root, and all processes may use them. So
//! a worker makes an object for a target with other ids itself, in the target's IPC namespace, and
//! keeps its owner in the memory of the container ([`crate::wire::objects`]). Calls that use an
//! object are left to the kernel if they are allowed.

mod control;
mod get;
mod i386;
mod object;

use nix::errno::Errno;

pub(super) use i386::ipc;
use object::{Object, Who};

use crate::linux::page_size;
use crate::linux::seccomp::Reply;
use crate::linux::sys::Ipc;
use crate::target::{Abi, Call};

/// `S_IRUGO`, `S_IWUGO` and `S_IXUGO` of linux/stat.h.
const READ: u32 = 0o444;
const WRITE: u32 = 0o222;
const EXECUTE: u32 = 0o111;

/// What a call asks for.
#[derive(Debug, Clone, Copy)]
enum Request {
    Get {
        kind: Ipc,
        key: i32,
        size: u64,
        flags: i32,
    },
    Attach {
        id: i32,
        address: u64,
        flags: i32,
    },
    Operate {
        id: i32,
        operations: u64,
        count: u64,
    },
    Send {
        id: i32,
        message: u64,
        size: u64,
    },
    Receive {
        id: i32,
        size: u64,
    },
    Control {
        kind: Ipc,
        id: i32,
        command: i32,
        argument: u64,
    },
}

pub(super) fn shmget(call: &mut Call) -> Result<Reply, Errno> {
    let size = call.register(1);
    get_of(call, Ipc::SharedMemory, size, call.int(2))
}

pub(super) fn semget(call: &mut Call) -> Result<Reply, Errno> {
    // An `int`, whose upper half the kernel does not read.
    let size = call.unsigned(1).into();
    get_of(call, Ipc::Semaphores, size, call.int(2))
}

pub(super) fn msgget(call: &mut Call) -> Result<Reply, Errno> {
    get_of(call, Ipc::Queue, 0, call.int(1))
}

fn get_of(call: &Call, kind: Ipc, size: u64, flags: i32) -> Result<Reply, Errno> {
    let key = call.int(0);
    answer(
        call,
        Request::Get {
            kind,
            key,
            size,
            flags,
        },
    )
}

pub(super) fn shmat(call: &mut Call) -> Result<Reply, Errno> {
    let (id, address, flags) = (call.int(0), call.register(1), call.int(2));
    answer(call, Request::Attach { id, address, flags })
}

/// semop(2), semtimedop(2)
pub(super) fn semop(call: &mut Call) -> Result<Reply, Errno> {
    let (id, operations, count) = (call.int(0), call.register(1), call.unsigned(2).into());
    answer(
        call,
        Request::Operate {
            id,
            operations,
            count,
        },
    )
}

pub(super) fn msgsnd(call: &mut Call) -> Result<Reply, Errno> {
    let (id, message, size) = (call.int(0), call.register(1), call.register(2));
    answer(call, Request::Send { id, message, size })
}

pub(super) fn msgrcv(call: &mut Call) -> Result<Reply, Errno> {
    let (id, size) = (call.int(0), call.register(2));
    answer(call, Request::Receive { id, size })
}

pub(super) fn shmctl(call: &mut Call) -> Result<Reply, Errno> {
    control_of(call, Ipc::SharedMemory, call.int(1), call.register(2))
}

pub(super) fn semctl(call: &mut Call) -> Result<Reply, Errno> {
    control_of(call, Ipc::Semaphores, call.int(2), call.register(3))
}

pub(super) fn msgctl(call: &mut Call) -> Result<Reply, Errno> {
    control_of(call, Ipc::Queue, call.int(1), call.register(2))
}

fn control_of(call: &Call, kind: Ipc, command: i32, argument: u64) -> Result<Reply, Errno> {
    let id = call.int(0);
    let command = match call.abi {
        Abi::Native => Some(command),
        _ => without_version(command),
    };
    let Some(command) = command else {
        // CONTINUE: structures of old.
        return Ok(Reply::Continue);
    };
    answer(
        call,
        Request::Control {
            kind,
            id,
            command,
            argument,
        },
    )
}

/// The command that a 32-bit program means. `None`: its structures are those of Linux 2.2, and not
/// of `struct ipc64_perm`.
fn without_version(command: i32) -> Option<i32> {
    /// linux/ipc.h
    const IPC_64: i32 = 0x100;
    (command & IPC_64 != 0).then_some(command & !IPC_64)
}

fn answer(call: &Call, request: Request) -> Result<Reply, Errno> {
    let identities = &call.container.identities;
    if !identities.anyone_changed() || !call.container.is_joined() || call.is_nested() {
        // CONTINUE: no process has changed ids, or the target's ids are the kernel's.
        return Ok(Reply::Continue);
    }
    let who = Who::of(call)?;
    match request {
        Request::Get {
            kind,
            key,
            size,
            flags,
        } => get::get(call, &who, kind, (key, size, flags)),
        Request::Control {
            kind,
            id,
            command,
            argument,
        } => control::control(call, &who, kind, (id, command, argument)),
        Request::Attach { id, flags, .. } => {
            let mut access = READ;
            if flags & libc::SHM_RDONLY == 0 {
                access |= WRITE;
            }
            if flags & libc::SHM_EXEC != 0 {
                access |= EXECUTE;
            }
            use_object(call, &who, request, (Ipc::SharedMemory, id, access))
        }
        Request::Operate {
            id,
            operations,
            count,
        } => match is_change(call, operations, count) {
            Some(true) => use_object(call, &who, request, (Ipc::Semaphores, id, WRITE)),
            Some(false) => use_object(call, &who, request, (Ipc::Semaphores, id, READ)),
            // CONTINUE: EFAULT, EINVAL or E2BIG.
            None => Ok(Reply::Continue),
        },
        Request::Send { id, .. } => use_object(call, &who, request, (Ipc::Queue, id, WRITE)),
        Request::Receive { id, .. } => use_object(call, &who, request, (Ipc::Queue, id, READ)),
    }
}

/// Leaves a call to the kernel if the target may use the object in this way.
fn use_object(
    call: &Call,
    who: &Who,
    request: Request,
    (kind, id, access): (Ipc, i32, u32),
) -> Result<Reply, Errno> {
    if who.is_left_to_kernel(call, kind) {
        // CONTINUE: the kernel's owners are right, or do not restrict the target.
        return Ok(Reply::Continue);
    }
    match Object::find(call, kind, id) {
        Some(object) if !who.may(access, &object) && !has_other_fault(call, request, &object) => {
            Err(Errno::EACCES)
        }
        // CONTINUE: allowed; or there is no such object, or another fault that the kernel finds.
        _ => Ok(Reply::Continue),
    }
}

const OPERATION: usize = size_of::<libc::sembuf>();
/// SEMOPM, which may be raised.
const MOST_OPERATIONS: u64 = 1 << 16;

/// The operations of a semop(2).
fn operations(call: &Call, address: u64, count: u64) -> Option<Vec<u8>> {
    if !(1..=MOST_OPERATIONS).contains(&count) {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(count).ok()? * OPERATION];
    call.read_from(address, &mut bytes).ok()?;
    Some(bytes)
}

/// Whether one of the operations is another one than waiting for zero. `None`: the kernel finds
/// fault with them.
fn is_change(call: &Call, address: u64, count: u64) -> Option<bool> {
    let bytes = operations(call, address, count)?;
    let mut changes = bytes.chunks_exact(OPERATION).map(|it| it[2..4] != [0, 0]);
    Some(changes.any(|is_change| is_change))
}

/// Whether the kernel finds another fault before it checks permissions.
fn has_other_fault(call: &Call, request: Request, object: &Object) -> bool {
    match request {
        // ipc/shm.c, do_shmat: EINVAL. SHMLBA is a page, and COMPAT_SHMLBA on ARM four of them.
        Request::Attach { address, flags, .. } => {
            let is_rounded = flags & libc::SHM_RND != 0 && flags & libc::SHM_REMAP == 0;
            let pages = match call.abi {
                Abi::Compat if cfg!(target_arch = "aarch64") => 4,
                _ => 1,
            };
            let is_misplaced = address % (pages * page_size()) != 0 && !is_rounded;
            is_misplaced || address == 0 && flags & libc::SHM_REMAP != 0
        }
        // ipc/sem.c, do_semtimedop: EFBIG.
        Request::Operate {
            operations: address,
            count,
            ..
        } => {
            let number = |it: &[u8]| u64::from(u16::from_ne_bytes([it[0], it[1]]));
            operations(call, address, count).is_none_or(|bytes| {
                let mut numbers = bytes.chunks_exact(OPERATION).map(number);
                numbers.any(|number| number >= object.state.semaphores())
            })
        }
        // ipc/msg.c, do_msgsnd: EFAULT, EINVAL.
        Request::Send { message, size, .. } => {
            let length = if call.abi == Abi::Native { 8 } else { 4 };
            let mut kind = [0; 8];
            let is_read = call.read_from(message, &mut kind[..length]).is_ok();
            let is_negative = kind[length - 1] & 0x80 != 0;
            !is_read || kind == [0; 8] || is_negative || i32::try_from(size).is_err()
        }
        // ipc/msg.c, do_msgrcv: EINVAL.
        Request::Receive { size, .. } => size.cast_signed() < 0,
        Request::Get { .. } | Request::Control { .. } => false,
    }
}
