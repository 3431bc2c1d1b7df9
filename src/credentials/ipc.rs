//! Whether a thread may do something to a System V IPC object: ipc/util.c.

use super::{EmulatedGid, EmulatedUid, Subject, capability};

/// Those parts of `struct kern_ipc_perm` that permissions depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IpcMode {
    pub(crate) owner: (EmulatedUid, EmulatedGid),
    pub(crate) creator: (EmulatedUid, EmulatedGid),
    pub(crate) mode: u32,
}

/// The subject of these checks: its effective uid counts. The groups are those of file permissions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IpcSubject {
    pub(crate) uid: EmulatedUid,
    pub(crate) gid: EmulatedGid,
    pub(crate) subject: Subject,
}

impl IpcSubject {
    /// Whether `requested`, which has the bits of any of the three classes, is allowed: ipcperms.
    pub(crate) fn may(&self, requested: u32, object: &IpcMode) -> bool {
        let requested = requested >> 6 | requested >> 3 | requested;
        let is_in_group = |gid| self.subject.is_in_group(gid);
        let granted = if self.is_owner(object) {
            object.mode >> 6
        } else if is_in_group(object.creator.1) || is_in_group(object.owner.1) {
            object.mode >> 3
        } else {
            object.mode
        };
        requested & !granted & 0o7 == 0 || self.subject.has(capability::IPC_OWNER)
    }

    fn is_owner(&self, object: &IpcMode) -> bool {
        self.uid == object.creator.0 || self.uid == object.owner.0
    }

    /// Whether the object may be changed and removed: ipcctl_obtain_check.
    pub(crate) fn may_change(&self, object: &IpcMode) -> bool {
        self.is_owner(object) || self.subject.has(capability::SYS_ADMIN)
    }

    /// Whether a segment may be locked into memory: ipc/shm.c, shmctl_do_lock.
    pub(crate) fn may_lock(&self, object: &IpcMode) -> bool {
        self.is_owner(object) || self.subject.has(capability::IPC_LOCK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::Id;

    fn pair(uid: u32, gid: u32) -> (EmulatedUid, EmulatedGid) {
        (
            EmulatedUid::new(uid).unwrap(),
            EmulatedGid::new(gid).unwrap(),
        )
    }

    fn subject(uid: u32, gid: u32, capabilities: u64) -> IpcSubject {
        let (uid, gid) = pair(uid, gid);
        let subject = Subject {
            uid,
            gid,
            groups: vec![pair(0, 7).1],
            capabilities,
        };
        IpcSubject { uid, gid, subject }
    }

    #[test]
    fn the_first_class_that_matches_decides() {
        let object = IpcMode {
            owner: pair(1, 2),
            creator: pair(3, 7),
            mode: 0o426,
        };
        for owner in [1, 3] {
            assert!(subject(owner, 9, 0).may(0o444, &object));
            assert!(!subject(owner, 9, 0).may(0o222, &object));
            assert!(!subject(owner, 9, 0).may(0o600, &object));
        }
        // In the group of its creator.
        assert!(subject(5, 9, 0).may(0o222, &object));
        assert!(!subject(5, 9, 0).may(0o400, &object));
        let stranger = |capabilities| IpcSubject {
            subject: Subject {
                groups: Vec::new(),
                ..subject(5, 9, capabilities).subject
            },
            ..subject(5, 9, 0)
        };
        assert!(stranger(0).may(0o666, &object) && !stranger(0).may(0o111, &object));
        assert!(stranger(capability::IPC_OWNER).may(0o777, &object));
        assert!(!stranger(capability::IPC_OWNER).may_change(&object));
        assert!(stranger(capability::SYS_ADMIN).may_change(&object));
        assert!(subject(3, 9, 0).may_change(&object) && subject(1, 9, 0).may_lock(&object));
        assert!(!stranger(capability::SYS_ADMIN).may_lock(&object));
        assert!(stranger(capability::IPC_LOCK).may_lock(&object));
    }
}
