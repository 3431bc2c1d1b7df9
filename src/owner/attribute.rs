//! Which extended attributes a target does not see, and which are stored under another one. Pure.
//!
//! What the container's root may set and the kernel refuses, since it takes privileges outside of
//! the container, is stored in a user attribute of the same file: `user.subuidless.` and the name.

use std::ffi::CStr;

use super::XATTR;
use super::acl::{ACCESS, DEFAULT};
use crate::linux::name::Name;

/// A name and a value.
pub(crate) type NamedValue = (Vec<u8>, Vec<u8>);

pub(super) const PREFIX: &[u8] = b"user.subuidless.";

/// What an attribute's name means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Attribute {
    /// The kernel's business.
    Plain,
    /// Ours: for a target it does not exist.
    Hidden,
    /// `trusted.*`, `security.*`: stored under this name, since the kernel does not take it.
    Emulated(Name),
    /// `trusted.` or `security.` without a name.
    Nameless,
    /// An access control list: stored under this name as far as the kernel does not take it.
    Acl(Name),
}

impl Attribute {
    pub(crate) fn of(name: &CStr) -> Self {
        let bytes = name.to_bytes();
        let stored = || Name::new([PREFIX, bytes].concat());
        if bytes == XATTR.to_bytes() || bytes.starts_with(PREFIX) {
            Self::Hidden
        } else if name == ACCESS || name == DEFAULT {
            Self::Acl(stored())
        } else if bytes == b"security.capability" {
            Self::Plain
        } else if matches!(bytes, b"trusted." | b"security.") {
            Self::Nameless
        } else if bytes.starts_with(b"trusted.") || bytes.starts_with(b"security.") {
            Self::Emulated(stored())
        } else {
            Self::Plain
        }
    }
}

/// The name that an emulated attribute has for the container.
pub(super) fn original(stored: &Name) -> &[u8] {
    let bytes = stored.as_c_str().to_bytes();
    bytes.strip_prefix(PREFIX).unwrap_or(bytes)
}

/// The name that an attribute is stored under, with the NUL at its end.
pub(crate) fn stored_name(original: &[u8]) -> Vec<u8> {
    [PREFIX, original, b"\0"].concat()
}

/// What listxattr(2) shows of the attributes that a file really has; `None`: all of them, as they
/// are.
pub(crate) fn shown(list: &[u8], shows_trusted: bool) -> Option<Vec<u8>> {
    let names = || list.split_inclusive(|byte| *byte == 0);
    let is_ours = |name: &[u8]| name.starts_with(PREFIX) || name == XATTR.to_bytes_with_nul();
    if !names().any(is_ours) {
        return None;
    }
    let mut shown: Vec<&[u8]> = Vec::new();
    for name in names() {
        let name = match name.strip_prefix(PREFIX) {
            Some(name) if name.starts_with(b"security.") => name,
            Some(name) if name.starts_with(b"trusted.") && shows_trusted => name,
            None if !is_ours(name) => name,
            // An access control list has its name for the kernel, too.
            _ => continue,
        };
        if !shown.contains(&name) {
            shown.push(name);
        }
    }
    Some(shown.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_are_hidden_and_what_is_kept_has_a_name_of_its_own() {
        assert_eq!(Attribute::of(c"user.rootlesscontainers"), Attribute::Hidden);
        assert_eq!(
            Attribute::of(c"user.subuidless.trusted.x"),
            Attribute::Hidden
        );
        assert_eq!(Attribute::of(c"user.rootlesscontainers2"), Attribute::Plain);
        assert_eq!(Attribute::of(c"security.capability"), Attribute::Plain);
        let kept = Name::new(b"user.subuidless.trusted.overlay.opaque".to_vec());
        assert_eq!(
            Attribute::of(c"trusted.overlay.opaque"),
            Attribute::Emulated(kept)
        );
        assert_eq!(Attribute::of(c"trusted."), Attribute::Nameless);
        assert!(matches!(
            Attribute::of(c"system.posix_acl_default"),
            Attribute::Acl(_)
        ));
    }

    #[test]
    fn a_list_shows_what_is_kept_by_its_own_name() {
        let real = b"user.a\0user.rootlesscontainers\0user.subuidless.trusted.b\0user.subuidless.security.c\0\
            user.subuidless.system.posix_acl_access\0system.posix_acl_access\0";
        let root = b"user.a\0trusted.b\0security.c\0system.posix_acl_access\0";
        let others = b"user.a\0security.c\0system.posix_acl_access\0";
        assert_eq!(shown(real, true).as_deref(), Some(&root[..]));
        assert_eq!(shown(real, false).as_deref(), Some(&others[..]));
        assert_eq!(shown(b"user.a\0security.selinux\0", true), None);
        assert_eq!(shown(b"", true), None);
    }
}
