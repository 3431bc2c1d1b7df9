//! Permission to look up the paths that a call names: search permission for each directory on the
//! way, by emulated credentials (path_resolution(7)).
//!
//! The table says which arguments are paths, and [`check`] runs before the handler. Handlers whose
//! paths are in memory call [`search`].

use std::ffi::CStr;

use nix::errno::Errno;
use nix::fcntl::AtFlags;

use crate::credentials::Subject;
use crate::linux::name::Name;
use crate::target::{Call, Dirfd, Location, Refusal};

/// A path among the arguments of a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lookup {
    /// The argument number of the directory; `None`: the working directory.
    dirfd: Option<usize>,
    path: usize,
    follow: Follow,
}

/// Whether a link in the last component is followed.
#[derive(Debug, Clone, Copy)]
enum Follow {
    Always,
    Never,
    /// The last component is a name in the directory before it, and is not looked up here.
    Name,
    /// If this argument does not have these flags.
    Unless(usize, i32),
    /// If this argument has AT_SYMLINK_FOLLOW.
    Given(usize),
}

const fn path(path: usize, follow: Follow) -> Lookup {
    Lookup {
        dirfd: None,
        path,
        follow,
    }
}

const fn at(dirfd: usize, follow: Follow) -> Lookup {
    Lookup {
        dirfd: Some(dirfd),
        path: dirfd + 1,
        follow,
    }
}

const fn unless_nofollow(flags: usize) -> Lookup {
    at(0, Follow::Unless(flags, libc::AT_SYMLINK_NOFOLLOW))
}

pub(super) const PATH: &[Lookup] = &[path(0, Follow::Always)];
/// mount(2)
pub(super) const SECOND: &[Lookup] = &[path(1, Follow::Always)];
pub(super) const LINK: &[Lookup] = &[path(0, Follow::Never)];
/// mkdir(2), unlink(2)
pub(super) const NAME: &[Lookup] = &[path(0, Follow::Name)];
/// symlink(2)
pub(super) const SECOND_NAME: &[Lookup] = &[path(1, Follow::Name)];
/// rename(2)
pub(super) const TWO_NAMES: &[Lookup] = &[path(0, Follow::Name), path(1, Follow::Name)];
/// link(2)
pub(super) const LINK_AND_NAME: &[Lookup] = &[path(0, Follow::Never), path(1, Follow::Name)];
/// pivot_root(2)
pub(super) const BOTH: &[Lookup] = &[path(0, Follow::Always), path(1, Follow::Always)];
pub(super) const AT: &[Lookup] = &[at(0, Follow::Always)];
pub(super) const LINK_AT: &[Lookup] = &[at(0, Follow::Never)];
/// mkdirat(2), unlinkat(2)
pub(super) const NAME_AT: &[Lookup] = &[at(0, Follow::Name)];
/// symlinkat(2)
pub(super) const SECOND_NAME_AT: &[Lookup] = &[at(1, Follow::Name)];
/// renameat(2)
pub(super) const TWO_NAMES_AT: &[Lookup] = &[at(0, Follow::Name), at(2, Follow::Name)];
/// linkat(2)
pub(super) const FILE_AND_NAME_AT: &[Lookup] = &[at(0, Follow::Given(4)), at(2, Follow::Name)];
pub(super) const UNLESS_FLAG_2: &[Lookup] = &[unless_nofollow(2)];
pub(super) const UNLESS_FLAG_3: &[Lookup] = &[unless_nofollow(3)];
pub(super) const UNLESS_FLAG_4: &[Lookup] = &[unless_nofollow(4)];
/// name_to_handle_at(2)
pub(super) const IF_FLAG_4: &[Lookup] = &[at(0, Follow::Given(4))];
/// inotify_add_watch(2)
pub(super) const WATCHED: &[Lookup] = &[path(1, Follow::Unless(2, IN_DONT_FOLLOW))];

const IN_DONT_FOLLOW: i32 = libc::IN_DONT_FOLLOW.cast_signed();

/// Fails with EACCES if the target may not look up one of the paths.
pub(crate) fn check(call: &Call, lookups: &[Lookup]) -> Result<(), Errno> {
    if lookups.is_empty() {
        return Ok(());
    }
    let Some(subject) = call.restricted()? else {
        return Ok(());
    };
    for lookup in lookups {
        let Ok(path) = call.path(lookup.path) else {
            // The kernel finds the same fault, and looks up no further path either.
            break;
        };
        let follows = match lookup.follow {
            Follow::Always => true,
            Follow::Never | Follow::Name => false,
            Follow::Unless(flags, bits) => call.int(flags) & bits == 0,
            Follow::Given(flags) => call.int(flags) & libc::AT_SYMLINK_FOLLOW != 0,
        };
        let flags = match follows {
            true => AtFlags::empty(),
            false => AtFlags::AT_SYMLINK_NOFOLLOW,
        };
        let dirfd = lookup.dirfd.map_or(Dirfd::Cwd, |dirfd| call.dirfd(dirfd));
        let location = Location::new(dirfd, path.as_c_str(), flags);
        let is_found = match lookup.follow {
            Follow::Name => search_parent(call, &subject, dirfd, path.as_c_str()),
            _ => search(call, &subject, &location),
        };
        if !is_found? {
            // The kernel looks up no further path either.
            break;
        }
    }
    Ok(())
}

/// Fails with EACCES if `subject` may not look up `location`. Returns whether there is a file; all
/// other faults are left to the kernel, which finds them, too.
pub(super) fn search(call: &Call, subject: &Subject, location: &Location) -> Result<bool, Errno> {
    if location.is_empty() {
        return Ok(location.empty_path);
    }
    match call.look_up(subject, location) {
        Ok(()) => Ok(true),
        Err(Refusal::Denied) => Err(Errno::EACCES),
        // Nothing receives this errno.
        Err(Refusal::ByKernel(Errno::ESRCH)) => Err(Errno::ESRCH),
        Err(Refusal::ByKernel(_)) => Ok(false),
    }
}

/// As [`search`], for the directory in front of the last component of `path`, and for permission to
/// look that up in it.
pub(super) fn search_parent(
    call: &Call,
    subject: &Subject,
    dirfd: Dirfd,
    path: &CStr,
) -> Result<bool, Errno> {
    let Some((prefix, _)) = last_component(path.to_bytes()) else {
        // The root directory, or ENOENT.
        return Ok(!path.is_empty());
    };
    // A dot after it takes search permission for the directory itself.
    let directory = Name::new([prefix, b"."].concat());
    search(
        call,
        subject,
        &Location::new(dirfd, directory.as_c_str(), AtFlags::empty()),
    )
}

/// The part of a path in front of its last component, and this component; `None` if there is none.
pub(super) fn last_component(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = path.iter().rposition(|byte| *byte != b'/')? + 1;
    let start = path[..end].iter().rposition(|byte| *byte == b'/');
    Some(path[..end].split_at(start.map_or(0, |slash| slash + 1)))
}
