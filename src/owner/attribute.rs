//! The names of extended attributes: which ones are hidden from targets, and which are emulated, by
//! the rules of [`subuidless_fast::attribute`]. Pure.
//!
//! An attribute that a container's root may set, but the kernel refuses because that needs
//! privileges outside the container, is stored in a user attribute of the same file:
//! `user.subuidless.` and the name.

use std::ffi::CStr;

use subuidless_fast::attribute::Kind;
pub(super) use subuidless_fast::attribute::PREFIX;

use super::XATTR;
use crate::linux::name::Name;

/// A name and a value.
pub(crate) type NamedValue = (Vec<u8>, Vec<u8>);

/// The kind of an attribute, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Attribute {
    /// Left to the kernel.
    Plain,
    /// Used by subuidless: does not exist for targets.
    Hidden,
    /// `trusted.*` and `security.*`, which the kernel refuses: stored under this name.
    Emulated(Name),
    /// `trusted.` or `security.` with nothing after the dot.
    Nameless,
    /// An access control list: if the kernel refuses some of its ids, the whole list is stored
    /// under this name.
    Acl(Name),
}

impl Attribute {
    /// Classifies a name.
    pub(crate) fn of(name: &CStr) -> Self {
        let bytes = name.to_bytes();
        let stored = || Name::new([PREFIX, bytes].concat());
        match Kind::of(bytes) {
            Kind::Plain => Self::Plain,
            Kind::Hidden => Self::Hidden,
            Kind::Emulated => Self::Emulated(stored()),
            Kind::Nameless => Self::Nameless,
            Kind::Acl => Self::Acl(stored()),
        }
    }
}

/// The name of an emulated attribute in the container.
pub(super) fn original(stored: &Name) -> &[u8] {
    let bytes = stored.as_c_str().to_bytes();
    bytes.strip_prefix(PREFIX).unwrap_or(bytes)
}

/// The name under which an attribute is stored, including a NUL.
pub(crate) fn stored_name(original: &[u8]) -> Vec<u8> {
    [PREFIX, original, b"\0"].concat()
}

/// Converts the kernel's list of names to the one that listxattr(2) returns in the container;
/// `shows_trusted`: with `trusted.*`. Returns `None` if the list needs no change.
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
            // A stored access control list: its own name is in the kernel's list, too.
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
        let real = b"user.a\0user.rootlesscontainers\0user.subuidless.trusted.b\0\
            user.subuidless.security.c\0user.subuidless.system.posix_acl_access\0\
            system.posix_acl_access\0";
        let root = b"user.a\0trusted.b\0security.c\0system.posix_acl_access\0";
        let others = b"user.a\0security.c\0system.posix_acl_access\0";
        assert_eq!(shown(real, true).as_deref(), Some(&root[..]));
        assert_eq!(shown(real, false).as_deref(), Some(&others[..]));
        assert_eq!(shown(b"user.a\0security.selinux\0", true), None);
        assert_eq!(shown(b"", true), None);
    }
}
