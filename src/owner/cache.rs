//! A cache of what a service thread has found out about files, above all their owners. It stays
//! valid while the inode does not change.
//!
//! Setting or removing an extended attribute updates the inode's ctime, so (device, inode, ctime)
//! identifies one version of the owner. With the cache a single stat tells which inode a path leads
//! to *and* its owner: a rename between a stat and a getxattr cannot mix two files. Only
//! times older than a clock tick count, because two changes within one tick may have the same
//! ctime; and only file systems that are known to update ctime.

use nix::errno::Errno;
use nix::sys::statfs::FsType;
use nix::time::{ClockId, clock_gettime};

use super::record::Owner;
use crate::linux::hash::spread;

/// Twice the longest tick of a Linux clock (HZ=100), in nanoseconds.
const SETTLED_AFTER: i64 = 20_000_000;

const SECOND: i64 = 1_000_000_000;

/// File systems that update ctime with each change of an extended attribute.
const KEEPS_CTIME: [FsType; 5] = [
    nix::sys::statfs::EXT4_SUPER_MAGIC,
    nix::sys::statfs::XFS_SUPER_MAGIC,
    nix::sys::statfs::BTRFS_SUPER_MAGIC,
    nix::sys::statfs::TMPFS_MAGIC,
    nix::sys::statfs::OVERLAYFS_SUPER_MAGIC,
];

/// One version of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// Nanoseconds since the epoch.
    pub(crate) changed: i64,
}

impl Version {
    pub(crate) fn of(stat: &libc::stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            changed: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
        }
    }

    /// Returns `None` if statx(2) returned no inode number or no ctime.
    pub(crate) fn of_statx(statx: &libc::statx) -> Option<Self> {
        let needed = libc::STATX_INO | libc::STATX_CTIME;
        (statx.stx_mask & needed == needed).then(|| Self {
            device: libc::makedev(statx.stx_dev_major, statx.stx_dev_minor),
            inode: statx.stx_ino,
            changed: nanoseconds(statx.stx_ctime.tv_sec, i64::from(statx.stx_ctime.tv_nsec)),
        })
    }

    /// Whether the next change of the inode is certain to get another ctime. False for a ctime in
    /// the future: the clock may reach it again.
    pub(crate) fn is_settled(self) -> bool {
        // ext2, ext3, and ext4 with 128-byte inodes store whole seconds.
        let settled_after = if self.is_in_seconds() {
            2 * SECOND
        } else {
            SETTLED_AFTER
        };
        // The clock that ctime is read from (fs/inode.c, current_time). Where a tick is late, as in
        // a virtual machine that waits for a processor, it stands still for longer than ticks take.
        clock_gettime(ClockId::CLOCK_REALTIME_COARSE).is_ok_and(|now| {
            nanoseconds(now.tv_sec(), now.tv_nsec()) - self.changed > settled_after
        })
    }

    /// Whether the file system may store whole seconds only.
    pub(crate) fn is_in_seconds(self) -> bool {
        self.changed % SECOND == 0
    }

    fn place(self, entries: usize) -> usize {
        spread(self.device, self.inode) % entries
    }
}

fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds.saturating_mul(SECOND).saturating_add(nanoseconds)
}

/// A direct-mapped cache, one for each service thread: no lock, and a collision only costs a
/// lookup.
#[derive(Debug)]
pub(crate) struct Cache<T, const ENTRIES: usize> {
    /// Empty until the first insertion.
    entries: Vec<Option<(Version, T)>>,
    /// Devices, and whether their file systems are in [`KEEPS_CTIME`].
    devices: Vec<(u64, bool)>,
}

/// Owners of files.
pub(crate) type OwnerCache = Cache<Owner, 2048>;

impl<T, const ENTRIES: usize> Default for Cache<T, ENTRIES> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            devices: Vec::new(),
        }
    }
}

impl<T: Copy, const ENTRIES: usize> Cache<T, ENTRIES> {
    /// Returns what is cached of exactly this version.
    pub(crate) fn get(&self, version: Version) -> Option<T> {
        match self.entries.get(version.place(ENTRIES)) {
            Some(Some((known, found))) if *known == version => Some(*found),
            _ => None,
        }
    }

    /// Stores what was found of `version`, if that is settled. It must have been read *after* the
    /// version: if the inode changed in between, the next stat shows another version.
    ///
    /// `file_system` is called once for each device.
    pub(crate) fn insert(
        &mut self,
        version: Version,
        found: T,
        file_system: impl FnOnce() -> Result<FsType, Errno>,
    ) {
        if !version.is_settled() || !self.keeps_ctime(version.device, file_system) {
            return;
        }
        if self.entries.is_empty() {
            self.entries.resize(ENTRIES, None);
        }
        self.entries[version.place(ENTRIES)] = Some((version, found));
    }

    /// Whether the device's file system updates ctime. Calls `file_system` if the device is not
    /// known.
    fn keeps_ctime(
        &mut self,
        device: u64,
        file_system: impl FnOnce() -> Result<FsType, Errno>,
    ) -> bool {
        const DEVICES: usize = 32;
        if let Some((_, keeps)) = self.devices.iter().find(|(known, _)| *known == device) {
            return *keeps;
        }
        let keeps = file_system().is_ok_and(|magic| KEEPS_CTIME.contains(&magic));
        if self.devices.len() == DEVICES {
            self.devices.clear();
        }
        self.devices.push((device, keeps));
        keeps
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::EmulatedUid;

    const OWNER: Owner = Owner {
        uid: Some(EmulatedUid::ROOT),
        gid: None,
        device: None,
        hands_down_list: false,
    };

    fn version(inode: u64, changed: i64) -> Version {
        Version {
            device: 1,
            inode,
            changed,
        }
    }

    #[test]
    fn only_the_very_same_version_is_known() {
        let mut cache = OwnerCache::default();
        cache.insert(version(2, 3), OWNER, || Ok(KEEPS_CTIME[0]));
        assert_eq!(cache.get(version(2, 3)), Some(OWNER));
        assert_eq!(cache.get(version(2, 4)), None);
        assert_eq!(cache.get(version(3, 3)), None);
    }

    #[test]
    fn a_version_of_just_now_and_one_of_the_future_are_not_kept() {
        let mut cache = OwnerCache::default();
        let now = clock_gettime(ClockId::CLOCK_REALTIME).unwrap();
        let now = nanoseconds(now.tv_sec(), now.tv_nsec());
        for changed in [now, now + 1_000_000_000_000] {
            cache.insert(version(2, changed), OWNER, || Ok(KEEPS_CTIME[0]));
            assert_eq!(cache.get(version(2, changed)), None);
        }
    }

    /// Fails with CLOCK_REALTIME where ticks are late, as in a virtual machine that shares its
    /// processors.
    #[test]
    fn what_changes_a_settled_version_makes_another_one() {
        let file = tempfile::tempfile().unwrap();
        let version = || Version::of(&nix::sys::stat::fstat(&file).unwrap());
        for mode in 0..40 {
            let before = version();
            while !before.is_settled() {
                std::thread::yield_now();
            }
            let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o600 | mode & 1);
            file.set_permissions(permissions).unwrap();
            assert_ne!(version(), before);
        }
    }

    #[test]
    fn file_systems_that_may_not_move_ctime_are_not_kept() {
        let mut cache = OwnerCache::default();
        cache.insert(version(2, 3), OWNER, || {
            Ok(nix::sys::statfs::NFS_SUPER_MAGIC)
        });
        assert_eq!(cache.get(version(2, 3)), None);
    }
}
