//! Hides from a program that gains ids or capabilities the variables that ld.so(8) ignores in it.
//!
//! The kernel tells the loader that it runs such a program (AT_SECURE, getauxval(3)), but to the
//! kernel no program gains anything. So a variable gets another name in the memory of the caller of
//! execve(2), before the kernel reads it. After vfork(2) that is the memory of the parent, too: the
//! variable has its name again when the next program is executed from there.

use std::sync::PoisonError;

use nix::errno::Errno;

use super::{Abi, Call};
use crate::linux::hash;
use crate::linux::procfs::Stat;

/// sysdeps/generic/unsecvars.h of glibc 2.36.
const UNSAFE: [&[u8]; 23] = [
    b"GCONV_PATH",
    b"GETCONF_DIR",
    b"GLIBC_TUNABLES",
    b"HOSTALIASES",
    b"LD_AUDIT",
    b"LD_DEBUG",
    b"LD_DEBUG_OUTPUT",
    b"LD_DYNAMIC_WEAK",
    b"LD_HWCAP_MASK",
    b"LD_LIBRARY_PATH",
    b"LD_ORIGIN_PATH",
    b"LD_PRELOAD",
    b"LD_PROFILE",
    b"LD_SHOW_AUXV",
    b"LOCALDOMAIN",
    b"LOCPATH",
    b"MALLOC_TRACE",
    b"NIS_PATH",
    b"NLSPATH",
    b"RESOLV_HOST_CONF",
    b"RES_OPTIONS",
    b"TMPDIR",
    b"TZDIR",
];

/// The longest name, and an equals sign.
const LONGEST: usize = 17;

/// So many hidden variables are known.
const MOST: usize = 4096;

impl Call<'_> {
    /// To be called for each execve(2) whose environment is argument `environment`. `gains`: the
    /// program will have more than its caller. Memory that cannot be read or written stays as it
    /// is.
    pub(crate) fn look_after_unsafe_variables(&self, environment: usize, gains: bool) {
        let hidden = &self.container.hidden_variables;
        // A panic leaves nothing inconsistent.
        let lock = || hidden.lock().unwrap_or_else(PoisonError::into_inner);
        if self.abi != Abi::Native || !gains && lock().is_empty() {
            // Nearly always.
            return;
        }
        let Ok(memory) = memory_of(self.pid()) else {
            return;
        };
        let _ = self.for_each_variable::<LONGEST>(environment, |address, start| {
            let place = (memory, address);
            let [first, ..] = start;
            if gains && is_unsafe(start) && !self.is_only_library(address) {
                let mut hidden = lock();
                if hidden.len() >= MOST {
                    hidden.clear();
                }
                hidden.insert(place);
                let _ = self.write_to([(address, &[first.to_ascii_lowercase()])]);
            } else if !gains && is_hidden(start) && lock().remove(&place) {
                let _ = self.write_to([(address, &[first.to_ascii_uppercase()])]);
            }
        });
    }
}

/// Tells the memory of one program from that of another, whose environment is a copy: in that, a
/// variable stays hidden.
fn memory_of(tid: u32) -> Result<u64, Errno> {
    /// Code, its end, stack; data, its end, heap (proc_pid_stat(5)).
    const ADDRESSES: [usize; 6] = [26, 27, 28, 45, 46, 47];
    let stat = Stat::of(tid)?;
    let addresses = ADDRESSES.map(|field| stat.field::<u64>(field).unwrap_or_default());
    Ok(hash::of_bytes(
        addresses.iter().flat_map(|address| address.to_ne_bytes()),
    ))
}

/// Whether a variable that starts so is one of [`UNSAFE`].
fn is_unsafe(start: &[u8]) -> bool {
    let name = start.split(|byte| *byte == b'=').next().unwrap_or_default();
    UNSAFE.contains(&name)
}

/// Whether it is one of them, with a small first letter: hidden.
fn is_hidden(start: &[u8; LONGEST]) -> bool {
    let mut shown = *start;
    shown[..1].make_ascii_uppercase();
    shown != *start && is_unsafe(&shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(text: &str) -> [u8; LONGEST] {
        let mut start = [0; LONGEST];
        start[..text.len()].copy_from_slice(text.as_bytes());
        start
    }

    #[test]
    fn every_name_fits_and_can_be_hidden() {
        for name in UNSAFE {
            assert!(name.len() < LONGEST && name[0].is_ascii_uppercase());
        }
        assert!(is_unsafe(&start("LD_AUDIT=/x")) && !is_hidden(&start("LD_AUDIT=/x")));
        assert!(is_hidden(&start("lD_AUDIT=/x")) && !is_unsafe(&start("lD_AUDIT=/x")));
        assert!(!is_unsafe(&start("LD_AUDITS=/x")) && !is_hidden(&start("path=TMPDIR=")));
    }
}
