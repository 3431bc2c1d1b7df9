//! Ids and credentials as a target sees them. Pure: no system calls.
//!
//! nix's `Uid` and `Gid` are always ids of the host; [`EmulatedUid`] and [`EmulatedGid`] are what the container sees.

/// A user id inside the container; never the syscalls' −1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EmulatedUid(u32);

/// A group id inside the container; never the syscalls' −1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EmulatedGid(u32);

/// (uid_t) −1: "leave it" in chown(2), "not set" in `user.rootlesscontainers`.
const UNCHANGED: u32 = u32::MAX;

impl EmulatedUid {
    pub(crate) const ROOT: Self = Self(0);

    /// `None` for −1.
    pub(crate) fn new(id: u32) -> Option<Self> {
        (id != UNCHANGED).then_some(Self(id))
    }

    pub(crate) fn as_raw(self) -> u32 {
        self.0
    }
}

impl EmulatedGid {
    pub(crate) const ROOT: Self = Self(0);

    /// `None` for −1.
    pub(crate) fn new(id: u32) -> Option<Self> {
        (id != UNCHANGED).then_some(Self(id))
    }

    pub(crate) fn as_raw(self) -> u32 {
        self.0
    }
}

/// The capabilities that this program asks about, as bits of capget(2).
pub(crate) mod capability {
    pub(crate) const CHOWN: u64 = 1 << 0;
    pub(crate) const DAC_OVERRIDE: u64 = 1 << 1;
    pub(crate) const DAC_READ_SEARCH: u64 = 1 << 2;
    pub(crate) const FOWNER: u64 = 1 << 3;
    pub(crate) const FSETID: u64 = 1 << 4;
    pub(crate) const SETFCAP: u64 = 1 << 31;
    pub(crate) const SYS_CHROOT: u64 = 1 << 18;
    pub(crate) const SYS_PTRACE: u64 = 1 << 19;
}

/// What a target may do to owners of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) fsuid: EmulatedUid,
    pub(crate) fsgid: EmulatedGid,
    pub(crate) effective_capabilities: u64,
}

/// A change that chown(2) asks for; `None` is the syscall's −1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OwnerChange {
    pub(crate) uid: Option<EmulatedUid>,
    pub(crate) gid: Option<EmulatedGid>,
}

impl Credentials {
    /// Whether chown(2) may do `change` to a file of `uid`:`gid`: fs/attr.c, chown_ok and chgrp_ok.
    pub(crate) fn may_change_owner(
        &self,
        (uid, gid): (EmulatedUid, EmulatedGid),
        change: OwnerChange,
    ) -> bool {
        if self.effective_capabilities & capability::CHOWN != 0 {
            return true;
        }
        let owns = self.fsuid == uid;
        let uid_ok = change.uid.is_none_or(|new| owns && new == uid);
        let gid_ok = change
            .gid
            .is_none_or(|new| owns && (new == gid || new == self.fsgid));
        uid_ok && gid_ok
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(id: u32) -> EmulatedUid {
        EmulatedUid::new(id).unwrap()
    }

    fn gid(id: u32) -> EmulatedGid {
        EmulatedGid::new(id).unwrap()
    }

    #[test]
    fn minus_one_is_no_id_and_every_other_number_is() {
        assert_eq!(EmulatedUid::new(u32::MAX), None);
        assert_eq!(uid(u32::MAX - 1).as_raw(), 4_294_967_294);
    }

    #[test]
    fn without_cap_chown_an_owner_may_only_keep_the_uid_and_give_its_own_group() {
        let user = Credentials {
            fsuid: uid(7),
            fsgid: gid(8),
            effective_capabilities: 0,
        };
        let change = |uid, gid| OwnerChange { uid, gid };
        let own = (uid(7), gid(9));
        assert!(user.may_change_owner(own, change(None, None)));
        assert!(user.may_change_owner(own, change(Some(uid(7)), Some(gid(8)))));
        assert!(user.may_change_owner(own, change(None, Some(gid(9)))));
        assert!(!user.may_change_owner(own, change(Some(uid(0)), None)));
        assert!(!user.may_change_owner(own, change(None, Some(gid(10)))));
        assert!(!user.may_change_owner((uid(1), gid(8)), change(None, Some(gid(8)))));
        let root = Credentials {
            effective_capabilities: capability::CHOWN,
            ..user
        };
        assert!(root.may_change_owner((uid(1), gid(1)), change(Some(uid(2)), None)));
    }
}
