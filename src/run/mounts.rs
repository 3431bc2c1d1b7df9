//! The mounts of a command of the host that has a mount namespace of its own: `--bind`,
//! `--read-only`, `--copy-up` and those that its other namespaces need.
//!
//! Everything is done by copies of mounts that are not attached yet (open_tree(2)): what is
//! bind-mounted is what was there before other options covered it or made it read-only.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;

use super::copy_up::{copied, copy_up};
use super::network::RESOLVER;
use super::options::Isolation;
use super::place::Place;
use super::spec::{Bind, Propagation};
use crate::error::{Context, Error};
use crate::linux::cgroups;
use crate::linux::name::Name;
use crate::linux::sys;
use crate::wire::config;

const NOTHING: Option<&str> = None;

/// For the kernel's own file systems.
const OF_KERNEL: MsFlags = MsFlags::MS_NOSUID
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOEXEC);

/// A mount that is not attached yet, and where it will be.
struct Prepared {
    tree: OwnedFd,
    at: PathBuf,
}

/// Mounts everything in this process's mount namespace, which is new, but for /proc.
pub(super) fn make(isolation: &Isolation, place: &Place) -> Result<(), Error> {
    if let Some(propagation) = isolation.propagation {
        propagate(propagation)?;
    }
    let mut prepared = Vec::new();
    if isolation.read_only {
        for kept in ["/dev", "/proc"] {
            prepared.push(Prepared::of(Path::new(kept), kept)?);
        }
    }
    for directory in &isolation.copy_up {
        prepared.push(writable(place, directory, isolation.read_only)?);
    }
    let binds: Vec<_> = isolation.bind.iter().map(bound).collect::<Result<_, _>>()?;
    let resolver = match isolation.own_network() {
        None => None,
        Some(network) => network.resolver(&place.directory)?,
    };
    let resolver = match resolver.zip(fs::canonicalize(RESOLVER).ok()) {
        Some((source, at)) if source != at => Some(Prepared::of(&source, at)?),
        _ => None,
    };
    if isolation.own_network().is_some() {
        show_network()?;
    }
    if isolation.cgroup {
        show_cgroups()?;
    }
    if isolation.read_only {
        let root = File::open("/").at("/")?;
        sys::set_mounts_read_only(root.as_fd(), true).at("/")?;
    }
    prepared.into_iter().try_for_each(Prepared::attach)?;
    for (bind, prepared) in isolation.bind.iter().zip(binds) {
        make_point(bind)?;
        prepared.attach()?;
    }
    resolver.map_or(Ok(()), Prepared::attach)
}

/// Mounts a procfs of this process's pid namespace.
pub(super) fn make_procfs() -> Result<(), Error> {
    const PROC: &str = "/proc";
    mount(Some("proc"), PROC, Some("proc"), OF_KERNEL, NOTHING).at(PROC)
}

fn propagate(propagation: Propagation) -> Result<(), Error> {
    let kind = match propagation {
        Propagation::Private => MsFlags::MS_PRIVATE,
        // That of a new mount namespace with another user namespace.
        Propagation::Slave => return Ok(()),
        Propagation::Shared => MsFlags::MS_SHARED,
    };
    mount(NOTHING, "/", NOTHING, kind | MsFlags::MS_REC, NOTHING).at("/")
}

impl Prepared {
    /// A copy of what is mounted at `source`.
    fn of(source: &Path, at: impl Into<PathBuf>) -> Result<Self, Error> {
        let name = Name::new(source.as_os_str().as_bytes().to_vec());
        Ok(Self {
            tree: sys::copy_mounts(name.as_c_str()).at(source)?,
            at: at.into(),
        })
    }

    fn attach(self) -> Result<(), Error> {
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let point = open(&self.at, flags, Mode::empty()).at(&self.at)?;
        sys::attach_mount(self.tree.as_fd(), point.as_fd()).at(&self.at)
    }
}

/// The mount of a `--bind`.
fn bound(bind: &Bind) -> Result<Prepared, Error> {
    let prepared = Prepared::of(&bind.source, &bind.destination)?;
    if bind.read_only {
        sys::set_mounts_read_only(prepared.tree.as_fd(), true).at(&bind.source)?;
    }
    Ok(prepared)
}

/// Makes the mount point of a bind mount, if it is missing.
fn make_point(bind: &Bind) -> Result<(), Error> {
    let at = Path::new(&bind.destination);
    if fs::metadata(at).is_ok() {
        return Ok(());
    }
    match bind.source.is_dir() {
        true => fs::create_dir_all(at).at(at),
        false => {
            let parent = at.parent().unwrap_or(at);
            fs::create_dir_all(parent).at(parent)?;
            File::create_new(at).map(drop).at(at)
        }
    }
}

/// `--copy-up`: an overlay over a directory of this user; for another one, of which the kernel lets
/// an overlay change nothing, a new directory with links to all that is in it.
fn writable(place: &Place, directory: &str, read_only: bool) -> Result<Prepared, Error> {
    let directory = fs::canonicalize(directory).at(directory)?;
    let found = fs::metadata(&directory).at(&directory)?;
    if !found.is_dir() || directory.parent().is_none() {
        return Err(Error::Rootfs {
            path: directory,
            reason: "--copy-up wants a directory other than /",
        });
    }
    let name = config::text(&directory)?;
    let made = copied(place, name);
    if found.uid() != 0 || copy_up(place, Path::new("/"), name).is_err() {
        let links = made.with_file_name("links");
        link_up(&directory, &links, found.mode() & 0o7777, read_only)?;
        return Prepared::of(&links, directory);
    }
    Prepared::of(&made, directory)
}

/// Mounts a tmpfs at `links` with a link to each entry of `directory`, which is mounted below.
fn link_up(directory: &Path, links: &Path, mode: u32, read_only: bool) -> Result<(), Error> {
    fs::create_dir_all(links).at(links)?;
    let mode = format!("mode={mode:o}");
    let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
    mount(
        Some("tmpfs"),
        links,
        Some("tmpfs"),
        flags,
        Some(mode.as_str()),
    )
    .at(links)?;
    let is_free = |name: &String| fs::symlink_metadata(directory.join(name)).is_err();
    let mut names = (0..).map(|number| match number {
        0 => ".ro".to_owned(),
        number => format!(".ro{number}"),
    });
    let below = names.find(is_free).unwrap_or_default();
    let old = Prepared::of(directory, links.join(&below))?;
    if read_only {
        sys::set_mounts_read_only(old.tree.as_fd(), true).at(directory)?;
    }
    fs::create_dir(&old.at).at(&old.at)?;
    for entry in fs::read_dir(directory).at(directory)? {
        let entry = entry.at(directory)?;
        let name = entry.file_name();
        // A link leads from here to where it leads from there.
        let target = match fs::read_link(entry.path()) {
            Ok(target) => target,
            Err(_) => Path::new(&below).join(&name),
        };
        let link = links.join(&name);
        symlink(target, &link).at(&link)?;
    }
    old.attach()
}

/// Mounts a sysfs that shows the interfaces of this network namespace, if the kernel allows it: not
/// where parts of the host's are covered, as in many containers. The cgroups below it stay.
fn show_network() -> Result<(), Error> {
    const SYS: &str = "/sys";
    let cgroups = Prepared::of(Path::new(cgroups::ROOT), cgroups::ROOT).ok();
    let mounted = [OF_KERNEL, OF_KERNEL | MsFlags::MS_RDONLY]
        .into_iter()
        .any(|flags| mount(Some("sysfs"), SYS, Some("sysfs"), flags, NOTHING).is_ok());
    match cgroups {
        Some(cgroups) if mounted => cgroups.attach(),
        _ => Ok(()),
    }
}

/// Mounts the cgroup2 file systems again, which then begin at this process's cgroup.
fn show_cgroups() -> Result<(), Error> {
    [cgroups::ROOT, cgroups::UNIFIED]
        .into_iter()
        .filter(|path| cgroups::is_unified(path))
        .try_for_each(|path| {
            match mount(Some("cgroup2"), path, Some("cgroup2"), OF_KERNEL, NOTHING) {
                // The mount begins at this process's cgroup already (fs/namespace.c, do_add_mount).
                Err(Errno::EBUSY) => Ok(()),
                mounted => mounted.at(path),
            }
        })
}
