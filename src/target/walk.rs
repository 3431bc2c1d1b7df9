//! A walk along a path, component by component, with the target in the place of `/proc/self`.
//!
//! The slow way, for paths that the kernel cannot resolve for us (see `path`). Links are followed here, forty at the most,
//! magic ones among them. Nothing is ever looked up in a directory of the *host's* procfs by bytes that a target chose.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use super::path::O_PATH;
use super::{Call, Location, PROCFS};
use crate::owner::file_type;
use crate::procfs::{self, Status};

/// MAXSYMLINKS of the kernel.
const MAX_LINKS: usize = 40;
/// PROC_ROOT_INO
const PROCFS_ROOT_INODE: u64 = 1;

impl Call<'_> {
    /// Component by component, with the target in the place of `/proc/self`.
    pub(super) fn walk(&self, location: &Location) -> Result<OwnedFd, Errno> {
        let mut walk = Walk::new(location);
        let mut here = if location.is_absolute() {
            root()?
        } else {
            self.open_base(location.dirfd)?
        };
        while let Some(component) = walk.pending.pop() {
            let step = openat(
                &here,
                component.as_c_str(),
                O_PATH | OFlag::O_NOFOLLOW,
                Mode::empty(),
            )?;
            let is_link = file_type(fstat(&step)?.st_mode) == SFlag::S_IFLNK;
            here = if !is_link || walk.stops_at_link() {
                step
            } else {
                walk.count_link()?;
                match self.follow(&here, &component, &step, &mut walk)? {
                    Some(elsewhere) => elsewhere,
                    None => here,
                }
            };
        }
        if walk.must_be_directory && file_type(fstat(&here)?.st_mode) != SFlag::S_IFDIR {
            return Err(Errno::ENOTDIR);
        }
        Ok(here)
    }

    /// Follows the link `component` of `directory`; `None`: its text now stands in front of what is left to walk.
    fn follow(
        &self,
        directory: &OwnedFd,
        component: &CStr,
        link: &OwnedFd,
        walk: &mut Walk,
    ) -> Result<Option<OwnedFd>, Errno> {
        if fstatfs(link)?.filesystem_type() == PROC_SUPER_MAGIC {
            match component.to_bytes() {
                name @ (b"self" | b"thread-self") if is_procfs_root(directory)? => {
                    return self.enter_own_directory(directory, name, walk).map(Some);
                }
                // The only links of procfs that are text.
                b"mounts" | b"net" if is_procfs_root(directory)? => {}
                _ if self.is_our_own(directory)? => return Err(Errno::EACCES),
                _ => return openat(directory, component, O_PATH, Mode::empty()).map(Some),
            }
        }
        let text = readlinkat(link, c"")?;
        let text = text.as_encoded_bytes();
        let absolute = text.starts_with(b"/");
        walk.push(text)?;
        if absolute { root().map(Some) } else { Ok(None) }
    }

    /// Whether `directory`, in which a magic link stands, belongs to this process. To itself a process is never closed, to
    /// the container it is: its directory and files are the host's.
    fn is_our_own(&self, directory: &OwnedFd) -> Result<bool, Errno> {
        if !self.container.shows_worker {
            return Ok(false);
        }
        // PID, PID/fd, PID/task/TID, PID/task/TID/fd
        const DEEPEST: usize = 4;
        let up = |from: &OwnedFd| openat(from, c"..", O_PATH | OFlag::O_DIRECTORY, Mode::empty());
        let mut process = openat(directory, c".", O_PATH | OFlag::O_DIRECTORY, Mode::empty())?;
        for _ in 0..DEEPEST {
            let above = up(&process)?;
            if is_procfs_root(&above)? {
                let ours = readlinkat(&above, c"self");
                let name = ours.unwrap_or_default();
                let Ok(own) = openat(&above, name.as_os_str(), O_PATH, Mode::empty()) else {
                    return Ok(false);
                };
                // A thread's number is a name of its process, too: /proc/TID is not listed but there.
                let tgid = |of: &OwnedFd| Status::in_directory(of).ok()?.tgid();
                return Ok(tgid(&own) == tgid(&process));
            }
            process = above;
        }
        // Not within any procfs that can be told: bound by itself somewhere.
        Ok(true)
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

fn is_procfs_root(directory: &OwnedFd) -> Result<bool, Errno> {
    Ok(fstat(directory.as_fd())?.st_ino == PROCFS_ROOT_INODE
        && fstatfs(directory)?.filesystem_type() == PROC_SUPER_MAGIC)
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
