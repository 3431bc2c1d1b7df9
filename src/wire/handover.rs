//! The messages between the daemon, its guard, its workers and the runtime front. Pure.
//!
//! A [`Handover`] gives a container to a worker or a daemon, with the file descriptors of [`FDS`]:
//! the daemon sends one to a new worker. The worker keeps the bytes, and once its daemon has exited
//! sends them to the next daemon that listens on the same socket. An [`Announcement`] goes from the
//! front to the daemon.

use serde::{Deserialize, Serialize};

/// The number of file descriptors with a handover, in this order: the listener, the board, the
/// table. A fourth one is the feed of a worker that does not receive notifications itself.
pub(crate) const FDS: usize = 3;

/// Incremented when messages of older workers can no longer be understood.
const VERSION: u32 = 3;

/// The maximum length of a name or a path, in characters.
pub(crate) const MAX_CHARS: usize = 4096;
/// NGROUPS_MAX.
const MAX_GROUPS: usize = 65_536;

/// The maximum length of a handover, in bytes. One within the limits above is shorter.
pub(crate) const LONGEST: usize = 1 << 20;

/// A container as its runtime described it, and the user of its process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Handover {
    /// The key distinguishes the message from a runtime's.
    #[serde(rename = "subuidlessHandover")]
    version: u32,
    pub(crate) id: String,
    pub(crate) status: String,
    pub(crate) bundle: String,
    /// The user of the process that the runtime starts in the container; `None` leaves it to the
    /// runtime.
    #[serde(default)]
    pub(crate) user: Option<ProcessUser>,
}

impl Handover {
    pub(crate) fn new(
        id: String,
        status: String,
        bundle: String,
        user: Option<ProcessUser>,
    ) -> Self {
        Self {
            version: VERSION,
            id,
            status,
            bundle,
            user,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        // Cannot fail: strings and numbers only.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Returns `None` for other messages, and for an incomplete one.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes)
            .ok()
            .filter(|handover: &Self| handover.version == VERSION && handover.is_within_bounds())
    }

    fn is_within_bounds(&self) -> bool {
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
    #[serde(rename = "subuidlessAnnouncement")]
    version: u32,
    pub(crate) id: String,
    pub(crate) next: NextUser,
    /// The bundle of the running container that the next process will join: several containers can
    /// have the same id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bundle: Option<String>,
}

/// The answer to an [`Announcement`].
pub(crate) const HEARD: &[u8] = b"heard\n";

impl Announcement {
    const VERSION: u32 = 1;

    pub(crate) fn new(id: String, next: NextUser) -> Self {
        Self {
            version: Self::VERSION,
            id,
            next,
            bundle: None,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        // Cannot fail: strings and numbers only.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Returns `None` for other messages, and for an incomplete one.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes)
            .ok()
            .filter(|announcement: &Self| {
                announcement.version == Self::VERSION && announcement.is_within_bounds()
            })
    }
}

impl Announcement {
    fn is_within_bounds(&self) -> bool {
        let is_possible = match &self.next {
            NextUser::AsIs => true,
            NextUser::User(user) => user.is_possible(),
        };
        let mut texts = [Some(&self.id), self.bundle.as_ref()].into_iter().flatten();
        is_possible && texts.all(|text| text.chars().count() <= MAX_CHARS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_side_says_the_other_one_understands() {
        let said = Handover::new("a\"b".into(), "running".into(), "/ü".into(), None);
        assert_eq!(Handover::parse(&said.encode()), Some(said));
    }

    #[test]
    fn an_announcement_is_no_handover_and_the_other_way_round() {
        let user = ProcessUser {
            uid: 999,
            gid: 0,
            additional_gids: vec![50],
        };
        for next in [NextUser::AsIs, NextUser::User(user.clone())] {
            let said = Announcement::new("c1".into(), next);
            assert_eq!(Handover::parse(&said.encode()), None);
            assert_eq!(Announcement::parse(&said.encode()), Some(said));
        }
        let handover = Handover::new("a".into(), "b".into(), "c".into(), Some(user));
        assert_eq!(Announcement::parse(&handover.encode()), None);
        assert_eq!(Handover::parse(&handover.encode()), Some(handover));
    }

    #[test]
    fn what_is_too_long_or_no_user_is_not_understood() {
        let user = |uid, groups: usize| ProcessUser {
            uid,
            gid: u32::MAX - 1,
            additional_gids: vec![u32::MAX - 1; groups],
        };
        let handover = |text: &str, user| {
            let [id, status, bundle] = [text; 3].map(str::to_owned);
            Handover::new(id, status, bundle, Some(user)).encode()
        };
        // The character whose JSON is longest.
        let most = "\u{1}".repeat(MAX_CHARS);
        let longest = handover(&most, user(u32::MAX - 1, MAX_GROUPS));
        assert!(longest.len() < LONGEST, "{}", longest.len());
        assert!(Handover::parse(&longest).is_some());
        for wrong in [
            handover(&(most + "x"), user(0, 0)),
            handover("", user(0, MAX_GROUPS + 1)),
            handover("", user(u32::MAX, 0)),
        ] {
            assert_eq!(Handover::parse(&wrong), None);
        }
        let announced = |user| Announcement::new("c1".into(), NextUser::User(user)).encode();
        assert!(Announcement::parse(&announced(user(0, 0))).is_some());
        assert_eq!(Announcement::parse(&announced(user(u32::MAX, 0))), None);
    }

    #[test]
    fn a_handover_without_a_user_is_understood() {
        let old = br#"{"subuidlessHandover":3,"id":"a","status":"","bundle":""}"#;
        assert_eq!(
            Handover::parse(old).map(|handover| handover.user),
            Some(None)
        );
    }

    #[test]
    fn a_runtimes_message_and_half_a_message_are_none() {
        let bytes = Handover::new("a".into(), "b".into(), "c".into(), None).encode();
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
