//! Finds the row of the table for a notification's architecture and number.

use std::sync::LazyLock;

use libseccomp::{ScmpArch, ScmpSyscall};

use super::table::{Row, TABLE};
use crate::linux::seccomp::Notification;
use crate::target::Abi;

/// The architectures whose calls are answered: as a notification names them, and as libseccomp
/// does. Calls of other architectures are left to the kernel.
const ARCHITECTURES: [(u32, ScmpArch, Abi); 5] = [
    (AUDIT_ARCH_X86_64, ScmpArch::X8664, Abi::Native),
    (AUDIT_ARCH_AARCH64, ScmpArch::Aarch64, Abi::Native),
    // A notification of an x32 call has the x86-64 architecture, and a bit in its number. The
    // structures are those of x86-64.
    (AUDIT_ARCH_X86_64 | X32, ScmpArch::X32, Abi::Native),
    (AUDIT_ARCH_I386, ScmpArch::X86, Abi::Compat),
    (AUDIT_ARCH_ARM, ScmpArch::Arm, Abi::Compat),
];

/// linux/audit.h
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const AUDIT_ARCH_AARCH64: u32 = 0xc000_00b7;
const AUDIT_ARCH_I386: u32 = 0x4000_0003;
const AUDIT_ARCH_ARM: u32 = 0x4000_0028;
/// Distinguishes x32 from x86-64 in this file; not in linux/audit.h.
const X32: u32 = 1 << 16;
/// asm/unistd.h, __X32_SYSCALL_BIT
pub(super) const X32_SYSCALL_BIT: i32 = 0x4000_0000;

/// A row, and the layout of the call's arguments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dispatched {
    /// The row's index in the table.
    pub(crate) index: usize,
    pub(crate) row: &'static Row,
    pub(crate) abi: Abi,
}

/// The rows of each architecture, indexed by syscall number.
#[derive(Debug)]
pub(crate) struct Dispatch {
    by_architecture: Vec<(u32, Vec<Option<Dispatched>>)>,
}

impl Dispatch {
    /// For the calls that this machine executes. Takes a tenth of a millisecond the first time; the
    /// forks of this process have the result.
    pub(crate) fn get() -> &'static Self {
        static DISPATCH: LazyLock<Dispatch> = LazyLock::new(|| {
            let of_arm = |arch| matches!(arch, ScmpArch::Aarch64 | ScmpArch::Arm);
            let own = |arch| of_arm(arch) == cfg!(target_arch = "aarch64");
            Dispatch::of(ARCHITECTURES.iter().filter(|(_, arch, _)| own(*arch)))
        });
        &DISPATCH
    }

    fn of<'a>(architectures: impl Iterator<Item = &'a (u32, ScmpArch, Abi)>) -> Self {
        let by_architecture = architectures
            .map(|&(audit, arch, abi)| (audit, rows_by_number(arch, abi)))
            .collect();
        Self { by_architecture }
    }

    /// The rows, with the architecture and the number that seccomp(2) sees.
    pub(super) fn rows(&self) -> impl Iterator<Item = (u32, u32, &'static Row)> {
        self.by_architecture.iter().flat_map(|(audit, rows)| {
            let bit = match audit & X32 {
                0 => 0,
                _ => X32_SYSCALL_BIT.cast_unsigned(),
            };
            (bit..)
                .zip(rows)
                .filter_map(move |(number, found)| Some((audit & !X32, number, (*found)?.row)))
        })
    }

    /// The row for a notification; `None` if its call is not in the table.
    pub(crate) fn find(&self, notification: &Notification) -> Option<Dispatched> {
        let (arch, number) = match (notification.arch, notification.syscall) {
            (AUDIT_ARCH_X86_64, number) if number > 0 && number & X32_SYSCALL_BIT != 0 => {
                (AUDIT_ARCH_X86_64 | X32, number & !X32_SYSCALL_BIT)
            }
            known => known,
        };
        let (_, rows) = self
            .by_architecture
            .iter()
            .find(|(audit, _)| *audit == arch)?;
        *rows.get(usize::try_from(number).ok()?)?
    }

    /// Whether calls of this architecture are answered.
    pub(crate) fn knows(&self, arch: u32) -> bool {
        self.by_architecture.iter().any(|(audit, _)| *audit == arch)
    }
}

/// The number of `row` on `arch`. Returns `None` if the architecture lacks the call, for which
/// libseccomp has a negative pseudo-number.
fn number(row: &Row, arch: ScmpArch) -> Option<usize> {
    match ScmpSyscall::from_name_by_arch(row.name, arch) {
        Ok(syscall) => usize::try_from(i32::from(syscall)).ok(),
        Err(_) => usize::try_from(row.number?).ok(),
    }
}

fn rows_by_number(arch: ScmpArch, abi: Abi) -> Vec<Option<Dispatched>> {
    // In 32-bit programs, a call that also exists with the suffix 32 (chown, chown32) has ids of 16
    // bits.
    let short: Vec<&str> = match abi {
        Abi::Compat => TABLE
            .iter()
            .filter_map(|wide| wide.name.strip_suffix("32"))
            .collect(),
        _ => Vec::new(),
    };
    let mut rows = Vec::new();
    for (index, row) in TABLE.iter().enumerate() {
        if let Some(number) = number(row, arch) {
            let number = match arch {
                ScmpArch::X32 => number & !(X32_SYSCALL_BIT.unsigned_abs() as usize),
                _ => number,
            };
            if rows.len() <= number {
                rows.resize(number + 1, None);
            }
            let abi = match short.contains(&row.name) {
                true => Abi::CompatShortIds,
                false => abi,
            };
            rows[number] = Some(Dispatched { index, row, abi });
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(arch: u32, syscall: i32) -> Notification {
        Notification {
            id: 1,
            pid: 1,
            syscall,
            arch,
            args: [0; 6],
        }
    }

    #[test]
    fn every_name_is_known_to_libseccomp_or_has_a_number_and_stands_once() {
        for (index, row) in TABLE.iter().enumerate() {
            let known = |arch| number(row, arch).is_some();
            assert!(
                known(ScmpArch::X8664) || known(ScmpArch::X86),
                "{}",
                row.name
            );
            assert!(TABLE[..index].iter().all(|other| other.name != row.name));
        }
        // The last row of the counters is for calls that are not in the table.
        assert!(TABLE.len() < crate::wire::tally::ROWS);
    }

    fn name(dispatch: &Dispatch, arch: u32, syscall: i32) -> Option<(&'static str, Abi)> {
        let found = dispatch.find(&call(arch, syscall))?;
        Some((found.row.name, found.abi))
    }

    #[test]
    fn numbers_are_those_of_the_architecture_that_the_call_came_from() {
        let dispatch = Dispatch::of(ARCHITECTURES.iter());
        let name = |arch, syscall| name(&dispatch, arch, syscall).map(|(name, _)| name);
        assert_eq!(name(AUDIT_ARCH_X86_64, 92), Some("chown"));
        assert_eq!(name(AUDIT_ARCH_X86_64, 262), Some("newfstatat"));
        assert_eq!(name(AUDIT_ARCH_AARCH64, 54), Some("fchownat"));
        assert_eq!(name(AUDIT_ARCH_AARCH64, 79), Some("newfstatat"));
        // 92 is personality on arm64, which has no chown, stat and lstat.
        assert_eq!(name(AUDIT_ARCH_AARCH64, 92), None);
        assert_eq!(name(AUDIT_ARCH_X86_64, 464), Some("getxattrat"));
        assert_eq!(name(AUDIT_ARCH_AARCH64, 464), Some("getxattrat"));
        assert_eq!(name(AUDIT_ARCH_I386, 452), Some("fchmodat2"));
        assert_eq!(
            name(AUDIT_ARCH_X86_64, X32_SYSCALL_BIT | 466),
            Some("removexattrat")
        );
        assert_eq!(name(AUDIT_ARCH_X86_64, 0), None);
        assert_eq!(name(AUDIT_ARCH_X86_64, -1), None);
        assert_eq!(name(AUDIT_ARCH_X86_64, i32::MAX), None);
    }

    #[test]
    fn calls_of_32_bit_programs_are_never_taken_for_those_of_others() {
        let dispatch = Dispatch::of(ARCHITECTURES.iter());
        let i386 = |number| name(&dispatch, AUDIT_ARCH_I386, number);
        assert_eq!(i386(182), Some(("chown", Abi::CompatShortIds)));
        assert_eq!(i386(212), Some(("chown32", Abi::Compat)));
        assert_eq!(i386(195), Some(("stat64", Abi::Compat)));
        assert_eq!(i386(106), Some(("stat", Abi::Compat)));
        assert_eq!(i386(23), Some(("setuid", Abi::CompatShortIds)));
        assert_eq!(i386(90), None);
        let arm = |number| name(&dispatch, AUDIT_ARCH_ARM, number);
        assert_eq!(arm(182), Some(("chown", Abi::CompatShortIds)));
        assert_eq!(arm(212), Some(("chown32", Abi::Compat)));
        assert_eq!(arm(327), Some(("fstatat64", Abi::Compat)));
        assert_eq!(arm(300), Some(("semctl", Abi::Compat)));
        assert_eq!(arm(54), Some(("ioctl", Abi::Compat)));
        assert_eq!(arm(79), None);
        let x32 = |number| name(&dispatch, AUDIT_ARCH_X86_64, X32_SYSCALL_BIT | number);
        assert_eq!(x32(92), Some(("chown", Abi::Native)));
        // The number of execve on x86-64 is unused on x32.
        assert_eq!(x32(59), None);
        assert_eq!(x32(520), Some(("execve", Abi::Native)));
        assert_eq!(name(&dispatch, AUDIT_ARCH_X86_64, 520), None);
    }
}
