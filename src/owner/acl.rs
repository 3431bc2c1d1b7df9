//! Access control lists with ids that are not mapped: acl(5), linux/posix_acl_xattr.h. Pure.
//!
//! The kernel refuses such a list. It gets the list without those entries, which sets the right
//! file mode, and the whole list is stored in an emulated attribute. When that is read, the mode
//! provides what chmod(2) has changed since.

use std::ffi::CStr;

use crate::credentials::{Access, EmulatedGid, FileMode, Id, Subject};

/// The attributes for the list of a file, and for the default list, which new files of a directory
/// get.
pub(crate) const ACCESS: &CStr = c"system.posix_acl_access";
pub(crate) const DEFAULT: &CStr = c"system.posix_acl_default";

/// POSIX_ACL_XATTR_VERSION.
const VERSION: u32 = 2;

// The tags of entries: linux/posix_acl.h.
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    tag: u16,
    permissions: u16,
    id: u32,
}

impl Entry {
    fn is_named(&self) -> bool {
        matches!(self.tag, USER | GROUP)
    }
}

/// ACL_UNDEFINED_ID.
const NOBODY: u32 = u32::MAX;

/// A decoded list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Acl(Vec<Entry>);

impl Acl {
    /// Returns `None` for bytes that are not a list.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, entries) = bytes.split_first_chunk::<4>()?;
        let (entries, rest) = entries.as_chunks::<8>();
        if u32::from_le_bytes(*version) != VERSION || !rest.is_empty() {
            return None;
        }
        let entries = entries.iter().map(|&[a, b, c, d, e, f, g, h]| {
            let entry = Entry {
                tag: u16::from_le_bytes([a, b]),
                permissions: u16::from_le_bytes([c, d]),
                id: u32::from_le_bytes([e, f, g, h]),
            };
            // As the kernel returns such entries.
            let id = if entry.is_named() { entry.id } else { NOBODY };
            Entry { id, ..entry }
        });
        Some(Self(entries.collect()))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for entry in &self.0 {
            bytes.extend(entry.tag.to_le_bytes());
            bytes.extend(entry.permissions.to_le_bytes());
            bytes.extend(entry.id.to_le_bytes());
        }
        bytes
    }

    /// The list that the kernel gets instead of this one. Returns `None` if `is_known` is true for
    /// all ids.
    ///
    /// A valid list is returned without its foreign entries. In an invalid one their ids are
    /// replaced by `known`, so that the kernel finds the same fault and returns its errno.
    pub(crate) fn for_kernel(&self, is_known: impl Fn(u32) -> bool, known: u32) -> Option<Self> {
        // The kernel refuses (uid_t) −1 by itself.
        let is_foreign =
            |entry: &Entry| entry.is_named() && entry.id != NOBODY && !is_known(entry.id);
        if !self.0.iter().any(is_foreign) {
            return None;
        }
        let entries = self.0.iter().copied();
        Some(Self(if self.is_valid() {
            entries.filter(|entry| !is_foreign(entry)).collect()
        } else {
            let replaced = |entry: Entry| match is_foreign(&entry) {
                true => Entry { id: known, ..entry },
                false => entry,
            };
            entries.map(replaced).collect()
        }))
    }

    /// Whether the list is valid: fs/posix_acl.c, posix_acl_valid.
    fn is_valid(&self) -> bool {
        let ranks = self.0.iter().map(|entry| match entry.tag {
            USER_OBJ => 0,
            USER => 1,
            GROUP_OBJ => 2,
            GROUP => 3,
            MASK => 4,
            OTHER => 5,
            _ => u32::MAX,
        });
        let ranks: Vec<u32> = ranks.collect();
        let has = |rank| ranks.contains(&rank);
        // Ascending; only named users (1) and named groups (3) may occur more than once.
        let in_order = |pair: &[u32]| {
            pair[0] < pair[1] || (pair[0] == pair[1] && pair[0] % 2 == 1 && pair[0] < 5)
        };
        ranks.windows(2).all(in_order)
            && ranks.iter().all(|rank| *rank <= 5)
            && has(0)
            && has(2)
            && has(5)
            && (has(4) || !(has(1) || has(3)))
            && self.0.iter().all(|entry| entry.permissions <= 7)
            && !self
                .0
                .iter()
                .any(|entry| entry.is_named() && entry.id == NOBODY)
    }

    /// Whether the list allows `access` to `subject`, apart from its capabilities:
    /// fs/posix_acl.c, posix_acl_permission.
    pub(crate) fn permits(&self, subject: &Subject, access: Access, file: FileMode) -> bool {
        let mask = self.0.iter().find(|entry| entry.tag == MASK);
        let allows = |entry: &Entry| access.is_in(entry.permissions.into());
        let allows_masked = |entry: &Entry| allows(entry) && mask.is_none_or(allows);
        let is_in = |gid| EmulatedGid::new(gid).is_some_and(|gid| subject.is_in_group(gid));
        let mut is_in_a_group = false;
        for entry in &self.0 {
            match entry.tag {
                USER_OBJ if subject.uid == file.uid => return allows(entry),
                USER if subject.uid.as_raw() == entry.id => return allows_masked(entry),
                GROUP_OBJ | GROUP => {
                    let is_member = match entry.tag {
                        GROUP => is_in(entry.id),
                        _ => subject.is_in_group(file.gid),
                    };
                    if is_member && allows(entry) {
                        return mask.is_none_or(allows);
                    }
                    is_in_a_group |= is_member;
                }
                OTHER => return !is_in_a_group && allows(entry),
                _ => {}
            }
        }
        false
    }

    /// Removes entries with unmapped ids, which read as −1. Returns `None` if these were the only
    /// named entries.
    pub(crate) fn without_strangers(self) -> Option<Self> {
        let is_named = |entry: &Entry| matches!(entry.tag, USER | GROUP);
        let is_known = |entry: &Entry| !is_named(entry) || entry.id != u32::MAX;
        let all = self.0.len();
        let known: Vec<Entry> = self.0.into_iter().filter(is_known).collect();
        (known.len() == all || known.iter().any(is_named)).then_some(Self(known))
    }

    /// The list after a chmod(2) to `mode`: fs/posix_acl.c, __posix_acl_chmod_masq.
    pub(crate) fn with_mode(mut self, mode: u32) -> Self {
        let has_mask = self.0.iter().any(|entry| entry.tag == MASK);
        for entry in &mut self.0 {
            let shift = match entry.tag {
                USER_OBJ => 6,
                MASK => 3,
                GROUP_OBJ if !has_mask => 3,
                OTHER => 0,
                _ => continue,
            };
            let [low, ..] = (mode >> shift & 7).to_le_bytes();
            entry.permissions = low.into();
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16, u32)]) -> Acl {
        let entry = |&(tag, permissions, id)| Entry {
            tag,
            permissions,
            id,
        };
        Acl(entries.iter().map(entry).collect())
    }

    #[test]
    fn a_list_survives_the_round_trip_and_other_bytes_are_none() {
        let list = acl(&[(USER_OBJ, 6, NOBODY), (USER, 4, 70_000), (OTHER, 0, NOBODY)]);
        let bytes = list.encode();
        assert_eq!(Acl::decode(&bytes), Some(list));
        for length in [0, 3, 5, bytes.len() - 1] {
            assert_eq!(Acl::decode(&bytes[..length]), None);
        }
        assert_eq!(Acl::decode(&[9; 12]), None);
    }

    #[test]
    fn foreign_entries_are_left_out_for_the_kernel() {
        let list = acl(&[
            (USER_OBJ, 6, NOBODY),
            (USER, 4, 0),
            (USER, 4, 999),
            (GROUP_OBJ, 4, NOBODY),
            (MASK, 4, NOBODY),
            (OTHER, 0, NOBODY),
        ]);
        let without = list.for_kernel(|id| id == 0, 0).unwrap();
        assert_eq!(without.0.len(), 5);
        assert_eq!(without.for_kernel(|id| id == 0, 0), None);
    }

    #[test]
    fn a_wrong_list_is_wrong_without_foreign_ids_too() {
        let (user_obj, group_obj, other) = (
            (USER_OBJ, 6, NOBODY),
            (GROUP_OBJ, 4, NOBODY),
            (OTHER, 0, NOBODY),
        );
        let (user, mask) = ((USER, 4, 70_000), (MASK, 4, NOBODY));
        for wrong in [
            &[user_obj, user, group_obj, other][..],
            &[user_obj, group_obj, user, mask, other],
            &[user_obj, user, group_obj, mask],
            &[user_obj, user, group_obj, mask, mask, other],
            &[user_obj, user_obj, user, group_obj, mask, other],
            &[user_obj, (USER, 8, 70_000), group_obj, mask, other],
            &[user_obj, (USER, 4, NOBODY), user, group_obj, mask, other],
            &[user_obj, user, group_obj, (0x40, 7, 5), mask, other],
            &[user],
        ] {
            let list = acl(wrong).for_kernel(|id| id == 0, 0).unwrap();
            assert_eq!(list.0.len(), wrong.len(), "{wrong:?}");
            assert!(list.0.iter().all(|entry| entry.id != 70_000));
        }
    }

    #[test]
    fn entries_of_nobody_are_left_out() {
        let own = [(USER_OBJ, 6, NOBODY), (MASK, 4, NOBODY)];
        let known = acl(&[own[0], (USER, 4, 5), own[1]]);
        let both = acl(&[own[0], (USER, 4, 5), (GROUP, 4, NOBODY), own[1]]);
        assert_eq!(both.without_strangers(), Some(known));
        assert_eq!(acl(&own).without_strangers(), Some(acl(&own)));
        let strangers = acl(&[own[0], (USER, 4, NOBODY), own[1]]);
        assert_eq!(strangers.without_strangers(), None);
    }

    #[test]
    fn chmod_sets_the_mask_where_there_is_one() {
        let list = acl(&[
            (USER_OBJ, 6, NOBODY),
            (GROUP_OBJ, 5, NOBODY),
            (OTHER, 0, NOBODY),
        ]);
        let changed = list.with_mode(0o741);
        assert_eq!(
            changed
                .0
                .iter()
                .map(|entry| entry.permissions)
                .collect::<Vec<_>>(),
            [7, 4, 1]
        );
        let list = acl(&[(GROUP_OBJ, 5, NOBODY), (MASK, 7, NOBODY)]);
        let changed = list.with_mode(0o040);
        assert_eq!(
            changed
                .0
                .iter()
                .map(|entry| entry.permissions)
                .collect::<Vec<_>>(),
            [5, 4]
        );
    }
}
