//! Access control lists with ids that the kernel does not map: acl(5), linux/posix_acl_xattr.h. Pure.
//!
//! The kernel refuses such a list. It gets one without those entries, which keeps the file's mode right, and the whole
//! list is kept beside; what chmod(2) has changed since is taken from the mode.

/// POSIX_ACL_XATTR_VERSION
const VERSION: u32 = 2;

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

/// A list, as it stands in the attributes `system.posix_acl_access` and `system.posix_acl_default`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Acl(Vec<Entry>);

impl Acl {
    /// `None` for bytes that are no list.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, entries) = bytes.split_first_chunk::<4>()?;
        let (entries, rest) = entries.as_chunks::<8>();
        if u32::from_le_bytes(*version) != VERSION || !rest.is_empty() {
            return None;
        }
        let entries = entries.iter().map(|&[a, b, c, d, e, f, g, h]| Entry {
            tag: u16::from_le_bytes([a, b]),
            permissions: u16::from_le_bytes([c, d]),
            id: u32::from_le_bytes([e, f, g, h]),
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

    /// The list without the entries that `is_mapped` does not know; `None` if it knows all.
    pub(crate) fn mapped(&self, is_mapped: impl Fn(u32) -> bool) -> Option<Self> {
        let is_kept = |entry: &&Entry| !matches!(entry.tag, USER | GROUP) || is_mapped(entry.id);
        let kept: Vec<Entry> = self.0.iter().filter(is_kept).copied().collect();
        // (uid_t) −1 is nobody's: the kernel says so.
        let is_wrong = |entry: &Entry| matches!(entry.tag, USER | GROUP) && entry.id == u32::MAX;
        (kept.len() < self.0.len() && !self.0.iter().any(is_wrong)).then_some(Self(kept))
    }

    /// The list without entries of nobody that can be named here, which read as −1; `None` if that were all it had.
    pub(crate) fn without_strangers(self) -> Option<Self> {
        let is_named = |entry: &Entry| matches!(entry.tag, USER | GROUP);
        let is_known = |entry: &Entry| !is_named(entry) || entry.id != u32::MAX;
        let all = self.0.len();
        let known: Vec<Entry> = self.0.into_iter().filter(is_known).collect();
        (known.len() == all || known.iter().any(is_named)).then_some(Self(known))
    }

    /// The list of a file whose permission bits are those of `mode` by now.
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

    const NOBODY: u32 = u32::MAX;

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
        let mapped = list.mapped(|id| id == 0).unwrap();
        assert_eq!(mapped.0.len(), 5);
        assert_eq!(mapped.mapped(|id| id == 0), None);
        assert_eq!(acl(&[(USER, 4, NOBODY)]).mapped(|_| false), None);
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
