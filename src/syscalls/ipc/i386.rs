//! ipc(2) of i386: all calls of System V IPC by one number.

use nix::errno::Errno;

use super::{Request, answer, without_version};
use crate::linux::seccomp::Reply;
use crate::linux::sys::Ipc;
use crate::target::Call;

/// linux/ipc.h
const SEMOP: u32 = 1;
const SEMGET: u32 = 2;
const SEMCTL: u32 = 3;
const SEMTIMEDOP: u32 = 4;
const MSGSND: u32 = 11;
const MSGRCV: u32 = 12;
const MSGGET: u32 = 13;
const MSGCTL: u32 = 14;
const SHMAT: u32 = 21;
const SHMGET: u32 = 23;
const SHMCTL: u32 = 24;

pub(in crate::syscalls) fn ipc(call: &mut Call) -> Result<Reply, Errno> {
    match request(call) {
        Some(request) => answer(call, request),
        // CONTINUE: shmdt(2), structures of old, or a fault that the kernel finds.
        None => Ok(Reply::Continue),
    }
}

/// `ipc(call, first, second, third, pointer)`: ipc/syscall.c, compat_ksys_ipc.
fn request(call: &Call) -> Option<Request> {
    let (first, pointer) = (call.int(1), u64::from(call.unsigned(4)));
    let (second, third) = (call.unsigned(2), call.int(3));
    let get = |kind, size, flags| Request::Get {
        kind,
        key: first,
        size,
        flags,
    };
    let control = |kind, command: i32, argument| {
        without_version(command).map(|command| Request::Control {
            kind,
            id: first,
            command,
            argument,
        })
    };
    // Above, the version of the call.
    match call.unsigned(0) & 0xffff {
        SEMOP | SEMTIMEDOP => Some(Request::Operate {
            id: first,
            operations: pointer,
            count: second.into(),
        }),
        SEMGET => Some(get(Ipc::Semaphores, second.into(), third)),
        SEMCTL => {
            let mut argument = [0; 4];
            call.read_from(pointer, &mut argument).ok()?;
            let argument = u32::from_ne_bytes(argument).into();
            control(Ipc::Semaphores, third, argument)
        }
        MSGSND => Some(Request::Send {
            id: first,
            message: pointer,
            size: second.into(),
        }),
        MSGRCV => Some(Request::Receive {
            id: first,
            size: second.into(),
        }),
        MSGGET => Some(get(Ipc::Queue, 0, second.cast_signed())),
        MSGCTL => control(Ipc::Queue, second.cast_signed(), pointer),
        SHMAT => Some(Request::Attach {
            id: first,
            address: pointer,
            flags: second.cast_signed(),
        }),
        SHMGET => Some(get(Ipc::SharedMemory, second.into(), third)),
        SHMCTL => control(Ipc::SharedMemory, second.cast_signed(), pointer),
        _ => None,
    }
}
