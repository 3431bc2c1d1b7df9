//! [`Message`]: the messages between processes of this program, over Unix sockets, as JSON with a
//! version. Pure.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::ask::{Filter, What};
use super::handover::{Announcement, Handover};

/// Incremented when messages of older processes can no longer be understood.
const VERSION: u32 = 6;

/// A message of this program. It cannot be mistaken for one of a runtime.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Message {
    /// Gives a container to a worker, a guard or the next daemon.
    Handover(Handover),
    /// Sent by the front before it executes the runtime.
    Announcement(Announcement),
    /// A question of `status` or `trace`.
    Ask(What),
    /// Orders a worker to trace these calls to the pipe that is sent with the message.
    Trace(Filter),
}

#[derive(Serialize, Deserialize)]
struct Envelope<M> {
    /// The version. No message of a runtime has this key.
    subuidless: u32,
    message: M,
}

/// The reason why bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotUnderstood {
    /// They are not from this program, or incomplete.
    Foreign,
    /// They are of another version of this program, or hostile.
    OtherVersion,
}

impl Message {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let envelope = Envelope {
            subuidless: VERSION,
            message: self,
        };
        // Cannot fail: strings, numbers and booleans only.
        serde_json::to_vec(&envelope).unwrap_or_default()
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, NotUnderstood> {
        match serde_json::from_slice::<Envelope<Self>>(bytes) {
            Ok(Envelope {
                subuidless: VERSION,
                message,
            }) if message.is_within_bounds() => Ok(message),
            _ => match serde_json::from_slice::<Envelope<IgnoredAny>>(bytes) {
                Ok(_) => Err(NotUnderstood::OtherVersion),
                Err(_) => Err(NotUnderstood::Foreign),
            },
        }
    }

    fn is_within_bounds(&self) -> bool {
        match self {
            Self::Handover(handover) => handover.is_within_bounds(),
            Self::Announcement(announcement) => announcement.is_within_bounds(),
            Self::Ask(_) | Self::Trace(_) => true,
        }
    }
}

impl Handover {
    pub(crate) fn encode(&self) -> Vec<u8> {
        Message::Handover(self.clone()).encode()
    }

    /// Returns `None` for other messages, and for an incomplete one.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        match Message::parse(bytes) {
            Ok(Message::Handover(handover)) => Some(handover),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fast::FastPath;
    use super::super::handover::{MAX_CHARS, MAX_GROUPS, NextUser, ProcessUser};
    use super::super::handover::{Origin, Service};
    use super::super::others::Others;
    use super::super::permissions::Permissions;
    use super::*;

    fn handover(text: &str, user: Option<ProcessUser>) -> Message {
        let [id, status, bundle] = [text; 3].map(str::to_owned);
        Message::Handover(Handover {
            id,
            status,
            bundle,
            user,
            service: Service {
                fast: FastPath::On,
                permissions: Permissions::Owner,
                origin: Origin::default(),
                others: Others::Root,
                notes: true,
            },
        })
    }

    fn announced(user: ProcessUser) -> Message {
        Message::Announcement(Announcement::new("c1".into(), NextUser::User(user)))
    }

    fn user(uid: u32, groups: usize) -> ProcessUser {
        ProcessUser {
            uid,
            gid: u32::MAX - 1,
            additional_gids: vec![u32::MAX - 1; groups],
        }
    }

    #[test]
    fn a_message_is_understood_whole_and_not_in_part() {
        let filter = Filter {
            calls: vec!["chown".into()],
            continued: true,
        };
        for message in [
            handover("a\"b/ü", None),
            handover("", Some(user(999, 1))),
            announced(user(0, 0)),
            Message::Ask(What::Status),
            Message::Ask(What::Trace {
                container: Some("c\n1".into()),
                filter: filter.clone(),
            }),
            Message::Trace(filter),
        ] {
            let bytes = message.encode();
            assert_eq!(Message::parse(&bytes), Ok(message));
            let part = &bytes[..bytes.len() - 1];
            assert_eq!(Message::parse(part), Err(NotUnderstood::Foreign));
        }
    }

    #[test]
    fn what_is_too_long_or_has_an_impossible_user_is_not_understood() {
        // The character whose JSON is longest.
        let most = "\u{1}".repeat(MAX_CHARS);
        let longest = handover(&most, Some(user(u32::MAX - 1, MAX_GROUPS))).encode();
        let limit = super::super::handover::LONGEST;
        assert!(longest.len() < limit, "{}", longest.len());
        assert!(Message::parse(&longest).is_ok());
        for wrong in [
            handover(&(most + "x"), None),
            handover("", Some(user(0, MAX_GROUPS + 1))),
            handover("", Some(user(u32::MAX, 0))),
            announced(user(u32::MAX, 0)),
        ] {
            let parsed = Message::parse(&wrong.encode());
            assert_eq!(parsed, Err(NotUnderstood::OtherVersion));
        }
    }

    #[test]
    fn other_versions_are_told_from_runtimes() {
        for (bytes, expected) in [
            (
                &br#"{"subuidless":4,"message":{"ask":{"what":"status"}}}"#[..],
                NotUnderstood::OtherVersion,
            ),
            (
                br#"{"subuidless":6,"message":{"ask":{"what":"secrets"}}}"#,
                NotUnderstood::OtherVersion,
            ),
            (
                br#"{"fds":["seccompFd"],"state":{"id":"a"}}"#,
                NotUnderstood::Foreign,
            ),
        ] {
            assert_eq!(Message::parse(bytes), Err(expected));
        }
    }
}
