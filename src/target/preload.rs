//! Removes our library from LD_PRELOAD when a target executes a program that must not load it.
//!
//! glibc's loader prints an error if it cannot load a preloaded library: one that does not exist in
//! the program's root directory, or in a program of another word size. And a program under a
//! seccomp filter of its own must not have it. So the memory of the caller of execve(2) is changed
//! before the kernel reads the environment.
//!
//! After vfork(2) that is the memory of the parent, too, whose later programs shall have the
//! library. So the list is only cut in front of it, by a NUL, and put together again when the next
//! program is executed from this memory.

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};
use subuidless_fast::facts::{LIBRARY_NAME, OFF, STATE};

use super::{Call, memory};
use crate::linux::name::Name;
use crate::linux::procfs;
use crate::wire::fast::is_library;

const VARIABLE: &[u8] = b"LD_PRELOAD=";
/// The kernel takes no more variables: with its address and its NUL, each of them uses room that is
/// at most 6 MiB (fs/exec.c, bprm_stack_limits).
const MOST_VARIABLES: usize = 6 * 1024 * 1024 / (size_of::<u64>() + 1);

impl Call<'_> {
    /// Whether `path` is that of the library, which every program may load: the directory for it
    /// may be closed to emulated users.
    pub(crate) fn is_library(&self, path: &CStr) -> bool {
        let known = self.container.library.get();
        self.container.facts.is_some()
            && is_ours(path.to_bytes())
            && known.is_none_or(|known| known.as_c_str() == path)
    }

    /// To be called for each execve(2) whose environment is argument `environment`. Memory that
    /// cannot be read or written stays as it is: the kernel fails with EFAULT, if need be.
    pub(crate) fn look_after_preload(&self, environment: usize, is_foreign: bool) {
        let container = self.container;
        let Some(facts) = &container.facts else {
            return;
        };
        let is_unwanted = is_foreign
            || (facts.filters() > 0 && facts.is_filtered(self.pid()).unwrap_or(true))
            || self.is_confined().unwrap_or(true);
        let is_there = container.library.get().is_some_and(is_there);
        if !is_unwanted && is_there && !container.cuts_preload.load(Ordering::Relaxed) {
            return;
        }
        // Best effort: see above.
        // The last one counts.
        let _ = self.for_each_variable(environment, |variable, start: &[u8; VARIABLE.len()]| {
            if start == VARIABLE {
                let _ = self.change_preload(variable, is_unwanted);
            }
        });
    }

    /// Changes LD_PRELOAD at `variable`.
    fn change_preload(&self, variable: u64, is_unwanted: bool) -> Result<(), Errno> {
        let text = memory::read_variable(self.pid(), variable)?;
        let Some(list) = text.as_c_str().to_bytes().strip_prefix(VARIABLE) else {
            return Ok(());
        };
        let start = variable + VARIABLE.len() as u64;
        let words = list.split(|byte| is_separator(*byte));
        let Some(word) = words.rev().find(|word| is_ours(word)) else {
            return match is_unwanted {
                true => Ok(()),
                false => self.restore(start, list),
            };
        };
        let path = Name::new(word.to_vec());
        if !is_unwanted && is_there(&path) {
            let _ = self.container.library.set(path);
            return Ok(());
        }
        self.container.cuts_preload.store(true, Ordering::Relaxed);
        let at = word.as_ptr().addr() - list.as_ptr().addr();
        let (before, after) = (&list[..at], &list[at + word.len()..]);
        if !after.is_empty() || before.split(|byte| is_separator(*byte)).any(is_ours) {
            let mut blanked = list.to_vec();
            for word in list
                .split(|byte| is_separator(*byte))
                .filter(|word| is_ours(word))
            {
                let at = word.as_ptr().addr() - list.as_ptr().addr();
                blanked[at..at + word.len()].fill(b' ');
            }
            return self.write_to([(start, &blanked)]);
        }
        let end = before.iter().rposition(|byte| !is_separator(*byte));
        let end = end.map_or(0, |last| last + 1);
        self.write_to([(start + end as u64, &[0])])
    }

    /// Adds the library to a list at `start` again if it was cut off there.
    fn restore(&self, start: u64, list: &[u8]) -> Result<(), Errno> {
        let Some(library) = self.container.library.get() else {
            return Ok(());
        };
        let path = library.as_c_str().to_bytes_with_nul();
        let end = start + list.len() as u64;
        let mut behind = vec![0; path.len()];
        memory::read_exact(self.pid(), end + 1, &mut behind)?;
        let separator = match list.is_empty() && behind.starts_with(&path[1..]) {
            true => path[0],
            false if behind == path => b':',
            false => return Ok(()),
        };
        match is_there(library) {
            true => self.write_to([(end, &[separator])]),
            false => Ok(()),
        }
    }

    /// Whether the variable at `address` is an LD_PRELOAD with nothing but our library.
    pub(super) fn is_only_library(&self, address: u64) -> bool {
        let Ok(text) = memory::read_variable(self.pid(), address) else {
            return false;
        };
        let list = text.as_c_str().to_bytes().strip_prefix(VARIABLE);
        list.is_some_and(|list| {
            let mut words = list.split(|byte| is_separator(*byte));
            words.all(|word| word.is_empty() || is_ours(word))
        })
    }

    /// Does `work` with the address and the first `N` bytes of each variable in the environment.
    pub(super) fn for_each_variable<const N: usize>(
        &self,
        environment: usize,
        mut work: impl FnMut(u64, &[u8; N]),
    ) -> Result<(), Errno> {
        let mut place = self.register(environment);
        for _ in 0..=MOST_VARIABLES / memory::MOST_AT_ONCE {
            let variables = memory::read_addresses(self.pid(), place)?;
            let prefixes = memory::read_prefixes::<N>(self.pid(), &variables)?;
            for (variable, prefix) in variables.iter().zip(&prefixes) {
                work(*variable, prefix);
            }
            if variables.len() < memory::MOST_AT_ONCE {
                break;
            }
            place += (variables.len() * size_of::<u64>()) as u64;
        }
        Ok(())
    }

    /// Turns the library off in a target that is about to load a filter: that may forbid a call by
    /// which the library would ask, or answer. Best effort: otherwise it asks, as others do.
    pub(crate) fn turn_library_off(&self) {
        let Ok(maps) = procfs::read(&procfs::target(self.pid(), "maps")) else {
            return;
        };
        for (start, length) in maps.lines().filter_map(data_of_library) {
            let mut data = vec![0; length];
            if memory::read_exact(self.pid(), start, &mut data).is_err() {
                continue;
            }
            let mark = STATE.map(u64::to_ne_bytes);
            let mut places = data.windows(size_of_val(&mark)).step_by(size_of::<u64>());
            if let Some(index) = places.position(|place| place == mark.as_flattened()) {
                let page = start + ((index + STATE.len()) * size_of::<u64>()) as u64;
                let _ = self.write_to([(page, &OFF.to_ne_bytes())]);
            }
        }
    }
}

/// The start and length of a mapping of the library that is written to, if a line of
/// `/proc/PID/maps` is about one.
fn data_of_library(line: &str) -> Option<(u64, usize)> {
    const LONGEST: u64 = 1 << 16;
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let is_written = fields.next()?.starts_with("rw");
    let is_ours = is_written && fields.last()?.contains(LIBRARY_NAME);
    let start = u64::from_str_radix(start, 16).ok()?;
    let end = u64::from_str_radix(end, 16).ok()?;
    let length = end.saturating_sub(start).min(LONGEST);
    is_ours.then_some((start, usize::try_from(length).ok()?))
}

/// ld.so(8)
fn is_separator(byte: u8) -> bool {
    matches!(byte, b':' | b' ')
}

fn is_ours(path: &[u8]) -> bool {
    is_library(Path::new(OsStr::from_bytes(path)))
}

/// Whether the file exists in the target's root directory, which this thread shares.
fn is_there(path: &Name) -> bool {
    access(path, AccessFlags::R_OK) == Ok(())
}
