//! The questions of `subuidless status` and `subuidless trace` to a daemon's control socket, and
//! its answers. Pure.
//!
//! One JSON object each way. Unlike a runtime's message, a question brings no file descriptors.

use serde::{Deserialize, Serialize};

use crate::wire::fast::FastPath;
use crate::wire::permissions::Permissions;
use crate::wire::tally::Count;

/// One question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "camelCase")]
pub(crate) enum What {
    /// Answered with a [`Report`].
    Status,
    /// Answered with a [`Tracing`] and the read end of a pipe. Lines come from it as long as the
    /// connection is open.
    Trace {
        /// The id of a container; `None` for all of them.
        container: Option<String>,
        #[serde(flatten)]
        filter: Filter,
    },
}

/// Selects the calls to trace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Filter {
    /// Names of syscalls; empty for all of them.
    pub(crate) calls: Vec<String>,
    /// Also trace calls that are continued by the kernel.
    pub(crate) continued: bool,
}

/// The answer of a daemon to [`What::Trace`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tracing {
    /// The number of listeners that are traced now; more may follow.
    pub(crate) listeners: usize,
    /// The reason why there is no pipe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refusal: Option<String>,
}

/// The answer of a daemon to [`What::Status`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) version: String,
    /// The daemon's pid.
    pub(crate) pid: u32,
    pub(crate) listeners: Vec<Listener>,
}

/// One listener: a container has one for its first process, and one for each `exec`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listener {
    pub(crate) container: String,
    pub(crate) status: String,
    pub(crate) bundle: String,
    /// Unix time in seconds.
    pub(crate) since: u64,
    /// The worker's pid; `None` after one has died, until the next one is started.
    pub(crate) worker: Option<u32>,
    /// Workers that died before their targets did.
    pub(crate) deaths: u32,
    pub(crate) namespaces: Namespaces,
    /// `None`: the daemon is older.
    #[serde(default)]
    pub(crate) fast: Option<FastPath>,
    #[serde(default)]
    pub(crate) permissions: Option<Permissions>,
    pub(crate) all: Count,
    /// Only the syscalls that were called.
    pub(crate) syscalls: Vec<(String, Count)>,
}

/// The inode numbers of namespaces; 0 if unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Namespaces {
    pub(crate) pid: u64,
    pub(crate) mount: u64,
    pub(crate) user: u64,
}
