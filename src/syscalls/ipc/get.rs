//! shmget(2), semget(2), msgget(2).

use nix::errno::Errno;

use super::object::{KERNELS_MODE, Object, Space, Who, is_kernels, kind_of, maker, note};
use crate::linux::procfs::Status;
use crate::linux::seccomp::Reply;
use crate::linux::sys::{self, Ipc};
use crate::target::Call;
use crate::wire::board::{Creation, Step};
use crate::wire::objects::{self, Known};

/// What is asked for: key, size and flags.
type Wanted = (i32, u64, i32);

const PERMISSIONS: i32 = 0o777;

pub(super) fn get(call: &Call, who: &Who, kind: Ipc, wanted: Wanted) -> Result<Reply, Errno> {
    let (key, size, flags) = wanted;
    let is_new = key == libc::IPC_PRIVATE;
    // Whether the kernel may make it.
    let is_kernels = who.is_first() && is_kernels(flags.cast_unsigned());
    let makes = is_new || flags & libc::IPC_CREAT != 0;
    if (who.is_left_to_kernel(call, kind) && (is_kernels || !makes)) || (is_new && is_kernels) {
        // CONTINUE: the kernel gives it to whom it should belong to, and decides as it should.
        return Ok(Reply::Continue);
    }
    let Ok(space) = Space::of(call) else {
        // CONTINUE: out of reach.
        return Ok(Reply::Continue);
    };
    loop {
        let found = match is_new {
            true => Err(Errno::ENOENT),
            // Without permissions in the flags, the kernel checks none (ipc/util.c, ipcperms).
            false => space.run(call, || sys::ipc_get(kind, key, 0, 0)),
        };
        match found {
            Ok(id) => return existing(call, who, &space, kind, (id, wanted)),
            Err(Errno::ENOENT) if !is_new && flags & libc::IPC_CREAT == 0 => {
                return Err(Errno::ENOENT);
            }
            // CONTINUE: the kernel gives it to whom it should belong to.
            Err(Errno::ENOENT) if is_kernels => return Ok(Reply::Continue),
            Err(Errno::ENOENT) => {}
            // CONTINUE: a namespace that cannot be entered.
            Err(_) => return Ok(Reply::Continue),
        }
        match make(call, who, &space, kind, (key, size, flags)) {
            // Another process has made one meanwhile.
            Err(Errno::EEXIST) if !is_new => {}
            made => return made.map(|id| Reply::Value(id.into())),
        }
    }
}

/// An object has the key already.
fn existing(
    call: &Call,
    who: &Who,
    space: &Space,
    kind: Ipc,
    (id, (key, size, flags)): (i32, Wanted),
) -> Result<Reply, Errno> {
    if was_interrupted(call, who, space, kind, id)? {
        // A worker has made it for this call, and was killed.
        let _lock = call.container.locks.lock_identities()?;
        keep(call, who, space, kind, (id, flags))?;
        return Ok(Reply::Value(id.into()));
    }
    // ipc/util.c, ipcget_public: EEXIST, EINVAL, EACCES.
    let exclusive = libc::IPC_CREAT | libc::IPC_EXCL;
    if flags & exclusive == exclusive {
        return Err(Errno::EEXIST);
    }
    space.run(call, || sys::ipc_get(kind, key, size, 0))?;
    let Some(object) = Object::find(call, kind, id) else {
        // CONTINUE: it was removed meanwhile.
        return Ok(Reply::Continue);
    };
    match who.may((flags & PERMISSIONS).cast_unsigned(), &object) {
        true if who.is_first() => Ok(Reply::Continue),
        true => Ok(Reply::Value(id.into())),
        false => Err(Errno::EACCES),
    }
}

/// Makes an object that belongs to the target.
fn make(
    call: &Call,
    who: &Who,
    space: &Space,
    kind: Ipc,
    (key, size, flags): Wanted,
) -> Result<i32, Errno> {
    let flags = flags | libc::IPC_CREAT | libc::IPC_EXCL;
    let _lock = call.container.locks.lock_identities()?;
    call.ensure_waiting()?;
    call.journal.note(Step::Creating(creation(space, kind)));
    let open = flags | KERNELS_MODE.cast_signed();
    let id = space.run(call, || sys::ipc_get(kind, key, size, open))?;
    keep(call, who, space, kind, (id, flags)).inspect_err(|_| {
        // Without an owner it must not stay.
        let _ = space.run(call, || sys::ipc_remove(kind, id));
    })?;
    Ok(id)
}

/// What is noted before the object is made.
fn creation(space: &Space, kind: Ipc) -> Creation {
    let name = space.name(kind, 0);
    Creation {
        device: name.kind as u64,
        inode: name.place.into(),
        name: 0,
        since: 0,
    }
}

/// Whether an earlier worker has made the object for this call. Only a worker makes objects of
/// targets with other ids: before it was killed, it may or may not have stored whose it is.
fn was_interrupted(
    call: &Call,
    who: &Who,
    space: &Space,
    kind: Ipc,
    id: i32,
) -> Result<bool, Errno> {
    if call.journal.noted() != Some(Step::Creating(creation(space, kind))) {
        return Ok(false);
    }
    let Some(known) = call.container.objects.get(space.name(kind, id)) else {
        return Ok(true);
    };
    Ok(known.creator == who.pair() && maker(known) == Some(own_pid(call)?))
}

/// The target's process id in its own pid namespace.
fn own_pid(call: &Call) -> Result<u32, Errno> {
    Status::of(call.pid())?.own_tgid().ok_or(Errno::ESRCH)
}

/// Stores whose the object is. Objects that are gone make room for it if necessary.
fn keep(
    call: &Call,
    who: &Who,
    space: &Space,
    kind: Ipc,
    (id, flags): (i32, i32),
) -> Result<(), Errno> {
    let mode = (flags & PERMISSIONS).cast_unsigned();
    let known = Known {
        owner: who.pair(),
        creator: who.pair(),
        note: note(own_pid(call)?, mode),
    };
    store(call, space, space.name(kind, id), known)
}

pub(super) fn store(
    call: &Call,
    space: &Space,
    name: objects::Object,
    known: Known,
) -> Result<(), Errno> {
    let objects = &call.container.objects;
    match objects.set(name, known) {
        Err(Errno::ENOSPC) => {}
        result => return result,
    }
    for kind in [Ipc::SharedMemory, Ipc::Semaphores, Ipc::Queue] {
        let place = space.name(kind, 0).place;
        let is_gone = |number: u32| {
            let state = || sys::ipc_state(kind, number.cast_signed());
            space.run(call, state).err() == Some(Errno::EINVAL)
        };
        for number in objects.numbers(kind_of(kind), place) {
            if is_gone(number) {
                objects.remove(space.name(kind, number.cast_signed()));
            }
        }
    }
    objects.set(name, known)
}
