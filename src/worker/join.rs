//! How a worker joins its container: user namespace, mount namespace, root directory.
//!
//! Only in the container's user namespace does a worker have CAP_DAC_OVERRIDE over the user's own
//! files, and only in its mount namespace do absolute paths lead to the same files as for targets.

use std::fmt::Display;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Once;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{AccessFlags, Gid, Uid, faccessat};
use tracing::{debug, warn};

use super::serve::Server;
use crate::credentials::{Id, Ids, capability};
use crate::error::is_shortage;
use crate::linux::mountinfo::Mounts;
use crate::linux::procfs;
use crate::linux::seccomp::Notification;
use crate::linux::sys;
use crate::linux::userns::IdMaps;
use crate::store::Layers;
use crate::target::{PROCFS, View};
use crate::wire::ask::Namespaces;
use crate::wire::handover::Origin;

/// The effective capabilities of a worker in the container's user namespace. The others are only
/// permitted, and raised where they are needed: CAP_SYS_ADMIN for mount(2), and for lookups in
/// procfs those that the target has.
const EFFECTIVE: u64 = capability::CHOWN
    | capability::DAC_OVERRIDE
    | capability::DAC_READ_SEARCH
    | capability::FOWNER
    | capability::FSETID
    | capability::SETFCAP
    | capability::SYS_CHROOT
    | capability::SYS_NICE
    | capability::SYS_RESOURCE
    | capability::SYS_PTRACE;

/// The result of trying to join.
#[derive(Debug)]
pub(super) enum Join {
    Done(View),
    /// The target cannot be inspected yet: runtimes are not dumpable before exec.
    NotYet,
    /// The target needs no emulation, or emulation is impossible.
    Never,
    /// This process lacks a resource at the moment: try again.
    Short(Errno),
    /// The same, but this process may have entered some of the namespaces.
    Failed(Errno),
}

/// Joins the container of the notification's target, if that is possible now.
pub(super) fn join(server: &mut Server, notification: &Notification) -> Join {
    let doors = match Doors::open(notification.pid) {
        Ok(doors) => doors,
        Err(errno) if is_shortage(errno) => return Join::Short(errno),
        Err(errno) => {
            debug!(pid = notification.pid, %errno, "target cannot be joined yet");
            return Join::NotYet;
        }
    };
    let namespaces = doors.namespaces(notification.pid);
    let has_one_id = maps_one_id(notification.pid);
    // Everything above was found by pid, which may have been recycled. If the notification still
    // waits, the pid was the target's all the time.
    if !server.listener.is_waiting(notification.id) {
        return Join::NotYet;
    }
    // A runtime of the real root may map many ids and give up the host's uid 0 with setuid(2). If
    // that were emulated, the container would keep uid 0.
    if Uid::effective().is_root() && !has_one_id {
        return Join::Never;
    }
    match doors.lead_to_mapped_ids(notification.pid) {
        Ok(true) => {}
        // Without maps this process would have the overflow id (65534), and take it for the ids
        // that all processes of the container start with.
        Ok(false) => return Join::NotYet,
        Err(errno) if is_shortage(errno) => return Join::Short(errno),
        Err(errno) => debug!(pid = notification.pid, %errno, "cannot read uid_map and gid_map"),
    }
    // Targets in this process's own user namespace need no emulation, except in a namespace with
    // one id, where podman has called the runtime front.
    if doors.leads_elsewhere() == Ok(false) && !rules_one_id() {
        return Join::Never;
    }
    server.container.shares_mounts = server.container.service.origin == Origin::Host
        || is_own_namespace(doors.mount.as_fd(), "ns/mnt").unwrap_or_default();
    // Before joining: the options of an overlay mount name its layers by paths of the host.
    server.container.owners.layers = Layers::of(notification.pid);
    let host_procfs = server.container.host_procfs.as_fd();
    let entered = doors.enter(host_procfs).and_then(|()| {
        // The maps of the namespace just joined, not the target's, which may be in one below it.
        server.container.mapped_uids = IdMaps::of("self")?.uids;
        server.container.identities.initial.uid = Ids::all(own_id(Uid::effective().as_raw())?);
        server.container.identities.initial.gid = Ids::all(own_id(Gid::effective().as_raw())?);
        let mounts = Mounts::read(&procfs::own("mountinfo"))?;
        server.container.procfs_shows_worker = shows_worker(&mounts);
        if mounts.iter().any(|mount| mount.kind == "overlay") {
            server.container.expect_overlays();
        }
        let namespace = fstat(open_own("ns/user")?)?;
        server.container.user_namespace = Some((namespace.st_dev, namespace.st_ino));
        server.container.ipc_namespace = Some(fstat(open_own("ns/ipc")?)?.st_ino);
        View::current()
    });
    server.container.root = Some(doors.root);
    match entered {
        Ok(view) => {
            server.board.set_namespaces(namespaces);
            Join::Done(view)
        }
        Err(errno) if is_shortage(errno) => Join::Failed(errno),
        Err(errno) => {
            static TOLD: Once = Once::new();
            TOLD.call_once(|| {
                warn!(
                    pid = notification.pid, %errno,
                    "cannot join the container: its calls go to the kernel"
                );
            });
            server.container.user_namespace = None;
            Join::Never
        }
    }
}

/// The namespaces and the root directory of a target, opened.
struct Doors {
    user: OwnedFd,
    mount: OwnedFd,
    ipc: OwnedFd,
    root: OwnedFd,
}

impl Doors {
    /// Opens them. EACCES if the target is not dumpable.
    fn open(pid: u32) -> Result<Self, Errno> {
        let open = |what, flags| {
            let name = procfs::target(pid, what);
            openat(PROCFS, &name, flags | OFlag::O_CLOEXEC, Mode::empty())
        };
        Ok(Self {
            user: open("ns/user", OFlag::O_RDONLY)?,
            mount: open("ns/mnt", OFlag::O_RDONLY)?,
            ipc: open("ns/ipc", OFlag::O_RDONLY)?,
            root: open("root", OFlag::O_PATH)?,
        })
    }

    /// Whether the target is in another user namespace than this process.
    fn leads_elsewhere(&self) -> Result<bool, Errno> {
        Ok(!is_own_namespace(self.user.as_fd(), "ns/user")?)
    }

    /// The inode numbers of the target's namespaces, by which `subuidless status` finds the
    /// processes of the container.
    fn namespaces(&self, pid: u32) -> Namespaces {
        let inode = |fd: BorrowedFd| fstat(fd).map_or(0, |namespace| namespace.st_ino);
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let of_pids = openat(PROCFS, &procfs::target(pid, "ns/pid"), flags, Mode::empty());
        Namespaces {
            pid: of_pids.map_or(0, |namespace| inode(namespace.as_fd())),
            mount: inode(self.mount.as_fd()),
            user: inode(self.user.as_fd()),
        }
    }

    /// The user namespace that owns the target's mount namespace. It is the one to enter: the
    /// target's own may be below it. Returns `None` if the target shares this process's mount
    /// namespace; then the target's user namespace is entered.
    fn upper(&self) -> Result<Option<OwnedFd>, Errno> {
        match is_own_namespace(self.mount.as_fd(), "ns/mnt")? {
            true => Ok(None),
            false => sys::owning_user_namespace(self.mount.as_fd()).map(Some),
        }
    }

    /// Whether the maps of the namespace to enter are written.
    fn lead_to_mapped_ids(&self, pid: u32) -> Result<bool, Errno> {
        let identity = |fd: BorrowedFd| fstat(fd).map(|found| (found.st_dev, found.st_ino));
        if let Some(upper) = self.upper()?
            && identity(upper.as_fd())? != identity(self.user.as_fd())?
        {
            // kernel/user_namespace.c, create_user_ns: only a process whose ids are mapped there
            // can have created the target's namespace below it.
            return Ok(true);
        }
        Ok(IdMaps::of(pid)?.are_written())
    }

    /// Enters the namespaces and the root directory, and drops all effective capabilities but
    /// [`EFFECTIVE`].
    fn enter(&self, host_procfs: BorrowedFd) -> Result<(), Errno> {
        let upper = self.upper()?;
        let user = upper.as_ref().unwrap_or(&self.user);
        enter_user_namespace(user.as_fd())?;
        // To look at the objects in it. It may belong to another user namespace, as the host's
        // does: then its objects are reached only if this process is in it.
        if !is_own_namespace(self.ipc.as_fd(), "ns/ipc")? {
            let _ = setns(&self.ipc, CloneFlags::CLONE_NEWIPC);
        }
        if upper.is_some() {
            setns(&self.mount, CloneFlags::CLONE_NEWNS)?;
        }
        // setns(CLONE_NEWNS) changes both the root and the working directory.
        nix::unistd::fchdir(host_procfs)?;
        nix::unistd::chroot(&procfs::own_fd(self.root.as_fd()))?;
        // kernel/cred.c, commit_creds: a gain of capabilities may have changed the flag.
        nix::sys::prctl::set_dumpable(false)?;
        sys::set_capabilities(EFFECTIVE, sys::capabilities(0)?.permitted)
    }
}

/// Enters the namespace, unless this process is in it already, which setns(2) refuses (EINVAL).
fn enter_user_namespace(namespace: BorrowedFd) -> Result<(), Errno> {
    if is_own_namespace(namespace, "ns/user")? {
        return Ok(());
    }
    setns(namespace, CloneFlags::CLONE_NEWUSER)
}

/// Whether this process is root of a user namespace with one mapped id. Podman creates one for all
/// containers of a user without a range; a daemon that was started in it serves containers in it.
pub(super) fn rules_one_id() -> bool {
    Uid::effective().is_root() && maps_one_id("self")
}

fn maps_one_id(process: impl Display) -> bool {
    IdMaps::of(process).is_ok_and(|maps| maps.uids.has_one_id())
}

fn open_own(what: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    openat(PROCFS, &procfs::own(what), flags, Mode::empty())
}

fn is_own_namespace(namespace: BorrowedFd, name: &str) -> Result<bool, Errno> {
    let (own, other) = (fstat(open_own(name)?)?, fstat(namespace)?);
    Ok((own.st_dev, own.st_ino) == (other.st_dev, other.st_ino))
}

/// The id, as an emulated one. EOVERFLOW for −1.
fn own_id<T: Id>(id: u32) -> Result<T, Errno> {
    T::new(id).ok_or(Errno::EOVERFLOW)
}

/// Whether a procfs that is mounted in the container may show this process. Then paths of targets
/// could lead through its own links, which must not happen. A mount that is covered by another one
/// counts as showing it, because the cover may be removed later.
fn shows_worker(mounts: &Mounts) -> bool {
    let mut procfs = mounts.iter().filter(|mount| mount.kind == "proc");
    procfs.any(|mount| hides_worker(mount.id, &mount.point()) != Ok(true))
}

/// Whether `point` leads to the root of this mount of procfs, in which this process has no pid.
fn hides_worker(mount: u64, point: &Path) -> Result<bool, Errno> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let root = openat(PROCFS, point, flags, Mode::empty())?;
    let found = sys::statx(root.as_fd(), c"", libc::AT_EMPTY_PATH, libc::STATX_MNT_ID)?;
    let is_there = faccessat(&root, "self", AccessFlags::F_OK, AtFlags::empty());
    // ENOTDIR: a single file of procfs may be bind-mounted.
    let is_hidden = matches!(is_there, Err(Errno::ENOENT | Errno::ENOTDIR));
    Ok(found.stx_mnt_id == mount && is_hidden)
}
