//! Makes filters from the syscall table that this program loads itself, instead of a runtime.

use std::collections::BTreeSet;
use std::io::{Read, Seek};

use libseccomp::error::SeccompError;
use libseccomp::{
    ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall,
};

use subuidless_fast::facts::{MAGIC, MAGIC_ABOVE_INT};

use super::{Comparison, IO_URING, MARKED, notified, rows};
use crate::linux::memfd;
use crate::syscalls::TABLE;

/// The filter that notifies the table's calls and allows everything else, as an array of `struct
/// sock_filter` for seccomp(2). With `is_fast` it allows the calls of the preloaded library.
pub(crate) fn program(is_fast: bool) -> std::io::Result<Vec<u8>> {
    let filter = build(is_fast).map_err(std::io::Error::other)?;
    // Exported, not loaded by libseccomp: releases before 2.6 do not know WAIT_KILLABLE_RECV.
    let mut file = memfd::create(c"filter")?;
    filter.export_bpf(&file).map_err(std::io::Error::other)?;
    file.rewind()?;
    let mut program = on_unnamed(libc::SECCOMP_RET_USER_NOTIF, is_fast);
    file.read_to_end(&mut program)?;
    Ok(program)
}

/// A filter to load in addition to that of a runtime, which refers to calls by name. This one
/// denies the calls of the table that have no name in libseccomp, with ENOSYS as on an older
/// kernel. Returns `None` if libseccomp knows all names.
pub(crate) fn denial(is_fast: bool) -> Option<Vec<u8>> {
    let errno = libc::ENOSYS.unsigned_abs();
    let mut program = on_unnamed(libc::SECCOMP_RET_ERRNO | errno, is_fast);
    if program.is_empty() {
        return None;
    }
    program.extend(instruction(RETURN, 0, libc::SECCOMP_RET_ALLOW));
    Some(program)
}

// linux/bpf_common.h
const LOAD_WORD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP: u16 = 0x05;
const RETURN: u16 = 0x06;

/// A `struct sock_filter`; `if_so` is the number of instructions that a jump skips if it is taken.
fn instruction(code: u16, if_so: u8, k: u32) -> [u8; 8] {
    let [low, high] = code.to_ne_bytes();
    let [a, b, c, d] = k.to_ne_bytes();
    [low, high, if_so, 0, a, b, c, d]
}

/// Instructions for the front of a program: they apply `action` to calls that libseccomp has no
/// names for. With `is_fast`, those of the preloaded library are left to the program.
fn on_unnamed(action: u32, is_fast: bool) -> Vec<u8> {
    const X32_SYSCALL_BIT: u32 = 0x4000_0000;
    let unnamed: Vec<(u32, bool)> = TABLE
        .iter()
        .filter_map(|row| Some((row.bare_number()?, is_fast && row.fast.is_some())))
        .collect();
    if unnamed.is_empty() {
        return Vec::new();
    }
    let test: &[[u8; 8]] = match is_fast {
        true => &[
            instruction(LOAD_WORD, 0, UPPER_HALF_OF_FIRST_ARGUMENT),
            instruction(JUMP_IF_EQUAL, 1, MARK_ABOVE_INT),
        ],
        false => &[],
    };
    let behind: u8 = if is_fast { 2 } else { 0 };
    // struct seccomp_data begins with the number. New syscalls have the same one on all
    // architectures, so the architecture need not be checked; x32 adds a bit to it.
    let mut program = vec![
        instruction(LOAD_WORD, 0, 0),
        instruction(AND, 0, !X32_SYSCALL_BIT),
    ];
    // A match skips the other comparisons and the jump behind them, to the test of the mark or to
    // the return of `action`.
    for (left, (number, may_be_marked)) in (1..=255).take(unnamed.len()).zip(unnamed.iter().rev()) {
        let over = if *may_be_marked { left } else { left + behind };
        program.insert(2, instruction(JUMP_IF_EQUAL, over, *number));
    }
    program.push(instruction(JUMP, 0, 1 + u32::from(behind)));
    program.extend_from_slice(test);
    program.push(instruction(RETURN, 0, action));
    program.concat()
}

/// In struct seccomp_data.
const UPPER_HALF_OF_FIRST_ARGUMENT: u32 = if cfg!(target_endian = "little") {
    20
} else {
    16
};

const MARK_ABOVE_INT: u32 = (MAGIC_ABOVE_INT >> u32::BITS) as u32;

/// The names of all calls of this machine's architectures that libseccomp knows.
pub(super) fn all_names() -> Vec<String> {
    /// Far above the highest number.
    const NUMBERS: i32 = 1024;
    const X32_SYSCALL_BIT: i32 = 0x4000_0000;
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

fn build(is_fast: bool) -> Result<ScmpFilterContext, SeccompError> {
    let mut filter = ScmpFilterContext::new(ScmpAction::Allow)?;
    filter.set_act_badarch(ScmpAction::Allow)?;
    // A binary tree of the numbers, so that calls that are not in the table cost little.
    filter.set_ctl_optimize(2)?;
    for &arch in architectures() {
        if !filter.is_arch_present(arch)? {
            filter.add_arch(arch)?;
        }
    }
    for row in rows(is_fast).filter(|row| row.bare_number().is_none()) {
        let syscall = ScmpSyscall::from_name(row.name)?;
        for comparisons in notified(row, is_fast) {
            let conditions: Vec<_> = comparisons
                .into_iter()
                .map(Comparison::to_libseccomp)
                .collect();
            match conditions.is_empty() {
                true => filter.add_rule(ScmpAction::Notify, syscall)?,
                false => filter.add_rule_conditional(ScmpAction::Notify, syscall, &conditions)?,
            };
        }
    }
    for name in IO_URING {
        // A libseccomp that does not know the name is older than io_uring, and programs that use it
        // are newer.
        if let Ok(syscall) = ScmpSyscall::from_name(name) {
            filter.add_rule(ScmpAction::Errno(libc::ENOSYS), syscall)?;
        }
    }
    Ok(filter)
}

fn architectures() -> &'static [ScmpArch] {
    if cfg!(target_arch = "aarch64") {
        &[ScmpArch::Aarch64, ScmpArch::Arm]
    } else {
        &[ScmpArch::X8664, ScmpArch::X86, ScmpArch::X32]
    }
}

impl Comparison {
    fn to_libseccomp(self) -> ScmpArgCompare {
        match self {
            Self::IsNotMinusOne { arg } => {
                ScmpArgCompare::new(arg, ScmpCompareOp::NotEqual, u32::MAX.into())
            }
            Self::Masked { arg, mask, bits } => {
                ScmpArgCompare::new(arg, ScmpCompareOp::MaskedEqual(mask), bits)
            }
            Self::IsNotMarked => ScmpArgCompare::new(MARKED, ScmpCompareOp::NotEqual, MAGIC),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_makes_a_program_that_the_kernel_takes() {
        const BPF_MAXINSNS: usize = 4096;
        for is_fast in [false, true] {
            let program = program(is_fast).unwrap();
            assert_eq!(program.len() % size_of::<libc::sock_filter>(), 0);
            assert!(program.len() / size_of::<libc::sock_filter>() <= BPF_MAXINSNS);
        }
    }
}
