//! A target's memory: reads C strings and structures, writes structures.
//!
//! process_vm_readv(2) and process_vm_writev(2) name the target by its thread id. So callers write
//! only while the notification is known to wait: then the thread is blocked in its call, and its id
//! cannot have been recycled.

use std::io::{IoSlice, IoSliceMut};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;
use tracing::error;

use crate::linux::name::Name;
use crate::linux::settings::blame_for_memory;

/// PATH_MAX: the longest path that the kernel accepts, including its NUL.
const PATH_MAX: usize = 4096;
const PAGE: usize = 4096;
/// The size of the first read, in bytes: most paths are shorter, longer ones need a second read.
const FIRST_READ: usize = 256;

/// Reads a path as the kernel does (fs/namei.c, getname): EFAULT for memory that cannot be read,
/// ENAMETOOLONG without a NUL in 4096 bytes.
pub(crate) fn read_path(pid: u32, address: u64) -> Result<Name, Errno> {
    read_string(pid, address, PATH_MAX)
}

/// The same for an argument or variable of execve(2), which may have 32 pages (MAX_ARG_STRLEN).
pub(crate) fn read_variable(pid: u32, address: u64) -> Result<Name, Errno> {
    read_string(pid, address, 32 * PAGE)
}

/// ENAMETOOLONG without a NUL in `most` bytes.
fn read_string(pid: u32, address: u64, most: usize) -> Result<Name, Errno> {
    let start = usize::try_from(address).map_err(|_| Errno::EFAULT)?;
    let mut bytes = Vec::with_capacity(FIRST_READ);
    let mut wanted = FIRST_READ;
    while bytes.len() < most {
        let from = start.checked_add(bytes.len()).ok_or(Errno::EFAULT)?;
        // Never across the end of a page: the next page may be unmapped although the string ends
        // before it.
        let length = wanted.min(PAGE - from % PAGE).min(most - bytes.len());
        let known = bytes.len();
        bytes.resize(known + length, 0);
        let read = read(pid, from, &mut bytes[known..])?;
        bytes.truncate(known + read);
        if let Some(end) = bytes[known..].iter().position(|byte| *byte == 0) {
            bytes.truncate(known + end);
            return Ok(Name::new(bytes));
        }
        wanted = PAGE;
    }
    Err(Errno::ENAMETOOLONG)
}

/// Reads a u64, such as the first member of a structure.
pub(crate) fn read_u64(pid: u32, address: u64) -> Result<u64, Errno> {
    let mut bytes = [0; 8];
    read_exact(pid, address, &mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

/// Fills `bytes`; EFAULT if any part of the memory cannot be read, as with copy_from_user().
pub(crate) fn read_exact(pid: u32, address: u64, bytes: &mut [u8]) -> Result<(), Errno> {
    let address = usize::try_from(address).map_err(|_| Errno::EFAULT)?;
    if bytes.is_empty() || read(pid, address, bytes)? == bytes.len() {
        Ok(())
    } else {
        Err(Errno::EFAULT)
    }
}

/// The number of strings that are read at once. UIO_MAXIOV is larger, but few environments are.
pub(crate) const MOST_AT_ONCE: usize = 64;

/// Reads a list of addresses that ends with a null pointer, up to [`MOST_AT_ONCE`] of them.
pub(crate) fn read_addresses(pid: u32, list: u64) -> Result<Vec<u64>, Errno> {
    let start = usize::try_from(list).map_err(|_| Errno::EFAULT)?;
    let mut bytes = [0; MOST_AT_ONCE * size_of::<u64>()];
    // The next page may be unmapped although the list ends before it.
    let first = (PAGE - start % PAGE).min(bytes.len());
    let mut length = read(pid, start, &mut bytes[..first])?;
    let (words, _) = bytes[..length].as_chunks();
    if length == first && length < bytes.len() && !words.contains(&[0; 8]) {
        let next = start.checked_add(length).ok_or(Errno::EFAULT)?;
        length += read(pid, next, &mut bytes[first..])?;
    }
    let (words, _) = bytes[..length].as_chunks();
    let addresses = words.iter().map(|word| u64::from_ne_bytes(*word));
    Ok(addresses.take_while(|address| *address != 0).collect())
}

/// Reads the first `N` bytes of each string. Bytes that cannot be read are zeroes.
pub(crate) fn read_prefixes<const N: usize>(
    pid: u32,
    strings: &[u64],
) -> Result<Vec<[u8; N]>, Errno> {
    let mut prefixes = vec![[0; N]; strings.len()];
    let remote: Vec<RemoteIoVec> = strings
        .iter()
        .map(|string| RemoteIoVec {
            base: usize::try_from(*string).unwrap_or(0),
            len: N,
        })
        .collect();
    let mut done = 0;
    while done < strings.len() {
        let rest = prefixes[done..].as_flattened_mut();
        let read = process_vm_readv(target(pid)?, &mut [IoSliceMut::new(rest)], &remote[done..]);
        done += match read {
            // The string ends, with its memory, before `N` bytes.
            Ok(length) => length / N + usize::from(length < (strings.len() - done) * N),
            Err(Errno::EFAULT) => 1,
            Err(errno) => return Err(errno),
        };
    }
    Ok(prefixes)
}

fn read(pid: u32, base: usize, bytes: &mut [u8]) -> Result<usize, Errno> {
    let remote = [RemoteIoVec {
        base,
        len: bytes.len(),
    }];
    match process_vm_readv(target(pid)?, &mut [IoSliceMut::new(bytes)], &remote) {
        Ok(0) => Err(Errno::EFAULT),
        Err(errno @ (Errno::EPERM | Errno::ENOSYS)) => {
            tell_of_closed_memory(errno);
            Err(errno)
        }
        Ok(read) => {
            CAN_READ.store(true, Ordering::Relaxed);
            Ok(read)
        }
        Err(errno) => Err(errno),
    }
}

/// Whether the memory of any target could be read.
static CAN_READ: AtomicBool = AtomicBool::new(false);

/// Logs once why the memory of targets cannot be read, if that is the host's doing. The memory of a
/// single one may be closed: of a program that may be executed but not read.
fn tell_of_closed_memory(errno: Errno) {
    if !CAN_READ.swap(true, Ordering::Relaxed) {
        let (reason, change) = blame_for_memory(errno);
        error!(
            reason,
            change, "the memory of programs cannot be read, and so their calls fail"
        );
    }
}

/// Writes all of each part; EFAULT if any of the memory is not writable. The memory before it may
/// have been written by then, as with copy_to_user().
pub(crate) fn write_each<const N: usize>(pid: u32, parts: [(u64, &[u8]); N]) -> Result<(), Errno> {
    let local = parts.map(|(_, bytes)| IoSlice::new(bytes));
    let mut remote = [RemoteIoVec { base: 0, len: 0 }; N];
    for (remote, (address, bytes)) in remote.iter_mut().zip(parts) {
        remote.base = usize::try_from(address).map_err(|_| Errno::EFAULT)?;
        remote.len = bytes.len();
    }
    let written = process_vm_writev(target(pid)?, &local, &remote)?;
    if written < parts.iter().map(|(_, bytes)| bytes.len()).sum() {
        return Err(Errno::EFAULT);
    }
    Ok(())
}

fn target(pid: u32) -> Result<Pid, Errno> {
    i32::try_from(pid)
        .map(Pid::from_raw)
        .map_err(|_| Errno::ESRCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;

    use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
    use std::num::NonZeroUsize;

    /// Maps a page with an unmapped page behind it.
    fn page_before_a_hole() -> usize {
        let length = NonZeroUsize::new(2 * PAGE).unwrap();
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        #[expect(unsafe_code, reason = "a hole in memory is what is tested")]
        // SAFETY: a new anonymous mapping touches no other.
        let page =
            unsafe { mmap_anonymous(None, length, protection, MapFlags::MAP_PRIVATE).unwrap() };
        let second = page.map_addr(|address| address.saturating_add(PAGE));
        #[expect(unsafe_code, reason = "a hole in memory is what is tested")]
        // SAFETY: the second page of the mapping just made; nothing uses it.
        unsafe { munmap(second, PAGE) }.unwrap();
        page.as_ptr() as usize
    }

    fn write(pid: u32, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        write_each(pid, [(address, bytes)])
    }

    fn me() -> u32 {
        std::process::id()
    }

    #[test]
    fn a_string_may_end_at_the_end_of_a_page_and_not_behind_it() {
        let page = page_before_a_hole();
        for length in [0, 1, 255, 256, 257, 4095] {
            let start = page + PAGE - length - 1;
            let bytes = [vec![b'x'; length], vec![0]].concat();
            write(me(), start as u64, &bytes).unwrap();
            assert_eq!(
                read_path(me(), start as u64).unwrap().as_c_str().to_bytes(),
                &bytes[..length]
            );
        }
        write(me(), (page + PAGE - 3) as u64, b"abc").unwrap();
        assert_eq!(
            read_path(me(), (page + PAGE - 3) as u64),
            Err(Errno::EFAULT)
        );
    }

    #[test]
    fn four_thousand_and_ninety_five_bytes_are_a_path_and_one_more_is_too_long() {
        for (length, expected) in [(4095, Ok(4095)), (4096, Err(Errno::ENAMETOOLONG))] {
            let string = CString::new(vec![b'a'; length]).unwrap();
            let read =
                read_path(me(), string.as_ptr() as u64).map(|path| path.as_c_str().count_bytes());
            assert_eq!(read, expected);
        }
    }

    #[test]
    fn bad_addresses_are_efault_and_a_structure_that_does_not_fit_is_too() {
        for address in [0, 1, u64::MAX, u64::MAX - 4096, 1 << 63] {
            assert_eq!(read_path(me(), address), Err(Errno::EFAULT), "{address:#x}");
            assert_eq!(write(me(), address, b"x"), Err(Errno::EFAULT));
        }
        let page = page_before_a_hole();
        assert_eq!(
            write(me(), (page + PAGE - 2) as u64, b"four"),
            Err(Errno::EFAULT)
        );
    }
}
