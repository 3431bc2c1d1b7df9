//! open(2) of the placeholder of a device that every container has: null, zero, full, random,
//! urandom, tty. The target gets the device that is in the container's own /dev.
//!
//! A program could open that one anyway, so nothing is given away. All other devices stay what they
//! are: without a driver (ENXIO).

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::sys::statvfs::{FsFlags, fstatvfs};

use super::new_file::is_out_of_reach;
use crate::credentials::Access;
use crate::linux::name::Name;
use crate::linux::procfs::{self, Stat};
use crate::linux::seccomp::Reply;
use crate::owner::{Device, file_type};
use crate::target::{Call, Location, PROCFS};

/// Name in /dev, major and minor number (the kernel's Documentation/admin-guide/devices.txt).
const DEVICES: [(&CStr, u32, u32); 6] = [
    (c"dev/null", 1, 3),
    (c"dev/zero", 1, 5),
    (c"dev/full", 1, 7),
    (c"dev/random", 1, 8),
    (c"dev/urandom", 1, 9),
    (TERMINAL, 5, 0),
];

/// The terminal of the process that opens it.
const TERMINAL: &CStr = c"dev/tty";

/// The flags of open(2) that mean something for a device.
const FLAGS: OFlag = OFlag::O_ACCMODE
    .union(OFlag::O_APPEND)
    .union(OFlag::O_NONBLOCK)
    .union(OFlag::O_SYNC)
    .union(OFlag::O_DSYNC);

/// Opens the device, if `location` leads to such a placeholder. `None`: to another file, or
/// nowhere. `flags` are those of a call that creates nothing if the file exists.
pub(super) fn open(call: &Call, location: &Location, flags: OFlag) -> Result<Option<Reply>, Errno> {
    let may_be_one = |stat: FileStat| file_type(stat.st_mode) == SFlag::S_IFSOCK;
    if !call.container.owners.side_store_is_used() || flags.contains(OFlag::O_PATH) {
        // Nearly always.
        return Ok(None);
    }
    if let Some(reached) = call.name(location) {
        let follow = match location.follow {
            true => AtFlags::empty(),
            false => AtFlags::AT_SYMLINK_NOFOLLOW,
        };
        if !fstatat(PROCFS, reached.as_c_str(), follow).is_ok_and(may_be_one) {
            return Ok(None);
        }
    }
    match call.resolve(location) {
        Ok(file) => open_file(call, file.as_fd(), flags),
        Err(_) => Ok(None),
    }
}

/// As [`open`], for the file that the path leads to.
pub(super) fn open_file(
    call: &Call,
    file: BorrowedFd,
    flags: OFlag,
) -> Result<Option<Reply>, Errno> {
    let stat = fstat(file)?;
    let (shown, owner) = call.mode_and_owner(file)?;
    let is_placeholder = file_type(shown.mode) == SFlag::S_IFSOCK;
    let Some(name) = owner.device.filter(|_| is_placeholder).and_then(name_of) else {
        return Ok(None);
    };
    if flags.contains(OFlag::O_DIRECTORY) || is_out_of_reach(call)? {
        // ENOTDIR. Nor can a worker open it as the target would.
        return Ok(None);
    }
    // fs/namei.c, may_open: the mount comes before the mode.
    if fstatvfs(file)?.flags().contains(FsFlags::ST_NODEV)
        || !call.may(&call.subject()?, Access::of_open(flags), file, &stat)?
    {
        return Err(Errno::EACCES);
    }
    let opened = match name == TERMINAL {
        true => open_terminal(call, flags),
        false => open_real(call, name, owner.device, flags),
    };
    let Some(opened) = opened else {
        return Ok(None);
    };
    let close_on_exec = flags.contains(OFlag::O_CLOEXEC);
    let sent = call
        .listener
        .reply_with_file(call.notification.id, opened.as_fd(), close_on_exec);
    sent.map(Some)
}

fn name_of(device: Device) -> Option<&'static CStr> {
    let number = u64::from(device.number);
    let (name, _, _) = DEVICES.iter().find(|(_, major, minor)| {
        device.kind == SFlag::S_IFCHR && libc::makedev(*major, *minor) == number
    })?;
    Some(name)
}

/// The container's device of this name, if it is the same one.
fn open_real(call: &Call, name: &CStr, device: Option<Device>, flags: OFlag) -> Option<OwnedFd> {
    let root = call.container.root.as_ref()?;
    let path = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let found = openat(root, name, path, Mode::empty()).ok()?;
    let stat = fstat(&found).ok()?;
    let is_it =
        file_type(stat.st_mode) == SFlag::S_IFCHR && stat.st_rdev == u64::from(device?.number);
    is_it.then(|| reopen(&procfs::own_fd(found.as_fd()), flags))?
}

/// The controlling terminal of the target, which is not the worker's.
fn open_terminal(call: &Call, flags: OFlag) -> Option<OwnedFd> {
    const TTY_NR: usize = 7;
    let terminal: u64 = Stat::of(call.pid()).ok()?.field(TTY_NR)?;
    let is_it = |name: &Name| {
        let stat = fstatat(PROCFS, name, AtFlags::empty());
        stat.is_ok_and(|stat| file_type(stat.st_mode) == SFlag::S_IFCHR && stat.st_rdev == terminal)
    };
    // It is open there, or in the container's devpts.
    let mut streams = (0..3).map(|fd| procfs::target_fd(call.pid(), fd));
    let name = streams.find(is_it).or_else(|| {
        let minor = libc::minor(terminal);
        let name = Name::format(format_args!("{}/root/dev/pts/{minor}", call.pid()));
        is_it(&name).then_some(name)
    })?;
    call.ensure_waiting().ok()?;
    reopen(&name, flags)
}

fn reopen(name: &Name, flags: OFlag) -> Option<OwnedFd> {
    let flags = flags & FLAGS | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    openat(PROCFS, name, flags, Mode::empty()).ok()
}
