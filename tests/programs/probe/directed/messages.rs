//! SCM_CREDENTIALS: whose ids a message may have, and those with which it arrives.

use super::peers::{PEOPLE, pair};
use crate::print;
use crate::probe::*;
use crate::sys::messages::{Times, receive, send, send_from_nowhere};
use crate::sys::{self, Arg, Birth, Place, calls};

pub(super) fn run(p: &mut Probe) {
    p.group("messages", messages);
}

const SO_PASSCRED: i64 = 16;
const SOL_SOCKET: i64 = 1;
const RIGHT: u64 = 28;

fn result(result: Result<i64, i32>) -> String {
    result.map_or_else(print::errno, |_| "ok".to_owned())
}

fn pass_credentials(p: &mut Probe, number: i32) {
    let one = Arg::Words(vec![1], Place::Heap);
    let [level, option, length] = [SOL_SOCKET, SO_PASSCRED, 4].map(Arg::Number);
    let args = [Arg::Fd(number), level, option, one, length];
    p.quiet(calls::SETSOCKOPT, &args);
}

/// Prints what has arrived; `pid` is the sender's.
fn arrived(p: &mut Probe, number: i32, times: Times, pid: i32) {
    let text = match receive(number, times) {
        Err(errno) => print::errno(errno),
        Ok(all) => {
            let shown = all.into_iter().map(|found| match found {
                None => "nobody".to_owned(),
                Some([from, uid, gid]) => {
                    let whose = if from == pid.cast_unsigned() {
                        "the right pid"
                    } else {
                        "a wrong pid"
                    };
                    format!("{whose} {}:{}", print::id(uid), print::id(gid))
                }
            });
            shown.collect::<Vec<_>>().join(", ")
        }
    };
    p.say(&format!("  {times:?}: {text}"));
}

fn drain(number: i32) {
    while receive(number, Times::One).is_ok() {}
}

const IDS: [u32; 11] = [0, 5, 21, 22, 23, 31, 32, 33, 999, 70000, KEEP];

fn messages(p: &mut Probe) {
    for (kind, name) in [
        (libc::SOCK_DGRAM, "datagrams"),
        (libc::SOCK_STREAM, "a stream"),
        (libc::SOCK_SEQPACKET, "packets"),
    ] {
        pair(p, kind, [210, 211]);
        pass_credentials(p, 211);
        p.say(name);
        for (who, prepare) in PEOPLE {
            claims(p, who, prepare);
            from_others(p, who, prepare);
        }
        p.say(&format!("{:?}", send_from_nowhere(210).map(result)));
        drain(211);
    }
}

/// Which ids may be claimed.
fn claims(p: &mut Probe, who: &str, prepare: fn(&mut Probe)) {
    p.child(who, Birth::Fork, |p| {
        prepare(p);
        let own = sys::process_id().cast_unsigned();
        for uid in IDS {
            for gid in IDS {
                let sent = send(210, Times::One, [own, uid, gid], None, RIGHT);
                let ids = [uid, gid].map(print::id).join(":");
                p.say(&format!("claim {ids}: {}", result(sent)));
                drain(211);
            }
        }
        let parent = sys::parent_id().cast_unsigned();
        for pid in [parent, 1, 0, 0x7fff_ffff] {
            let sent = send(210, Times::One, [pid, 0, 0], None, RIGHT);
            p.say(&format!("another pid: {}", result(sent)));
            drain(211);
        }
        for length in [0, 15, 16, 27, 29, 32, 100] {
            let sent = send(210, Times::One, [own, 0, 0], None, length);
            p.say(&format!("{length} bytes: {}", result(sent)));
            drain(211);
        }
        let closed = send(9999, Times::One, [own, 0, 0], None, RIGHT);
        p.say(&format!("no socket: {}", result(closed)));
    });
}

/// What the parent sees of messages of a child that is still there.
fn from_others(p: &mut Probe, who: &str, prepare: fn(&mut Probe)) {
    p.beside(
        who,
        |p| {
            prepare(p);
            let own = sys::process_id().cast_unsigned();
            let real = |call| {
                let answer = sys::invoke(sys::Memory::new(), call, &[]).result;
                u32::try_from(answer.unwrap_or(-1)).unwrap_or(KEEP)
            };
            let ids = [own, real(calls::GETUID), real(calls::GETGID)];
            let args = [Arg::Fd(210), Arg::Input(b"x".to_vec()), Arg::Number(1)];
            p.quiet(calls::WRITE, &args);
            for (times, descriptor) in [
                (Times::One, None),
                (Times::One, Some(0)),
                (Times::Many, None),
            ] {
                let sent = send(210, times, ids, descriptor, RIGHT);
                p.say(&format!("with its ids: {}", result(sent)));
            }
        },
        |p, pid| {
            for times in [Times::One, Times::One, Times::Many, Times::Many] {
                arrived(p, 211, times, pid);
            }
            drain(211);
        },
    );
}
