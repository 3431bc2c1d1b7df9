//! open(2), openat2(2) and creat(2): new files, and permission to open existing ones.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, ResolveFlag, openat as open_at};
use nix::sys::stat::{Mode, SFlag, fstat};
use subuidless_fast::facts::DEVICE;

use super::device;
use super::lookup::search_parent;
use super::new_file::{NewFile, is_out_of_reach, may_inherit};
use super::permission::is_read_only;
use super::setgroups_file;
use crate::credentials::{Access, Subject};
use crate::linux::name::Name;
use crate::linux::procfs;
use crate::linux::seccomp::Reply;
use crate::owner::file_type;
use crate::target::{Call, Dirfd, Location, PROCFS, Walked, protection};

/// The arguments of open(2), in the form of openat2(2).
struct Open {
    dirfd: Dirfd,
    path: Name,
    flags: OFlag,
    mode: u32,
    resolve: ResolveFlag,
}

pub(super) fn open(call: &mut Call) -> Result<Reply, Errno> {
    let (flags, mode) = (call.int(1), call.unsigned(2));
    open_path(call, Dirfd::Cwd, 0, flags, mode)
}

pub(super) fn creat(call: &mut Call) -> Result<Reply, Errno> {
    let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;
    let mode = call.unsigned(1);
    open_path(call, Dirfd::Cwd, 0, flags, mode)
}

pub(super) fn openat(call: &mut Call) -> Result<Reply, Errno> {
    if call.register(5) == DEVICE {
        return open_device(call, call.dirfd(0));
    }
    let (flags, mode) = (call.int(2), call.unsigned(3));
    open_path(call, call.dirfd(0), 1, flags, mode)
}

pub(super) fn openat2(call: &mut Call) -> Result<Reply, Errno> {
    let mut how = [0; 24];
    if call.register(3) != how.len() as u64 {
        // CONTINUE: a `struct open_how` of another size than the known one.
        return Ok(Reply::Continue);
    }
    call.read(2, &mut how)?;
    let words = how.as_chunks::<8>().0;
    let word = |index: usize| words.get(index).copied().map_or(0, u64::from_ne_bytes);
    let known = (i32::try_from(word(0)), u32::try_from(word(1)));
    let (Ok(flags), Ok(mode)) = known else {
        // CONTINUE: EINVAL.
        return Ok(Reply::Continue);
    };
    if flags & !KNOWN_FLAGS.bits() != 0 || mode & !0o7777 != 0 {
        // CONTINUE: EINVAL.
        return Ok(Reply::Continue);
    }
    let Ok(path) = call.path(1) else {
        // CONTINUE: the kernel finds the same fault.
        return Ok(Reply::Continue);
    };
    let wanted = Open {
        dirfd: call.dirfd(0),
        path,
        flags: OFlag::from_bits_retain(flags),
        mode,
        resolve: ResolveFlag::from_bits_retain(word(2)),
    };
    open_wanted(call, wanted)
}

/// RESOLVE_CACHED (linux/openat2.h): the call creates nothing.
const CACHED: ResolveFlag = ResolveFlag::from_bits_retain(0x20);

/// O_LARGEFILE, which is 0 in libc (asm/fcntl.h).
const LARGE_FILE: OFlag = OFlag::from_bits_retain(match cfg!(target_arch = "aarch64") {
    true => 0o400_000,
    false => 0o100_000,
});

/// VALID_OPEN_FLAGS (linux/fcntl.h).
const KNOWN_FLAGS: OFlag = OFlag::O_ACCMODE
    .union(OFlag::O_CREAT)
    .union(OFlag::O_EXCL)
    .union(OFlag::O_NOCTTY)
    .union(OFlag::O_TRUNC)
    .union(OFlag::O_APPEND)
    .union(OFlag::O_NONBLOCK)
    .union(OFlag::O_SYNC)
    .union(OFlag::O_DSYNC)
    .union(OFlag::O_ASYNC)
    .union(OFlag::O_DIRECT)
    .union(LARGE_FILE)
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_NOATIME)
    .union(OFlag::O_CLOEXEC)
    .union(OFlag::O_PATH)
    .union(OFlag::O_TMPFILE);

/// Handles a call without `struct open_how`; `path` is an argument number.
fn open_path(
    call: &mut Call,
    dirfd: Dirfd,
    path: usize,
    flags: i32,
    mode: u32,
) -> Result<Reply, Errno> {
    let Ok(path) = call.path(path) else {
        // CONTINUE: the kernel finds the same fault.
        return Ok(Reply::Continue);
    };
    // fs/open.c, build_open_how: unlike openat2(2), these calls ignore unknown flags and mode bits.
    let wanted = Open {
        dirfd,
        path,
        flags: OFlag::from_bits_retain(flags),
        mode: mode & 0o7777,
        resolve: ResolveFlag::empty(),
    };
    open_wanted(call, wanted)
}

fn open_wanted(call: &mut Call, wanted: Open) -> Result<Reply, Errno> {
    let is_exclusive = wanted.creates() && wanted.flags.contains(OFlag::O_EXCL);
    match decide(call, &wanted)? {
        // CONTINUE: the kernel opens or creates the file, or fails with the right errno.
        Reply::Continue if !is_exclusive && wanted.resolve.is_empty() => {
            let location = wanted.location();
            let reply = match setgroups_file::open(call, &location, wanted.flags)? {
                Some(reply) => Some(reply),
                None => device::open(call, &location, wanted.flags)?,
            };
            Ok(reply.unwrap_or(Reply::Continue))
        }
        reply => Ok(reply),
    }
}

/// openat(2) of the preloaded library, to which the kernel has said ENXIO. O_CREAT is there only
/// for the filter.
fn open_device(call: &Call, dirfd: Dirfd) -> Result<Reply, Errno> {
    let wanted = Open {
        dirfd,
        path: call.path(1)?,
        flags: OFlag::from_bits_retain(call.int(2)).difference(OFlag::O_CREAT),
        mode: 0,
        resolve: ResolveFlag::empty(),
    };
    device::open(call, &wanted.location(), wanted.flags)?.ok_or(Errno::ENXIO)
}

/// Everything but devices.
fn decide(call: &mut Call, wanted: &Open) -> Result<Reply, Errno> {
    let flags = wanted.flags;
    if let Some(subject) = call.restricted()? {
        may_open(call, &subject, wanted)?;
    }
    if flags.contains(OFlag::O_PATH) || wanted.resolve.intersects(CACHED) {
        // CONTINUE: the call creates nothing.
        return Ok(Reply::Continue);
    }
    if flags.contains(OFlag::O_TMPFILE) {
        return open_unnamed(call, wanted);
    }
    if !wanted.creates() {
        // CONTINUE: the call creates nothing, or EINVAL.
        return Ok(Reply::Continue);
    }
    let follows = wanted.follows();
    let path = wanted.path.as_c_str();
    let Some(new_file) = NewFile::find(call, wanted.dirfd, path, follows, wanted.resolve)? else {
        // CONTINUE: the kernel creates the file, or fails with the right errno.
        return Ok(Reply::Continue);
    };
    create(call, new_file, wanted, follows)
}

impl Open {
    /// Whether the call creates a file with a name if there is none.
    fn creates(&self) -> bool {
        let no = OFlag::O_PATH | OFlag::O_DIRECTORY;
        self.flags.contains(OFlag::O_CREAT) && !self.flags.intersects(no)
    }

    /// Whether a link in the last component is followed.
    fn follows(&self) -> bool {
        let is_exclusive = self.creates() && self.flags.contains(OFlag::O_EXCL);
        !is_exclusive && !self.flags.contains(OFlag::O_NOFOLLOW)
    }

    fn location(&self) -> Location<'_> {
        let flags = match self.follows() {
            true => AtFlags::empty(),
            false => AtFlags::AT_SYMLINK_NOFOLLOW,
        };
        Location::new(self.dirfd, self.path.as_c_str(), flags)
    }

    /// The permission for the file.
    fn access(&self) -> Access {
        Access::of_open(self.flags)
    }
}

/// Checks the way to the file, and the file itself unless the call may create it.
fn may_open(call: &Call, subject: &Subject, wanted: &Open) -> Result<(), Errno> {
    let location = wanted.location();
    let is_library = wanted.access() == Access::READ && call.is_library(location.path);
    if location.is_empty() || is_library {
        // ENOENT, or everyone's.
        return Ok(());
    }
    if wanted.creates() && location.path.to_bytes().ends_with(b"/") {
        // EISDIR, before the last component is looked up.
        search_parent(call, subject, wanted.dirfd, location.path)?;
        return Ok(());
    }
    // With flags such as RESOLVE_IN_ROOT, the way is another one: only the file is checked.
    let resolve = wanted.resolve.difference(CACHED);
    let found = match resolve.is_empty() {
        true => call.search(subject, &location),
        false => call.resolve_with(&location, resolve).map(Walked::To),
    };
    let file = match found {
        Ok(Walked::To(file)) => file,
        Ok(Walked::Refused(errno)) => return Err(errno),
        // The kernel fails with the right errno, or creates the file.
        Err(_) => return Ok(()),
    };
    if wanted.creates() || wanted.flags.intersects(OFlag::O_PATH | UNNAMED) {
        return Ok(());
    }
    check_present(call, subject, &file, wanted)
}

/// O_TMPFILE without O_DIRECTORY, which it includes.
const UNNAMED: OFlag = OFlag::O_TMPFILE.difference(OFlag::O_DIRECTORY);

/// MAXSYMLINKS (linux/namei.h).
const MAX_LINKS: usize = 40;

/// Creates the file, or lets the kernel open what exists. A dangling link in the last component is
/// followed here, link by link: a worker creates each file with O_EXCL, which follows none.
fn create(
    call: &Call,
    mut new_file: NewFile,
    wanted: &Open,
    follows: bool,
) -> Result<Reply, Errno> {
    for _ in 0..MAX_LINKS {
        if new_file.slash {
            // CONTINUE: EISDIR, or the errno of the lookup.
            return Ok(Reply::Continue);
        }
        let present = new_file.present();
        // A worker that was killed in this call has created the file: not EEXIST.
        if present == Ok(Some(SFlag::S_IFREG))
            && let Some(made) = new_file.left_over(call, SFlag::S_IFREG)?
        {
            return finish_creation(call, &new_file, &made, wanted);
        }
        match present {
            Ok(None) => return create_here(call, &new_file, wanted),
            Ok(Some(SFlag::S_IFLNK)) if follows && wanted.resolve.is_empty() => {
                match new_file.through_link(call)? {
                    Some(next) => new_file = next,
                    None => return open_behind_link(call, &new_file, wanted),
                }
            }
            Ok(Some(_)) if !wanted.flags.contains(OFlag::O_EXCL) => {
                return open_present(call, &new_file, wanted);
            }
            // CONTINUE: EEXIST, or the errno of the lookup.
            _ => return Ok(Reply::Continue),
        }
    }
    // CONTINUE: ELOOP.
    Ok(Reply::Continue)
}

/// Checks the existing file in place of the new one.
fn open_present(call: &Call, new_file: &NewFile, wanted: &Open) -> Result<Reply, Errno> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    if let Ok(file) = open_at(&new_file.directory, &new_file.name, flags, Mode::empty()) {
        check_sticky(call, new_file, &file)?;
        check_present(call, &new_file.subject, &file, wanted)?;
    }
    // CONTINUE: the target may open the file, or it has been removed since.
    Ok(Reply::Continue)
}

/// Protects files of others in a directory like /tmp: fs/namei.c, may_create_in_sticky.
fn check_sticky(call: &Call, new_file: &NewFile, file: &OwnedFd) -> Result<(), Errno> {
    let stat = fstat(file)?;
    let directory = new_file.shown;
    let degree = match file_type(stat.st_mode) {
        SFlag::S_IFDIR => return Ok(()),
        _ if directory.mode & libc::S_ISVTX == 0 => return Ok(()),
        SFlag::S_IFREG => protection("regular")?,
        SFlag::S_IFIFO => protection("fifos")?,
        // All others are protected in directories for all, whatever the sysctls say.
        _ => 1,
    };
    let least = match directory.mode & (libc::S_IWOTH | libc::S_IWGRP) {
        0 => return Ok(()),
        libc::S_IWGRP => 2,
        _ => 1,
    };
    let owner = call.shown_mode(file.as_fd(), &stat)?.uid;
    let is_own = owner == new_file.subject.uid || owner == directory.uid;
    match is_own || degree < least {
        true => Ok(()),
        false => Err(Errno::EACCES),
    }
}

/// Checks the file behind a link through which nothing can be created. Such a link leads to an
/// existing file, or nowhere.
fn open_behind_link(call: &Call, new_file: &NewFile, wanted: &Open) -> Result<Reply, Errno> {
    let location = Location::new(wanted.dirfd, wanted.path.as_c_str(), AtFlags::empty());
    if let Ok(file) = call.resolve(&location) {
        check_present(call, &new_file.subject, &file, wanted)?;
    }
    // CONTINUE: the target may open the file, or the kernel fails with the right errno.
    Ok(Reply::Continue)
}

/// Checks whether the target may open an existing file: fs/namei.c, do_open and may_open. The
/// kernel then opens it, because that may block (a fifo waits for its other end), and must not
/// block a worker.
fn check_present(
    call: &Call,
    subject: &Subject,
    file: &OwnedFd,
    wanted: &Open,
) -> Result<(), Errno> {
    let stat = fstat(file)?;
    let access = wanted.access();
    let is_fault = match file_type(stat.st_mode) {
        // ELOOP
        SFlag::S_IFLNK => true,
        // EISDIR
        SFlag::S_IFDIR => wanted.creates() || access != Access::READ,
        // ENOTDIR
        _ => wanted.flags.contains(OFlag::O_DIRECTORY),
    };
    if is_fault {
        return Ok(());
    }
    // fs/namei.c, do_open: mnt_want_write comes before may_open.
    let truncates = wanted.flags.contains(OFlag::O_TRUNC);
    if truncates && file_type(stat.st_mode) == SFlag::S_IFREG && is_read_only(file.as_fd()) {
        return Err(Errno::EROFS);
    }
    if !call.may(subject, access, file.as_fd(), &stat)? {
        return Err(Errno::EACCES);
    }
    let keeps_times = wanted.flags.contains(OFlag::O_NOATIME);
    if keeps_times && !subject.owns(call.shown_mode(file.as_fd(), &stat)?) {
        return Err(Errno::EPERM);
    }
    Ok(())
}

/// Creates the file and sends its descriptor together with the reply.
fn create_here(call: &Call, new_file: &NewFile, wanted: &Open) -> Result<Reply, Errno> {
    new_file.prepare(call)?;
    // O_EXCL: the file must be new, since it gets the target's owner. O_NOCTTY: no terminal may
    // become the worker's.
    let flags = wanted.flags | OFlag::O_EXCL | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    let mode = Mode::from_bits_truncate(new_file.mode(wanted.mode));
    let creation = call.container.creations.begin();
    let file = match open_at(&new_file.directory, &new_file.name, flags, mode) {
        // CONTINUE: another process has just created a file of this name.
        Err(Errno::EEXIST) => return Ok(Reply::Continue),
        result => result?,
    };
    let owned = new_file.own(call, file.as_fd());
    drop(creation);
    let handed_over = owned.and_then(|()| hand_over(call, &file, wanted));
    // EMFILE of the target, or no space for the owner: the kernel would have failed before it
    // created the file.
    handed_over.inspect_err(|_| new_file.remove(file.as_fd()))
}

/// Finishes a creation that a killed worker has begun: `made` may lack its owner, and the target
/// has no descriptor yet.
fn finish_creation(
    call: &Call,
    new_file: &NewFile,
    made: &OwnedFd,
    wanted: &Open,
) -> Result<Reply, Errno> {
    // By way of the link `self/fd/N`: this inode, even if another file has its name by now.
    let creation = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
    let flags = wanted.flags.difference(creation) | OFlag::O_CLOEXEC;
    let file = open_at(PROCFS, &procfs::own_fd(made.as_fd()), flags, Mode::empty())?;
    new_file.own(call, file.as_fd())?;
    hand_over(call, &file, wanted)
}

/// Replies with a descriptor for `file`.
fn hand_over(call: &Call, file: &OwnedFd, wanted: &Open) -> Result<Reply, Errno> {
    let close_on_exec = wanted.flags.contains(OFlag::O_CLOEXEC);
    call.listener
        .reply_with_file(call.notification.id, file.as_fd(), close_on_exec)
}

/// O_TMPFILE: creates a file without a name. The path is that of a directory.
fn open_unnamed(call: &mut Call, wanted: &Open) -> Result<Reply, Errno> {
    let flags = match wanted.flags.contains(OFlag::O_NOFOLLOW) {
        true => AtFlags::AT_SYMLINK_NOFOLLOW,
        false => AtFlags::empty(),
    };
    let location = Location::new(wanted.dirfd, wanted.path.as_c_str(), flags);
    let who = call.who_among_files()?;
    let as_kernel = call.container.identities.creates_as_kernel(who);
    if (as_kernel && !may_inherit(call, &location, location.path, false)) || is_out_of_reach(call)?
    {
        // CONTINUE: the kernel gives the file the right owner, or a worker cannot create it for the
        // target.
        return Ok(Reply::Continue);
    }
    let directory = match wanted.resolve.is_empty() {
        true => call.resolve(&location),
        false => call.resolve_with(&location, wanted.resolve),
    };
    let Ok(directory) = directory else {
        // CONTINUE: the kernel fails with the right errno.
        return Ok(Reply::Continue);
    };
    let subject = call.subject_of(who)?;
    let new_file = NewFile::in_directory(call, subject, directory, Name::default(), false)?;
    if !new_file.shown.is_directory() {
        // CONTINUE: ENOTDIR.
        return Ok(Reply::Continue);
    }
    new_file.prepare(call)?;
    let flags = wanted.flags | OFlag::O_CLOEXEC;
    let mode = Mode::from_bits_truncate(new_file.mode(wanted.mode));
    let file = open_at(&new_file.directory, c".", flags, mode)?;
    new_file.own(call, file.as_fd())?;
    hand_over(call, &file, wanted)
}
