//! How files of other host users show in a container. Pure.

use serde::{Deserialize, Serialize};

/// The owner of files of other host users, the host's root included: the user namespace does not
/// map their ids.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Others {
    /// What the kernel shows: nobody (65534)
    #[default]
    Nobody,
    /// Root, as fakeroot shows them. They still cannot be changed
    Root,
}

impl Others {
    const ALL: [Self; 2] = [Self::Nobody, Self::Root];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Root => "root",
        }
    }

    pub(crate) fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.word() == word)
    }
}
