//! What a daemon, its workers and the runtime front say to each other. Pure.
//!
//! Daemon and worker: one message, the same in both directions (and a command line, see `mode`). The daemon
//! hands a container over to a new worker with it. A worker keeps the bytes, and when its daemon
//! has gone it hands the container to the next daemon that listens on the same socket. With it come
//! three fds, in the order of [`FDS`].

use serde::{Deserialize, Serialize};

/// The listener, the board, the memory that the container's workers share. A fourth one is the feed
/// of a worker that does not receive by itself.
pub(crate) const FDS: usize = 3;

/// Changes when an older worker could not be understood any more.
const VERSION: u32 = 3;

/// The most characters of a name or a path, and the most groups (NGROUPS_MAX): a message within
/// them is shorter than [`LONGEST`].
pub(crate) const MAX_CHARS: usize = 4096;
const MAX_GROUPS: usize = 65_536;

/// Of a handover, in bytes.
pub(crate) const LONGEST: usize = 1 << 20;

/// A container, as its runtime called it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Handover {
    /// Tells the message from a runtime's.
    #[serde(rename = "subuidlessHandover")]
    version: u32,
    pub(crate) id: String,
    pub(crate) status: String,
    pub(crate) bundle: String,
    /// Whom the process is to be that the runtime puts into the container.
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
        // Strings and a number: there is nothing that JSON could not hold.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// `None` for anything else, an unfinished message among them.
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

/// The user of a process as the runtime spec spells it, in the container's ids.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProcessUser {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    #[serde(default)]
    pub(crate) additional_gids: Vec<u32>,
}

impl ProcessUser {
    /// Whether all ids are ids, and no more than a process can have.
    fn is_possible(&self) -> bool {
        let all = [self.uid, self.gid].into_iter();
        let mut all = all.chain(self.additional_gids.iter().copied());
        self.additional_gids.len() <= MAX_GROUPS && all.all(|id| id != u32::MAX)
    }
}

/// Whom the next process of a container is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum NextUser {
    /// Whom the runtime itself makes it.
    AsIs,
    User(ProcessUser),
}

/// What the runtime front says before it becomes the runtime, in the same process. A daemon that
/// has heard it answers [`HEARD`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Announcement {
    #[serde(rename = "subuidlessAnnouncement")]
    version: u32,
    pub(crate) id: String,
    pub(crate) next: NextUser,
    /// Of a container that runs, into which the next process is put: which one of this name.
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
        // Strings and numbers: there is nothing that JSON could not hold.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// `None` for anything else, an unfinished message among them.
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
        // The longest spelling of a character.
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
