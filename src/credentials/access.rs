//! Whether a thread may do something to a file, by its fs ids: fs/namei.c, fs/attr.c.

use nix::fcntl::OFlag;

use super::{Capabilities, Credentials, EmulatedGid, EmulatedUid, Id, capability, securebits};

/// The owner that a chown(2) sets; `None` is the syscall's −1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OwnerChange {
    pub(crate) uid: Option<EmulatedUid>,
    pub(crate) gid: Option<EmulatedGid>,
}

/// The subject of a permission check: those parts of credentials that file permissions depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) uid: EmulatedUid,
    pub(crate) gid: EmulatedGid,
    /// Sorted.
    pub(crate) groups: Vec<EmulatedGid>,
    /// Effective capabilities.
    pub(crate) capabilities: u64,
}

/// The object of a permission check: the emulated owner of a file, and its mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileMode {
    pub(crate) uid: EmulatedUid,
    pub(crate) gid: EmulatedGid,
    /// st_mode
    pub(crate) mode: u32,
}

impl FileMode {
    /// The mode of a file with this emulated owner; ids that are `None` are those of `stat`.
    /// Returns `None` if an id of `stat` is −1.
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

    /// Whether the file is regular and has an execute bit. Without one, execve(2) fails for root,
    /// too.
    pub(crate) fn is_executable(self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFREG && self.mode & 0o111 != 0
    }

    pub(crate) fn is_directory(self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }
}

/// A mask of R_OK, W_OK and X_OK, as in access(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Access(u32);

impl Access {
    pub(crate) const READ: Self = Self(4);
    pub(crate) const WRITE: Self = Self(2);
    pub(crate) const EXECUTE: Self = Self(1);
    pub(crate) const READ_WRITE: Self = Self(6);
    /// Write and search permission for a directory, to create a file in it.
    pub(crate) const ENTER_TO_CREATE: Self = Self(3);

    /// What open(2) with these flags takes: fs/open.c, build_open_flags.
    pub(crate) fn of_open(flags: OFlag) -> Self {
        let access = match flags & OFlag::O_ACCMODE {
            OFlag::O_RDONLY => Self::READ,
            OFlag::O_WRONLY => Self::WRITE,
            _ => Self::READ_WRITE,
        };
        match flags.contains(OFlag::O_TRUNC) {
            true => access.and(Self::WRITE),
            false => access,
        }
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether `bits`, as those of one class of a mode, allow all of it.
    pub(crate) fn is_in(self, bits: u32) -> bool {
        self.0 & !bits == 0
    }

    /// Keeps only the three low bits of `bits`.
    pub(crate) fn from_bits(bits: u32) -> Self {
        Self(bits & 7)
    }
}

impl Credentials {
    /// The subject of most calls: the fs ids, with `capabilities` as the effective set.
    pub(crate) fn subject(self, capabilities: u64) -> Subject {
        Subject {
            uid: self.uid.fs,
            gid: self.gid.fs,
            groups: self.groups,
            capabilities,
        }
    }

    /// The subject of access(2): fs/open.c, access_override_creds.
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
    /// Whether all of `capabilities` are effective.
    pub(crate) fn has(&self, capabilities: u64) -> bool {
        self.capabilities & capabilities == capabilities
    }

    pub(crate) fn is_in_group(&self, gid: EmulatedGid) -> bool {
        self.gid == gid || self.groups.binary_search(&gid).is_ok()
    }

    /// Whether chown(2) may make `change` to a file of `uid`:`gid`: chown_ok and chgrp_ok.
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

    /// Whether the subject owns the file or has CAP_FOWNER: inode_owner_or_capable.
    pub(crate) fn owns(&self, file: FileMode) -> bool {
        self.uid == file.uid || self.has(capability::FOWNER)
    }

    /// Whether S_ISGID may be set on a file of `gid`; otherwise chmod(2) and creation clear it.
    pub(crate) fn may_set_group_id(&self, gid: EmulatedGid) -> bool {
        self.is_in_group(gid) || self.has(capability::FSETID)
    }

    /// Whether an access control list of the file, if it has one, decides: acl_permission_check.
    pub(crate) fn may_depend_on_list(&self, file: FileMode) -> bool {
        // The list's entry for the owner is in the mode, and so is its mask.
        self.uid != file.uid && file.mode & libc::S_IRWXG != 0
    }

    /// Whether `access` to the file is allowed: generic_permission, without access control lists.
    pub(crate) fn may(&self, access: Access, file: FileMode) -> bool {
        let shift = if self.uid == file.uid {
            6
        } else if self.is_in_group(file.gid) {
            3
        } else {
            0
        };
        // acl_permission_check: the first class that matches decides, even if a later one allows
        // more.
        access.is_in(file.mode >> shift) || self.overrides(access, file)
    }

    /// Whether capabilities allow `access` whatever the mode says: generic_permission.
    pub(crate) fn overrides(&self, access: Access, file: FileMode) -> bool {
        let is_directory = file.is_directory();
        let executes = access.0 & Access::EXECUTE.0 != 0;
        let writes = access.0 & Access::WRITE.0 != 0;
        if self.has(capability::DAC_READ_SEARCH) && !writes && (is_directory || !executes) {
            return true;
        }
        // Even CAP_DAC_OVERRIDE executes only files with an execute bit.
        self.has(capability::DAC_OVERRIDE) && (is_directory || !executes || file.mode & 0o111 != 0)
    }

    /// Whether the sticky bit of `directory` keeps the subject from removing `file` in it:
    /// check_sticky.
    pub(crate) fn is_kept_by_sticky(&self, directory: FileMode, file: FileMode) -> bool {
        directory.mode & libc::S_ISVTX != 0 && self.uid != directory.uid && !self.owns(file)
    }
}
