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
