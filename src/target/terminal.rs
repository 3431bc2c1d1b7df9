//! The owner of a new terminal.

use nix::sys::stat::{FileStat, major, minor};

use super::Container;
use crate::credentials::{EmulatedGid, EmulatedUid, Id};
use crate::linux::mountinfo::Mounts;
use crate::linux::procfs;
use crate::owner::Owner;

impl Container {
    /// The owner of the terminal with this `stat`, which the target `pid` has opened by `ptmx` with
    /// these fs ids: fs/devpts/inode.c, devpts_pty_new.
    pub(crate) fn owner_of_new_terminal(
        &self,
        pid: u32,
        (ptmx, stat): (&FileStat, &FileStat),
        (uid, gid): (EmulatedUid, EmulatedGid),
    ) -> Owner {
        let initial = &self.identities.initial;
        let by_mount = self.owners.owner_by_mount(ptmx);
        let option = |name| option_of_mount(pid, stat, name);
        Owner {
            uid: by_mount
                .uid
                .or_else(|| by_option(option("uid"), stat.st_uid, uid, initial.uid.fs)),
            gid: by_mount
                .gid
                .or_else(|| by_option(option("gid"), stat.st_gid, gid, initial.gid.fs)),
            ..Owner::default()
        }
    }
}

/// The id of a terminal for which the kernel shows `shown`, whose opener has `id`; `None`: the
/// kernel is right. `option` is that of the mount, as the host's root sees it.
fn by_option<T: Id>(option: Option<u32>, shown: u32, id: T, initial: T) -> Option<T> {
    let is_mapped = shown == initial.as_raw();
    match option {
        None => Some(id).filter(|id| id.as_raw() != shown),
        Some(_) if is_mapped => None,
        Some(option) => T::new(option),
    }
}

/// The value of an option of the devpts in which the terminal is.
fn option_of_mount(pid: u32, stat: &FileStat, name: &str) -> Option<u32> {
    let mounts = Mounts::read(&procfs::target(pid, "mountinfo")).ok()?;
    let device = format!("{}:{}", major(stat.st_dev), minor(stat.st_dev));
    let mut of_terminal = mounts.iter().filter(|mount| mount.device == device);
    of_terminal.next()?.option(name)?.to_str()?.parse().ok()
}
