//! Random changes of ids. Each series starts as root; what is allowed next depends on the calls
//! before.

use super::draw::Dice;
use crate::probe::*;
use crate::sys::{Birth, Syscall, calls};

/// The number of steps of one series; `--ops` counts steps.
const STEPS: u64 = 30;

/// Mostly ids with which the caller can become root again.
const POOL: [u32; 18] = [
    0, 0, 0, 0, 0, KEEP, KEEP, KEEP, KEEP, KEEP, 1, 33, 999, 1000, 1000, 1000, 65534, 70000,
];

const ONE: [Syscall; 6] = [
    calls::SETFSUID,
    calls::SETFSUID,
    calls::SETFSGID,
    calls::SETFSGID,
    calls::SETGID,
    calls::SETUID,
];
const TWO: [Syscall; 2] = [calls::SETREUID, calls::SETREGID];
const THREE: [Syscall; 2] = [calls::SETRESUID, calls::SETRESGID];

pub(super) fn run(p: &mut Probe, seed: u64, operations: u64) {
    p.group("ids-random", |p| {
        let births = [Birth::Fork, Birth::Clone, Birth::Orphan];
        for (number, birth) in (0..operations / STEPS).zip(births.into_iter().cycle()) {
            let dice = Dice(seed << 32 | number);
            p.child("a walk", birth, |p| Walk(p, dice.clone()).go(STEPS, 2));
        }
    });
}

struct Walk<'a>(&'a mut Probe, Dice);

impl Walk<'_> {
    /// Makes `steps` steps; `depth` limits the generations of children.
    fn go(&mut self, steps: u64, depth: u32) {
        for _ in 0..steps {
            let ids = [0, 1, 2].map(|_| self.1.pick(&POOL));
            match self.1.below(100) {
                0..24 => self.0.set(self.1.pick(&ONE), &ids[..1]),
                24..44 => self.0.set(self.1.pick(&TWO), &ids[..2]),
                44..66 => self.0.set(self.1.pick(&THREE), &ids),
                66..72 => self.groups(),
                72..78 => self.capset(),
                78..82 => self.prctl(),
                82..92 if depth > 0 => self.child(steps / 3, depth - 1),
                92..96 if depth > 0 => self.thread(steps / 3, depth - 1),
                _ if !self.0.skips("exec") => self.exec(),
                _ => self.groups(),
            }
        }
    }

    fn groups(&mut self) {
        let length = self.1.below(5);
        let list: Vec<u32> = (0..length).map(|_| self.1.pick(&POOL)).collect();
        self.0.setgroups(&list);
    }

    fn capset(&mut self) {
        let own = self.0.capabilities(0).unwrap_or_default();
        let mut some = |of: u64| match self.1.below(4) {
            0 | 1 => of,
            2 => of & self.1.next(),
            _ => of & (of << 1),
        };
        let permitted = some(own.permitted);
        let sets = Sets {
            effective: some(permitted),
            permitted,
            inheritable: some(own.permitted | own.inheritable),
        };
        self.0.capset(sets);
        self.0.ambient();
    }

    fn prctl(&mut self) {
        let capability = [5, 6, 7, 8][self.1.below(4)];
        match self.1.below(8) {
            0..3 => self.0.prctl(PR_SET_KEEPCAPS, &[1]),
            3 => self.0.prctl(PR_SET_KEEPCAPS, &[0]),
            4 | 5 => self.0.prctl(PR_CAP_AMBIENT, &[AMBIENT_RAISE, capability]),
            6 => self.0.prctl(PR_CAP_AMBIENT, &[AMBIENT_LOWER, capability]),
            _ => {
                // NO_SETUID_FIXUP, KEEP_CAPS, both, or none. Another group tests the bits that
                // affect execve(2).
                let bits = self.1.pick(&[0, 4, 16, 20]);
                self.0.prctl(PR_SET_SECUREBITS, &[bits]);
            }
        }
        self.0.state();
        self.0.ambient();
    }

    fn child(&mut self, steps: u64, depth: u32) {
        let births = [
            Birth::Fork,
            Birth::Vfork,
            Birth::Clone,
            Birth::Clone3,
            Birth::Orphan,
        ];
        let birth = self.1.pick(&births);
        let dice = Dice(self.1.next());
        let what = format!("a child by {birth:?}");
        self.0
            .child(&what, birth, |p| Walk(p, dice.clone()).go(steps, depth));
        self.0.state();
    }

    /// A thread that makes steps of its own until it ends.
    fn thread(&mut self, steps: u64, depth: u32) {
        let dice = Dice(self.1.next());
        self.0
            .thread("a thread", |p| Walk(p, dice).go(steps, depth));
        self.0.state();
    }

    fn exec(&mut self) {
        let birth = self.1.pick(&[Birth::Fork, Birth::Vfork]);
        let what = format!("a program by {birth:?}");
        self.0.child(&what, birth, |p| {
            let program = p.program();
            p.execve(&program);
        });
    }
}
