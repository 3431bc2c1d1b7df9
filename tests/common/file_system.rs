//! File systems that a test mounts in its place: in sparse files, in memory, of FUSE.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use super::place::Place;
use super::program::tool;
use super::run::{run, until};

/// A file system that can be mounted, again and again.
#[derive(Debug)]
pub(crate) struct Disk<'a> {
    place: &'a Place,
    /// A script that mounts it at $1, as root.
    mount: String,
}

/// A file system that is mounted until this is dropped.
#[derive(Debug)]
pub(crate) struct Mounted<'a> {
    place: &'a Place,
    pub(crate) point: PathBuf,
}

/// Gives this thread, and all that it starts, a mount namespace of its own: what others start
/// meanwhile would keep the test's mounts, and so their file systems and numbers.
fn leave_others_alone() {
    thread_local!(static ALONE: () = {
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
        let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).expect("private mounts");
    });
    ALONE.with(|()| ());
}

impl<'a> Disk<'a> {
    /// What a script mounts at $1.
    pub(crate) fn new(place: &'a Place, mount: &str) -> Self {
        leave_others_alone();
        let mount = mount.to_owned();
        Self { place, mount }
    }

    /// In a sparse file, made by a program with its arguments; `mount` mounts $DISK at $1.
    pub(crate) fn in_file(place: &'a Place, make: &str, mount: &str) -> Self {
        let file = unused(place, "disk");
        let sparse = File::create(&file).expect("the file of a disk");
        sparse.set_len(4 << 30).expect("a sparse file");
        let mut words = make.split(' ');
        let mut command = place.as_root(tool(words.next().expect("a program")));
        run(command.args(words).arg(&file)).ok();
        Self::new(place, &format!("DISK={}; {mount}", file.display()))
    }

    pub(crate) fn ext4(place: &'a Place) -> Self {
        let mount = "mount -t ext4 -o loop $DISK $1";
        Self::in_file(place, "mkfs.ext4 -q -F", mount)
    }

    pub(crate) fn xfs(place: &'a Place) -> Self {
        let mount = "mount -t xfs -o loop,nouuid $DISK $1";
        Self::in_file(place, "mkfs.xfs -q", mount)
    }

    pub(crate) fn btrfs(place: &'a Place) -> Self {
        let mount = "mount -t btrfs -o loop $DISK $1";
        Self::in_file(place, "mkfs.btrfs -q", mount)
    }

    /// A copy of the file that it is in.
    pub(crate) fn copy(&self) -> Self {
        let file = unused(self.place, "disk");
        let (known, mount) = self.mount.split_once("; ").expect("a disk in a file");
        let script = format!("{known}; cp --sparse=always $DISK $1");
        run(&mut self.script(&script, &file)).ok();
        let mount = format!("DISK={}; {mount}", file.display());
        Self::new(self.place, &mount)
    }

    fn script(&self, script: &str, argument: &Path) -> Command {
        let mut command = self.place.as_root("sh");
        command.args(["-euc", script, "sh"]).arg(argument);
        command
    }

    /// Mounted at `name` in the place.
    pub(crate) fn mount_for_root(&self, name: &str) -> Mounted<'a> {
        let point = self.place.path(name);
        fs::create_dir_all(&point).expect("a mount point");
        // The loop device of a disk that has just been unmounted may be busy for a moment.
        until("the disk is mounted", || {
            let ran = run(&mut self.script(&self.mount, &point));
            (ran.status.success() || !ran.stderr.contains("busy")).then(|| ran.ok())
        });
        let place = self.place;
        Mounted { place, point }
    }

    /// Mounted at `name` in the place, where the user may write.
    pub(crate) fn mount(&self, name: &str) -> Mounted<'a> {
        let mounted = self.mount_for_root(name);
        let place = self.place;
        let root = fs::metadata(&mounted.point).expect("a mounted file system");
        if root.uid() != place.user.uid.as_raw() {
            place.give_to_user(&mounted.point);
        }
        mounted
    }

    /// Mounted with another device number than the last time, which was `number`.
    pub(crate) fn mount_but_at(&self, name: &str, number: u64) -> Mounted<'a> {
        let mut taken = Vec::new();
        loop {
            let mounted = self.mount(name);
            if mounted.number() != number {
                return mounted;
            }
            mounted.unmount();
            // One of these takes it.
            let other = unused(self.place, "other");
            let other = other.file_name().expect("a name").to_string_lossy();
            taken.push(Self::new(self.place, "mount -t tmpfs none $1").mount(&other));
            taken.push(Self::ext4(self.place).mount(&format!("{other}-disk")));
        }
    }
}

/// Whether the kernel has a file system, also as a module; if not, this says so.
pub(crate) fn kernel_has(kind: &str) -> bool {
    // There may be no modules at all.
    let _ = Command::new("modprobe").args(["-q", kind]).status();
    let known = fs::read_to_string("/proc/filesystems").expect("/proc/filesystems");
    let is_known = known
        .lines()
        .any(|line| line.ends_with(&format!("\t{kind}")));
    if !is_known {
        eprintln!("this kernel has no {kind}: not tried");
    }
    is_known
}

/// A path in the place at which there is nothing.
fn unused(place: &Place, name: &str) -> PathBuf {
    (0..)
        .map(|n| place.path(&format!("{name}-{n}")))
        .find(|path| !path.exists())
        .unwrap_or_else(|| unreachable!("some number is free"))
}

impl Mounted<'_> {
    /// The number of its device.
    pub(crate) fn number(&self) -> u64 {
        let root = fs::metadata(&self.point).expect("a mounted file system");
        root.dev()
    }

    pub(crate) fn unmount(self) {
        let point = self.point.clone();
        // What has served a command may outlive it for a moment.
        until("nothing uses the file system any more", || {
            match umount2(&point, MntFlags::empty()) {
                Ok(()) => Some(()),
                Err(Errno::EBUSY) => None,
                Err(errno) => panic!("{}: {errno}", point.display()),
            }
        });
        let point = point.to_string_lossy().into_owned();
        until("nobody serves it any more", || {
            let processes = self.place.processes();
            let mut commands = processes.iter().map(|(_, command)| command);
            let serves = |command: &Vec<u8>| String::from_utf8_lossy(command).contains(&point);
            (!commands.any(serves)).then_some(())
        });
        std::mem::forget(self);
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        // What a failed test has left running may use it.
        let _ = umount2(&self.point, MntFlags::MNT_DETACH);
    }
}
