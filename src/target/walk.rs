//! A walk along a path, component by component, with the target in the place of `/proc/self`.
//!
//! The slow way, for paths that the kernel cannot resolve for us (see `path`). Links are followed here, forty at the most,
//! magic ones among them: those of other processes with the target's own rights (`rights`). Nothing is ever looked up in the
//! worker's own working directory, the host's procfs, by bytes that a target chose.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use super::path::O_PATH;
use super::{Call, Location, PROCFS};
use crate::owner::file_type;
use crate::procfs::{self, Status};

/// MAXSYMLINKS of the kernel.
const MAX_LINKS: usize = 40;
/// PROC_ROOT_INO
const PROCFS_ROOT_INODE: u64 = 1;

/// Where a walk has got to.
struct Here {
    file: OwnedFd,
    device: libc::dev_t,
    is_procfs: bool,
}

impl Here {
    fn new(file: OwnedFd) -> Result<Self, Errno> {
        Ok(Self {
            device: fstat(&file)?.st_dev,
            is_procfs: is_procfs(&file)?,
            file,
        })
    }

    /// `file` was found in this directory.
    fn enter(&mut self, file: OwnedFd, device: libc::dev_t) -> Result<(), Errno> {
        if device != self.device {
            self.is_procfs = is_procfs(&file)?;
            self.device = device;
        }
        self.file = file;
        Ok(())
    }
}

/// Whose directory of procfs it is.
#[derive(Debug, PartialEq, Eq)]
enum Whose {
    /// This process's: to the container its directory and files are the host's.
    Worker,
    Target,
    /// Another process's, or nobody's that can be told.
    Another,
}

impl Call<'_> {
    /// Component by component, with the target in the place of `/proc/self`.
    pub(super) fn walk(&self, location: &Location) -> Result<OwnedFd, Errno> {
        let mut walk = Walk::new(location);
        let mut here = Here::new(if location.is_absolute() {
            root()?
        } else {
            self.open_base(location.dirfd)?
        })?;
        while let Some(component) = walk.pending.pop() {
            let look = || {
                openat(
                    &here.file,
                    component.as_c_str(),
                    O_PATH | OFlag::O_NOFOLLOW,
                    Mode::empty(),
                )
            };
            let step = match here.is_procfs {
                true => self.with_own_rights(look)?,
                false => look()?,
            };
            let stat = fstat(&step)?;
            if file_type(stat.st_mode) != SFlag::S_IFLNK || walk.stops_at_link() {
                here.enter(step, stat.st_dev)?;
                continue;
            }
            walk.count_link()?;
            if let Some(elsewhere) = self.follow(&here, &component, &step, &mut walk)? {
                here = Here::new(elsewhere)?;
            }
        }
        if walk.must_be_directory && file_type(fstat(&here.file)?.st_mode) != SFlag::S_IFDIR {
            return Err(Errno::ENOTDIR);
        }
        Ok(here.file)
    }

    /// Follows the link `component` of `here`; `None`: its text now stands in front of what is left to walk.
    fn follow(
        &self,
        here: &Here,
        component: &CStr,
        link: &OwnedFd,
        walk: &mut Walk,
    ) -> Result<Option<OwnedFd>, Errno> {
        let directory = &here.file;
        if here.is_procfs {
            match component.to_bytes() {
                name @ (b"self" | b"thread-self") if is_procfs_root(directory)? => {
                    return self.enter_own_directory(directory, name, walk).map(Some);
                }
                // The only links of procfs that are text.
                b"mounts" | b"net" if is_procfs_root(directory)? => {}
                _ => return self.follow_magic(directory, component).map(Some),
            }
        }
        let text = readlinkat(link, c"")?;
        let text = text.as_encoded_bytes();
        let absolute = text.starts_with(b"/");
        walk.push(text)?;
        if absolute { root().map(Some) } else { Ok(None) }
    }

    /// Follows a link to a file that a process has open, its root, its namespaces and the like.
    fn follow_magic(&self, directory: &OwnedFd, link: &CStr) -> Result<OwnedFd, Errno> {
        let follow = || openat(directory, link, O_PATH, Mode::empty());
        match self.whose(directory)? {
            // To itself a process is never closed; to the target the worker is.
            Whose::Worker => Err(Errno::EACCES),
            Whose::Target => follow(),
            // The worker is the owner of every namespace below its own, and so holds all capabilities in it.
            Whose::Another if !self.is_in_namespace()? => Err(Errno::EACCES),
            Whose::Another => self.with_own_rights(follow),
        }
    }

    /// Whose the directory is in which a magic link stands.
    fn whose(&self, directory: &OwnedFd) -> Result<Whose, Errno> {
        // PID, PID/fd, PID/task/TID, PID/task/TID/fd
        const DEEPEST: usize = 4;
        let up = |from: &OwnedFd| openat(from, c"..", O_PATH | OFlag::O_DIRECTORY, Mode::empty());
        let mut process = openat(directory, c".", O_PATH | OFlag::O_DIRECTORY, Mode::empty())?;
        for _ in 0..DEEPEST {
            let above = up(&process)?;
            if is_procfs_root(&above)? {
                return self.whose_process(&above, &process);
            }
            process = above;
        }
        // Not within any procfs that can be told: bound by itself somewhere.
        Ok(Whose::Worker)
    }

    /// `procfs` is the root in which the directory `process` stands.
    fn whose_process(&self, procfs: &OwnedFd, process: &OwnedFd) -> Result<Whose, Errno> {
        let status = Status::in_directory(process)?;
        let own = readlinkat(procfs, c"self")
            .and_then(|name| openat(procfs, name.as_os_str(), O_PATH, Mode::empty()));
        if let Ok(own) = own {
            // A thread's number is a name of its process, too: /proc/TID is not listed but there.
            if Status::in_directory(&own)?.tgid() == status.tgid() {
                return Ok(Whose::Worker);
            }
        }
        // The same number in the same pid namespace.
        let target = Status::of(self.pid())?;
        if status.own_tgid().is_none() || status.own_tgid() != target.own_tgid() {
            return Ok(Whose::Another);
        }
        let theirs = fstatat(process, c"ns/pid", AtFlags::empty());
        let targets = fstatat(
            PROCFS,
            &procfs::target(self.pid(), "ns/pid"),
            AtFlags::empty(),
        )?;
        let is_same =
            theirs.is_ok_and(|it| (it.st_dev, it.st_ino) == (targets.st_dev, targets.st_ino));
        Ok(if is_same {
            Whose::Target
        } else {
            Whose::Another
        })
    }

    /// What `/proc/self` means to the target.
    ///
    /// Files behind it are reached through magic links of the *host's* procfs, and only those: its directories hold the
    /// host's processes, so no component that the target chose is ever looked up in one. Everything else is found
    /// by the target's own number in the container's procfs.
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
                // A thread may have a directory and files of its own: `self` means the process's first thread.
                let whose = match name {
                    b"self" => self.host_tgid()?,
                    _ => self.pid(),
                };
                let name = procfs::target(whose, &link);
                return match openat(PROCFS, &name, O_PATH, Mode::empty()) {
                    // The first thread has ended: no file is its own any more. To itself a target is never closed.
                    Err(Errno::EACCES) => Err(Errno::ENOENT),
                    result => result,
                };
            }
            // lchown and lstat of the link itself.
            walk.push(link.as_bytes())?;
        }
        let status = Status::of(self.pid())?;
        let process = status.own_tgid().ok_or(Errno::ENOENT)?;
        let own = match name {
            b"self" => process.to_string(),
            _ => {
                let thread = status.own_tid().ok_or(Errno::ENOENT)?;
                format!("{process}/task/{thread}")
            }
        };
        openat(procfs_root, own.as_str(), O_PATH, Mode::empty())
    }

    pub(super) fn host_tgid(&self) -> Result<u32, Errno> {
        Status::of(self.pid())?.tgid().ok_or(Errno::ENOENT)
    }
}

fn root() -> Result<OwnedFd, Errno> {
    open(c"/", O_PATH | OFlag::O_DIRECTORY, Mode::empty())
}

pub(super) fn is_procfs_root(directory: &OwnedFd) -> Result<bool, Errno> {
    Ok(fstat(directory.as_fd())?.st_ino == PROCFS_ROOT_INODE && is_procfs(directory)?)
}

fn is_procfs(file: &OwnedFd) -> Result<bool, Errno> {
    Ok(fstatfs(file)?.filesystem_type() == PROC_SUPER_MAGIC)
}

/// The state of a walk: what is left, innermost last.
#[derive(Debug)]
struct Walk {
    pending: Vec<CString>,
    links: usize,
    follow: bool,
    must_be_directory: bool,
}

impl Walk {
    fn new(location: &Location) -> Self {
        let path = location.path.to_bytes();
        Self {
            pending: components(path).collect(),
            links: 0,
            follow: location.follow,
            must_be_directory: path.ends_with(b"/") || path.ends_with(b"/."),
        }
    }

    fn push(&mut self, text: &[u8]) -> Result<(), Errno> {
        if text.is_empty() {
            return Err(Errno::ENOENT);
        }
        if self.pending.is_empty() && text.ends_with(b"/") {
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

    /// Whether a link that has just been reached is what is asked for.
    fn stops_at_link(&self) -> bool {
        self.pending.is_empty() && !self.follow && !self.must_be_directory
    }

    /// Takes `fd/N`, `cwd`, `root` or `exe` from what is left, when it comes next.
    fn take_magic_link(&mut self) -> Option<String> {
        let next = self.pending.last()?.to_str().ok()?.to_owned();
        match next.as_str() {
            "cwd" | "root" | "exe" => {
                self.pending.pop();
                Some(next)
            }
            "fd" => {
                let number = self.pending.iter().rev().nth(1)?.to_str().ok()?;
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

/// The components of a path, last one first. `.` stands for nothing.
fn components(path: &[u8]) -> impl Iterator<Item = CString> {
    path.split(|byte| *byte == b'/')
        .rev()
        .filter(|part| !part.is_empty() && *part != b".")
        .filter_map(|part| CString::new(part).ok())
}

#[cfg(test)]
mod tests {
    use super::super::Dirfd;
    use super::*;

    fn location(path: &CStr) -> Location<'_> {
        Location {
            dirfd: Dirfd::Cwd,
            path,
            follow: true,
            empty_path: false,
        }
    }

    #[test]
    fn magic_links_are_taken_from_the_front_and_nothing_else_is() {
        let taken = |path: &CStr| {
            let mut walk = Walk::new(&location(path));
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
