//! Whether a thread may do something to another process, by the ids of both: kernel/signal.c,
//! kernel/sys.c, kernel/ptrace.c.

use super::{Capabilities, Credentials, capability};

/// What a thread wants to do to another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// kill(2): kill_ok_by_cred.
    Signal,
    /// setpriority(2): set_one_prio_perm.
    Renice,
    /// sched_setaffinity(2): kernel/sched/syscalls.c, sched_setaffinity.
    ChooseCpus,
    /// sched_setscheduler(2) and its relatives: user_check_sched_setscheduler.
    Schedule,
    /// ioprio_set(2): block/ioprio.c, set_task_ioprio.
    ChangeIoPriority,
    /// prlimit(2): check_prlimit_permission.
    Limit,
    /// ptrace(2), process_vm_readv(2), pidfd_getfd(2): __ptrace_may_access with
    /// PTRACE_MODE_ATTACH_REALCREDS.
    Trace,
}

impl Act {
    /// Whether the process must not have more capabilities: security/commoncap.c,
    /// cap_ptrace_access_check and cap_safe_nice.
    pub(crate) fn compares_capabilities(self) -> bool {
        !matches!(self, Self::Signal | Self::Limit)
    }

    /// The capability with which ids do not matter. `None`: one that the kernel asks for in the
    /// initial user namespace, where no container has any.
    pub(crate) fn capability(self) -> Option<u64> {
        match self {
            Self::Signal => Some(capability::KILL),
            Self::Renice | Self::ChooseCpus => Some(capability::SYS_NICE),
            Self::Schedule | Self::ChangeIoPriority => None,
            Self::Limit => Some(capability::SYS_RESOURCE),
            Self::Trace => Some(capability::SYS_PTRACE),
        }
    }
}

impl Credentials {
    /// Whether a thread with these credentials and no capability may do so to `other`.
    pub(crate) fn may(&self, act: Act, other: &Self) -> bool {
        let (own, theirs) = (&self.uid, &other.uid);
        match act {
            Act::Signal => [own.effective, own.real]
                .iter()
                .any(|uid| [theirs.saved, theirs.real].contains(uid)),
            Act::Renice | Act::ChooseCpus | Act::Schedule => {
                [theirs.effective, theirs.real].contains(&own.effective)
            }
            Act::ChangeIoPriority => [own.effective, own.real].contains(&theirs.real),
            Act::Limit | Act::Trace => {
                let gids = [other.gid.real, other.gid.effective, other.gid.saved];
                [theirs.real, theirs.effective, theirs.saved] == [own.real; 3]
                    && gids == [self.gid.real; 3]
            }
        }
    }
}

impl Capabilities {
    /// Whether no other capability is permitted to `others`.
    pub(crate) fn include_permitted(self, others: Self) -> bool {
        others.permitted & !self.permitted == 0
    }
}
