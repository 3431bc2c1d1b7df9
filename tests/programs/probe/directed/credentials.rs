//! Which changes of ids are allowed, and the state after each: the state machine of credentials(7),
//! step by step.

use crate::probe::{KEEP, PR_SET_KEEPCAPS, Probe};
use crate::sys::{Arg, Birth, Place, Syscall, calls};

pub(super) fn run(p: &mut Probe) {
    p.group("ids", ids);
    p.group("ids-odd", odd);
    p.group("ids-groups", groups);
    p.group("ids-pointers", pointers);
    p.group("ids-children", children);
}

/// A call that sets user ids, the one that sets group ids, and the ids for both.
type Step = (Syscall, Syscall, &'static [u32]);

/// The credentials to start with.
const STARTS: [(&str, &[Step]); 9] = [
    ("root", &[]),
    (
        "dropped",
        &[(calls::SETRESUID, calls::SETRESGID, &[1000, 1000, 1000])],
    ),
    (
        "in a set-user-ID program of root's",
        &[(calls::SETRESUID, calls::SETRESGID, &[1000, 0, 0])],
    ),
    (
        "dropped for a while",
        &[(calls::SETRESUID, calls::SETRESGID, &[0, 1000, 0])],
    ),
    (
        "dropped but for the saved one",
        &[(calls::SETRESUID, calls::SETRESGID, &[1000, 1000, 0])],
    ),
    (
        "dropped but for the real one",
        &[(calls::SETRESUID, calls::SETRESGID, &[0, 1000, 1000])],
    ),
    (
        "effective alone",
        &[(calls::SETRESUID, calls::SETRESGID, &[1000, 0, 1000])],
    ),
    (
        "three different",
        &[(calls::SETRESUID, calls::SETRESGID, &[1000, 1001, 1002])],
    ),
    (
        "another on files",
        &[(calls::SETFSUID, calls::SETFSGID, &[1000])],
    ),
];

const ONE: [[u32; 1]; 6] = [[KEEP], [0], [1000], [1001], [1002], [7]];
const TWO: [[u32; 2]; 12] = [
    [KEEP, KEEP],
    [KEEP, 0],
    [0, KEEP],
    [KEEP, 1000],
    [1000, KEEP],
    [1001, 1000],
    [KEEP, 1002],
    [1002, KEEP],
    [1000, 0],
    [0, 1000],
    [7, 7],
    [KEEP, 7],
];
const THREE: [[u32; 3]; 14] = [
    [KEEP, KEEP, KEEP],
    [0, 0, 0],
    [1000, 1000, 1000],
    [1001, 1002, 1000],
    [1000, 0, 1001],
    [KEEP, 1002, KEEP],
    [KEEP, KEEP, 1001],
    [KEEP, 0, KEEP],
    [0, KEEP, KEEP],
    [KEEP, 1000, KEEP],
    [1000, KEEP, 7],
    [7, 8, 9],
    [KEEP, 7, KEEP],
    [KEEP, KEEP, 7],
];

/// Makes every call from every start, each in a child of its own.
fn ids(p: &mut Probe) {
    p.state();
    let mut cases: Vec<(Syscall, &[u32])> = Vec::new();
    for syscall in [
        calls::SETUID,
        calls::SETFSUID,
        calls::SETGID,
        calls::SETFSGID,
    ] {
        cases.extend(ONE.iter().map(|ids| (syscall, ids.as_slice())));
    }
    for syscall in [calls::SETREUID, calls::SETREGID] {
        cases.extend(TWO.iter().map(|ids| (syscall, ids.as_slice())));
    }
    for syscall in [calls::SETRESUID, calls::SETRESGID] {
        cases.extend(THREE.iter().map(|ids| (syscall, ids.as_slice())));
    }
    for (start, steps) in STARTS {
        let begin = |p: &mut Probe| {
            for (uids, gids, ids) in steps {
                p.quietly_set(*gids, ids);
                p.quietly_set(*uids, ids);
            }
        };
        p.child(start, Birth::Fork, |p| {
            begin(p);
            p.state();
        });
        for (syscall, ids) in &cases {
            p.child(start, Birth::Fork, |p| {
                begin(p);
                p.set(*syscall, ids);
                // Can the process become root again?
                p.set(calls::SETRESUID, &[KEEP, 0, KEEP]);
            });
        }
        p.child(start, Birth::Fork, |p| {
            begin(p);
            p.setgroups(&[5, 6]);
            p.setgroups(&[]);
        });
    }
    p.state();
}

/// Ids around every limit, and registers whose upper half is not zero.
fn odd(p: &mut Probe) {
    for id in [
        1,
        65534,
        65535,
        65536,
        100_000,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_fffd,
        0xffff_fffe,
    ] {
        p.child("odd ids", Birth::Fork, |p| {
            p.setgroups(&[id, 5]);
            p.set(calls::SETFSGID, &[id]);
            p.set(calls::SETRESGID, &[0, id, 0]);
            p.set(calls::SETREGID, &[id, 0]);
            p.set(calls::SETGID, &[id]);
            p.set(calls::SETFSUID, &[id]);
            p.set(calls::SETFSUID, &[0]);
            p.set(calls::SETRESUID, &[0, id, 0]);
            p.set(calls::SETREUID, &[id, 0]);
            p.set(calls::SETUID, &[id]);
            p.set(calls::SETUID, &[0]);
        });
    }
    let high = |low: u32| Arg::Word(0xdead_beef_0000_0000 | u64::from(low));
    p.child("only half of a register is an id", Birth::Fork, |p| {
        p.call(
            calls::SETGROUPS,
            &[high(2), Arg::Ids(vec![3, 4], Place::Heap)],
        );
        p.state();
        p.call(calls::GETGROUPS, &[high(2), Arg::Output(8, Place::Heap)]);
        p.call(calls::SETRESGID, &[high(1), high(KEEP), high(2)]);
        p.state();
        p.call(calls::SETFSUID, &[high(5)]);
        p.state();
        p.call(calls::SETRESUID, &[high(KEEP), high(6), high(0)]);
        p.state();
        p.call(calls::SETREUID, &[high(0), high(KEEP)]);
        p.call(calls::SETUID, &[high(0)]);
        p.state();
        p.call(calls::SETUID, &[high(7)]);
        p.state();
    });
}

fn groups(p: &mut Probe) {
    p.child("lists of groups", Birth::Fork, |p| {
        let many: Vec<u32> = (0..65536).collect();
        let backwards: Vec<u32> = (100..132).rev().collect();
        for list in [
            &[][..],
            &[0],
            &[1000],
            &[30, 10, 20],
            &[7, 7, 0, 7],
            &[0xffff_fffe, 1, 0x8000_0000, 65536],
            &backwards,
            &many[..33],
            &many[..1025],
            &many,
            &[KEEP],
            &[1, KEEP, 2],
        ] {
            p.setgroups(list);
        }
        let list = || Arg::Ids(vec![4, 5, 6], Place::Heap);
        for size in [65537, -1, i64::from(i32::MIN), 0x1_0000_0002, 0x7fff_ffff] {
            p.call(calls::SETGROUPS, &[Arg::Number(size), list()]);
            p.state();
        }
        p.setgroups(&[11, 12, 13]);
        for size in [0, 1, 2, 3, 4, 100, -1, i64::from(i32::MIN), 0x1_0000_0003] {
            p.peek(
                calls::GETGROUPS,
                &[Arg::Number(size), Arg::Output(16, Place::Heap)],
            );
        }
    });
    p.child("groups of somebody who dropped", Birth::Fork, |p| {
        p.setgroups(&[50, 60, 1000]);
        p.set(calls::SETRESGID, &[1000, 1000, 1000]);
        // Group ids do not matter here, the capability does.
        p.setgroups(&[50]);
        p.set(calls::SETRESUID, &[1000, 1000, 1000]);
        p.setgroups(&[50]);
        p.setgroups(&[]);
        p.setgroups(&[KEEP]);
        // A process cannot set its group id to one of its supplementary groups.
        p.set(calls::SETGID, &[60]);
        p.set(calls::SETFSGID, &[60]);
        p.set(calls::SETREGID, &[50, KEEP]);
    });
}

const BAD: [Place; 6] = [
    Place::Null,
    Place::One,
    Place::Kernel,
    Place::NonCanonical,
    Place::Unmapped,
    Place::ReadOnly,
];

/// Memory that the kernel cannot write or read, and what it wrote before it failed.
fn pointers(p: &mut Probe) {
    let good = || Arg::Output(4, Place::Heap);
    for dropped in [false, true] {
        p.child("bad pointers", Birth::Fork, |p| {
            p.setgroups(&[21, 22, 23]);
            p.set(calls::SETRESGID, &[11, 12, 13]);
            if dropped {
                p.set(calls::SETRESUID, &[14, 15, 16]);
            }
            for get in [calls::GETRESUID, calls::GETRESGID] {
                p.peek(get, &[good(), good(), good()]);
                let page_end = || Arg::Output(4, Place::PageEnd);
                p.peek(get, &[page_end(), page_end(), page_end()]);
                for place in BAD {
                    let bad = || Arg::Output(4, place);
                    p.peek(get, &[bad(), good(), good()]);
                    p.peek(get, &[good(), bad(), good()]);
                    p.peek(get, &[good(), good(), bad()]);
                }
            }
            for place in BAD {
                for size in [0, 1, 3, 4, -1] {
                    p.peek(
                        calls::GETGROUPS,
                        &[Arg::Number(size), Arg::Output(16, place)],
                    );
                }
                for size in [0, 1, 65536, 65537, -1] {
                    let list = Arg::Ids(vec![1, 2, 3, 4], place);
                    p.call(calls::SETGROUPS, &[Arg::Number(size), list]);
                    p.state();
                }
            }
            p.peek(
                calls::GETGROUPS,
                &[Arg::Number(3), Arg::Output(12, Place::PageEnd)],
            );
            p.peek(
                calls::GETGROUPS,
                &[Arg::Number(3), Arg::Output(12, Place::Cut)],
            );
            let cut = Arg::Ids(vec![1, 2, 3, 4], Place::Cut);
            p.call(calls::SETGROUPS, &[Arg::Number(4), cut]);
            let end = Arg::Ids(vec![3, 1, 4], Place::PageEnd);
            p.call(calls::SETGROUPS, &[Arg::Number(3), end]);
            p.state();
        });
    }
}

/// A child has the credentials of its parent; later changes of one do not affect the other.
fn children(p: &mut Probe) {
    let births = [
        Birth::Fork,
        Birth::Vfork,
        Birth::Clone,
        Birth::Clone3,
        Birth::Orphan,
    ];
    for birth in births {
        p.child("a parent", Birth::Fork, |p| {
            p.setgroups(&[31, 32]);
            p.set(calls::SETRESGID, &[1, 2, 3]);
            p.prctl(PR_SET_KEEPCAPS, &[1]);
            p.set(calls::SETRESUID, &[4, 0, 5]);
            p.child(&format!("its child by {birth:?}"), birth, |p| {
                p.state();
                p.set(calls::SETRESGID, &[33, KEEP, KEEP]);
                p.set(calls::SETRESUID, &[6, 7, 8]);
                for grandchild in births {
                    p.child(
                        &format!("a grandchild by {grandchild:?}"),
                        grandchild,
                        |p| {
                            p.state();
                            p.set(calls::SETREUID, &[8, 6]);
                        },
                    );
                }
                p.state();
            });
            p.state();
            p.set(calls::SETUID, &[9]);
        });
    }
    p.state();
}
