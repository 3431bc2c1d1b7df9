//! The calls by which a thread changes its credentials, rule by rule as in kernel/sys.c,
//! kernel/groups.c and security/commoncap.c.
//!
//! A [`Change`] has the capabilities in any case, from the record or from the kernel;
//! [`Change::finish`] returns the credentials to record.

use nix::errno::Errno;

use super::{
    Capabilities, Credentials, EmulatedGid, EmulatedUid, Id, Ids, capability, securebits, sorted,
};

/// NGROUPS_MAX
pub(crate) const MAX_GROUPS: usize = 65_536;

/// CAP_FS_SET of linux/capability.h: the capabilities that follow fsuid.
const FS_SET: u64 = capability::CHOWN
    | capability::DAC_OVERRIDE
    | capability::DAC_READ_SEARCH
    | capability::FOWNER
    | capability::FSETID
    | capability::LINUX_IMMUTABLE
    | capability::MKNOD
    | capability::MAC_OVERRIDE;

/// The kind of ids that change, on which the effect on capabilities depends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fixup {
    Users,
    FsUser,
}

/// Credentials while a call changes them.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    now: Credentials,
    capabilities: Capabilities,
    /// The thread's capabilities to the kernel; `None` if the record has its own.
    kernel: Option<Capabilities>,
}

impl Change {
    /// Starts from `credentials`. `kernel` reads the thread's capabilities to the kernel; it is
    /// called only if the record leaves them to the kernel.
    pub(crate) fn of(
        credentials: Credentials,
        kernel: impl FnOnce() -> Result<Capabilities, Errno>,
    ) -> Result<Self, Errno> {
        let (capabilities, kernel) = match credentials.capabilities {
            Some(own) => (own, None),
            None => kernel().map(|kernel| (kernel, Some(kernel)))?,
        };
        Ok(Self {
            now: credentials,
            capabilities,
            kernel,
        })
    }

    /// The credentials to record.
    pub(crate) fn finish(self) -> Credentials {
        let unchanged = self.kernel == Some(self.capabilities);
        Credentials {
            capabilities: (!unchanged).then_some(self.capabilities),
            ..self.now
        }
    }

    fn has(&self, capability: u64) -> bool {
        self.capabilities.effective & capability != 0
    }

    pub(crate) fn setuid(&mut self, uid: EmulatedUid) -> Result<(), Errno> {
        let old = self.now.uid;
        let privileged = self.has(capability::SETUID);
        self.set_uids(set_one(old, uid, privileged)?);
        Ok(())
    }

    pub(crate) fn setgid(&mut self, gid: EmulatedGid) -> Result<(), Errno> {
        self.now.gid = set_one(self.now.gid, gid, self.has(capability::SETGID))?;
        Ok(())
    }

    pub(crate) fn setreuid(
        &mut self,
        real: Option<EmulatedUid>,
        effective: Option<EmulatedUid>,
    ) -> Result<(), Errno> {
        let privileged = self.has(capability::SETUID);
        self.set_uids(set_two(self.now.uid, real, effective, privileged)?);
        Ok(())
    }

    pub(crate) fn setregid(
        &mut self,
        real: Option<EmulatedGid>,
        effective: Option<EmulatedGid>,
    ) -> Result<(), Errno> {
        let privileged = self.has(capability::SETGID);
        self.now.gid = set_two(self.now.gid, real, effective, privileged)?;
        Ok(())
    }

    pub(crate) fn setresuid(&mut self, ids: [Option<EmulatedUid>; 3]) -> Result<(), Errno> {
        let privileged = self.has(capability::SETUID);
        if let Some(new) = set_three(self.now.uid, ids, privileged)? {
            self.set_uids(new);
        }
        Ok(())
    }

    pub(crate) fn setresgid(&mut self, ids: [Option<EmulatedGid>; 3]) -> Result<(), Errno> {
        let privileged = self.has(capability::SETGID);
        if let Some(new) = set_three(self.now.gid, ids, privileged)? {
            self.now.gid = new;
        }
        Ok(())
    }

    /// Never fails: setfsuid(2) returns the old id, whether or not it has changed it.
    pub(crate) fn setfsuid(&mut self, uid: Option<EmulatedUid>) -> EmulatedUid {
        let old = self.now.uid;
        let privileged = self.has(capability::SETUID);
        if let Some(uid) = uid.filter(|uid| old.includes(*uid) || privileged) {
            self.now.uid.fs = uid;
            self.fix_capabilities(old, Fixup::FsUser);
        }
        old.fs
    }

    pub(crate) fn setfsgid(&mut self, gid: Option<EmulatedGid>) -> EmulatedGid {
        let old = self.now.gid;
        let privileged = self.has(capability::SETGID);
        if let Some(gid) = gid.filter(|gid| old.includes(*gid) || privileged) {
            self.now.gid.fs = gid;
        }
        old.fs
    }

    /// Whether setgroups(2) is allowed; the kernel checks that before it reads the list.
    pub(crate) fn may_set_groups(&self) -> bool {
        self.has(capability::SETGID)
    }

    pub(crate) fn setgroups(&mut self, groups: Vec<EmulatedGid>) {
        self.now.groups = sorted(groups);
    }

    /// capset(2): security/commoncap.c, cap_capset.
    pub(crate) fn capset(&mut self, new: Capabilities, bounding: u64) -> Result<(), Errno> {
        let old = self.capabilities;
        let is_subset = |set: u64, of: u64| set & !of == 0;
        // cap_inh_is_capped: CAP_SETPCAP lifts the first limit, but not that of the bounding set.
        let inheritable_ok = (self.has(capability::SETPCAP)
            || is_subset(new.inheritable, old.inheritable | old.permitted))
            && is_subset(new.inheritable, old.inheritable | bounding);
        if !inheritable_ok
            || !is_subset(new.permitted, old.permitted)
            || !is_subset(new.effective, new.permitted)
        {
            return Err(Errno::EPERM);
        }
        let ambient = old.ambient & new.permitted & new.inheritable;
        self.capabilities = Capabilities { ambient, ..new };
        Ok(())
    }

    /// PR_SET_KEEPCAPS
    pub(crate) fn set_keep_capabilities(&mut self, keep: bool) -> Result<(), Errno> {
        if self.now.securebits & securebits::KEEP_CAPS_LOCKED != 0 {
            return Err(Errno::EPERM);
        }
        self.now.securebits &= !securebits::KEEP_CAPS;
        if keep {
            self.now.securebits |= securebits::KEEP_CAPS;
        }
        Ok(())
    }

    /// PR_SET_SECUREBITS: neither a lock nor a bit that it locks can change.
    pub(crate) fn set_securebits(&mut self, bits: u32) -> Result<(), Errno> {
        const ALL_BITS: u32 = 0x555;
        const ALL_LOCKS: u32 = ALL_BITS << 1;
        // Since Linux 6.14 these need no capability: SECBIT_EXEC_RESTRICT_FILE,
        // SECBIT_EXEC_DENY_INTERACTIVE and their locks.
        const UNPRIVILEGED: u32 = 0xf00;
        let old = self.now.securebits;
        let locked = (old & ALL_LOCKS) >> 1;
        let changed = old ^ bits;
        if locked & changed != 0
            || old & ALL_LOCKS & !bits != 0
            || bits & !(ALL_BITS | ALL_LOCKS) != 0
            || (!self.has(capability::SETPCAP) && (changed == 0 || changed & !UNPRIVILEGED != 0))
        {
            return Err(Errno::EPERM);
        }
        self.now.securebits = bits;
        Ok(())
    }

    /// PR_CAP_AMBIENT_RAISE
    pub(crate) fn raise_ambient(&mut self, set: u64) -> Result<(), Errno> {
        let sets = &mut self.capabilities;
        if sets.permitted & sets.inheritable & set == 0
            || self.now.securebits & securebits::NO_CAP_AMBIENT_RAISE != 0
        {
            return Err(Errno::EPERM);
        }
        sets.ambient |= set;
        Ok(())
    }

    /// PR_CAP_AMBIENT_LOWER, PR_CAP_AMBIENT_CLEAR_ALL
    pub(crate) fn lower_ambient(&mut self, set: u64) {
        self.capabilities.ambient &= !set;
    }

    fn set_uids(&mut self, new: Ids<EmulatedUid>) {
        let old = std::mem::replace(&mut self.now.uid, new);
        self.fix_capabilities(old, Fixup::Users);
    }

    /// security/commoncap.c, cap_task_fix_setuid.
    fn fix_capabilities(&mut self, old: Ids<EmulatedUid>, fixup: Fixup) {
        if self.now.securebits & securebits::NO_SETUID_FIXUP != 0 {
            return;
        }
        let new = self.now.uid;
        let sets = &mut self.capabilities;
        let root = EmulatedUid::ROOT;
        match fixup {
            Fixup::Users => {
                // None of the three ids is root's any more. KEEP_CAPS spares the permitted set, but
                // not the ambient one.
                if old.has_root() && !new.has_root() {
                    if self.now.securebits & securebits::KEEP_CAPS == 0 {
                        sets.permitted = 0;
                        sets.effective = 0;
                    }
                    sets.ambient = 0;
                }
                match (old.effective == root, new.effective == root) {
                    (true, false) => sets.effective = 0,
                    (false, true) => sets.effective = sets.permitted,
                    _ => {}
                }
            }
            Fixup::FsUser => match (old.fs == root, new.fs == root) {
                (true, false) => sets.effective &= !FS_SET,
                (false, true) => sets.effective |= sets.permitted & FS_SET,
                _ => {}
            },
        }
    }
}

impl<T: Id> Ids<T> {
    fn includes(self, id: T) -> bool {
        [self.real, self.effective, self.saved, self.fs].contains(&id)
    }

    /// Whether an unprivileged call may switch to `id`.
    fn own(self, id: T) -> bool {
        [self.real, self.effective, self.saved].contains(&id)
    }
}

impl Ids<EmulatedUid> {
    fn has_root(self) -> bool {
        self.own(EmulatedUid::ROOT)
    }
}

/// setuid(2), setgid(2)
fn set_one<T: Id>(old: Ids<T>, id: T, privileged: bool) -> Result<Ids<T>, Errno> {
    if privileged {
        return Ok(Ids::all(id));
    }
    if id != old.real && id != old.saved {
        return Err(Errno::EPERM);
    }
    Ok(Ids {
        effective: id,
        fs: id,
        ..old
    })
}

/// setreuid(2), setregid(2)
fn set_two<T: Id>(
    old: Ids<T>,
    real: Option<T>,
    effective: Option<T>,
    privileged: bool,
) -> Result<Ids<T>, Errno> {
    let real_ok = real.is_none_or(|id| id == old.real || id == old.effective);
    let effective_ok = effective.is_none_or(|id| old.own(id));
    if !(privileged || real_ok && effective_ok) {
        return Err(Errno::EPERM);
    }
    let new_effective = effective.unwrap_or(old.effective);
    // kernel/sys.c, __sys_setreuid: the saved id follows unless only the effective one is set, to
    // the old real id.
    let saves = real.is_some() || effective.is_some_and(|id| id != old.real);
    Ok(Ids {
        real: real.unwrap_or(old.real),
        effective: new_effective,
        saved: if saves { new_effective } else { old.saved },
        fs: new_effective,
    })
}

/// setresuid(2), setresgid(2). Returns `None` if nothing changes; then the fs id stays as it is
/// (Linux 6.2).
fn set_three<T: Id>(
    old: Ids<T>,
    [real, effective, saved]: [Option<T>; 3],
    privileged: bool,
) -> Result<Option<Ids<T>>, Errno> {
    let is_no_change = real.is_none_or(|id| id == old.real)
        && effective.is_none_or(|id| id == old.effective && id == old.fs)
        && saved.is_none_or(|id| id == old.saved);
    if is_no_change {
        return Ok(None);
    }
    let allowed = [real, effective, saved]
        .into_iter()
        .flatten()
        .all(|id| old.own(id));
    if !privileged && !allowed {
        return Err(Errno::EPERM);
    }
    let effective = effective.unwrap_or(old.effective);
    Ok(Some(Ids {
        real: real.unwrap_or(old.real),
        effective,
        saved: saved.unwrap_or(old.saved),
        fs: effective,
    }))
}
