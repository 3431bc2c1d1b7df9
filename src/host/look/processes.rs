//! Finds the processes of a container.
//!
//! procfs does not say which seccomp filter a process has. But a worker reports the namespaces that
//! it has joined: processes in the same mount namespace belong to the container, and so do all
//! their descendants, even in other namespaces (orphans become children of the container's init).
//! If the container has no mount namespace of its own, the pid namespace decides, and without that
//! one the user namespace.

use std::collections::{BTreeSet, HashMap};
use std::os::unix::fs::MetadataExt;

use crate::linux::procfs::Stat;
use crate::wire::ask::Namespaces;

/// All processes that this one can see.
#[derive(Debug)]
pub(super) struct Processes {
    own: Namespaces,
    all: HashMap<u32, Process>,
}

#[derive(Debug)]
struct Process {
    parent: u32,
    namespaces: Namespaces,
}

impl Processes {
    pub(super) fn read() -> Self {
        let all = std::fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .filter_map(|entry| {
                let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
                let parent = Stat::of(format_args!("/proc/{pid}")).ok()?.parent()?;
                let namespaces = namespaces(&pid.to_string());
                Some((pid, Process { parent, namespaces }))
            })
            .collect();
        Self {
            own: namespaces("self"),
            all,
        }
    }

    /// The processes of the container whose worker has joined `joined`, except `workers`.
    pub(super) fn of(&self, joined: Namespaces, workers: &BTreeSet<u32>) -> BTreeSet<u32> {
        let Some(is_inside) = self.rule(joined) else {
            return BTreeSet::new();
        };
        let mut found: BTreeSet<u32> = self
            .all
            .iter()
            .filter(|(pid, process)| !workers.contains(pid) && is_inside(process.namespaces))
            .map(|(pid, _)| *pid)
            .collect();
        loop {
            let more: Vec<u32> = self
                .all
                .iter()
                .filter(|(pid, process)| !found.contains(pid) && found.contains(&process.parent))
                .map(|(pid, _)| *pid)
                .collect();
            if more.is_empty() {
                return found;
            }
            found.extend(more);
        }
    }

    /// A predicate for the processes of the container. Returns `None` if it has no namespace of its
    /// own, or has not been joined yet.
    fn rule(&self, joined: Namespaces) -> Option<impl Fn(Namespaces) -> bool> {
        let kinds: [fn(Namespaces) -> u64; 3] = [|all| all.mount, |all| all.pid, |all| all.user];
        let tells =
            |kind: &fn(Namespaces) -> u64| kind(joined) != 0 && kind(joined) != kind(self.own);
        let kind = kinds.into_iter().find(tells)?;
        Some(move |namespaces| kind(namespaces) == kind(joined))
    }
}

/// The namespaces of a process; 0 for those that may not be read.
fn namespaces(process: &str) -> Namespaces {
    let inode = |kind: &str| {
        let found = std::fs::metadata(format!("/proc/{process}/ns/{kind}"));
        found.map_or(0, |found| found.ino())
    };
    Namespaces {
        pid: inode("pid"),
        mount: inode("mnt"),
        user: inode("user"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(parent: u32, mount: u64, pid: u64) -> Process {
        let namespaces = Namespaces {
            pid,
            mount,
            user: 9,
        };
        Process { parent, namespaces }
    }

    #[test]
    fn descendants_belong_to_the_container_wherever_they_went_and_the_worker_does_not() {
        let all = [
            (1, process(0, 1, 1)),
            (10, process(1, 2, 2)),
            (11, process(10, 3, 2)),
            (12, process(11, 4, 4)),
            (20, process(1, 2, 1)),
            (30, process(1, 7, 7)),
        ];
        let processes = Processes {
            own: Namespaces {
                pid: 1,
                mount: 1,
                user: 1,
            },
            all: HashMap::from(all),
        };
        let of = |joined| -> Vec<u32> {
            let workers = BTreeSet::from([20]);
            processes.of(joined, &workers).into_iter().collect()
        };
        let mut joined = Namespaces {
            pid: 2,
            mount: 2,
            user: 9,
        };
        assert_eq!(of(joined), [10, 11, 12]);
        // Without a mount namespace of its own.
        joined.mount = 1;
        assert_eq!(of(joined), [10, 11, 12]);
        // Not joined yet.
        assert!(of(Namespaces::default()).is_empty());
    }
}
