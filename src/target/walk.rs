//! A walk along a path, component by component, with the target in the place of `/proc/self`.
//!
//! The slow way, for paths that the kernel cannot resolve for us (see `path`). Links are followed
//! here, forty at the most, magic ones among them: those of other processes with the target's own
//! rights (`rights`). Nothing is ever looked up in the worker's own working directory, the host's
//! procfs, by bytes that a target chose.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2, readlink, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::Uid;

use super::path::O_PATH;
use super::{Call, PROCFS};
use crate::linux::name::Name;
use crate::linux::procfs::{self, Status};
use crate::linux::sys;
use crate::owner::file_type;

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

impl Call<'_> {
    /// Component by component, with the target in the place of `/proc/self`.
    pub(super) fn walk(
        &self,
        base: Option<OwnedFd>,
        path: &CStr,
        follow: bool,
    ) -> Result<OwnedFd, Errno> {
        let mut walk = Walk::new(path, follow);
        let mut here = Here::new(base.map_or_else(root, Ok)?)?;
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

    /// Follows the link `component` of `here`; `None`: its text now stands in front of what is left
    /// to walk.
    fn follow(
        &self,
        here: &Here,
        component: &CStr,
        link: &OwnedFd,
        walk: &mut Walk,
    ) -> Result<Option<OwnedFd>, Errno> {
        let directory = &here.file;
        // A link of text may be mounted on a file of procfs.
        if is_procfs(link)? {
            match component.to_bytes() {
                name @ (b"self" | b"thread-self") if is_procfs_root(directory)? => {
                    return self.enter_own_directory(directory, name, walk).map(Some);
                }
                // The only links of procfs that are text.
                b"mounts" | b"net" if is_procfs_root(directory)? => {}
                _ => {
                    let followed = self.follow_as_target(directory, component);
                    return followed.map(Some);
                }
            }
        }
        may_follow(directory, link)?;
        let text = readlinkat(link, c"")?;
        let text = text.as_encoded_bytes();
        let absolute = text.starts_with(b"/");
        walk.push(text)?;
        if absolute { root().map(Some) } else { Ok(None) }
    }

    /// The text of the link `name` of `directory`, if it is one that is text, and that may be
    /// followed.
    pub(crate) fn link_text(
        &self,
        directory: &OwnedFd,
        name: &CStr,
    ) -> Result<Option<Vec<u8>>, Errno> {
        let link = openat(directory, name, O_PATH | OFlag::O_NOFOLLOW, Mode::empty())?;
        if is_procfs(&link)? {
            return Ok(None);
        }
        may_follow(directory, &link)?;
        Ok(Some(readlinkat(&link, c"")?.into_encoded_bytes()))
    }

    /// What `/proc/self` means to the target.
    ///
    /// Files behind it are reached through magic links of the *host's* procfs, and only those: its
    /// directories hold the host's processes, so no component that the target chose is ever looked
    /// up in one. Everything else is found by the target's own number in the container's procfs.
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
                // A thread may have a directory and files of its own: `self` means the process's
                // first thread.
                let whose = match name {
                    b"self" => self.host_tgid()?,
                    _ => self.pid(),
                };
                let name = procfs::target(whose, &link);
                return match openat(PROCFS, &name, O_PATH, Mode::empty()) {
                    // The first thread has ended: no file is its own any more. To itself a target
                    // is never closed.
                    Err(Errno::EACCES) => Err(Errno::ENOENT),
                    result => result,
                };
            }
            // lchown and lstat of the link itself.
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

    /// The number of the target's process in the pid namespace of a procfs, which may be any above
    /// its own.
    fn own_directory(&self, procfs_root: &OwnedFd) -> Result<u32, Errno> {
        let is_own = |number: &u32| {
            let name = Name::format(format_args!("{number}"));
            self.is_own_process(&open_unmounted(procfs_root, &name)?)
        };
        let numbers = Status::of(self.pid())?.tgids();
        let found = numbers.into_iter().rev().find(|it| is_own(it) == Ok(true));
        // It is not in there.
        found.ok_or(Errno::ENOENT)
    }

    /// Whether the directory `process` of some procfs is that of the target's process: it has the
    /// same number in the same pid namespace. Nothing that is mounted there counts.
    fn is_own_process(&self, process: &OwnedFd) -> Result<bool, Errno> {
        let namespaces = open_unmounted(process, c"ns")?;
        let link = open_unmounted(&namespaces, c"pid")?;
        let status = Status::of_file(open_unmounted(process, c"status")?.as_fd())?;
        let target = Status::of(self.pid())?;
        let namespace = readlink(&procfs::target(self.pid(), "ns/pid"))?;
        Ok(status.own_tgid() == target.own_tgid() && readlinkat(&link, c"")? == namespace)
    }

    /// Whether `directory` lies in that of the target's process.
    pub(super) fn is_in_own_process(&self, directory: &OwnedFd) -> Result<bool, Errno> {
        // PID, PID/fd, PID/task/TID, PID/task/TID/fd
        const DEEPEST: usize = 4;
        let mut process = directory.try_clone().map_err(|_| Errno::EMFILE)?;
        for _ in 0..DEEPEST {
            let above = open_unmounted(&process, c"..")?;
            if is_procfs_root(&above)? {
                return self.is_own_process(&process);
            }
            process = above;
        }
        Ok(false)
    }

    /// The same of its thread; `process` is its process's.
    fn own_thread(&self, process: u32) -> Result<u32, Errno> {
        let target = Status::of(self.pid())?;
        let depth = target.tgids().iter().position(|it| *it == process);
        let number = depth.and_then(|depth| target.tids().get(depth).copied());
        number.ok_or(Errno::ENOENT)
    }

    pub(super) fn host_tgid(&self) -> Result<u32, Errno> {
        Status::of(self.pid())?.tgid().ok_or(Errno::ENOENT)
    }
}

pub(super) fn root() -> Result<OwnedFd, Errno> {
    open(c"/", O_PATH | OFlag::O_DIRECTORY, Mode::empty())
}

pub(super) fn is_procfs_root(directory: &OwnedFd) -> Result<bool, Errno> {
    Ok(fstat(directory.as_fd())?.st_ino == PROCFS_ROOT_INODE && is_procfs(directory)?)
}

/// Opens what stands in a directory of procfs itself, not what may be mounted there (EXDEV), and
/// follows nothing.
fn open_unmounted<P: NixPath + ?Sized>(directory: &OwnedFd, name: &P) -> Result<OwnedFd, Errno> {
    let how = OpenHow::new()
        .flags(O_PATH | OFlag::O_NOFOLLOW)
        .resolve(ResolveFlag::RESOLVE_NO_XDEV | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(directory, name, how)
}

/// Whether the kernel would follow a link of text: fs/namei.c, pick_link and may_follow_link.
fn may_follow(directory: &OwnedFd, link: &OwnedFd) -> Result<(), Errno> {
    const STICKY_FOR_ALL: u32 = libc::S_ISVTX | libc::S_IWOTH;
    if sys::mount_flags(link.as_fd())? & sys::ST_NOSYMFOLLOW != 0 {
        return Err(Errno::ELOOP);
    }
    let above = fstat(directory)?;
    if above.st_mode & STICKY_FOR_ALL != STICKY_FOR_ALL {
        return Ok(());
    }
    let owner = fstat(link)?.st_uid;
    if owner == Uid::effective().as_raw() || owner == above.st_uid {
        return Ok(());
    }
    let name = Name::format(format_args!("sys/fs/protected_symlinks"));
    match procfs::read(&name)?.trim() {
        "0" => Ok(()),
        _ => Err(Errno::EACCES),
    }
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
    fn new(path: &CStr, follow: bool) -> Self {
        let path = path.to_bytes();
        Self {
            pending: components(path).collect(),
            links: 0,
            follow,
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
    use super::*;

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
