//! Capabilities, as far as they depend on ids: capget(2) and capset(2).

use crate::probe::*;
use crate::sys::{Arg, Birth, Place, calls, process_id};

pub(super) fn run(p: &mut Probe) {
    p.group("ids-caps", caps);
}

fn header(version: u32, pid: i32, place: Place) -> Arg {
    Arg::Words(vec![version, pid.cast_unsigned()], place)
}

/// As [`Probe::peek`], with a header that may name a process whose id differs between runs.
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
        let all = p.own_capabilities().words();
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
        let all = p.own_capabilities();
        let none = Sets::default();
        p.capset(all);
        p.capset(Sets {
            inheritable: CAP_SETUID | CAP_KILL,
            ..all
        });
        p.capset(Sets {
            inheritable: CAP_SYS_TIME,
            ..all
        });
        p.capset(Sets {
            effective: all.effective | CAP_SYS_TIME,
            ..all
        });
        p.capset(Sets {
            permitted: all.permitted | CAP_SYS_TIME,
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
            effective: CAP_SETUID,
            ..all
        });
        p.capset(Sets {
            effective: CAP_KILL,
            permitted: CAP_KILL | CAP_SETUID,
            inheritable: CAP_KILL,
        });
        p.capset(Sets {
            effective: CAP_KILL,
            permitted: CAP_KILL | CAP_SETUID,
            inheritable: CAP_KILL | CAP_SETUID,
        });
        p.capset(Sets {
            effective: CAP_KILL,
            permitted: CAP_KILL | CAP_SETUID,
            inheritable: CAP_KILL | CAP_SETGID,
        });
        p.capset(Sets {
            effective: CAP_KILL | CAP_SETUID,
            permitted: CAP_KILL,
            inheritable: 0,
        });
        p.capset(all);
        p.capset(Sets {
            inheritable: CAP_KILL,
            ..none
        });
        p.capset(none);
        p.capset(Sets {
            inheritable: CAP_KILL,
            ..none
        });
    });
    p.child("root without CAP_SETUID and CAP_SETGID", Birth::Fork, |p| {
        let all = p.own_capabilities();
        p.capset(Sets {
            effective: all.effective & !(CAP_SETUID | CAP_SETGID),
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
        // The capabilities are still permitted.
        p.capset(Sets {
            effective: CAP_SETGID,
            ..all
        });
        p.set(calls::SETRESGID, &[1000, 1001, 1002]);
        p.setgroups(&[1]);
        p.capset(Sets {
            effective: CAP_SETUID,
            ..all
        });
        p.set(calls::SETRESUID, &[1000, 1001, 0]);
        p.set(calls::SETRESUID, &[KEEP, 0, KEEP]);
    });
    p.child("the capability without the id", Birth::Fork, |p| {
        p.prctl(PR_SET_KEEPCAPS, &[1]);
        p.set(calls::SETRESUID, &[1000, 1000, 1000]);
        p.capset(Sets {
            effective: CAP_SETUID | CAP_SETGID,
            permitted: CAP_SETUID | CAP_SETGID,
            inheritable: 0,
        });
        p.setgroups(&[4, 5]);
        p.set(calls::SETRESGID, &[1001, 1002, 1003]);
        p.set(calls::SETGID, &[7]);
        p.set(calls::SETFSGID, &[8]);
        // From one unprivileged user to another.
        p.set(calls::SETRESUID, &[KEEP, 1001, KEEP]);
        p.set(calls::SETUID, &[1002]);
        p.set(calls::SETFSUID, &[1003]);
        p.set(calls::SETFSUID, &[0]);
        p.set(calls::SETRESUID, &[KEEP, 0, KEEP]);
        p.set(calls::SETRESUID, &[KEEP, 5, KEEP]);
    });
}
