//! The contents of messages between the daemon, its guard, its workers and the runtime front. Pure.
//!
//! A [`Handover`] gives a container to a worker or a daemon, with the file descriptors of [`FDS`]:
//! the daemon sends one to a new worker. The worker keeps the bytes, and once its daemon has exited
//! sends them to the next daemon that listens on the same socket. An [`Announcement`] goes from the
//! front to the daemon.

use serde::{Deserialize, Serialize};

use super::fast::FastPath;
use super::others::Others;
use super::permissions::Permissions;

/// The number of file descriptors with a handover, in this order: the listener, the board, the
/// table. A fourth one is the page of facts of a container with the fast path, or the feed of a
/// worker that does not receive notifications itself.
pub(crate) const FDS: usize = 3;

/// The maximum length of a name or a path, in characters.
pub(crate) const MAX_CHARS: usize = 4096;
/// NGROUPS_MAX.
pub(super) const MAX_GROUPS: usize = 65_536;

/// The maximum length of a handover, in bytes. One within the limits above is shorter.
pub(crate) const LONGEST: usize = 1 << 20;

/// How a container is served.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Service {
    #[serde(default)]
    pub(crate) fast: FastPath,
    #[serde(default)]
    pub(crate) permissions: Permissions,
    #[serde(default)]
    pub(crate) others: Others,
    /// Whether the files whose owners change are noted.
    #[serde(default)]
    pub(crate) notes: bool,
    #[serde(default)]
    pub(crate) origin: Origin,
}

/// Who has started the targets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Origin {
    /// A runtime, which has targets of its own before it executes the container's program.
    #[default]
    Runtime,
    /// `run` without namespaces: the files are those of the host, in a copy of its mounts.
    Host,
    /// `run` with namespaces.
    Namespaces,
}

/// A container as its runtime described it, and the user of its process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Handover {
    pub(crate) id: String,
    pub(crate) status: String,
    pub(crate) bundle: String,
    /// The user of the process that the runtime starts in the container; `None` leaves it to the
    /// runtime.
    #[serde(default)]
    pub(crate) user: Option<ProcessUser>,
    #[serde(flatten)]
    pub(crate) service: Service,
}

impl Handover {
    pub(super) fn is_within_bounds(&self) -> bool {
        [&self.id, &self.status, &self.bundle]
            .into_iter()
            .all(|text| text.chars().count() <= MAX_CHARS)
            && self.user.as_ref().is_none_or(ProcessUser::is_possible)
    }
}

/// The user of a process, as in the runtime spec, with emulated ids.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProcessUser {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    #[serde(default)]
    pub(crate) additional_gids: Vec<u32>,
}

impl ProcessUser {
    /// Whether no id is −1, and the groups are not more than a process can have.
    fn is_possible(&self) -> bool {
        let all = [self.uid, self.gid].into_iter();
        let mut all = all.chain(self.additional_gids.iter().copied());
        self.additional_gids.len() <= MAX_GROUPS && all.all(|id| id != u32::MAX)
    }
}

/// The user of the next process of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum NextUser {
    /// The user that the runtime itself switches to.
    AsIs,
    User(ProcessUser),
}

/// The message that the front sends before it executes the runtime in the same process. A daemon
/// that accepts it answers [`HEARD`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Announcement {
    pub(crate) id: String,
    pub(crate) next: NextUser,
    /// The bundle of the running container that the next process will join: several containers can
    /// have the same id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bundle: Option<String>,
    /// Of the container.
    #[serde(flatten)]
    pub(crate) service: Service,
}

/// The answer to an [`Announcement`].
pub(crate) const HEARD: &[u8] = b"heard\n";

impl Announcement {
    pub(crate) fn new(id: String, next: NextUser) -> Self {
        Self {
            id,
            next,
            bundle: None,
            service: Service::default(),
        }
    }

    pub(super) fn is_within_bounds(&self) -> bool {
        let is_possible = match &self.next {
            NextUser::AsIs => true,
            NextUser::User(user) => user.is_possible(),
        };
        let mut texts = [Some(&self.id), self.bundle.as_ref()].into_iter().flatten();
        is_possible && texts.all(|text| text.chars().count() <= MAX_CHARS)
    }
}
