//! The effect of execve(2) on credentials: fs/exec.c, bprm_fill_uid; security/commoncap.c,
//! cap_bprm_creds_from_file.

use super::{Capabilities, Credentials, EmulatedGid, EmulatedUid, Ids, securebits};

/// The file capabilities of a program (capabilities(7)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FileCapabilities {
    pub(crate) permitted: u64,
    pub(crate) inheritable: u64,
    pub(crate) effective: bool,
}

impl FileCapabilities {
    /// Decodes `security.capability` (linux/capability.h, struct vfs_cap_data): revision 2, and 3,
    /// whose root id is ignored. Returns `None` for other revisions and truncated values.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        const REVISION_MASK: u32 = 0xff00_0000;
        const REVISION_2: u32 = 0x0200_0000;
        const REVISION_3: u32 = 0x0300_0000;
        const EFFECTIVE: u32 = 1;
        let word = |index: usize| {
            let bytes = bytes.get(index * 4..index * 4 + 4)?;
            bytes.try_into().ok().map(u32::from_le_bytes)
        };
        let magic = word(0)?;
        if !matches!(magic & REVISION_MASK, REVISION_2 | REVISION_3) {
            return None;
        }
        let set = |low, high| Some(u64::from(word(high)?) << 32 | u64::from(word(low)?));
        Some(Self {
            permitted: set(1, 3)?,
            inheritable: set(2, 4)?,
            effective: magic & EFFECTIVE != 0,
        })
    }
}

/// The properties of a program that affect credentials. Set-ID bits and file capabilities are
/// `None` where the mount or no_new_privs disables them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) set_uid: Option<EmulatedUid>,
    pub(crate) set_gid: Option<EmulatedGid>,
    pub(crate) capabilities: Option<FileCapabilities>,
}

/// The state of the calling thread, in addition to its credentials, that execve(2) depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Circumstances {
    /// The thread's capabilities to the kernel.
    pub(crate) kernel: Capabilities,
    pub(crate) bounding: u64,
    pub(crate) no_new_privs: bool,
}

impl Credentials {
    /// Whether execve(2) of a program without set-ID bits and file capabilities changes nothing.
    pub(crate) fn survive_exec(&self) -> bool {
        // execve(2) resets the saved and fs ids; where the real id differs from the effective one,
        // no_new_privs and the ambient set matter, too.
        let settled = |ids: [u32; 4]| ids.iter().all(|id| *id == ids[0]);
        settled(raw(self.uid))
            && settled(raw(self.gid))
            && self.securebits & securebits::KEEP_CAPS == 0
            && match self.capabilities {
                // The kernel does what execve(2) does for root: to it, every process is root.
                None => self.is_root() && self.securebits & securebits::NOROOT == 0,
                Some(sets) => {
                    !self.is_root()
                        && sets.permitted == sets.ambient
                        && sets.effective == sets.ambient
                }
            }
    }

    /// kernel/groups.c, in_group_p.
    fn is_in_group(&self, gid: EmulatedGid) -> bool {
        self.gid.fs == gid || self.groups.binary_search(&gid).is_ok()
    }

    /// Whether execve(2) gives it root's capabilities.
    pub(crate) fn is_root(&self) -> bool {
        let root = EmulatedUid::ROOT;
        self.uid.real == root || self.uid.effective == root
    }

    /// Whether the kernel tells a program whose execution leads to `after` that it has gained
    /// something (AT_SECURE): security/commoncap.c, cap_bprm_creds_from_file.
    pub(crate) fn gains(&self, after: &Self, program: &Program) -> bool {
        let changes_ids =
            after.uid.effective != self.uid.effective || !self.is_in_group(after.gid.effective);
        let by_file = program.capabilities.is_some_and(|file| file.effective);
        let sets = after.capabilities.unwrap_or_default();
        changes_ids
            || after.uid.effective != self.uid.real
            || after.gid.effective != self.gid.real
            || after.uid.real != EmulatedUid::ROOT
                && (by_file || sets.permitted & !sets.ambient != 0)
    }

    /// The credentials after a successful execve(2) of `program`.
    pub(crate) fn after_exec(&self, program: &Program, now: &Circumstances) -> Self {
        let old = self.capabilities.unwrap_or(now.kernel);
        let (mut euid, mut egid) = (
            program.set_uid.unwrap_or(self.uid.effective),
            program.set_gid.unwrap_or(self.gid.effective),
        );
        let (mut permitted, mut effective) = match program.capabilities {
            Some(file) => (
                now.bounding & file.permitted | old.inheritable & file.inheritable,
                file.effective,
            ),
            None => (0, false),
        };
        let root = EmulatedUid::ROOT;
        // handle_privileged_root: a set-user-ID-root program that has file capabilities gets only
        // those, not root's.
        let is_set_root = self.uid.real != root && euid == root;
        let mixed = program.capabilities.is_some() && is_set_root;
        let mut whole = false;
        if self.securebits & securebits::NOROOT == 0 && !mixed {
            // As if the file had all capabilities, permitted and inheritable.
            if euid == root || self.uid.real == root {
                permitted = now.bounding | old.inheritable;
                whole = true;
            }
            effective |= euid == root;
        }
        // Linux 6.17. Before, ids that differed from the real ones counted as changed.
        let changes_ids = euid != self.uid.effective || !self.is_in_group(egid);
        // no_new_privs: the program runs, but gains nothing.
        if (changes_ids || permitted & !old.permitted != 0) && now.no_new_privs {
            (euid, egid) = (self.uid.real, self.gid.real);
            permitted &= old.permitted;
            whole = false;
        }
        // capabilities(7): a set-ID program, or one with capabilities, clears the ambient set.
        let ambient = match changes_ids || program.capabilities.is_some() {
            true => 0,
            false => old.ambient,
        };
        permitted |= ambient;
        let sets = Capabilities {
            permitted,
            effective: if effective { permitted } else { ambient },
            inheritable: old.inheritable,
            ambient,
        };
        // To the kernel every process is root: where root's rules apply, it arrives at the same
        // sets, and the record can leave them to it.
        let is_kernels = whole && effective && ambient == now.kernel.ambient;
        Self {
            uid: Ids {
                real: self.uid.real,
                ..Ids::all(euid)
            },
            gid: Ids {
                real: self.gid.real,
                ..Ids::all(egid)
            },
            groups: self.groups.clone(),
            securebits: self.securebits & !securebits::KEEP_CAPS,
            capabilities: (!is_kernels).then_some(sets),
        }
    }
}

fn raw<T: super::Id>(ids: Ids<T>) -> [u32; 4] {
    [ids.real, ids.effective, ids.saved, ids.fs].map(super::Id::as_raw)
}
