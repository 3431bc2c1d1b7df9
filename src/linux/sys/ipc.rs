//! System V IPC: shmget(2), semctl(2), msgctl(2) and the like, for all three kinds alike.

use std::mem::offset_of;

use libc::{c_int, c_long};
use nix::errno::Errno;

/// A kind of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ipc {
    SharedMemory,
    Semaphores,
    Queue,
}

/// `struct shmid_ds`, `semid_ds` or `msqid_ds`, with some room.
#[derive(Debug, Clone)]
pub(crate) struct IpcState([u8; ROOM]);

const ROOM: usize = 128;
const _: () = assert!(size_of::<libc::shmid_ds>() <= ROOM);
const _: () = assert!(size_of::<libc::semid_ds>() <= ROOM);
const _: () = assert!(size_of::<libc::msqid_ds>() <= ROOM);

/// The offsets of `struct ipc64_perm`, which all three begin with.
const UID: usize = 4;
const GID: usize = 8;
const CREATOR_UID: usize = 12;
const CREATOR_GID: usize = 16;
const MODE: usize = 20;

impl IpcState {
    /// The bytes that the kernel reads and writes.
    pub(crate) fn bytes(&self, kind: Ipc) -> &[u8] {
        &self.0[..size(kind)]
    }

    fn number<const N: usize>(&self, offset: usize) -> [u8; N] {
        self.0[offset..].first_chunk().copied().unwrap_or([0; N])
    }

    fn word(&self, offset: usize) -> u32 {
        u32::from_ne_bytes(self.number(offset))
    }

    fn set(&mut self, offset: usize, value: &[u8]) {
        self.0[offset..offset + value.len()].copy_from_slice(value);
    }

    fn set_word(&mut self, offset: usize, value: u32) {
        self.set(offset, &value.to_ne_bytes());
    }

    pub(crate) fn owner(&self) -> [u32; 2] {
        [UID, GID].map(|offset| self.word(offset))
    }

    pub(crate) fn creator(&self) -> [u32; 2] {
        [CREATOR_UID, CREATOR_GID].map(|offset| self.word(offset))
    }

    pub(crate) fn mode(&self) -> u32 {
        self.word(MODE) & 0o777
    }

    pub(crate) fn show(&mut self, [uid, gid]: [u32; 2], [creator_uid, creator_gid]: [u32; 2]) {
        self.set_word(UID, uid);
        self.set_word(GID, gid);
        self.set_word(CREATOR_UID, creator_uid);
        self.set_word(CREATOR_GID, creator_gid);
    }

    pub(crate) fn set_mode(&mut self, mode: u32) {
        let kept = self.word(MODE) & !0o777;
        self.set_word(MODE, kept | mode & 0o777);
    }

    pub(crate) fn set_queue_bytes(&mut self, bytes: u64) {
        self.set(offset_of!(libc::msqid_ds, msg_qbytes), &bytes.to_ne_bytes());
    }

    /// The number of semaphores of a set.
    pub(crate) fn semaphores(&self) -> u64 {
        u64::from_ne_bytes(self.number(offset_of!(libc::semid_ds, sem_nsems)))
    }

    /// The ids of processes: the maker of a segment and who used it last, or who last sent to a
    /// queue and received from it. `show` says what is shown instead.
    pub(crate) fn show_processes(&mut self, kind: Ipc, show: impl Fn(usize, u32) -> u32) {
        let offsets = match kind {
            Ipc::SharedMemory => [
                offset_of!(libc::shmid_ds, shm_cpid),
                offset_of!(libc::shmid_ds, shm_lpid),
            ],
            Ipc::Queue => [
                offset_of!(libc::msqid_ds, msg_lspid),
                offset_of!(libc::msqid_ds, msg_lrpid),
            ],
            Ipc::Semaphores => return,
        };
        for (index, offset) in offsets.into_iter().enumerate() {
            self.set_word(offset, show(index, self.word(offset)));
        }
    }
}

fn size(kind: Ipc) -> usize {
    match kind {
        Ipc::SharedMemory => size_of::<libc::shmid_ds>(),
        Ipc::Semaphores => size_of::<libc::semid_ds>(),
        Ipc::Queue => size_of::<libc::msqid_ds>(),
    }
}

/// shmget(2), semget(2) or msgget(2). `size`: of a segment, or the number of semaphores.
pub(crate) fn ipc_get(kind: Ipc, key: i32, size: u64, flags: i32) -> Result<i32, Errno> {
    let (number, second, third) = match kind {
        Ipc::SharedMemory => (libc::SYS_shmget, size, flags),
        Ipc::Semaphores => (libc::SYS_semget, size, flags),
        Ipc::Queue => (libc::SYS_msgget, u64::from(flags.cast_unsigned()), 0),
    };
    // SAFETY: no pointers are passed.
    narrow(unsafe { libc::syscall(number, key, second, third) })
}

/// The state of the object `id`, whoever may see it (Linux 4.17).
pub(crate) fn ipc_state(kind: Ipc, id: i32) -> Result<IpcState, Errno> {
    // IPCMNI_SHIFT, and IPCMNI_EXTEND_SHIFT with the kernel's option ipcmni_extend.
    const BITS: [u32; 2] = [15, 24];
    for bits in BITS {
        match ipc_state_at(kind, id & ((1 << bits) - 1)) {
            Ok((found, state)) if found == id => return Ok(state),
            // There is another one, or none.
            Ok(_) | Err(Errno::EINVAL) => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::EINVAL)
}

/// The id and the state of the object at `index`: SHM_STAT_ANY and its like.
pub(crate) fn ipc_state_at(kind: Ipc, index: i32) -> Result<(i32, IpcState), Errno> {
    let any = match kind {
        Ipc::SharedMemory => 15,
        Ipc::Semaphores => 20,
        Ipc::Queue => 13,
    };
    let mut state = IpcState([0; ROOM]);
    let id = control(kind, index, any, &mut state)?;
    Ok((id, state))
}

/// IPC_SET
pub(crate) fn ipc_set(kind: Ipc, id: i32, state: &mut IpcState) -> Result<(), Errno> {
    control(kind, id, libc::IPC_SET, state).map(drop)
}

/// IPC_RMID
pub(crate) fn ipc_remove(kind: Ipc, id: i32) -> Result<(), Errno> {
    control(kind, id, libc::IPC_RMID, &mut IpcState([0; ROOM])).map(drop)
}

fn control(kind: Ipc, id: i32, command: c_int, state: &mut IpcState) -> Result<i32, Errno> {
    let address = state.0.as_mut_ptr();
    let number = match kind {
        Ipc::SharedMemory => libc::SYS_shmctl,
        Ipc::Queue => libc::SYS_msgctl,
        Ipc::Semaphores => {
            // SAFETY: the kernel reads or writes at most a `semid_ds`, which is not longer.
            return narrow(unsafe { libc::syscall(libc::SYS_semctl, id, 0, command, address) });
        }
    };
    // SAFETY: the kernel reads or writes at most the structure of this kind, which is not longer.
    narrow(unsafe { libc::syscall(number, id, command, address) })
}

fn narrow(result: c_long) -> Result<i32, Errno> {
    i32::try_from(Errno::result(result)?).map_err(|_| Errno::EOVERFLOW)
}
