//! What a thread may do to a file, by its fs ids: fs/namei.c, fs/attr.c.

use super::{Capabilities, Credentials, EmulatedGid, EmulatedUid, Id, capability, securebits};

/// A change that chown(2) asks for; `None` is the syscall's −1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OwnerChange {
    pub(crate) uid: Option<EmulatedUid>,
    pub(crate) gid: Option<EmulatedGid>,
}

/// Who asks: what counts of credentials where files are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) uid: EmulatedUid,
    pub(crate) gid: EmulatedGid,
    pub(crate) groups: Vec<EmulatedGid>,
    /// Effective capabilities.
    pub(crate) capabilities: u64,
}

/// What a permission check looks at: the owner that is shown, and the mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileMode {
    pub(crate) uid: EmulatedUid,
    pub(crate) gid: EmulatedGid,
    /// st_mode
    pub(crate) mode: u32,
}

impl FileMode {
    /// Of a file with this fake owner, as far as there is one; `None` if an id is none.
    pub(crate) fn new(
        uid: Option<EmulatedUid>,
        gid: Option<EmulatedGid>,
        stat: &libc::stat,
    ) -> Option<Self> {
        Some(Self {
            uid: uid.or(EmulatedUid::new(stat.st_uid))?,
            gid: gid.or(EmulatedGid::new(stat.st_gid))?,
            mode: stat.st_mode,
        })
    }

    /// Whether execve(2) takes it from anybody.
    pub(crate) fn is_executable(self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFREG && self.mode & 0o111 != 0
    }

    pub(crate) fn is_directory(self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }
}

/// R_OK, W_OK, X_OK of access(2), added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Access(u32);

impl Access {
    pub(crate) const READ: Self = Self(4);
    pub(crate) const WRITE: Self = Self(2);
    pub(crate) const EXECUTE: Self = Self(1);
    pub(crate) const READ_WRITE: Self = Self(6);
    /// Write and search, of a directory.
    pub(crate) const ENTER_TO_CREATE: Self = Self(3);

    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The three low bits.
    pub(crate) fn from_bits(bits: u32) -> Self {
        Self(bits & 7)
    }
}

impl Credentials {
    /// Who asks, if `capabilities` are effective.
    pub(crate) fn subject(self, capabilities: u64) -> Subject {
        Subject {
            uid: self.uid.fs,
            gid: self.gid.fs,
            groups: self.groups,
            capabilities,
        }
    }

    /// Who asks by access(2): fs/open.c, access_override_creds.
    pub(crate) fn by_real_ids(self, sets: Capabilities) -> Subject {
        let capabilities = if self.securebits & securebits::NO_SETUID_FIXUP != 0 {
            sets.effective
        } else if self.uid.real == EmulatedUid::ROOT {
            sets.permitted
        } else {
            0
        };
        Subject {
            uid: self.uid.real,
            gid: self.gid.real,
            groups: self.groups,
            capabilities,
        }
    }
}

impl Subject {
    /// All of them, if there are several.
    pub(crate) fn has(&self, capabilities: u64) -> bool {
        self.capabilities & capabilities == capabilities
    }

    pub(crate) fn is_in_group(&self, gid: EmulatedGid) -> bool {
        self.gid == gid || self.groups.binary_search(&gid).is_ok()
    }

    /// Whether chown(2) may do `change` to a file of `uid`:`gid`: chown_ok and chgrp_ok.
    pub(crate) fn may_change_owner(
        &self,
        (uid, gid): (EmulatedUid, EmulatedGid),
        change: OwnerChange,
    ) -> bool {
        if self.has(capability::CHOWN) {
            return true;
        }
        let owns = self.uid == uid;
        let uid_ok = change.uid.is_none_or(|new| owns && new == uid);
        let gid_ok = change
            .gid
            .is_none_or(|new| owns && (new == gid || self.is_in_group(new)));
        uid_ok && gid_ok
    }

    /// inode_owner_or_capable
    pub(crate) fn owns(&self, file: FileMode) -> bool {
        self.uid == file.uid || self.has(capability::FOWNER)
    }

    /// Whether S_ISGID may be set on a file of `gid`: otherwise chmod(2) and creation clear it.
    pub(crate) fn may_set_group_id(&self, gid: EmulatedGid) -> bool {
        self.is_in_group(gid) || self.has(capability::FSETID)
    }

    /// generic_permission, without access control lists.
    pub(crate) fn may(&self, access: Access, file: FileMode) -> bool {
        let shift = if self.uid == file.uid {
            6
        } else if self.is_in_group(file.gid) {
            3
        } else {
            0
        };
        if access.0 & !(file.mode >> shift) == 0 {
            return true;
        }
        let is_directory = file.is_directory();
        let executes = access.0 & Access::EXECUTE.0 != 0;
        let writes = access.0 & Access::WRITE.0 != 0;
        if self.has(capability::DAC_READ_SEARCH) && !writes && (is_directory || !executes) {
            return true;
        }
        self.has(capability::DAC_OVERRIDE) && (is_directory || !executes || file.mode & 0o111 != 0)
    }
}
