//! The attributes of a file that no copy by the host user carries along: those that are kept under
//! another name, access control lists, file capabilities. By the names that the container knows
//! them by.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use super::Owners;
use super::attribute::{Attribute, PREFIX};
use super::keeper::Kept;
use crate::linux;
use crate::linux::name::Name;
use crate::linux::procfs;
use crate::linux::sys;
use crate::owner::acl::Acl;

const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";
const CAPABILITY: &[u8] = b"security.capability";

/// A name and a value.
pub(crate) type Named = (Vec<u8>, Vec<u8>);

/// All of them, by name. `mode` is the file's: chmod(2) may have changed an access control list
/// since it was kept.
pub(crate) fn attributes(owners: &Owners, fd: BorrowedFd, mode: u32) -> Result<Vec<Named>, Errno> {
    let path = procfs::own_fd(fd);
    let names = match linux::attribute::names(path.as_c_str(), true) {
        Err(Errno::EOPNOTSUPP) => return Ok(Vec::new()),
        names => names?,
    };
    let mut found: Vec<Named> = Vec::new();
    for name in names.split(|byte| *byte == 0) {
        let own = name.strip_prefix(PREFIX);
        let is_kernels = name == CAPABILITY || matches!(attribute(name), Attribute::Acl(_));
        if own.is_none() && !is_kernels {
            continue;
        }
        let real = Name::new(name.to_vec());
        let value = linux::attribute::value(path.as_c_str(), real.as_c_str(), true);
        let mut value = match value {
            // Removed meanwhile, or another user's; capabilities for another root of another
            // namespace.
            Err(Errno::ENODATA | Errno::EACCES | Errno::EOVERFLOW) => continue,
            value => value?,
        };
        let shown = own.unwrap_or(name);
        if own.is_none()
            && let Some(list) = Acl::decode(&value)
        {
            match list.without_strangers() {
                Some(list) => value = list.encode(),
                None => continue,
            }
        }
        if shown == ACCESS
            && own.is_some()
            && let Some(list) = Acl::decode(&value)
        {
            value = list.with_mode(mode).encode();
        }
        match found.iter_mut().find(|(known, _)| known == shown) {
            // The kernel has a part of the list, what is kept is the whole.
            Some(known) if own.is_some() => known.1 = value,
            Some(_) => {}
            None => found.push((shown.to_vec(), value)),
        }
    }
    add_beside(&owners.kept(fd, mode), mode, &mut found)?;
    found.sort();
    Ok(found)
}

/// Those in the side store, in the place of what the kernel has a part of.
fn add_beside(kept: &Kept, mode: u32, found: &mut Vec<Named>) -> Result<(), Errno> {
    for (name, mut value) in kept.beside()? {
        if name == ACCESS
            && let Some(list) = Acl::decode(&value)
        {
            value = list.with_mode(mode).encode();
        }
        found.retain(|(known, _)| *known != name);
        found.push((name, value));
    }
    Ok(())
}

/// Sets one of them; EINVAL for a name that is none of theirs, and for a list that is none.
/// `is_mapped`: an id that the kernel knows.
pub(crate) fn set_attribute(
    owners: &Owners,
    (fd, mode): (BorrowedFd, u32),
    (name, value): (&[u8], &[u8]),
    is_mapped: impl Fn(u32) -> bool,
) -> Result<(), Errno> {
    let path = procfs::own_fd(fd);
    let keeper = owners.kept(fd, mode);
    let real = Name::new(name.to_vec());
    let set = |value: &[u8]| sys::setxattr(path.as_c_str(), real.as_c_str(), value, 0);
    if name.contains(&0) {
        return Err(Errno::EINVAL);
    }
    match attribute(name) {
        Attribute::Kept(kept) => keeper.set(&kept, value, 0),
        Attribute::Acl(kept) => {
            let list = Acl::decode(value).ok_or(Errno::EINVAL)?;
            let foreign = list.for_kernel(is_mapped, 0);
            match &foreign {
                Some(list) => {
                    set(&list.encode())?;
                    keeper.set(&kept, value, 0)?;
                }
                None => {
                    set(value)?;
                    match keeper.remove(&kept) {
                        Ok(()) | Err(Errno::ENODATA) => {}
                        Err(errno) => return Err(errno),
                    }
                }
            }
            match name == DEFAULT {
                true => owners.note_list(fd, foreign.is_some()),
                false => Ok(()),
            }
        }
        Attribute::Plain if name == CAPABILITY => set(value),
        Attribute::Plain | Attribute::Hidden | Attribute::Nameless => Err(Errno::EINVAL),
    }
}

pub(crate) fn remove_access_list(fd: BorrowedFd) -> Result<(), Errno> {
    let name = Name::new(ACCESS.to_vec());
    sys::removexattr(procfs::own_fd(fd).as_c_str(), name.as_c_str())
}

/// Another program's attribute; `None` if there is none.
pub(crate) fn foreign_attribute(fd: BorrowedFd, name: &CStr) -> Result<Option<Vec<u8>>, Errno> {
    let path = procfs::own_fd(fd);
    match linux::attribute::value(path.as_c_str(), name, true) {
        Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(None),
        value => value.map(Some),
    }
}

pub(crate) fn set_foreign_attribute(
    fd: BorrowedFd,
    name: &CStr,
    value: &[u8],
) -> Result<(), Errno> {
    sys::setxattr(procfs::own_fd(fd).as_c_str(), name, value, 0)
}

fn attribute(name: &[u8]) -> Attribute {
    Attribute::of(Name::new(name.to_vec()).as_c_str())
}
