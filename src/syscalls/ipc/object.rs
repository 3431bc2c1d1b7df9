//! An object, and who may do what with it.

use std::os::fd::OwnedFd;
use std::thread;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::{Mode, fstatat};

use crate::credentials::{EmulatedGid, EmulatedUid, Id, IpcMode, IpcSubject, capability};
use crate::linux::procfs;
use crate::linux::sys::{self, Ipc, IpcState};
use crate::target::{Call, PROCFS};
use crate::wire::objects::{self, Kind, Known, Pair};

/// The target as the subject of permission checks.
#[derive(Debug)]
pub(super) struct Who {
    subject: IpcSubject,
    /// What it makes belongs to whom the kernel shows, and so does what it uses.
    is_first: bool,
}

impl Who {
    pub(super) fn of(call: &Call) -> Result<Self, Errno> {
        let identities = &call.container.identities;
        let record = call.who()?;
        let (uid, gid) = identities.ids(record);
        let (uid, gid) = (uid.effective, gid.effective);
        let initial = &identities.initial;
        Ok(Self {
            subject: IpcSubject {
                uid,
                gid,
                subject: call.subject_of(record)?,
            },
            is_first: (uid, gid) == (initial.uid.effective, initial.gid.effective),
        })
    }

    /// The owner of what it makes.
    pub(super) fn pair(&self) -> Pair {
        pair((self.subject.uid, self.subject.gid))
    }

    pub(super) fn may(&self, access: u32, object: &Object) -> bool {
        self.subject.may(access, &object.mode())
    }

    pub(super) fn may_change(&self, object: &Object) -> bool {
        self.subject.may_change(&object.mode())
    }

    pub(super) fn may_lock(&self, object: &Object) -> bool {
        self.subject.may_lock(&object.mode())
    }

    /// Whether the kernel decides about the objects of a kind as it should.
    pub(super) fn is_left_to_kernel(&self, call: &Call, kind: Ipc) -> bool {
        let has_owners = call.container.objects.has(kind_of(kind));
        self.is_first && (!has_owners || self.subject.subject.has(capability::IPC_OWNER))
    }

    /// Whether no object has an emulated owner, and the target has the kernel's ids.
    pub(super) fn is_alone(&self, call: &Call, kind: Ipc) -> bool {
        self.is_first && !call.container.objects.has(kind_of(kind))
    }

    pub(super) fn is_first(&self) -> bool {
        self.is_first
    }
}

/// An object that is there.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) name: objects::Object,
    pub(super) id: i32,
    pub(super) state: IpcState,
    pub(super) known: Option<Known>,
}

impl Object {
    /// The object `id` in the target's IPC namespace; `None`: there is none, or it is out of reach.
    pub(super) fn find(call: &Call, kind: Ipc, id: i32) -> Option<Self> {
        let look = || Ok((id, sys::ipc_state(kind, id)?));
        Self::found(call, kind, look)
    }

    /// The object at an index: for SHM_STAT and its like.
    pub(super) fn at(call: &Call, kind: Ipc, index: i32) -> Option<Self> {
        Self::found(call, kind, || sys::ipc_state_at(kind, index))
    }

    fn found(
        call: &Call,
        kind: Ipc,
        look: impl FnOnce() -> Result<(i32, IpcState), Errno> + Send,
    ) -> Option<Self> {
        let space = Space::of(call).ok()?;
        let (id, state) = space.run(call, look).ok()?;
        let name = space.name(kind, id);
        Some(Self {
            name,
            id,
            state,
            known: call.container.objects.get(name),
        })
    }

    pub(super) fn owner(&self) -> [u32; 2] {
        self.known.map_or_else(
            || self.state.owner(),
            |known| [known.owner.uid, known.owner.gid],
        )
    }

    pub(super) fn creator(&self) -> [u32; 2] {
        self.known.map_or_else(
            || self.state.creator(),
            |known| [known.creator.uid, known.creator.gid],
        )
    }

    /// The permissions in its mode.
    pub(super) fn permissions(&self) -> u32 {
        self.known
            .map_or_else(|| self.state.mode(), |known| known.note >> PID_BITS)
    }

    fn mode(&self) -> IpcMode {
        let ids = |[uid, gid]: [u32; 2]| {
            // The kernel has no object of −1.
            let uid = EmulatedUid::new(uid).unwrap_or(EmulatedUid::ROOT);
            (uid, EmulatedGid::new(gid).unwrap_or(EmulatedGid::ROOT))
        };
        IpcMode {
            owner: ids(self.owner()),
            creator: ids(self.creator()),
            mode: self.permissions(),
        }
    }
}

/// What the kernel allows the owner of an object that has an emulated one: to the kernel every
/// target is the owner, whatever class of the mode it is in.
pub(super) const KERNELS_MODE: u32 = 0o700;

/// Whether the kernel allows its owner what this mode allows to anybody.
pub(super) fn is_kernels(mode: u32) -> bool {
    (mode >> 3 | mode) & !(mode >> 6) & 0o7 == 0
}

/// PID_MAX_LIMIT is 2^22.
const PID_BITS: u32 = 22;

/// What is kept of an object beside its owners: who made it, in its own pid namespace, and its
/// permissions.
pub(super) fn note(maker: u32, mode: u32) -> u32 {
    mode << PID_BITS | maker & ((1 << PID_BITS) - 1)
}

/// The process that made the object; `None`: the kernel knows it.
pub(super) fn maker(known: Known) -> Option<u32> {
    Some(known.note & ((1 << PID_BITS) - 1)).filter(|pid| *pid != 0)
}

/// The IPC namespace of a target.
#[derive(Debug)]
pub(super) struct Space {
    /// The number of its inode, which the kernel keeps in 32 bits.
    inode: u32,
    /// To enter it, if this process is in another one.
    entrance: Option<OwnedFd>,
}

impl Space {
    pub(super) fn of(call: &Call) -> Result<Self, Errno> {
        let path = procfs::target(call.pid(), "ns/ipc");
        let inode = fstatat(PROCFS, &path, AtFlags::empty())?.st_ino;
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let entrance = match call.container.ipc_namespace == Some(inode) {
            true => None,
            false => Some(openat(PROCFS, &path, flags, Mode::empty())?),
        };
        call.ensure_waiting()?;
        Ok(Self {
            inode: u32::try_from(inode).map_err(|_| Errno::EOVERFLOW)?,
            entrance,
        })
    }

    pub(super) fn name(&self, kind: Ipc, id: i32) -> objects::Object {
        objects::Object {
            kind: kind_of(kind),
            place: self.inode,
            number: id.cast_unsigned(),
        }
    }

    /// Runs `work` in the namespace: in this thread, or in one of its own, which ends afterwards.
    pub(super) fn run<T: Send>(
        &self,
        call: &Call,
        work: impl FnOnce() -> Result<T, Errno> + Send,
    ) -> Result<T, Errno> {
        let Some(entrance) = &self.entrance else {
            return work();
        };
        call.ensure_waiting()?;
        let enter = || {
            let own = sys::capabilities(0)?;
            sys::set_capabilities(own.effective | capability::SYS_ADMIN, own.permitted)?;
            setns(entrance, CloneFlags::CLONE_NEWIPC)?;
            sys::set_capabilities(own.effective, own.permitted)?;
            work()
        };
        thread::scope(|scope| {
            let thread = thread::Builder::new().spawn_scoped(scope, enter);
            thread.map_or(Err(Errno::EAGAIN), |thread| {
                thread.join().unwrap_or(Err(Errno::EIO))
            })
        })
    }
}

pub(super) fn kind_of(kind: Ipc) -> Kind {
    match kind {
        Ipc::SharedMemory => Kind::SharedMemory,
        Ipc::Semaphores => Kind::Semaphores,
        Ipc::Queue => Kind::Queue,
    }
}

pub(super) fn pair((uid, gid): (EmulatedUid, EmulatedGid)) -> Pair {
    Pair {
        uid: uid.as_raw(),
        gid: gid.as_raw(),
    }
}
