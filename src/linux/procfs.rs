//! The host's procfs: names of files in it, and the contents of some.
//!
//! The procfs of the pid namespace in which a worker was started stays the working directory of
//! each of its service threads. So these names are relative: in the container's own procfs a worker
//! has no pid. Bytes that a target chose never follow a *directory* of the host's procfs in a path,
//! only a magic link, which leads out of procfs.

use std::ffi::{CStr, OsStr};
use std::fmt::{Display, Write as _};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::str::FromStr;

use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;

use crate::credentials::{Capabilities, Credentials, Id, Ids};
use crate::linux::errno_of;
use crate::linux::name::Name;

/// `self/fd/N`: a file of this process, as a path for calls that refuse O_PATH fds.
pub(crate) fn own_fd(fd: BorrowedFd) -> Name {
    Name::format(format_args!("self/fd/{}", fd.as_raw_fd()))
}

/// `self/WHAT`
pub(crate) fn own(what: &str) -> Name {
    Name::format(format_args!("self/{what}"))
}

/// `PID/fd/N`: a file of the target.
pub(crate) fn target_fd(pid: u32, fd: i32) -> Name {
    Name::format(format_args!("{pid}/fd/{fd}"))
}

/// `PID/WHAT`
pub(crate) fn target(pid: u32, what: &str) -> Name {
    Name::format(format_args!("{pid}/{what}"))
}

/// Returns the text of a file.
pub(crate) fn read(name: &Name) -> Result<String, Errno> {
    read_at(AT_FDCWD, name)
}

/// Returns the text of a file in any procfs. Lossy: a process may set a name that is not UTF-8
/// (PR_SET_NAME), which must not hide the other fields.
pub(crate) fn read_at<P: NixPath + ?Sized>(
    directory: impl AsFd,
    name: &P,
) -> Result<String, Errno> {
    let bytes = read_bytes_at(directory, name)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Most files are shorter: one read(2) returns their contents.
const USUAL_SIZE: usize = 4096;

/// Returns the contents of a file in any procfs.
pub(crate) fn read_bytes_at<P: NixPath + ?Sized>(
    directory: impl AsFd,
    name: &P,
) -> Result<Vec<u8>, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let file = File::from(openat(directory, name, flags, Mode::empty())?);
    let mut bytes = Vec::with_capacity(USUAL_SIZE);
    // Not File::read_to_end: that asks for the size, which is 0, and starts with 32 bytes.
    file.take(u64::MAX)
        .read_to_end(&mut bytes)
        .map_err(errno_of)?;
    Ok(bytes)
}

/// Writes to a file.
pub(crate) fn write(name: &Name, text: &[u8]) -> Result<(), Errno> {
    let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    let file = openat(AT_FDCWD, name, flags, Mode::empty())?;
    File::from(file).write_all(text).map_err(errno_of)
}

/// Returns the names in a directory. Skips those that are not UTF-8.
pub(crate) fn list(name: &CStr) -> Result<Vec<String>, Errno> {
    let entries = std::fs::read_dir(OsStr::from_bytes(name.to_bytes())).map_err(errno_of)?;
    Ok(entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect())
}

/// PID/stat: proc_pid_stat(5).
#[derive(Debug)]
pub(crate) struct Stat(String);

impl Stat {
    /// Reads the file of a process, which is given as its directory in procfs, like `/proc/self`.
    pub(crate) fn of(process: impl Display) -> Result<Self, Errno> {
        read(&Name::format(format_args!("{process}/stat"))).map(Self)
    }

    /// Returns the field with this number in the man page, which must be at least 3; `None` if it
    /// does not parse.
    pub(crate) fn field<T: FromStr>(&self, number: usize) -> Option<T> {
        // The second field is the name, in which the program may put any bytes, `)` included.
        let (_, rest) = self.0.rsplit_once(')')?;
        let text = rest.split_ascii_whitespace().nth(number - 3)?;
        text.parse().ok()
    }

    /// The process's pid in the pid namespace of the procfs that was read.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.0.split_ascii_whitespace().next()?.parse().ok()
    }

    /// The pid of the parent.
    pub(crate) fn parent(&self) -> Option<u32> {
        self.field(4)
    }

    /// The start time of the process, in clock ticks since boot.
    pub(crate) fn start_time(&self) -> Option<u64> {
        self.field(22)
    }
}

/// The process of a pidfd of this process, from PID/fdinfo. `None`: another file, or the process
/// has ended.
pub(crate) fn pid_of(pidfd: BorrowedFd) -> Option<u32> {
    let name = Name::format(format_args!("self/fdinfo/{}", pidfd.as_raw_fd()));
    let text = read(&name).ok()?;
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    pid.trim().parse().ok()
}

/// Whether the process `pid` is a zombie: either nobody has waited for it, or its main thread has
/// exited and other threads have not, so that it cannot be waited for yet. A killed worker stays in
/// the latter state while a thread is in an uninterruptible call (FUSE that has read the request, a
/// dead NFS server). /proc must still be the host's.
pub(crate) fn is_dying(pid: u32) -> bool {
    let stat = Stat::of(format_args!("/proc/{pid}"));
    stat.is_ok_and(|stat| stat.field(3) == Some('Z'))
}

/// The child processes of this thread, in the /proc of this process's mount namespace.
pub(crate) fn children() -> std::io::Result<Vec<u32>> {
    let text = std::fs::read_to_string("/proc/thread-self/children")?;
    let numbers = text.split_ascii_whitespace();
    Ok(numbers.filter_map(|number| number.parse().ok()).collect())
}

/// PID/status: proc_pid_status(5).
#[derive(Debug)]
pub(crate) struct Status(String);

impl Status {
    /// Reads the file of a process or thread, which is given as for [`Stat::of`].
    pub(crate) fn of(process: impl Display) -> Result<Self, Errno> {
        read(&Name::format(format_args!("{process}/status"))).map(Self)
    }

    /// Reads an open file of any procfs.
    pub(crate) fn of_file(file: BorrowedFd) -> Result<Self, Errno> {
        read(&own_fd(file)).map(Self)
    }

    /// Reads the file in the directory of a process in any procfs.
    pub(crate) fn in_directory(process: impl AsFd) -> Result<Self, Errno> {
        read_at(process, c"status").map(Self)
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.0
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    }

    /// The text with other credentials.
    pub(crate) fn with(&self, credentials: &Credentials) -> Result<String, Errno> {
        let mut text = String::with_capacity(self.0.len() + 64);
        for line in self.0.lines() {
            let name = line.split_once(':').map_or(line, |(name, _)| name);
            match credential(name, credentials) {
                Some(value) => writeln!(text, "{name}:\t{value}"),
                None => writeln!(text, "{line}"),
            }
            .map_err(|_| Errno::ENOMEM)?;
        }
        Ok(text)
    }

    /// The process's id in the pid namespace of the procfs that was read.
    pub(crate) fn tgid(&self) -> Option<u32> {
        self.field("Tgid")?.trim().parse().ok()
    }

    /// The process's id in its own pid namespace.
    pub(crate) fn own_tgid(&self) -> Option<u32> {
        Self::last(self.field("NStgid")?)
    }

    /// The thread's id in its own pid namespace.
    pub(crate) fn own_tid(&self) -> Option<u32> {
        Self::last(self.field("NSpid")?)
    }

    /// The process's ids in each pid namespace, from the procfs's down to its own.
    pub(crate) fn tgids(&self) -> Vec<u32> {
        Self::all(self.field("NStgid"))
    }

    /// The ids of its process group, in the same order.
    pub(crate) fn groups(&self) -> Vec<u32> {
        Self::all(self.field("NSpgid"))
    }

    /// The thread's ids, in the same order.
    pub(crate) fn tids(&self) -> Vec<u32> {
        Self::all(self.field("NSpid"))
    }

    fn all(ids: Option<&str>) -> Vec<u32> {
        let ids = ids.unwrap_or_default().split_ascii_whitespace();
        ids.filter_map(|id| id.parse().ok()).collect()
    }

    fn last(ids: &str) -> Option<u32> {
        ids.split_ascii_whitespace().next_back()?.parse().ok()
    }

    fn set(&self, name: &str) -> Option<u64> {
        u64::from_str_radix(self.field(name)?.trim(), 16).ok()
    }

    /// The thread's capability sets in the kernel.
    pub(crate) fn capabilities(&self) -> Option<Capabilities> {
        Some(Capabilities {
            permitted: self.set("CapPrm")?,
            effective: self.set("CapEff")?,
            inheritable: self.set("CapInh")?,
            ambient: self.set("CapAmb")?,
        })
    }

    /// The capability bounding set.
    pub(crate) fn bounding(&self) -> Option<u64> {
        self.set("CapBnd")
    }

    pub(crate) fn effective_uid(&self) -> Option<u32> {
        Self::all(self.field("Uid")).get(1).copied()
    }

    /// Whether no_new_privs is set (prctl(2)).
    pub(crate) fn no_new_privs(&self) -> bool {
        self.field("NoNewPrivs")
            .is_some_and(|bit| bit.trim() == "1")
    }

    /// The number of the thread's seccomp filters.
    pub(crate) fn filters(&self) -> Option<u32> {
        self.field("Seccomp_filters")?.trim().parse().ok()
    }

    /// The file mode creation mask: umask(2).
    pub(crate) fn umask(&self) -> Option<u32> {
        u32::from_str_radix(self.field("Umask")?.trim(), 8).ok()
    }
}

/// The value of a field of PID/status (fs/proc/array.c, task_state and task_cap). `None`: it does
/// not depend on these credentials.
fn credential(field: &str, credentials: &Credentials) -> Option<String> {
    fn four<T: Id>(ids: Ids<T>) -> String {
        let [real, effective, saved, fs] =
            [ids.real, ids.effective, ids.saved, ids.fs].map(T::as_raw);
        format!("{real}\t{effective}\t{saved}\t{fs}")
    }
    let sets = credentials.capabilities;
    let set = |pick: fn(Capabilities) -> u64| sets.map(|sets| format!("{:016x}", pick(sets)));
    match field {
        "Uid" => Some(four(credentials.uid)),
        "Gid" => Some(four(credentials.gid)),
        "Groups" => {
            let groups = credentials
                .groups
                .iter()
                .map(|gid| gid.as_raw().to_string());
            // The kernel puts a space behind the last one.
            Some(groups.collect::<Vec<_>>().join(" ") + " ")
        }
        "CapInh" => set(|sets| sets.inheritable),
        "CapPrm" => set(|sets| sets.permitted),
        "CapEff" => set(|sets| sets.effective),
        "CapAmb" => set(|sets| sets.ambient),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_field_by_field() {
        let text = "Name:\tx\nUmask:\t0027\nTgid:\t812\nNStgid:\t812\t7\t1\nNSpid:\t813\t8\t2\n\
            CapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\nCapEff:\t0000000000000001\n\
            CapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\n";
        let status = Status(text.to_owned());
        assert_eq!(status.tgid(), Some(812));
        assert_eq!(status.own_tgid(), Some(1));
        assert_eq!(status.own_tid(), Some(2));
        assert_eq!(status.tgids(), [812, 7, 1]);
        assert_eq!(status.umask(), Some(0o27));
        assert_eq!(status.bounding(), Some(0x1ff_ffff_ffff));
        assert!(status.no_new_privs());
        let sets = status.capabilities().unwrap();
        assert_eq!((sets.permitted, sets.effective), (0xa804_25fb, 1));
        assert_eq!(Status(String::new()).tgid(), None);
    }

    #[test]
    fn a_name_that_is_no_text_hides_nothing() {
        let thread = std::thread::spawn(|| {
            nix::sys::prctl::set_name(c") \xff").unwrap();
            let stat = Stat::of("/proc/thread-self").unwrap();
            let status = Status::of("/proc/thread-self").unwrap();
            (stat.parent(), stat.field(3), status.tgid())
        });
        let parent = std::os::unix::process::parent_id();
        let own = std::process::id();
        assert_eq!(thread.join().unwrap(), (Some(parent), Some('R'), Some(own)));
    }
}
