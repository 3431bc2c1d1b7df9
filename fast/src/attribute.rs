//! Which extended attributes a program does not see, and which are kept under another name.
//!
//! What the container's root may set and the kernel refuses, since it takes privileges outside of
//! the container, is kept in a user attribute of the same file: [`PREFIX`] and the name.

use crate::owner::ATTRIBUTE;

pub const PREFIX: &[u8] = b"user.subuidless.";

/// What an attribute's name means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The kernel's business.
    Plain,
    /// Ours: for a program it does not exist.
    Hidden,
    /// `trusted.*`, `security.*`: stored under another name, since the kernel does not take it.
    Emulated,
    /// `trusted.` or `security.` without a name.
    Nameless,
    /// An access control list: kept as far as the kernel does not take it.
    Acl,
}

impl Kind {
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        if name == ATTRIBUTE.to_bytes() || name.starts_with(PREFIX) {
            Self::Hidden
        } else if matches!(
            name,
            b"system.posix_acl_access" | b"system.posix_acl_default"
        ) {
            Self::Acl
        } else if name == b"security.capability" {
            Self::Plain
        } else if matches!(name, b"trusted." | b"security.") {
            Self::Nameless
        } else if name.starts_with(b"trusted.") || name.starts_with(b"security.") {
            Self::Emulated
        } else {
            Self::Plain
        }
    }
}
