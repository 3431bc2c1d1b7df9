//! User namespaces (user_namespaces(7)): their id maps, and how to enter a new one.

use std::fmt::Display;
use std::fs;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use crate::error::Error;
use crate::linux::errno_of;
use crate::linux::name::Name;
use crate::linux::procfs;
use crate::linux::settings::blame_for_namespace;
use crate::linux::sys;

/// The contents of uid_map or gid_map. Outside ids are those of the user namespace of the process
/// that read the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct IdMap(Vec<Range>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    inside: u32,
    outside: u32,
    count: u32,
}

impl IdMap {
    /// A map with these ranges, given as first id and length. The outside ids are made equal: for
    /// uses that need only [`IdMap::contains`].
    pub(crate) fn of_ranges(ranges: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let range = |(inside, count)| Range {
            inside,
            outside: inside,
            count,
        };
        Self(ranges.into_iter().map(range).collect())
    }

    fn parse(text: &str) -> Result<Self, Errno> {
        let range = |line: &str| {
            let mut numbers = line.split_ascii_whitespace().map(|number| number.parse());
            let mut next = || numbers.next()?.ok();
            Some(Range {
                inside: next()?,
                outside: next()?,
                count: next()?,
            })
        };
        let ranges: Option<Vec<Range>> = text.lines().map(range).collect();
        ranges.map(Self).ok_or(Errno::EINVAL)
    }

    /// Whether an id of the namespace is mapped.
    pub(crate) fn contains(&self, id: u32) -> bool {
        self.outside(id).is_some()
    }

    /// The outside id of an id in the namespace. Returns `None` if it is not mapped.
    pub(crate) fn outside(&self, id: u32) -> Option<u32> {
        self.0.iter().find_map(|range| {
            let offset = id.checked_sub(range.inside)?;
            (offset < range.count).then(|| range.outside.saturating_add(offset))
        })
    }

    /// The mapped id, if it is the only one.
    pub(crate) fn only(&self) -> Option<u32> {
        match self.0[..] {
            [
                Range {
                    inside, count: 1, ..
                },
            ] => Some(inside),
            _ => None,
        }
    }

    /// The first mapped id, if any.
    pub(crate) fn first(&self) -> Option<u32> {
        self.0.first().map(|range| range.inside)
    }

    pub(crate) fn has_one_id(&self) -> bool {
        matches!(self.0[..], [Range { count: 1, .. }])
    }
}

/// Both maps of a user namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdMaps {
    pub(crate) uids: IdMap,
    pub(crate) gids: IdMap,
}

impl IdMaps {
    /// Reads the maps of the user namespace of a process, which is given as its directory in
    /// procfs, like `/proc/self`.
    pub(crate) fn of(process: impl Display) -> Result<Self, Errno> {
        let read = |file| {
            let name = Name::format(format_args!("{process}/{file}"));
            IdMap::parse(&procfs::read(&name)?)
        };
        Ok(Self {
            uids: read("uid_map")?,
            gids: read("gid_map")?,
        })
    }

    /// Maps that contain only root.
    pub(crate) fn root_only() -> Self {
        let root = IdMap::of_ranges([(0, 1)]);
        Self {
            uids: root.clone(),
            gids: root,
        }
    }

    /// Whether both maps have been written. Each can be written once; until then it is empty.
    pub(crate) fn are_written(&self) -> bool {
        !self.uids.0.is_empty() && !self.gids.0.is_empty()
    }

    /// Whether both maps contain all ids, as those of the initial user namespace do.
    pub(crate) fn are_all(&self) -> bool {
        let is_all = |map: &IdMap| map.0.iter().any(|range| range.count == u32::MAX);
        is_all(&self.uids) && is_all(&self.gids)
    }
}

/// The step of entering a new user namespace that the kernel refused.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) step: String,
    pub(crate) errno: Errno,
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let told = geteuid().as_raw();
        let status = procfs::Status::of("/proc/self").ok();
        match status.and_then(|status| status.effective_uid()) {
            Some(uid) if uid != told => Self::FalseIds { told },
            _ => {
                let (reason, change) = blame_for_namespace(&refusal.step, refusal.errno);
                Self::NoUserNamespace { reason, change }
            }
        }
    }
}

const USER: &str = "unshare(CLONE_NEWUSER)";
const MOUNTS: &str = "unshare(CLONE_NEWNS) as its root";

/// Moves this process, which must have one thread, into a new user namespace in which its own id is
/// root, and the only mapped one.
pub(crate) fn enter() -> Result<(), Refusal> {
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(refused(USER))?;
    let write = |file: &str, text: &str| {
        fs::write(file, text)
            .map_err(errno_of)
            .map_err(refused(&format!("writing {file}")))
    };
    // user_namespaces(7): without CAP_SETGID in the parent, gid_map can be written only after
    // "deny".
    write("/proc/self/setgroups", "deny")?;
    write("/proc/self/uid_map", &format!("0 {uid} 1\n"))?;
    write("/proc/self/gid_map", &format!("0 {gid} 1\n"))
}

/// As [`enter`], and also into a new mount namespace, which the new user namespace owns.
pub(crate) fn enter_with_mounts() -> Result<(), Refusal> {
    enter()?;
    unshare(CloneFlags::CLONE_NEWNS).map_err(refused(MOUNTS))
}

/// Why this process, which must have one thread, could not [`enter_with_mounts`], if it could not.
pub(crate) fn refusal() -> Option<Refusal> {
    type Step = fn() -> Result<(), Refusal>;
    let steps: [(&str, Step); 2] = [(USER, enter), (MOUNTS, enter_with_mounts)];
    steps.into_iter().find_map(|(step, enter)| {
        let refused_with = || enter().map_or_else(|refusal| refusal.errno as i32, |()| 0);
        match sys::in_fork(refused_with) {
            Ok(0) | Err(_) => None,
            Ok(errno) => Some(refused(step)(Errno::from_raw(errno))),
        }
    })
}

fn refused(step: &str) -> impl FnOnce(Errno) -> Refusal {
    |errno| Refusal {
        step: step.to_owned(),
        errno,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ids_in_a_line_of_the_map_are_mapped() {
        let map = IdMap::parse("         0       1001          1\n     1000 100000 5\n").unwrap();
        assert_eq!(map.outside(0), Some(1001));
        assert_eq!(map.outside(1004), Some(100_004));
        for id in [1, 999, 1005, 65534] {
            assert!(!map.contains(id));
        }
        let full = IdMap::parse("0 0 4294967295").unwrap();
        assert!(full.contains(4_294_967_294) && !full.contains(u32::MAX));
        assert!(IdMap::parse("0 0").is_err());
        let maps = IdMaps {
            uids: full.clone(),
            gids: full,
        };
        assert!(maps.are_all() && !IdMaps::root_only().are_all());
    }
}
