//! Walks a path component by component; `/proc/self` leads to the target.
//!
//! This is the slow way, for paths that the kernel cannot resolve for a worker (see `path`). The
//! walk follows up to forty links, including magic links: those of other processes with the
//! target's own rights (`rights`). It never looks up bytes that a target chose in the worker's
//! working directory, which is the host's procfs.
//!
//! It is also the way to check search permission by emulated ids: path_resolution(7).

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2, readlink, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::sys::statfs::PROC_SUPER_MAGIC;
use nix::unistd::Uid;

use super::path::{O_PATH, Walked};
use super::{Call, PROCFS};
use crate::credentials::{Access, Subject, capability};
use crate::linux;
use crate::linux::name::Name;
use crate::linux::procfs::{self, Status};
use crate::linux::sys;
use crate::owner::file_type;

/// MAXSYMLINKS (linux/namei.h).
const MAX_LINKS: usize = 40;
/// PROC_ROOT_INO (linux/proc_ns.h): the inode number of the root directory of every procfs.
const PROCFS_ROOT_INODE: u64 = 1;

/// The file that a walk has reached.
struct Here {
    file: OwnedFd,
    stat: FileStat,
    is_procfs: bool,
}

impl Here {
    fn new(file: OwnedFd) -> Result<Self, Errno> {
        Ok(Self {
            stat: fstat(&file)?,
            is_procfs: is_procfs(&file)?,
            file,
        })
    }

    /// Moves to `file`, which was found in this directory. The file system's type can be another
    /// one only on another device.
    fn enter(&mut self, file: OwnedFd, stat: FileStat) -> Result<(), Errno> {
        if stat.st_dev != self.stat.st_dev {
            self.is_procfs = is_procfs(&file)?;
        }
        self.stat = stat;
        self.file = file;
        Ok(())
    }
}

impl Call<'_> {
    /// Opens the file that `path` names, starting at `base` or at this thread's root. With a
    /// `subject`, its permission to search each directory and to follow each link is checked.
    pub(super) fn walk(
        &self,
        base: Option<OwnedFd>,
        path: &CStr,
        follow: bool,
        subject: Option<&Subject>,
    ) -> Result<Walked, Errno> {
        let mut walk = Walk::new(path, follow);
        let mut here = Here::new(base.map_or_else(root, Ok)?)?;
        while let Some(component) = walk.pending.pop() {
            if let Some(subject) = subject
                && !self.may_search(subject, &here)?
            {
                return Ok(Walked::Refused(Errno::EACCES));
            }
            // At this thread's root `..` stays there: it is the target's root, too.
            let open_component = || {
                openat(
                    &here.file,
                    component.as_c_str(),
                    O_PATH | OFlag::O_NOFOLLOW,
                    Mode::empty(),
                )
            };
            let step = match here.is_procfs {
                // procfs decides by capabilities (hidepid=, PID/fd), and a worker has more of them.
                true => self.with_own_rights(open_component)?,
                false => open_component()?,
            };
            let stat = fstat(&step)?;
            if file_type(stat.st_mode) != SFlag::S_IFLNK || walk.stops_at_link() {
                here.enter(step, stat)?;
                continue;
            }
            walk.count_link()?;
            // Of links in sticky directories, only the last of a path is protected: fs/namei.c,
            // pick_link.
            let is_last = walk.pending.is_empty();
            if let Some(subject) = subject
                && !self.may_follow_as(subject, &here, (&step, &stat), is_last)?
            {
                return Ok(Walked::Refused(Errno::EACCES));
            }
            if let Some(elsewhere) = self.follow(&here, &component, &step, &mut walk)? {
                here = Here::new(elsewhere)?;
            }
        }
        // path_resolution(7): a slash at the end requires a directory.
        if walk.must_be_directory && file_type(here.stat.st_mode) != SFlag::S_IFDIR {
            return Err(Errno::ENOTDIR);
        }
        Ok(Walked::To(here.file))
    }

    /// Whether `subject` may look up names in `here`: fs/namei.c, may_lookup.
    fn may_search(&self, subject: &Subject, here: &Here) -> Result<bool, Errno> {
        match file_type(here.stat.st_mode) {
            SFlag::S_IFDIR => self.may(subject, Access::EXECUTE, here.file.as_fd(), &here.stat),
            // ENOTDIR, at the next lookup.
            _ => Ok(true),
        }
    }

    /// Whether `subject` may follow `link`, which it has found in `here`: of procfs, a link of a
    /// process that it may trace; of other file systems, fs/namei.c, may_follow_link.
    fn may_follow_as(
        &self,
        subject: &Subject,
        here: &Here,
        (link, stat): (&OwnedFd, &FileStat),
        is_last: bool,
    ) -> Result<bool, Errno> {
        if is_procfs(link)? {
            let is_general = is_procfs_root(&here.file)? || subject.has(capability::SYS_PTRACE);
            return Ok(is_general
                || self.file_mode(link.as_fd())?.uid == subject.uid
                || self.is_in_own_process(here.file.as_fd()) == Ok(true));
        }
        if !is_last
            || here.stat.st_mode & STICKY_FOR_ALL != STICKY_FOR_ALL
            || protection("symlinks")? == 0
        {
            return Ok(true);
        }
        let owner = self.shown_mode(link.as_fd(), stat)?.uid;
        Ok(owner == subject.uid || owner == self.shown_mode(here.file.as_fd(), &here.stat)?.uid)
    }

    /// Follows the link `component` of `here`. Returns the file where the walk goes on, or `None`
    /// if it goes on in `here`, with the link's text in front of the pending components.
    fn follow(
        &self,
        here: &Here,
        component: &CStr,
        link: &OwnedFd,
        walk: &mut Walk,
    ) -> Result<Option<OwnedFd>, Errno> {
        let directory = &here.file;
        // Not the directory: a text link of another file system may be mounted on a file of procfs.
        if is_procfs(link)? {
            match component.to_bytes() {
                name @ (b"self" | b"thread-self") if is_procfs_root(directory)? => {
                    return self.enter_own_directory(directory, name, walk).map(Some);
                }
                // Ordinary links to `self/mounts` and `self/net`. The kernel would take `self` for
                // the worker, so this walk follows them. It can follow all other links of procfs.
                b"mounts" | b"net" if is_procfs_root(directory)? => {}
                _ => {
                    let followed = self.follow_as_target(directory, component);
                    return followed.map(Some);
                }
            }
        }
        may_follow(directory, link, walk.pending.is_empty())?;
        let text = readlinkat(link, c"")?;
        let text = text.as_encoded_bytes();
        let absolute = text.starts_with(b"/");
        walk.push(text)?;
        if absolute { root().map(Some) } else { Ok(None) }
    }

    /// The text of the link `name` in `directory`; `None` for links of procfs, which may be magic.
    /// Fails if the kernel would not follow the link.
    pub(crate) fn link_text(
        &self,
        directory: &OwnedFd,
        name: &CStr,
    ) -> Result<Option<Vec<u8>>, Errno> {
        let link = openat(directory, name, O_PATH | OFlag::O_NOFOLLOW, Mode::empty())?;
        if is_procfs(&link)? {
            return Ok(None);
        }
        may_follow(directory, &link, true)?;
        Ok(Some(readlinkat(&link, c"")?.into_encoded_bytes()))
    }

    /// Resolves `/proc/self` or `/proc/thread-self` for the target.
    ///
    /// A magic link right behind it (`fd/N`, `cwd`, `root`, `exe`) is followed in the *host's*
    /// procfs. Nothing else is looked up there, because its directories hold the host's processes.
    /// Every other path goes on in the container's procfs, in the directory of the target's own
    /// pid.
    fn enter_own_directory(
        &self,
        procfs_root: &OwnedFd,
        name: &[u8],
        walk: &mut Walk,
    ) -> Result<OwnedFd, Errno> {
        if let Some(link) = walk.take_magic_link() {
            let follows = !walk.stops_at_link();
            if follows {
                walk.count_link()?;
                // A thread may have its own working directory and descriptors (CLONE_FS,
                // CLONE_FILES); `self` names the thread group leader.
                let whose = match name {
                    b"self" => self.host_tgid()?,
                    _ => self.pid(),
                };
                let name = procfs::target(whose, &link);
                return match openat(PROCFS, &name, O_PATH, Mode::empty()) {
                    // A target may always access itself, so EACCES means that the leader has ended
                    // and has no files.
                    Err(Errno::EACCES) => Err(Errno::ENOENT),
                    result => result,
                };
            }
            // The call concerns the link itself (lchown, lstat).
            walk.push(link.as_bytes())?;
        }
        let own = self.own_directory(procfs_root)?;
        let own = match name {
            b"self" => own.to_string(),
            _ => {
                let thread = self.own_thread(own)?;
                format!("{own}/task/{thread}")
            }
        };
        openat(procfs_root, own.as_str(), O_PATH, Mode::empty())
    }

    /// The target's process id in the pid namespace of a procfs, which may be the target's own or
    /// any of its ancestors.
    fn own_directory(&self, procfs_root: &OwnedFd) -> Result<u32, Errno> {
        let is_own = |number: &u32| {
            let name = Name::format(format_args!("{number}"));
            self.is_own_process(&open_unmounted(procfs_root, &name)?)
        };
        let numbers = Status::of(self.pid())?.tgids();
        // The target's own namespace first: mostly, this is the one that the procfs shows.
        let found = numbers.into_iter().rev().find(|it| is_own(it) == Ok(true));
        // This procfs does not show the target.
        found.ok_or(Errno::ENOENT)
    }

    /// Whether the directory `process` of any procfs belongs to the target's process: it has the
    /// same process id in the same innermost pid namespace. Files that are mounted over those of
    /// procfs do not count.
    fn is_own_process(&self, process: &OwnedFd) -> Result<bool, Errno> {
        // The id in the innermost namespace alone is not enough: other namespaces have the same
        // ids.
        let namespaces = open_unmounted(process, c"ns")?;
        let link = open_unmounted(&namespaces, c"pid")?;
        let status = Status::of_file(open_unmounted(process, c"status")?.as_fd())?;
        let target = Status::of(self.pid())?;
        let namespace = readlink(&procfs::target(self.pid(), "ns/pid"))?;
        Ok(status.own_tgid() == target.own_tgid() && readlinkat(&link, c"")? == namespace)
    }

    /// Whether `directory` is the target's `/proc/PID` or lies below it.
    pub(super) fn is_in_own_process(&self, directory: BorrowedFd) -> Result<bool, Errno> {
        // PID, PID/fd, PID/task/TID, PID/task/TID/fd
        const DEEPEST: usize = 4;
        let mut process = directory.try_clone_to_owned().map_err(|_| Errno::EMFILE)?;
        for _ in 0..DEEPEST {
            let above = open_unmounted(&process, c"..")?;
            if is_procfs_root(&above)? {
                return self.is_own_process(&process);
            }
            process = above;
        }
        Ok(false)
    }

    /// The target's thread id in the pid namespace where its process id is `process`.
    fn own_thread(&self, process: u32) -> Result<u32, Errno> {
        let target = Status::of(self.pid())?;
        let depth = target.tgids().iter().position(|it| *it == process);
        let number = depth.and_then(|depth| target.tids().get(depth).copied());
        number.ok_or(Errno::ENOENT)
    }

    /// The id of the target's process in the pid namespace of the host's procfs.
    pub(crate) fn host_tgid(&self) -> Result<u32, Errno> {
        Status::of(self.pid())?.tgid().ok_or(Errno::ENOENT)
    }
}

pub(super) fn root() -> Result<OwnedFd, Errno> {
    open(c"/", O_PATH | OFlag::O_DIRECTORY, Mode::empty())
}

pub(super) fn is_procfs_root(directory: &OwnedFd) -> Result<bool, Errno> {
    Ok(fstat(directory.as_fd())?.st_ino == PROCFS_ROOT_INODE && is_procfs(directory)?)
}

/// Opens a file of procfs itself; EXDEV if another file is mounted on it. Links are not followed.
fn open_unmounted<P: NixPath + ?Sized>(directory: &OwnedFd, name: &P) -> Result<OwnedFd, Errno> {
    let how = OpenHow::new()
        .flags(O_PATH | OFlag::O_NOFOLLOW)
        .resolve(ResolveFlag::RESOLVE_NO_XDEV | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(directory, name, how)
}

/// Checks whether the kernel would follow a text link: fs/namei.c, pick_link (nosymfollow: ELOOP)
/// and may_follow_link (fs.protected_symlinks: EACCES).
fn may_follow(directory: &OwnedFd, link: &OwnedFd, is_last: bool) -> Result<(), Errno> {
    // A server of FUSE may fail: see `linux::file_system`.
    if sys::mount_flags(link.as_fd()).is_ok_and(|flags| flags & sys::ST_NOSYMFOLLOW != 0) {
        return Err(Errno::ELOOP);
    }
    let above = fstat(directory)?;
    if !is_last || above.st_mode & STICKY_FOR_ALL != STICKY_FOR_ALL {
        return Ok(());
    }
    let owner = fstat(link)?.st_uid;
    if owner == Uid::effective().as_raw() || owner == above.st_uid {
        return Ok(());
    }
    match protection("symlinks")? {
        0 => Ok(()),
        _ => Err(Errno::EACCES),
    }
}

/// The mode bits of a directory like /tmp.
const STICKY_FOR_ALL: u32 = libc::S_ISVTX | libc::S_IWOTH;

/// The sysctl fs.protected_`what`; 0: off.
pub(crate) fn protection(what: &str) -> Result<u8, Errno> {
    let name = Name::format(format_args!("sys/fs/protected_{what}"));
    Ok(procfs::read(&name)?.trim().parse().unwrap_or(1))
}

fn is_procfs(file: &OwnedFd) -> Result<bool, Errno> {
    Ok(linux::file_system(file)? == PROC_SUPER_MAGIC)
}

/// The state of a walk. The next component is the last one in `pending`.
#[derive(Debug)]
struct Walk {
    pending: Vec<CString>,
    links: usize,
    follow: bool,
    must_be_directory: bool,
}

impl Walk {
    fn new(path: &CStr, follow: bool) -> Self {
        let path = path.to_bytes();
        Self {
            pending: components(path).collect(),
            links: 0,
            follow,
            must_be_directory: ends_in_directory(path),
        }
    }

    fn push(&mut self, text: &[u8]) -> Result<(), Errno> {
        if text.is_empty() {
            return Err(Errno::ENOENT);
        }
        if self.pending.is_empty() && ends_in_directory(text) {
            self.must_be_directory = true;
        }
        self.pending.extend(components(text));
        Ok(())
    }

    fn count_link(&mut self) -> Result<(), Errno> {
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(Errno::ELOOP);
        }
        Ok(())
    }

    /// Whether a link that the walk has just reached is the file to open.
    fn stops_at_link(&self) -> bool {
        self.pending.is_empty() && !self.follow && !self.must_be_directory
    }

    /// Removes `fd/N`, `cwd`, `root` or `exe` from `pending` if it comes next.
    fn take_magic_link(&mut self) -> Option<String> {
        let next = self.pending.last()?.to_str().ok()?.to_owned();
        match next.as_str() {
            "cwd" | "root" | "exe" => {
                self.pending.pop();
                Some(next)
            }
            "fd" => {
                let number = self.pending.iter().rev().nth(1)?.to_str().ok()?;
                // Digits only: `fd/..` would lead further into the host's procfs.
                if !number.bytes().all(|digit| digit.is_ascii_digit()) {
                    return None;
                }
                let link = format!("fd/{number}");
                self.pending.truncate(self.pending.len() - 2);
                Some(link)
            }
            _ => None,
        }
    }
}

/// Whether a path leads to a directory or nowhere: it ends with a slash or with `.`.
fn ends_in_directory(path: &[u8]) -> bool {
    let last = path.rsplit(|byte| *byte == b'/').next();
    !path.is_empty() && matches!(last, Some(b"" | b"."))
}

/// The components of a path, the last one first. `.` is one, which takes search permission.
fn components(path: &[u8]) -> impl Iterator<Item = CString> {
    path.split(|byte| *byte == b'/')
        .rev()
        .filter(|part| !part.is_empty())
        .filter_map(|part| CString::new(part).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_and_a_dot_at_the_end_require_a_directory() {
        for directory in [&b"/"[..], b".", b"a/", b"a/.", b"./."] {
            assert!(ends_in_directory(directory), "{directory:?}");
        }
        for other in [&b"a"[..], b"a.", b"..", b"a/..", b".a", b"./a"] {
            assert!(!ends_in_directory(other), "{other:?}");
        }
    }

    #[test]
    fn magic_links_are_taken_from_the_front_and_nothing_else_is() {
        let taken = |path: &CStr| {
            let mut walk = Walk::new(path, true);
            (walk.take_magic_link(), walk.pending.len())
        };
        assert_eq!(taken(c"fd/3/x"), (Some("fd/3".into()), 1));
        assert_eq!(taken(c"cwd/../x"), (Some("cwd".into()), 2));
        for other in [
            c"fd",
            c"fd/..",
            c"fd/-1",
            c"fd/+1/x",
            c"../1/root",
            c"task/1/cwd",
        ] {
            let before = components(other.to_bytes()).count();
            assert_eq!(taken(other), (None, before), "{other:?}");
        }
    }
}
