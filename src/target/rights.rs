//! A target's own rights, for what its words name in procfs.
//!
//! A worker holds CAP_SYS_PTRACE, without which it could not look into its targets, and more
//! capabilities over files than many of them. So what a path of the target's own words finds in
//! procfs is looked up with the target's capabilities and no others: then the kernel decides about
//! `root`, `cwd`, `exe`, `fd/N`, `ns/*` and `map_files` of other processes as it would for the
//! target itself (kernel/ptrace.c, __ptrace_may_access).

use nix::errno::Errno;

use super::Call;
use crate::credentials::Capabilities;
use crate::sys;

/// The effective capabilities of a target, as far as the container's user namespace knows them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rights(u64);

impl Rights {
    /// Runs `work` with these capabilities and no others.
    pub(super) fn lend<T>(self, work: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
        let own = sys::capabilities(0)?;
        sys::set_capabilities(self.0 & own.permitted, own.permitted)?;
        let _back = Back(own);
        work()
    }
}

/// The capabilities that this thread gets back at the end.
struct Back(Capabilities);

impl Drop for Back {
    fn drop(&mut self) {
        // What is permitted may always be made effective again (capabilities(7)).
        let _ = sys::set_capabilities(self.0.effective, self.0.permitted);
    }
}

impl Call<'_> {
    /// The rights of the target. One that lives in a user namespace below the container's has none.
    pub(super) fn rights(&self) -> Result<Rights, Errno> {
        let effective = match self.is_in_namespace()? {
            true => sys::capabilities(self.pid())?.effective,
            false => 0,
        };
        self.ensure_waiting()?;
        Ok(Rights(effective))
    }

    /// Runs `work`, which looks something up, with the target's rights.
    pub(super) fn with_own_rights<T>(
        &self,
        work: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        self.rights()?.lend(work)
    }
}
