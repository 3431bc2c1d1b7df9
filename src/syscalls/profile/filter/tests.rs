//! The filters decide as those do that libseccomp makes of the same table.

use std::io::{Read, Seek};

use libseccomp::{ScmpAction, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext};

use super::super::{Comparison, IO_URING, notified, rows};
use super::*;
use crate::linux::memfd;
use crate::wire::permissions::Permissions;

/// All that a filter can be for.
fn scopes() -> impl Iterator<Item = Scope> {
    let both = [Permissions::Full, Permissions::Owner];
    both.into_iter().flat_map(|permissions| {
        [false, true].map(|is_fast| Scope {
            is_fast,
            permissions,
        })
    })
}

fn oracle(scope: Scope) -> Vec<u8> {
    let mut filter = ScmpFilterContext::new(ScmpAction::Allow).unwrap();
    filter.set_act_badarch(ScmpAction::Allow).unwrap();
    for &arch in architectures() {
        if !filter.is_arch_present(arch).unwrap() {
            filter.add_arch(arch).unwrap();
        }
    }
    for row in rows(scope).filter(|row| row.bare_number().is_none()) {
        let syscall = ScmpSyscall::from_name(row.name).unwrap();
        for comparisons in notified(row, scope) {
            let conditions: Vec<_> = comparisons.into_iter().map(to_libseccomp).collect();
            filter
                .add_rule_conditional(ScmpAction::Notify, syscall, &conditions)
                .unwrap();
        }
    }
    for name in IO_URING {
        let syscall = ScmpSyscall::from_name(name).unwrap();
        let denied = ScmpAction::Errno(libc::ENOSYS);
        filter.add_rule(denied, syscall).unwrap();
    }
    let mut file = memfd::create(c"filter").unwrap();
    filter.export_bpf(&file).unwrap();
    file.rewind().unwrap();
    let mut program = Vec::new();
    file.read_to_end(&mut program).unwrap();
    program
}

fn to_libseccomp(comparison: Comparison) -> ScmpArgCompare {
    match comparison {
        Comparison::IsNot { arg, value } => {
            ScmpArgCompare::new(arg, ScmpCompareOp::NotEqual, value.into())
        }
        Comparison::Masked { arg, mask, bits } => {
            ScmpArgCompare::new(arg, ScmpCompareOp::MaskedEqual(mask), bits)
        }
        Comparison::IsNotMarked => ScmpArgCompare::new(MARKED, ScmpCompareOp::NotEqual, MAGIC),
    }
}

/// What the kernel's BPF machine does with a `struct seccomp_data`.
fn run(program: &[u8], number: u32, arch: u32, arguments: [u64; 6]) -> u32 {
    let mut data = [number.to_ne_bytes(), arch.to_ne_bytes()].concat();
    data.extend([0; 8]);
    data.extend(arguments.iter().flat_map(|argument| argument.to_ne_bytes()));
    let word = |at: usize| u32::from_ne_bytes(data[at..at + 4].try_into().unwrap());
    let mut accumulator = 0;
    let mut index = 0;
    loop {
        let instruction = &program[index * 8..index * 8 + 8];
        let code = u16::from_ne_bytes(instruction[..2].try_into().unwrap());
        let operand = u32::from_ne_bytes(instruction[4..].try_into().unwrap());
        index += 1;
        let holds = match code {
            0x20 => {
                accumulator = word(operand as usize);
                continue;
            }
            0x54 => {
                accumulator &= operand;
                continue;
            }
            0x05 => {
                index += operand as usize;
                continue;
            }
            0x06 => return operand,
            0x15 => accumulator == operand,
            0x25 => accumulator > operand,
            0x35 => accumulator >= operand,
            0x45 => accumulator & operand != 0,
            other => panic!("an unknown instruction: {other:#x}"),
        };
        index += usize::from(instruction[if holds { 2 } else { 3 }]);
    }
}

/// Arguments that differ in what the table's conditions look at.
fn arguments() -> Vec<[u64; 6]> {
    let mut all = Vec::new();
    let values = (0..u64::BITS).map(|shift| 1 << shift).chain((0..64).chain([
        u32::MAX.into(),
        u64::from(u32::MAX) - 1,
        MAGIC,
        MAGIC + 1,
    ]));
    for value in values {
        all.push([value; 6]);
        all.extend((0..6).map(|arg| std::array::from_fn(|at| if at == arg { value } else { 0 })));
    }
    all.push([3, u32::MAX.into(), u32::MAX.into(), 0, 0, 0]);
    all.push([3, 3, u32::MAX.into(), u32::MAX.into(), 0, MAGIC]);
    all
}

#[test]
fn calls_trap_as_in_a_filter_of_libseccomp() {
    const I386: u32 = 0x4000_0003;
    /// socketcall(2), bind(2), connect(2) and getsockopt(2), whose calls on i386 the table does not
    /// answer, and the direct calls of System V IPC, in whose place C libraries use ipc(2).
    const NOT_ANSWERED: [std::ops::RangeInclusive<u32>; 4] =
        [102..=102, 361..=362, 365..=365, 393..=402];
    let bare: Vec<u32> = TABLE.iter().filter_map(Row::bare_number).collect();
    let known: BTreeSet<u32> = Dispatch::get().rows().map(|row| row.1).collect();
    // libseccomp compares 64 bits, where this filter and the kernel look at the lower half only.
    // For −1 that is no difference in these arguments.
    let narrow = |row: &Row| match row.trap(Scope::default()) {
        Trap::If(one) => is_narrow(one),
        Trap::IfEither(one, other) => is_narrow(one) || is_narrow(other),
        Trap::Always | Trap::Never => false,
    };
    let narrow: BTreeSet<(u32, u32)> = Dispatch::get()
        .rows()
        .filter(|(_, _, row)| narrow(row))
        .map(|(arch, number, _)| (arch, number))
        .collect();
    let arguments = arguments();
    for scope in scopes() {
        let (ours, oracle) = (program(scope), oracle(scope));
        for arch in [AUDIT_ARCHS, FOREIGN_ARCHS].concat() {
            for number in (0..600).chain((0..600).map(|number| number | 0x4000_0000)) {
                if bare.contains(&(number & 0xfff))
                    || arch == I386 && NOT_ANSWERED.iter().any(|range| range.contains(&number))
                {
                    continue;
                }
                // Other calls are allowed, or denied, whatever their arguments are.
                let most = if known.contains(&number) {
                    usize::MAX
                } else {
                    8
                };
                for arguments in arguments.iter().take(most) {
                    let mut arguments = *arguments;
                    if narrow.contains(&(arch, number)) {
                        arguments = arguments.map(|argument| argument & LOWER);
                    }
                    assert_eq!(
                        run(&ours, number, arch, arguments),
                        run(&oracle, number, arch, arguments),
                        "{number} of {arch:#x} with {arguments:x?}, {scope:?}"
                    );
                }
            }
        }
        let below = |number| run(&ours, number, AUDIT_ARCHS[0], [0; 6]);
        assert_eq!(below(u32::MAX), libc::SECCOMP_RET_ALLOW);
    }
}

fn is_narrow(condition: Condition) -> bool {
    matches!(condition, Condition::IsNot { value, .. } if value != u32::MAX)
}

const AUDIT_ARCHS: &[u32] = if cfg!(target_arch = "aarch64") {
    &[0xc000_00b7, 0x4000_0028]
} else {
    &[0xc000_003e, 0x4000_0003]
};

/// i386 or 32-bit ARM, and none at all.
const FOREIGN_ARCHS: &[u32] = if cfg!(target_arch = "aarch64") {
    &[0x4000_0003, 0xdead_beef]
} else {
    &[0x4000_0028, 0xdead_beef]
};

#[test]
fn calls_without_a_name_trap_and_are_denied_on_all_architectures() {
    let denial = denial(true);
    for row in TABLE {
        let Some(number) = row.bare_number() else {
            continue;
        };
        let denial = denial.as_deref().unwrap();
        for scope in scopes() {
            let program = program(scope);
            for arch in AUDIT_ARCHS {
                let answer = |first| run(&program, number, *arch, [first, 0, 0, 0, 0, 0]);
                assert_eq!(answer(3), libc::SECCOMP_RET_USER_NOTIF);
                let is_let = answer(MAGIC_ABOVE_INT + 3) == libc::SECCOMP_RET_ALLOW;
                assert_eq!(is_let, scope.is_fast && row.fast.is_some());
            }
        }
        for number in [number, number | 0x4000_0000] {
            assert_eq!(run(denial, number, 0xdead_beef, [3; 6]), DENIED);
            let marked = run(denial, number, 0xdead_beef, [MAGIC_ABOVE_INT; 6]);
            assert_eq!(marked == libc::SECCOMP_RET_ALLOW, row.fast.is_some());
        }
        assert_eq!(run(denial, 0, 0xdead_beef, [3; 6]), libc::SECCOMP_RET_ALLOW);
    }
}

#[test]
fn a_filter_is_short() {
    for scope in scopes() {
        let length = program(scope).len() / size_of::<libc::sock_filter>();
        assert!(length < 1000, "{length}");
    }
}
