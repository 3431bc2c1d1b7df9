//! RLIMIT_LOCKS, which no longer has an effect in Linux, but can be set.

use crate::probe::*;
use crate::sys::{Arg, Birth, Place, Syscall, calls};

pub(super) fn run(p: &mut Probe) {
    p.group("limits", limits);
}

const LOCKS: i64 = 10;

fn show(p: &mut Probe, syscall: Syscall, args: &[Arg], at: usize) {
    let answer = p.quiet(syscall, args);
    let limit = answer.words(at);
    p.say(&format!(
        "{} = {}, {limit:x?}",
        syscall.name,
        crate::print::answer(&answer, &[])
    ));
}

fn get(p: &mut Probe, resource: i64) {
    let none = || Arg::Path(Vec::new(), Place::Null);
    let room = || Arg::Output(16, Place::Heap);
    let resource = || Arg::Number(resource);
    show(p, calls::GETRLIMIT, &[resource(), room()], 1);
    show(
        p,
        calls::PRLIMIT64,
        &[Arg::Number(0), resource(), none(), room()],
        3,
    );
}

fn get_own(p: &mut Probe) {
    get(p, LOCKS);
}

fn limit(soft: u64, hard: u64) -> Arg {
    let words = [soft, hard].map(|value| {
        [value, value >> 32].map(|half| u32::try_from(half & 0xffff_ffff).expect("half a word"))
    });
    Arg::Words(words.concat(), Place::Heap)
}

/// Sets RLIMIT_LOCKS by both calls, which must not change the caller's credentials.
fn set(p: &mut Probe, soft: u64, hard: u64) {
    let resource = || Arg::Number(LOCKS);
    let none = || Arg::Path(Vec::new(), Place::Null);
    p.call(calls::SETRLIMIT, &[resource(), limit(soft, hard)]);
    p.state();
    p.call(
        calls::PRLIMIT64,
        &[Arg::Number(0), resource(), limit(soft, hard), none()],
    );
    p.state();
}

fn limits(p: &mut Probe) {
    get(p, LOCKS);
    p.child("somebody who sets it", Birth::Fork, |p| {
        p.setgroups(&[7, 8]);
        p.set(calls::SETRESGID, &[1, 2, 3]);
        p.set(calls::SETRESUID, &[4, 0, 5]);
        get(p, LOCKS);
        set(p, u64::MAX, u64::MAX);
        set(p, 1 << 40, u64::MAX);
        set(p, 0, u64::MAX);
        p.set(calls::SETRESUID, &[6, 0, 5]);
        p.child("a child", Birth::Fork, Probe::state);
        p.child("a child by vfork", Birth::Vfork, |p| {
            p.state();
            set(p, 5, u64::MAX);
            p.set(calls::SETRESUID, &[KEEP, 5, KEEP]);
        });
        p.state();
        p.thread("a thread", |p| {
            set(p, 7, u64::MAX);
            p.set(calls::SETRESUID, &[8, 8, 8]);
        });
        p.state();
        set(p, 0xdead_beef_0000_0000, u64::MAX);
        p.set(calls::SETRESUID, &[9, 9, 9]);
        set(p, 11, u64::MAX);
        if !p.skips("exec") {
            let program = p.program();
            p.execve(&program);
        }
    });
    p.child("one who has never changed", Birth::Fork, |p| {
        set(p, 12, u64::MAX);
        set(p, 0, u64::MAX);
        p.state();
        p.set(calls::SETUID, &[9]);
        get(p, LOCKS);
    });
    p.child("bad arguments", Birth::Fork, |p| {
        let none = || Arg::Path(Vec::new(), Place::Null);
        for place in [Place::Null, Place::Unmapped, Place::Kernel] {
            let bad = || Arg::Output(16, place);
            let locks = || Arg::Number(LOCKS);
            p.call(calls::GETRLIMIT, &[locks(), bad()]);
            p.call(calls::SETRLIMIT, &[locks(), bad()]);
            if place != Place::Null {
                p.call(calls::PRLIMIT64, &[Arg::Number(0), locks(), none(), bad()]);
                p.call(calls::PRLIMIT64, &[Arg::Number(0), locks(), bad(), none()]);
            }
        }
        p.call(
            calls::PRLIMIT64,
            &[Arg::Number(0), Arg::Number(LOCKS), none(), none()],
        );
        // The soft limit is above the hard one.
        p.call(calls::SETRLIMIT, &[Arg::Number(LOCKS), limit(2, 1)]);
        for resource in [16, -1, 0x1_0000_000a] {
            p.call(
                calls::GETRLIMIT,
                &[Arg::Number(resource), Arg::Output(16, Place::Heap)],
            );
        }
        p.call(
            calls::PRLIMIT64,
            &[
                Arg::Number(0x3fff_ffff),
                Arg::Number(LOCKS),
                none(),
                Arg::Output(16, Place::Heap),
            ],
        );
        p.state();
    });
    p.beside(
        "a process whose limit another one sees",
        get_own,
        |p, pid| {
            let args = [
                Arg::Number(pid.into()),
                Arg::Number(LOCKS),
                Arg::Path(Vec::new(), Place::Null),
                Arg::Output(16, Place::Heap),
            ];
            show(p, calls::PRLIMIT64, &args, 3);
        },
    );
    p.state();
}
