//! Capabilities, as far as they come and go with the ids: capget(2), capset(2), and prctl(2) where it concerns them.

use crate::probe::*;
use crate::sys::{Arg, Birth, Place, calls, process_id};

pub(super) fn run(p: &mut Probe) {
    p.group("ids-caps", caps);
    p.group("ids-keepcaps", keepcaps);
    p.group("ids-securebits", securebits);
    p.group("ids-ambient", ambient);
    p.group("ids-bounding", bounding);
}

const SETGID: u64 = 1 << 6;
const SETUID: u64 = 1 << 7;
const SETPCAP: u64 = 1 << 8;
const KILL: u64 = 1 << 5;
/// None of the container's.
const SYS_TIME: u64 = 1 << 25;

const NO_ROOT: i64 = 1;
const NO_SETUID_FIXUP: i64 = 1 << 2;
const KEEP_CAPS: i64 = 1 << 4;
const NO_AMBIENT_RAISE: i64 = 1 << 6;

fn own(p: &mut Probe) -> Sets {
    p.capabilities(0).unwrap_or_default()
}

fn header(version: u32, pid: i32, place: Place) -> Arg {
    Arg::Words(vec![version, pid.cast_unsigned()], place)
}

/// As [`Probe::peek`], with a header that may name a process whose id differs from run to run.
fn get(p: &mut Probe, version: u32, pid: i32, data: Arg) {
    let answer = p.quiet(calls::CAPGET, &[header(version, pid, Place::Heap), data]);
    let result = match answer.result {
        Ok(_) => "0".to_owned(),
        Err(errno) => crate::print::errno(errno),
    };
    let (version_then, sets) = (answer.words(0)[0], answer.words(1));
    p.say(&format!(
        "capget({version:#x}) = {result}, version {version_then:#x}, sets {sets:x?}"
    ));
}

fn caps(p: &mut Probe) {
    let versions = [
        0x1998_0330,
        0x2007_1026,
        CAPABILITY_VERSION_3,
        0,
        1,
        u32::MAX,
        0x2008_0523,
    ];
    let buffer = || Arg::Output(24, Place::Heap);
    let itself = process_id();
    for version in versions {
        for pid in [0, itself, -1, 0x3fff_ffff, i32::MIN] {
            get(p, version, pid, buffer());
            get(p, version, pid, Arg::Output(24, Place::Null));
        }
        get(p, version, 0, Arg::Output(24, Place::ReadOnly));
        get(p, version, 0, Arg::Output(24, Place::PageEnd));
    }
    for place in [
        Place::Null,
        Place::Kernel,
        Place::Unmapped,
        Place::ReadOnly,
        Place::PageEnd,
    ] {
        let version = CAPABILITY_VERSION_3;
        let words = || Arg::Words(vec![0; 6], place);
        p.call(calls::CAPGET, &[header(version, 0, place), buffer()]);
        p.call(
            calls::CAPGET,
            &[header(version, 0, Place::Heap), Arg::Output(24, place)],
        );
        p.child("bad pointers for capset", Birth::Fork, |p| {
            p.call(calls::CAPSET, &[header(version, 0, Place::Heap), words()]);
            p.state();
            p.call(calls::CAPSET, &[header(version, 0, place), words()]);
            p.state();
        });
    }
    p.child("versions of capset", Birth::Fork, |p| {
        let all = own(p).words();
        for version in versions {
            for pid in [-1, 0x3fff_ffff, 1] {
                p.peek(
                    calls::CAPSET,
                    &[
                        header(version, pid, Place::Heap),
                        Arg::Words(all.clone(), Place::Heap),
                    ],
                );
            }
            p.peek(
                calls::CAPSET,
                &[
                    header(version, 0, Place::Heap),
                    Arg::Words(all.clone(), Place::Heap),
                ],
            );
            p.state();
        }
        let itself = header(CAPABILITY_VERSION_3, process_id(), Place::Heap);
        let answer = p.quiet(calls::CAPSET, &[itself, Arg::Words(all, Place::Heap)]);
        p.say(&format!("capset of itself by its id: {:?}", answer.result));
    });
    p.beside(
        "the capabilities of another process",
        |p| {
            p.set(calls::SETRESUID, &[0, 1000, 0]);
        },
        |p, pid| {
            get(p, CAPABILITY_VERSION_3, pid, buffer());
            let header = header(CAPABILITY_VERSION_3, pid, Place::Heap);
            let none = Arg::Words(vec![0; 6], Place::Heap);
            let answer = p.quiet(calls::CAPSET, &[header, none]);
            p.say(&format!(
                "capset of another: {:?}",
                answer.result.map_err(crate::print::errno)
            ));
        },
    );
    p.child("what capset allows", Birth::Fork, |p| {
        let all = own(p);
        let none = Sets::default();
        p.capset(all);
        p.capset(Sets {
            inheritable: SETUID | KILL,
            ..all
        });
        p.capset(Sets {
            inheritable: SYS_TIME,
            ..all
        });
        p.capset(Sets {
            effective: all.effective | SYS_TIME,
            ..all
        });
        p.capset(Sets {
            permitted: all.permitted | SYS_TIME,
            ..all
        });
        p.capset(Sets {
            effective: u64::MAX,
            permitted: u64::MAX,
            inheritable: 0,
        });
        p.capset(Sets {
            effective: all.effective | 1 << 63,
            permitted: all.permitted | 1 << 41,
            inheritable: 1 << 62,
        });
        p.capset(Sets {
            effective: 0,
            ..all
        });
        p.capset(Sets {
            effective: SETUID,
            ..all
        });
        p.capset(Sets {
            effective: KILL,
            permitted: KILL | SETUID,
            inheritable: KILL,
        });
        p.capset(Sets {
            effective: KILL,
            permitted: KILL | SETUID,
            inheritable: KILL | SETUID,
        });
        p.capset(Sets {
            effective: KILL,
            permitted: KILL | SETUID,
            inheritable: KILL | SETGID,
        });
        p.capset(Sets {
            effective: KILL | SETUID,
            permitted: KILL,
            inheritable: 0,
        });
        p.capset(all);
        p.capset(Sets {
            inheritable: KILL,
            ..none
        });
        p.capset(none);
        p.capset(Sets {
            inheritable: KILL,
            ..none
        });
    });
    p.child("root without CAP_SETUID and CAP_SETGID", Birth::Fork, |p| {
        let all = own(p);
        p.capset(Sets {
            effective: all.effective & !(SETUID | SETGID),
            ..all
        });
        p.setgroups(&[1]);
        p.set(calls::SETGID, &[1000]);
        p.set(calls::SETRESGID, &[KEEP, 1000, KEEP]);
        p.set(calls::SETFSGID, &[1000]);
        p.set(calls::SETUID, &[1000]);
        p.set(calls::SETUID, &[0]);
        p.set(calls::SETREUID, &[1000, KEEP]);
        p.set(calls::SETFSUID, &[1000]);
        // It has them still, as permitted ones.
        p.capset(Sets {
            effective: SETGID,
            ..all
        });
        p.set(calls::SETRESGID, &[1000, 1001, 1002]);
        p.setgroups(&[1]);
        p.capset(Sets {
            effective: SETUID,
            ..all
        });
        p.set(calls::SETRESUID, &[1000, 1001, 0]);
        p.set(calls::SETRESUID, &[KEEP, 0, KEEP]);
    });
    p.child("the capability without the id", Birth::Fork, |p| {
        p.prctl(PR_SET_KEEPCAPS, &[1]);
        p.set(calls::SETRESUID, &[1000, 1000, 1000]);
        p.capset(Sets {
            effective: SETUID | SETGID,
            permitted: SETUID | SETGID,
            inheritable: 0,
        });
        p.setgroups(&[4, 5]);
        p.set(calls::SETRESGID, &[1001, 1002, 1003]);
        p.set(calls::SETGID, &[7]);
        p.set(calls::SETFSGID, &[8]);
        // From one stranger to another.
        p.set(calls::SETRESUID, &[KEEP, 1001, KEEP]);
        p.set(calls::SETUID, &[1002]);
        p.set(calls::SETFSUID, &[1003]);
        p.set(calls::SETFSUID, &[0]);
        p.set(calls::SETRESUID, &[KEEP, 0, KEEP]);
        p.set(calls::SETRESUID, &[KEEP, 5, KEEP]);
    });
}

/// The file system id and its capabilities; what becomes of them when a capability is gone.
fn keepcaps(p: &mut Probe) {
    for value in [0, 1, 2, -1, 0x1_0000_0000, 0x1_0000_0001] {
        p.child("the bit", Birth::Fork, |p| {
            p.prctl(PR_SET_KEEPCAPS, &[1]);
            p.prctl(PR_SET_KEEPCAPS, &[value]);
            p.prctl(PR_GET_KEEPCAPS, &[]);
            p.prctl(PR_GET_KEEPCAPS, &[1, 2, 3, 4]);
            p.prctl(PR_SET_KEEPCAPS, &[1, 2, 3, 4]);
            p.state();
        });
    }
    for ids in [
        [1000, 1000, 1000],
        [0, 1000, 0],
        [1000, 0, 1000],
        [1000, 1000, 0],
    ] {
        p.child("kept", Birth::Fork, |p| {
            p.prctl(PR_SET_KEEPCAPS, &[1]);
            p.set(calls::SETRESUID, &ids);
            let sets = own(p);
            p.capset(Sets {
                effective: sets.permitted,
                ..sets
            });
            p.prctl(PR_SET_KEEPCAPS, &[0]);
            p.state();
            p.set(calls::SETRESUID, &[2000, 2000, 2000]);
            p.set(calls::SETUID, &[0]);
            p.set(calls::SETUID, &[3000]);
            // Somebody without any capability may still ask for the bit.
            p.prctl(PR_SET_KEEPCAPS, &[1]);
            p.state();
        });
    }
    p.child("file system ids", Birth::Fork, |p| {
        let all = own(p);
        p.capset(Sets {
            effective: all.effective & !1,
            ..all
        });
        p.set(calls::SETFSUID, &[1000]);
        p.set(calls::SETFSUID, &[1001]);
        p.set(calls::SETFSUID, &[0]);
        p.set(calls::SETFSUID, &[1000]);
        p.set(calls::SETRESUID, &[0, 0, 0]);
        p.set(calls::SETFSUID, &[1000]);
        p.set(calls::SETFSUID, &[0]);
        p.capset(Sets {
            permitted: SETUID | 2,
            effective: SETUID,
            inheritable: 0,
        });
        p.set(calls::SETFSUID, &[1000]);
        p.set(calls::SETFSUID, &[0]);
    });
}

fn securebits(p: &mut Probe) {
    let all: Vec<i64> = (0..9)
        .map(|bit| 1 << bit)
        .chain([0, 0xff, 0x15, 0x55, -1, 0x100, 0x1_0000_0004])
        .collect();
    for bits in &all {
        p.child("bits", Birth::Fork, |p| {
            p.prctl(PR_SET_SECUREBITS, &[*bits]);
            p.state();
            p.prctl(PR_SET_KEEPCAPS, &[1]);
            p.prctl(PR_GET_SECUREBITS, &[]);
            p.prctl(PR_SET_SECUREBITS, &[0]);
            p.state();
        });
    }
    p.child("by somebody else", Birth::Fork, |p| {
        p.set(calls::SETRESUID, &[1000, 1000, 0]);
        for bits in &all {
            p.prctl(PR_SET_SECUREBITS, &[*bits]);
            p.state();
        }
        p.set(calls::SETRESUID, &[0, 0, 0]);
        let sets = own(p);
        p.capset(Sets {
            effective: sets.effective & !SETPCAP,
            ..sets
        });
        p.prctl(PR_SET_SECUREBITS, &[NO_SETUID_FIXUP]);
        p.prctl(PR_SET_SECUREBITS, &[0]);
        p.prctl(PR_GET_SECUREBITS, &[]);
    });
    for bits in [
        NO_SETUID_FIXUP,
        KEEP_CAPS,
        NO_SETUID_FIXUP | KEEP_CAPS,
        NO_ROOT,
    ] {
        for ids in [
            [1000, 1000, 1000],
            [0, 1000, 0],
            [1000, 0, 1000],
            [1000, 1000, 0],
        ] {
            p.child("what the bits do", Birth::Fork, |p| {
                p.prctl(PR_SET_SECUREBITS, &[bits]);
                p.set(calls::SETRESUID, &ids);
                p.set(calls::SETFSUID, &[1001]);
                p.set(calls::SETFSUID, &[0]);
                p.set(calls::SETRESUID, &[KEEP, 0, KEEP]);
                p.prctl(PR_SET_SECUREBITS, &[0]);
                p.set(calls::SETRESUID, &[5, 5, 5]);
            });
        }
    }
}

fn ambient(p: &mut Probe) {
    let raise = |p: &mut Probe, capability: i64| {
        p.prctl(PR_CAP_AMBIENT, &[AMBIENT_RAISE, capability]);
        p.ambient();
    };
    let inherit = |p: &mut Probe, inheritable: u64| {
        let sets = own(p);
        p.capset(Sets {
            inheritable,
            ..sets
        });
    };
    p.child("arguments", Birth::Fork, |p| {
        inherit(p, KILL | SETUID);
        for operation in [0, 1, 2, 3, 4, 5, -1] {
            for capability in [5, 7, 25, 40, 41, 63, 64, -1, 0x1_0000_0005] {
                p.prctl(PR_CAP_AMBIENT, &[operation, capability]);
            }
            p.prctl(PR_CAP_AMBIENT, &[operation, 5, 1]);
            p.prctl(PR_CAP_AMBIENT, &[operation, 5, 0, 1]);
            p.prctl(PR_CAP_AMBIENT, &[operation, 0]);
            p.ambient();
        }
    });
    p.child("up and down", Birth::Fork, |p| {
        raise(p, 5);
        inherit(p, KILL | SETUID | SETGID);
        raise(p, 5);
        raise(p, 6);
        raise(p, 7);
        raise(p, 8);
        p.prctl(PR_CAP_AMBIENT, &[AMBIENT_LOWER, 6]);
        p.ambient();
        // What is no longer inheritable or permitted is not ambient either.
        inherit(p, KILL | SETUID);
        p.ambient();
        inherit(p, SETUID);
        p.ambient();
        inherit(p, KILL | SETUID);
        raise(p, 5);
        let sets = own(p);
        p.capset(Sets {
            effective: sets.effective & !KILL,
            permitted: sets.permitted & !KILL,
            ..sets
        });
        p.ambient();
        raise(p, 5);
        p.prctl(PR_CAP_AMBIENT, &[AMBIENT_CLEAR_ALL, 0]);
        p.ambient();
        p.prctl(PR_SET_SECUREBITS, &[NO_AMBIENT_RAISE]);
        raise(p, 7);
        p.prctl(PR_CAP_AMBIENT, &[AMBIENT_LOWER, 7]);
    });
    for (keep, ids) in [
        (0, [1000, 1000, 1000]),
        (1, [1000, 1000, 1000]),
        (0, [1000, 1000, 0]),
        (1, [0, 1000, 0]),
        (0, [1000, 0, 1000]),
    ] {
        p.child("a change of ids", Birth::Fork, |p| {
            inherit(p, KILL | SETUID | SETGID);
            raise(p, 5);
            raise(p, 6);
            p.prctl(PR_SET_KEEPCAPS, &[keep]);
            p.set(calls::SETRESUID, &ids);
            p.ambient();
            raise(p, 7);
            p.child("a child", Birth::Fork, |p| {
                p.state();
                p.ambient();
            });
            p.set(calls::SETRESUID, &[2000, 2000, 2000]);
            p.ambient();
        });
    }
}

fn bounding(p: &mut Probe) {
    let bound = |p: &mut Probe| {
        for capability in [0, 5, 7, 25, 40] {
            p.prctl(PR_CAPBSET_READ, &[capability]);
        }
    };
    bound(p);
    p.prctl(PR_CAPBSET_READ, &[41]);
    p.prctl(PR_CAPBSET_READ, &[-1]);
    p.child("dropped by root", Birth::Fork, |p| {
        p.prctl(PR_CAPBSET_DROP, &[5]);
        p.prctl(PR_CAPBSET_DROP, &[25]);
        p.prctl(PR_CAPBSET_DROP, &[41]);
        p.prctl(PR_CAPBSET_DROP, &[-1]);
        bound(p);
        p.state();
        let sets = own(p);
        p.capset(Sets {
            inheritable: KILL,
            ..sets
        });
        p.child("a child", Birth::Fork, bound);
    });
    p.child("dropped by somebody else", Birth::Fork, |p| {
        p.set(calls::SETRESUID, &[1000, 1000, 0]);
        p.prctl(PR_CAPBSET_DROP, &[5]);
        p.prctl(PR_CAPBSET_DROP, &[41]);
        bound(p);
    });
}
