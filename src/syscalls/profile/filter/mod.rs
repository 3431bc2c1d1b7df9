//! Makes filters from the syscall table that this program loads itself, instead of a runtime.
//!
//! libseccomp needs a millisecond for such a filter, a sixth of the time in which `run` starts a
//! command, so it only tells the numbers of the calls. The filter is a binary tree of ranges of
//! numbers, so that calls that are not in the table cost little.

use std::collections::{BTreeMap, BTreeSet};

use libseccomp::{ScmpArch, ScmpSyscall};
use subuidless_fast::facts::{MAGIC, MAGIC_ABOVE_INT};

use super::MARKED;
use super::assembler::{Assembler, Place, Test};
use crate::syscalls::dispatch::X32_SYSCALL_BIT;
use crate::syscalls::{Condition, Dispatch, Row, Scope, TABLE, Trap};

const DENIED: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();

/// The filter that notifies the table's calls and allows everything else, as an array of `struct
/// sock_filter` for seccomp(2). With the fast path it allows the calls of the preloaded library.
pub(crate) fn program(scope: Scope) -> Vec<u8> {
    let mut machines: BTreeMap<u32, Vec<(u32, &Row)>> = BTreeMap::new();
    for (audit, number, row) in Dispatch::get().rows() {
        machines.entry(audit).or_default().push((number, row));
    }
    let mut program = Assembler::default();
    let mut start = program.answer(libc::SECCOMP_RET_ALLOW);
    for (audit, calls) in machines {
        let tree = of_machine(&mut program, &calls, scope);
        start = program.test(Test::Equals, audit, tree, start);
    }
    program.load(ARCHITECTURE, start);
    program.into_bytes()
}

/// A filter to load in addition to that of a runtime, which refers to calls by name. This one
/// denies the calls of the table that have no name in libseccomp, with ENOSYS as on an older
/// kernel. Returns `None` if libseccomp knows all names.
pub(crate) fn denial(is_fast: bool) -> Option<Vec<u8>> {
    let mut unnamed = TABLE
        .iter()
        .filter_map(|row| Some((row, row.bare_number()?)))
        .peekable();
    unnamed.peek()?;
    let mut program = Assembler::default();
    let allow = program.answer(libc::SECCOMP_RET_ALLOW);
    let deny = program.answer(DENIED);
    let mut calls = BTreeMap::new();
    for (row, number) in unnamed {
        let place = Mark::of(row, is_fast).test(&mut program, allow, deny);
        // New syscalls have the same number on all architectures, so the architecture need not be
        // checked; x32 adds a bit to it.
        calls.extend(
            [number, number | X32_SYSCALL_BIT.cast_unsigned()].map(|number| (number, place)),
        );
    }
    let tree = search(&mut program, &calls, allow);
    program.load(NUMBER, tree);
    Some(program.into_bytes())
}

// struct seccomp_data (linux/seccomp.h)
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// The offsets of the lower and the upper half of an argument.
fn halves(arg: u32) -> [u32; 2] {
    let first = ARGUMENTS + 8 * arg;
    match cfg!(target_endian = "little") {
        true => [first, first + 4],
        false => [first + 4, first],
    }
}

/// The lower and the upper half of a value.
fn split(value: u64) -> [u32; 2] {
    let half = |half: u64| u32::try_from(half).unwrap_or_default();
    [half(value & LOWER), half(value >> u32::BITS)]
}

/// How the filter recognises a call that the preloaded library makes itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    None,
    Argument,
    AboveInt,
}

impl Mark {
    fn of(row: &Row, is_fast: bool) -> Self {
        match (is_fast && row.fast.is_some(), row.number) {
            (false, _) => Self::None,
            (true, None) => Self::Argument,
            // getxattrat(2), which has six arguments.
            (true, Some(_)) => Self::AboveInt,
        }
    }

    /// Goes to `yes` for a call of the library, and to `no` for others.
    fn test(self, program: &mut Assembler, yes: Place, no: Place) -> Place {
        match self {
            Self::None => no,
            Self::Argument => masked(program, MARKED, u64::MAX, MAGIC, yes, no),
            Self::AboveInt => {
                const UPPER: u64 = (u32::MAX as u64) << u32::BITS;
                masked(program, 0, UPPER, MAGIC_ABOVE_INT, yes, no)
            }
        }
    }
}

/// Decides about the calls of one architecture.
fn of_machine(program: &mut Assembler, calls: &[(u32, &Row)], scope: Scope) -> Place {
    let allow = program.answer(libc::SECCOMP_RET_ALLOW);
    let deny = program.answer(DENIED);
    let notify = program.answer(libc::SECCOMP_RET_USER_NOTIF);
    // Rows with the same conditions share the instructions for them.
    let mut known: Vec<((Trap, Mark), Place)> = Vec::new();
    let mut places = BTreeMap::new();
    for (number, row) in calls {
        let (trap, mark) = (row.trap(scope), Mark::of(row, scope.is_fast));
        let found = known.iter().find(|(wanted, _)| *wanted == (trap, mark));
        let place = match found {
            Some((_, place)) => *place,
            None => {
                let place = trapping(program, trap, notify, allow);
                let place = mark.test(program, allow, place);
                known.push(((trap, mark), place));
                place
            }
        };
        places.insert(*number, place);
    }
    let x32 = X32_SYSCALL_BIT.cast_unsigned();
    let has_x32 = calls.iter().any(|(number, _)| number & x32 != 0);
    for number in IO_URING_NUMBERS {
        places.insert(number, deny);
        if has_x32 {
            places.insert(number | x32, deny);
        }
    }
    let tree = search(program, &places, allow);
    program.load(NUMBER, tree)
}

/// They are the same on all architectures, as of all syscalls since Linux 5.1.
const IO_URING_NUMBERS: std::ops::RangeInclusive<u32> = 425..=427;

/// Goes to the place of the loaded number, and to `otherwise` for numbers that have none.
fn search(program: &mut Assembler, calls: &BTreeMap<u32, Place>, otherwise: Place) -> Place {
    let mut ranges = vec![(0, otherwise)];
    for (&number, &place) in calls {
        match ranges.last_mut() {
            Some((first, last)) if *first == number => *last = place,
            _ => ranges.push((number, place)),
        }
        ranges.push((number + 1, otherwise));
    }
    // Successive numbers with the same place.
    ranges.dedup_by(|next, before| next.1 == before.1);
    program.search(&ranges)
}

/// Goes to `yes` for calls that trap, and to `no` for others.
fn trapping(program: &mut Assembler, trap: Trap, yes: Place, no: Place) -> Place {
    match trap {
        Trap::Always => yes,
        Trap::Never => no,
        Trap::If(condition) => test(program, condition, yes, no),
        Trap::IfEither(one, other) => {
            let no = test(program, other, yes, no);
            test(program, one, yes, no)
        }
    }
}

/// Goes to `yes` if the condition holds, and to `no` if not.
fn test(program: &mut Assembler, condition: Condition, yes: Place, no: Place) -> Place {
    match condition {
        // The kernel reads the lower half.
        Condition::IsNot { arg, value } => masked(program, arg, LOWER, value.into(), no, yes),
        Condition::HasAny { arg, bits } => has_any(program, arg, bits, yes, no),
        Condition::Masked { arg, mask, bits } => masked(program, arg, mask, bits, yes, no),
    }
}

const LOWER: u64 = u32::MAX as u64;

/// Whether the argument has any of these bits.
fn has_any(program: &mut Assembler, arg: u32, bits: u64, yes: Place, no: Place) -> Place {
    let mut place = no;
    for (offset, bits) in halves(arg).into_iter().zip(split(bits)) {
        if bits != 0 {
            let test = program.test(Test::HasAnyOf, bits, yes, place);
            place = program.load(offset, test);
        }
    }
    place
}

/// Whether the argument has, of the bits in `mask`, exactly `bits`.
fn masked(program: &mut Assembler, arg: u32, mask: u64, bits: u64, yes: Place, no: Place) -> Place {
    let mut place = yes;
    let halves = halves(arg).into_iter().zip(split(mask)).zip(split(bits));
    for ((offset, mask), bits) in halves {
        if mask == 0 {
            continue;
        }
        let mut test = program.test(Test::Equals, bits, place, no);
        if mask != u32::MAX {
            test = program.mask(mask, test);
        }
        place = program.load(offset, test);
    }
    place
}

/// The names of all calls of this machine's architectures that libseccomp knows.
pub(super) fn all_names() -> Vec<String> {
    /// Far above the highest number.
    const NUMBERS: i32 = 1024;
    /// arch/arm/include/uapi/asm/unistd.h: cacheflush, set_tls and others.
    const ARM_PRIVATE: i32 = 0x000f_0000;
    let mut names = BTreeSet::new();
    for &arch in architectures() {
        let firsts: &[i32] = match arch {
            ScmpArch::X32 => &[X32_SYSCALL_BIT],
            ScmpArch::Arm => &[0, ARM_PRIVATE],
            _ => &[0],
        };
        let numbers = firsts.iter().flat_map(|first| *first..*first + NUMBERS);
        let all = numbers.map(ScmpSyscall::from_raw_syscall);
        names.extend(all.filter_map(|syscall| syscall.get_name_by_arch(arch).ok()));
    }
    names.into_iter().collect()
}

fn architectures() -> &'static [ScmpArch] {
    if cfg!(target_arch = "aarch64") {
        &[ScmpArch::Aarch64, ScmpArch::Arm]
    } else {
        &[ScmpArch::X8664, ScmpArch::X86, ScmpArch::X32]
    }
}

#[cfg(test)]
mod tests;
