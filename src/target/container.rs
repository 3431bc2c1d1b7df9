//! What a worker knows of its container, shared by all service threads.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::credentials::{Credentials, EmulatedUid};
use crate::identity::Identities;
use crate::linux::lock::Locks;
use crate::linux::userns::IdMap;
use crate::owner::Owners;

/// Steps of the runtime's process on its way to its user: it has the ids, and so has its terminal.
const IDENTITY: u64 = 1;
const TERMINAL: u64 = 2;

/// One container, or whatever else lives under one seccomp filter.
#[derive(Debug)]
pub(crate) struct Container {
    /// The procfs of the pid namespace that notifications name their targets in.
    pub(crate) host_procfs: OwnedFd,
    pub(crate) owners: Owners,
    pub(crate) identities: Identities,
    /// To be held from a look to the change that depends on it.
    pub(crate) locks: Locks,
    /// Device and inode of the user namespace that was joined.
    pub(crate) user_namespace: Option<(u64, u64)>,
    /// The root directory that was joined.
    pub(crate) root: Option<OwnedFd>,
    /// The procfs that targets see shows this process, so that `/proc/self` exists and means the
    /// wrong one.
    pub(crate) procfs_shows_worker: bool,
    /// The mounts are those that this process was born with: a command of the host, under
    /// `subuidless run`.
    pub(crate) shares_mounts: bool,
    /// The ids that the container's user namespace maps.
    pub(crate) mapped_uids: IdMap,
    /// Whom the runtime's process is to be from its first execve(2) on; its capabilities are its
    /// own.
    user: Option<Credentials>,
    /// What has been done for that.
    user_steps: AtomicU64,
    /// Some target may see another root directory than the others.
    views_differ: AtomicBool,
    /// There may be an overlay among the mounts.
    has_overlays: AtomicBool,
}

impl Container {
    pub(crate) fn new(
        host_procfs: OwnedFd,
        owners: Owners,
        identities: Identities,
        locks: Locks,
    ) -> Self {
        Self {
            host_procfs,
            owners,
            identities,
            locks,
            user_namespace: None,
            root: None,
            procfs_shows_worker: false,
            shares_mounts: false,
            mapped_uids: IdMap::default(),
            user: None,
            user_steps: AtomicU64::new(0),
            views_differ: AtomicBool::new(false),
            has_overlays: AtomicBool::new(false),
        }
    }

    /// The runtime's process is to be `user`; `steps` have been done by an earlier worker.
    pub(crate) fn expect_user(&mut self, user: Credentials, steps: u64) {
        self.user = Some(user);
        self.user_steps.store(steps, Ordering::Relaxed);
    }

    /// Whom the runtime's process is still to become.
    pub(crate) fn expected_user(&self) -> Option<&Credentials> {
        let user = self.user.as_ref()?;
        (self.user_steps() & IDENTITY == 0).then_some(user)
    }

    pub(crate) fn set_user_taken_up(&self) {
        self.user_steps.fetch_or(IDENTITY, Ordering::Relaxed);
    }

    /// Whose the process's terminal is to be, if nobody has seen to that.
    pub(super) fn user_of_terminal(&self) -> Option<EmulatedUid> {
        let user = self.user.as_ref()?;
        (self.user_steps() == IDENTITY).then_some(user.uid.effective)
    }

    pub(super) fn set_terminal_given(&self) {
        self.user_steps.fetch_or(TERMINAL, Ordering::Relaxed);
    }

    /// For the next worker.
    pub(crate) fn user_steps(&self) -> u64 {
        self.user_steps.load(Ordering::Relaxed)
    }

    /// Whether pipes and sockets that a process has got from its runtime are those of a user who is
    /// not root.
    pub(crate) fn starts_as_user(&self) -> bool {
        let user = self.user.as_ref();
        user.is_some_and(|user| user.uid.effective != EmulatedUid::ROOT)
    }

    /// Whether the container's files can be seen. Before, its runtime is at work on it.
    pub(crate) fn is_joined(&self) -> bool {
        self.user_namespace.is_some()
    }

    /// Whether a file that shows `uid` belongs to the host user. Others show the overflow uid,
    /// which is not mapped.
    pub(crate) fn is_mapped(&self, uid: u32) -> bool {
        self.mapped_uids.contains(uid)
    }

    /// Whether this process must not walk a target's path through links of its own in procfs, which
    /// could lead it to where the target cannot go. Where there is no such place, what a glance
    /// misses through such a link is the owner of a file behind it.
    pub(crate) fn shows_worker(&self) -> bool {
        self.procfs_shows_worker && (!self.shares_mounts || self.views_differ())
    }

    /// From now on every call is asked which root it sees (chroot, pivot_root, a new mount
    /// namespace).
    pub(crate) fn expect_other_views(&self) {
        self.views_differ.store(true, Ordering::Relaxed);
    }

    /// Whether a target may see an overlay, whose files the kernel copies up.
    pub(crate) fn has_overlays(&self) -> bool {
        self.has_overlays.load(Ordering::Relaxed) || self.views_differ()
    }

    pub(crate) fn expect_overlays(&self) {
        self.has_overlays.store(true, Ordering::Relaxed);
    }

    pub(crate) fn views_differ(&self) -> bool {
        self.views_differ.load(Ordering::Relaxed)
    }
}
