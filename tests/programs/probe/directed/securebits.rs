//! The operations of prctl(2) for capabilities: those that remain after a change of ids, and after
//! execve(2).

use crate::probe::*;
use crate::sys::{Birth, calls};

pub(super) fn run(p: &mut Probe) {
    p.group("ids-keepcaps", keepcaps);
    p.group("ids-securebits", securebits);
    p.group("ids-ambient", ambient);
    p.group("ids-bounding", bounding);
}

const NO_ROOT: i64 = 1;
const NO_SETUID_FIXUP: i64 = 1 << 2;
const KEEP_CAPS: i64 = 1 << 4;
const NO_AMBIENT_RAISE: i64 = 1 << 6;

/// PR_SET_KEEPCAPS, and the capabilities that depend on the file system id.
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
            let sets = p.own_capabilities();
            p.capset(Sets {
                effective: sets.permitted,
                ..sets
            });
            p.prctl(PR_SET_KEEPCAPS, &[0]);
            p.state();
            p.set(calls::SETRESUID, &[2000, 2000, 2000]);
            p.set(calls::SETUID, &[0]);
            p.set(calls::SETUID, &[3000]);
            // Without any capability, the bit can still be set.
            p.prctl(PR_SET_KEEPCAPS, &[1]);
            p.state();
        });
    }
    p.child("file system ids", Birth::Fork, |p| {
        let all = p.own_capabilities();
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
            permitted: CAP_SETUID | 2,
            effective: CAP_SETUID,
            inheritable: 0,
        });
        p.set(calls::SETFSUID, &[1000]);
        p.set(calls::SETFSUID, &[0]);
    });
}

fn securebits(p: &mut Probe) {
    // As systemd prepares the process of a service that has a user and ambient capabilities.
    p.child("a capability that is effective again", Birth::Fork, |p| {
        p.prctl(PR_SET_KEEPCAPS, &[1]);
        p.set(calls::SETRESUID, &[995; 3]);
        let all = p.own_capabilities();
        for effective in [0, CAP_KILL, CAP_KILL | CAP_SETPCAP] {
            p.capset(Sets {
                effective,
                inheritable: CAP_SETPCAP,
                ..all
            });
        }
        p.prctl(PR_SET_SECUREBITS, &[0]);
        p.state();
    });
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
        let sets = p.own_capabilities();
        p.capset(Sets {
            effective: sets.effective & !CAP_SETPCAP,
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
        let sets = p.own_capabilities();
        p.capset(Sets {
            inheritable,
            ..sets
        });
    };
    p.child("arguments", Birth::Fork, |p| {
        inherit(p, CAP_KILL | CAP_SETUID);
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
        inherit(p, CAP_KILL | CAP_SETUID | CAP_SETGID);
        raise(p, 5);
        raise(p, 6);
        raise(p, 7);
        raise(p, 8);
        p.prctl(PR_CAP_AMBIENT, &[AMBIENT_LOWER, 6]);
        p.ambient();
        // A capability that is no longer inheritable or permitted is no longer ambient, either.
        inherit(p, CAP_KILL | CAP_SETUID);
        p.ambient();
        inherit(p, CAP_SETUID);
        p.ambient();
        inherit(p, CAP_KILL | CAP_SETUID);
        raise(p, 5);
        let sets = p.own_capabilities();
        p.capset(Sets {
            effective: sets.effective & !CAP_KILL,
            permitted: sets.permitted & !CAP_KILL,
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
            inherit(p, CAP_KILL | CAP_SETUID | CAP_SETGID);
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
        let sets = p.own_capabilities();
        p.capset(Sets {
            inheritable: CAP_KILL,
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
