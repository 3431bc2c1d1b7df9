//! The questions of `subuidless status` and `subuidless trace` to a daemon's control socket, and
//! its answers. Pure.
//!
//! One JSON object each way. Unlike a runtime's message, an [`Ask`] brings no file descriptors.

use serde::{Deserialize, Serialize};

use crate::wire::tally::Count;

const VERSION: u32 = 1;

/// One question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ask {
    /// The key distinguishes the message from a runtime's.
    #[serde(rename = "subuidlessAsk")]
    version: u32,
    #[serde(flatten)]
    pub(crate) what: What,
}

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

impl Ask {
    pub(crate) fn new(what: What) -> Self {
        Self {
            version: VERSION,
            what,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        // Cannot fail: strings, numbers and booleans only.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Returns `None` for other messages, and for an incomplete one.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes)
            .ok()
            .filter(|ask: &Self| ask.version == VERSION)
    }
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

/// The message of a daemon to its workers, sent with the write end of that pipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Orders {
    #[serde(rename = "subuidlessTrace")]
    version: u32,
    #[serde(flatten)]
    pub(crate) filter: Filter,
}

impl Orders {
    pub(crate) fn new(filter: Filter) -> Self {
        Self {
            version: VERSION,
            filter,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes)
            .ok()
            .filter(|orders: &Self| orders.version == VERSION)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_understood_and_nothing_else_is_one() {
        let status = Ask::new(What::Status);
        assert_eq!(status.encode(), br#"{"subuidlessAsk":1,"what":"status"}"#);
        assert_eq!(Ask::parse(&status.encode()), Some(status));
        let filter = Filter {
            calls: vec!["chown".into()],
            continued: true,
        };
        let trace = Ask::new(What::Trace {
            container: Some("c\n1".into()),
            filter: filter.clone(),
        });
        assert_eq!(Ask::parse(&trace.encode()), Some(trace));
        let orders = Orders::new(filter);
        assert_eq!(Orders::parse(&orders.encode()), Some(orders));
        for other in [
            &br#"{"subuidlessAsk":2,"what":"status"}"#[..],
            br#"{"subuidlessAsk":1,"what":"secrets"}"#,
            br#"{"subuidlessAsk":1,"what":"stat"#,
            br#"{"subuidlessHandover":2,"id":"a","status":"","bundle":""}"#,
            br#"{"fds":["seccompFd"],"state":{"id":"a"}}"#,
        ] {
            assert_eq!(Ask::parse(other), None);
        }
    }
}
