//! Removes our library from LD_PRELOAD when a target executes a program that must not load it.
//!
//! glibc's loader prints an error if it cannot load a preloaded library: one that does not exist in
//! the program's root directory, or in a program of another word size. And a program under a
//! seccomp filter of its own must not have it. Its name is blanked in the memory of the caller of
//! execve(2), before the kernel reads the environment.

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};
use subuidless_fast::facts::LIBRARY_NAME;

use super::{Call, memory};
use crate::linux::name::Name;

const VARIABLE: &[u8] = b"LD_PRELOAD=";
/// The maximum number of variables that are searched.
const MOST_VARIABLES: usize = 8192;

impl Call<'_> {
    /// To be called for each execve(2) whose environment is argument `environment`. Memory that
    /// cannot be read or written stays as it is: the kernel fails with EFAULT, if need be.
    pub(crate) fn look_after_preload(&self, environment: usize, is_foreign: bool) {
        let Some(facts) = &self.container.facts else {
            return;
        };
        let is_unwanted =
            is_foreign || (facts.filters() > 0 && facts.is_filtered(self.pid()).unwrap_or(true));
        let known = self.container.library.get();
        if !is_unwanted && known.is_some_and(is_there) {
            return;
        }
        // Best effort: see above.
        let _ = self.clean_preload(environment, is_unwanted);
    }

    fn clean_preload(&self, environment: usize, is_unwanted: bool) -> Result<(), Errno> {
        let Some(variable) = self.find_variable(environment)? else {
            return Ok(());
        };
        let text = memory::read_path(self.pid(), variable)?;
        let Some(list) = text.as_c_str().to_bytes().strip_prefix(VARIABLE) else {
            return Ok(());
        };
        let mut cleaned = list.to_vec();
        for word in list.split(|byte| is_separator(*byte)) {
            if !is_ours(word) {
                continue;
            }
            let path = Name::new(word.to_vec());
            if !is_unwanted && is_there(&path) {
                let _ = self.container.library.set(path);
                continue;
            }
            let start = word.as_ptr().addr() - list.as_ptr().addr();
            cleaned[start..start + word.len()].fill(b' ');
        }
        if cleaned == list {
            return Ok(());
        }
        let end = cleaned.iter().rposition(|byte| !is_separator(*byte));
        cleaned[end.map_or(0, |end| end + 1)..].fill(0);
        self.write_to([(variable + VARIABLE.len() as u64, &cleaned)])
    }

    /// The address of LD_PRELOAD in the environment.
    fn find_variable(&self, environment: usize) -> Result<Option<u64>, Errno> {
        let mut place = self.register(environment);
        for _ in 0..MOST_VARIABLES / memory::MOST_AT_ONCE {
            let variables = memory::read_addresses(self.pid(), place)?;
            let is_last = variables.len() < memory::MOST_AT_ONCE;
            let prefixes = memory::read_prefixes::<{ VARIABLE.len() }>(self.pid(), &variables)?;
            let found = prefixes.iter().position(|prefix| prefix == VARIABLE);
            if let Some(found) = found {
                return Ok(variables.get(found).copied());
            }
            if is_last {
                break;
            }
            place += (variables.len() * size_of::<u64>()) as u64;
        }
        Ok(None)
    }
}

/// ld.so(8)
fn is_separator(byte: u8) -> bool {
    matches!(byte, b':' | b' ')
}

fn is_ours(path: &[u8]) -> bool {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    name.starts_with(LIBRARY_NAME.as_bytes())
}

/// Whether the file exists in the target's root directory, which this thread shares.
fn is_there(path: &Name) -> bool {
    access(path, AccessFlags::R_OK) == Ok(())
}
