//! What a daemon and a worker say to each other: one message, the same in both directions. Pure.
//!
//! The daemon hands a container over to a new worker with it. A worker keeps the bytes, and when its daemon has gone it hands
//! the container to the next daemon that listens on the same socket. With it come three fds, in the order of [`FDS`].

use serde::{Deserialize, Serialize};

/// The listener, the board, the locks.
pub(crate) const FDS: usize = 3;

/// Changes when an older worker could not be understood any more.
const VERSION: u32 = 1;

/// A container, as its runtime called it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Handover {
    /// Tells the message from a runtime's.
    #[serde(rename = "subuidlessHandover")]
    version: u32,
    pub(crate) id: String,
    pub(crate) status: String,
    pub(crate) bundle: String,
}

impl Handover {
    pub(crate) fn new(id: String, status: String, bundle: String) -> Self {
        Self {
            version: VERSION,
            id,
            status,
            bundle,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        // Strings and a number: there is nothing that JSON could not hold.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// `None` for anything else, an unfinished message among them.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes)
            .ok()
            .filter(|handover: &Self| handover.version == VERSION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_side_says_the_other_one_understands() {
        let said = Handover::new("a\"b".into(), "running".into(), "/ü".into());
        assert_eq!(Handover::parse(&said.encode()), Some(said));
    }

    #[test]
    fn a_runtimes_message_and_half_a_message_are_none() {
        let bytes = Handover::new("a".into(), "b".into(), "c".into()).encode();
        assert_eq!(Handover::parse(&bytes[..bytes.len() - 1]), None);
        assert_eq!(
            Handover::parse(br#"{"fds":["seccompFd"],"state":{"id":"a"}}"#),
            None
        );
        assert_eq!(
            Handover::parse(br#"{"subuidlessHandover":2,"id":"a","status":"","bundle":""}"#),
            None
        );
    }
}
