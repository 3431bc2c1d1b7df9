//! The attributes that `subuidless owners` exports and imports, because a copy by the host user
//! loses them: emulated ones, access control lists, file capabilities. The names are those that the
//! container sees.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use super::FileOwners;
use super::acl::{ACCESS, Acl};
use super::attribute::{Attribute, NamedValue, PREFIX};
use crate::linux;
use crate::linux::name::Name;
use crate::linux::procfs;
use crate::linux::sys;

const CAPABILITY: &[u8] = b"security.capability";

/// Returns all of these attributes, sorted by name. `mode` is the file's.
pub(crate) fn attributes(
    owners: &FileOwners,
    fd: BorrowedFd,
    mode: u32,
) -> Result<Vec<NamedValue>, Errno> {
    let path = procfs::own_fd(fd);
    let names = match linux::attribute::names(path.as_c_str(), true) {
        Err(Errno::EOPNOTSUPP) => return Ok(Vec::new()),
        names => names?,
    };
    let mut found: Vec<NamedValue> = Vec::new();
    for name in names.split(|byte| *byte == 0) {
        let own = name.strip_prefix(PREFIX);
        let is_kernels = name == CAPABILITY || matches!(attribute(name), Attribute::Acl(_));
        if own.is_none() && !is_kernels {
            continue;
        }
        let real = Name::new(name.to_vec());
        let value = linux::attribute::value(path.as_c_str(), real.as_c_str(), true);
        let mut value = match value {
            // ENODATA: removed meanwhile. EACCES: another user's file. EOVERFLOW: capabilities for
            // the root of an unrelated user namespace.
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
        if own.is_some() {
            value = by_now(shown, value, mode);
        }
        match found.iter_mut().find(|(known, _)| known == shown) {
            // An access control list: the stored one is whole, the kernel's lacks unmapped ids.
            Some(known) if own.is_some() => known.1 = value,
            Some(_) => {}
            None => found.push((shown.to_vec(), value)),
        }
    }
    // For the same reason, lists in the side store replace the kernel's.
    for (name, value) in owners.emulated(fd, mode).of_side_store()? {
        found.retain(|(known, _)| *known != name);
        let value = by_now(&name, value, mode);
        found.push((name, value));
    }
    found.sort();
    Ok(found)
}

/// Applies changes by chmod(2) since a list was stored. Other attributes are returned as they are.
fn by_now(name: &[u8], value: Vec<u8>, mode: u32) -> Vec<u8> {
    match Acl::decode(&value) {
        Some(list) if name == ACCESS.to_bytes() => list.with_mode(mode).encode(),
        _ => value,
    }
}

/// Sets one of these attributes. EINVAL for other names, and for a value that is not a list.
/// `is_mapped`: whether an id is mapped.
pub(crate) fn set_attribute(
    owners: &FileOwners,
    (fd, mode): (BorrowedFd, u32),
    (name, value): (&[u8], &[u8]),
    is_mapped: impl Fn(u32) -> bool,
) -> Result<(), Errno> {
    let path = procfs::own_fd(fd);
    let emulated = owners.emulated(fd, mode);
    let real = Name::new(name.to_vec());
    let set = |value: &[u8]| sys::setxattr(path.as_c_str(), real.as_c_str(), value, 0);
    if name.contains(&0) {
        return Err(Errno::EINVAL);
    }
    match attribute(name) {
        Attribute::Emulated(stored) => emulated.set(&stored, value, 0),
        Attribute::Acl(stored) => {
            let list = Acl::decode(value).ok_or(Errno::EINVAL)?;
            match list.for_kernel(is_mapped, 0) {
                Some(part) => {
                    set(&part.encode())?;
                    emulated.set_whole_list(&stored, Some(value))
                }
                None => {
                    set(value)?;
                    emulated.set_whole_list(&stored, None)
                }
            }
        }
        Attribute::Plain if name == CAPABILITY => set(value),
        Attribute::Plain | Attribute::Hidden | Attribute::Nameless => Err(Errno::EINVAL),
    }
}

/// Removes the kernel's access control list. ENODATA if there is none.
pub(crate) fn remove_access_list(fd: BorrowedFd) -> Result<(), Errno> {
    sys::removexattr(procfs::own_fd(fd).as_c_str(), ACCESS)
}

fn attribute(name: &[u8]) -> Attribute {
    Attribute::of(Name::new(name.to_vec()).as_c_str())
}
