//! What a worker knows about its container; all service threads share it.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use subuidless_fast::facts;

use super::contexts::Contexts;
use super::creations::Creations;
use super::expected::ExpectedFiles;
use crate::credentials::{Credentials, EmulatedGid, EmulatedUid};
use crate::identity::Identities;
use crate::linux::lock::Locks;
use crate::linux::name::Name;
use crate::linux::userns::IdMap;
use crate::owner::{FileOwners, Owner};
use crate::wire::facts::Facts;
use crate::wire::handover::{Origin, Service};
use crate::wire::objects::{Kind, Objects};
use crate::wire::others::Others;
use crate::wire::permissions::Permissions;

/// Bits of `user_steps`: the runtime's process has the ids of its user, and so has its terminal.
const IDENTITY: u64 = 1;
const TERMINAL: u64 = 2;

/// One container, or another set of processes under one seccomp filter.
#[derive(Debug)]
pub(crate) struct Container {
    /// The procfs of the pid namespace whose pids are in notifications.
    pub(crate) host_procfs: OwnedFd,
    pub(crate) owners: FileOwners,
    pub(crate) identities: Identities,
    /// Owners of System V IPC objects, and of terminals (see [`FileOwners`]).
    pub(crate) objects: Arc<Objects>,
    /// The page of facts; `None`: the container has no fast path.
    pub(crate) facts: Option<Facts>,
    /// The path of the preloaded library in the container, once a program had it.
    pub(super) library: OnceLock<Name>,
    /// The library was removed from an environment, by this worker.
    pub(super) cuts_preload: AtomicBool,
    /// The variables that this worker has hidden in an environment: a memory, and an address in it.
    pub(super) hidden_variables: Mutex<HashSet<(u64, u64)>>,
    /// Files that confined processes create.
    pub(crate) expected: ExpectedFiles,
    /// File systems that are being configured.
    pub(crate) contexts: Contexts,
    pub(crate) creations: Creations,
    /// Locks to hold from reading a state until it is changed.
    pub(crate) locks: Locks,
    /// Device and inode of the user namespace that was joined.
    pub(crate) user_namespace: Option<(u64, u64)>,
    /// The inode of the IPC namespace in which this process is.
    pub(crate) ipc_namespace: Option<u64>,
    /// The root directory that was joined.
    pub(crate) root: Option<OwnedFd>,
    /// The targets' procfs shows this process, so that `/proc/self` exists there and would lead a
    /// worker to itself.
    pub(crate) procfs_shows_worker: bool,
    /// The targets see the files that this process saw when it started: they are a command of the
    /// host under `subuidless run`, without namespaces.
    pub(crate) shares_mounts: bool,
    /// How it is served.
    pub(crate) service: Service,
    /// The ids that the container's user namespace maps.
    pub(crate) mapped_uids: IdMap,
    /// The user that the runtime's process becomes at its first execve(2). Its capabilities are
    /// those that the runtime has left it.
    user: Option<Credentials>,
    /// Which steps towards `user` are done: `IDENTITY`, `TERMINAL`.
    user_steps: AtomicU64,
    /// A target may have another root directory than the others.
    views_differ: AtomicBool,
    /// There may be an overlay among the targets' mounts.
    has_overlays: AtomicBool,
    /// A target may lack capabilities over files that the container's root has.
    is_limited: AtomicBool,
}

impl Container {
    pub(crate) fn new(
        host_procfs: OwnedFd,
        owners: FileOwners,
        objects: Arc<Objects>,
        identities: Identities,
        facts: Option<Facts>,
        locks: Locks,
    ) -> Self {
        Self {
            host_procfs,
            owners,
            objects,
            identities,
            facts,
            library: OnceLock::new(),
            cuts_preload: AtomicBool::new(false),
            hidden_variables: Mutex::default(),
            expected: ExpectedFiles::default(),
            contexts: Contexts::default(),
            creations: Creations::default(),
            locks,
            user_namespace: None,
            ipc_namespace: None,
            root: None,
            procfs_shows_worker: false,
            shares_mounts: false,
            service: Service::default(),
            mapped_uids: IdMap::default(),
            user: None,
            user_steps: AtomicU64::new(0),
            views_differ: AtomicBool::new(false),
            has_overlays: AtomicBool::new(false),
            is_limited: AtomicBool::new(false),
        }
    }

    /// Lets the runtime's process become `user`; an earlier worker has done `steps`.
    pub(crate) fn expect_user(&mut self, user: Credentials, steps: u64) {
        self.user = Some(user);
        self.user_steps.store(steps, Ordering::Relaxed);
    }

    /// The user that the runtime's process has yet to become.
    pub(crate) fn expected_user(&self) -> Option<&Credentials> {
        let user = self.user.as_ref()?;
        (self.user_steps() & IDENTITY == 0).then_some(user)
    }

    pub(crate) fn set_user_taken_up(&self) {
        self.user_steps.fetch_or(IDENTITY, Ordering::Relaxed);
    }

    /// The user to whom the terminal of the runtime's process, `pid`, must still be given.
    pub(super) fn user_of_terminal(&self, pid: u32) -> Option<EmulatedUid> {
        match (&self.user, self.user_steps()) {
            (Some(user), IDENTITY) => Some(user.uid.effective),
            // The runtime has given it to the user itself, or has tried to.
            (None, 0) if self.service.origin == Origin::Runtime && !self.shares_mounts => {
                let record = Identities::record_now(pid).ok()?;
                Some(self.identities.ids(record).0.effective)
            }
            _ => None,
        }
    }

    pub(super) fn set_terminal_given(&self) {
        self.user_steps.fetch_or(TERMINAL, Ordering::Relaxed);
    }

    /// The steps that are done, for the next worker.
    pub(crate) fn user_steps(&self) -> u64 {
        self.user_steps.load(Ordering::Relaxed)
    }

    /// Whether this worker has joined the container and sees its files. Until then, its targets are
    /// the runtime.
    pub(crate) fn is_joined(&self) -> bool {
        self.user_namespace.is_some()
    }

    /// Updates the page of facts. To be called before the reply to a call that may have changed
    /// something.
    pub(crate) fn publish(&self) {
        let Some(page) = &self.facts else {
            return;
        };
        let facts = [
            (self.identities.anyone_nested(), facts::NESTED),
            (self.identities.anyone_changed(), facts::CHANGED),
            (self.owners.side_store_is_used(), facts::SIDE_STORE),
            (self.owners.has_full_ones(), facts::FULL_ONES),
            (self.owners.has_terminals(), facts::TERMINALS),
            (self.objects.has(Kind::Semaphores), facts::SEMAPHORES),
            (self.has_overlays(), facts::OVERLAYS),
            (self.is_limited.load(Ordering::Relaxed), facts::LIMITED),
            (
                self.service.permissions == Permissions::Full,
                facts::PERMISSIONS,
            ),
            (self.service.others == Others::Root, facts::OTHERS_ARE_ROOT),
        ];
        page.count_changes(self.identities.changes());
        let true_ones = facts.iter().filter(|(is_true, _)| *is_true);
        page.say(true_ones.fold(0, |all, (_, fact)| all | fact));
    }

    /// Whether a file whose st_uid is `uid` belongs to the host user. Files of other host users
    /// have the overflow uid, which is not mapped.
    pub(crate) fn is_mapped(&self, uid: u32) -> bool {
        self.mapped_uids.contains(uid)
    }

    /// The owner that a file shows whose stored one is `owner`. Where files of others show root, an
    /// id that is not set is root's, too: the namespace maps no other id.
    pub(crate) fn shown(&self, owner: Owner) -> Owner {
        match self.service.others {
            Others::Nobody => owner,
            Others::Root => Owner {
                uid: owner.uid.or(Some(EmulatedUid::ROOT)),
                gid: owner.gid.or(Some(EmulatedGid::ROOT)),
                ..owner
            },
        }
    }

    /// Whether a file without a stored owner shows another one than the kernel's.
    pub(crate) fn shows_another(&self, [uid, gid]: [u32; 2]) -> bool {
        self.service.others == Others::Root && (uid != 0 || gid != 0)
    }

    /// Whether this process must walk a target's path itself. The kernel could follow the worker's
    /// own links in procfs, to files that the target cannot reach. If both have the same mounts,
    /// there are no such files; the only harm is then that the owner of a file behind such a link
    /// is not seen.
    pub(crate) fn must_walk(&self) -> bool {
        self.procfs_shows_worker && (!self.shares_mounts || self.views_differ())
    }

    /// From now on, each call checks which root directory its target has: one may have called
    /// chroot(2) or pivot_root(2), or entered a new mount namespace.
    pub(crate) fn expect_other_views(&self) {
        self.views_differ.store(true, Ordering::Relaxed);
    }

    /// Whether a target may see an overlay, whose files the kernel copies up when they change.
    pub(crate) fn has_overlays(&self) -> bool {
        self.has_overlays.load(Ordering::Relaxed) || self.views_differ()
    }

    /// Notes that a target with the first credentials may have fewer capabilities over files.
    pub(crate) fn expect_limited(&self) {
        self.is_limited.store(true, Ordering::Relaxed);
    }

    pub(crate) fn expect_overlays(&self) {
        self.has_overlays.store(true, Ordering::Relaxed);
    }

    pub(crate) fn views_differ(&self) -> bool {
        self.views_differ.load(Ordering::Relaxed)
    }
}
