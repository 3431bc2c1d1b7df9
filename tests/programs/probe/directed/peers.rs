//! The ids of a Unix socket's peer, and those of a process in proc(5).

use std::io::Read;

use crate::print;
use crate::probe::*;
use crate::sys::{self, Arg, Birth, Place, calls};

pub(super) fn run(p: &mut Probe) {
    p.group("peers", peers);
    p.group("peers-options", options);
    p.group("peers-later", later);
    p.group("peers-proc", proc);
    p.group("peers-proc-undumpable", undumpable);
}

const SO_PEERCRED: i64 = 17;
const SO_PEERGROUPS: i64 = 59;
const SOL_SOCKET: i64 = 1;

pub(super) type Somebody = (&'static str, fn(&mut Probe));

pub(super) const PEOPLE: [Somebody; 7] = [
    ("root", |_| ()),
    ("a user", |p| p.somebody(&[100, 50], [999; 3], [999; 3])),
    ("one without groups", |p| {
        p.somebody(&[], [70001; 3], [70000; 3]);
    }),
    ("one whose ids differ", |p| {
        p.somebody(&[7, 5, 6], [31, 32, 33], [21, 22, 23]);
    }),
    ("root for a while", |p| {
        p.somebody(&[1], [999, 0, 0], [999, 0, 0]);
    }),
    ("somebody for a while", |p| {
        p.somebody(&[0], [0, 999, 0], [0, 999, 0]);
    }),
    ("another on files", |p| {
        p.somebody(&[0, 0], [0; 3], [0; 3]);
        p.quietly_set(calls::SETFSGID, &[1000]);
        p.quietly_set(calls::SETFSUID, &[1000]);
    }),
];

/// Prints the ids of a socket's peer, whose process id must be `pid`.
fn credentials(p: &mut Probe, number: i32, pid: i32) {
    let answer = p.quiet(
        calls::GETSOCKOPT,
        &[
            Arg::Fd(number),
            Arg::Number(SOL_SOCKET),
            Arg::Number(SO_PEERCRED),
            Arg::Words(vec![77, 77, 77], Place::Heap),
            Arg::Words(vec![12], Place::Heap),
        ],
    );
    let (words, length) = (answer.words(3), answer.words(4)[0]);
    let whose = if words[0] == pid.cast_unsigned() {
        "the right pid"
    } else {
        "a wrong pid"
    };
    p.say(&format!(
        "  SO_PEERCRED {}: {whose}, {}:{} ({length})",
        print::answer(&answer, &[]),
        print::id(words[1]),
        print::id(words[2])
    ));
}

fn groups(p: &mut Probe, number: i32) {
    for length in [64, 8, 4, 0] {
        let answer = p.quiet(
            calls::GETSOCKOPT,
            &[
                Arg::Fd(number),
                Arg::Number(SOL_SOCKET),
                Arg::Number(SO_PEERGROUPS),
                Arg::Words(vec![77; 16], Place::Heap),
                Arg::Words(vec![length], Place::Heap),
            ],
        );
        let (words, then) = (answer.words(3), answer.words(4)[0]);
        let written: Vec<u32> = words.into_iter().take_while(|word| *word != 77).collect();
        p.say(&format!(
            "  SO_PEERGROUPS with {length}: {}, {} ({then})",
            print::answer(&answer, &[]),
            print::ids(&written)
        ));
    }
}

fn both(p: &mut Probe, number: i32, pid: i32) {
    credentials(p, number, pid);
    groups(p, number);
}

/// Creates a pair of connected sockets, whose descriptors are the two numbers.
pub(super) fn pair(p: &mut Probe, kind: i32, numbers: [i32; 2]) {
    let words = Arg::Words(vec![0; 2], Place::Heap);
    let args = [libc::AF_UNIX, kind, 0].map(|word| Arg::Number(word.into()));
    let made = p
        .quiet(calls::SOCKETPAIR, &[args.as_slice(), &[words]].concat())
        .words(3);
    for (opened, number) in made.into_iter().zip(numbers) {
        p.keep(opened.cast_signed(), number);
    }
}

fn accept(p: &mut Probe, listener: i32, number: i32) {
    let null = || Arg::Path(Vec::new(), Place::Null);
    let args = [Arg::Fd(listener), null(), null(), Arg::Number(0)];
    match p.quiet(calls::ACCEPT4, &args).result.map(fd) {
        Ok(accepted) => p.keep(accepted, number),
        Err(errno) => p.say(&format!("accept4: {}", print::errno(errno))),
    }
}

fn listen(p: &mut Probe, kind: i32, name: &[u8]) {
    p.socket(kind, 200);
    p.bind_to(200, name);
    p.chmod(name, 0o777);
    p.call(calls::LISTEN, &[Arg::Fd(200), Arg::Number(50)]);
}

fn peers(p: &mut Probe) {
    p.chmod(".", 0o777);
    let itself = sys::process_id();
    pair(p, libc::SOCK_STREAM, [210, 211]);
    both(p, 210, itself);
    for (who, prepare) in PEOPLE {
        for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET] {
            p.child(who, Birth::Fork, |p| {
                prepare(p);
                pair(p, kind, [212, 213]);
                both(p, 212, sys::process_id());
                both(p, 213, sys::process_id());
                // A pair that the parent has created.
                credentials(p, 210, itself);
                p.child("a child", Birth::Fork, |p| {
                    let parent = sys::parent_id();
                    p.somebody(&[3], [4; 3], [5; 3]);
                    credentials(p, 212, parent);
                });
            });
        }
    }
    listen(p, libc::SOCK_STREAM, b"stream");
    clients(p, libc::SOCK_STREAM, b"stream");
    p.socket(libc::SOCK_SEQPACKET, 200);
    p.bind_to(200, b"packets");
    p.call(calls::LISTEN, &[Arg::Fd(200), Arg::Number(50)]);
    p.chmod("packets", 0o777);
    clients(p, libc::SOCK_SEQPACKET, b"packets");
    for (server, be_server) in &PEOPLE[1..4] {
        p.beside(
            &format!("a server: {server}"),
            |p| {
                be_server(p);
                listen(p, libc::SOCK_STREAM, b"theirs");
            },
            |p, pid| {
                for (client, be_client) in PEOPLE {
                    p.child(client, Birth::Fork, |p| {
                        be_client(p);
                        p.socket(libc::SOCK_STREAM, 201);
                        p.connect(201, b"theirs");
                        both(p, 201, pid);
                    });
                }
            },
        );
        p.quietly_remove("theirs", 0);
    }
}

/// Clients that are still alive when the server reads their ids.
fn clients(p: &mut Probe, kind: i32, name: &[u8]) {
    let server = sys::process_id();
    for (who, prepare) in PEOPLE {
        p.beside(
            who,
            |p| {
                prepare(p);
                p.socket(kind, 201);
                p.connect(201, name);
                both(p, 201, server);
            },
            |p, pid| {
                accept(p, 200, 202);
                both(p, 202, pid);
                // The answer does not depend on the caller.
                p.child("a child of the server's", Birth::Fork, |p| {
                    p.somebody(&[3], [4; 3], [5; 3]);
                    both(p, 202, pid);
                });
            },
        );
    }
}

/// Bad lengths and pointers, and sockets without a peer.
fn options(p: &mut Probe) {
    pair(p, libc::SOCK_STREAM, [210, 211]);
    p.socket(libc::SOCK_STREAM, 212);
    p.socket(libc::SOCK_DGRAM, 213);
    p.open(".", libc::O_RDONLY, 0, Some(214));
    p.open(".", libc::O_PATH, 0, Some(215));
    for (who, prepare) in &PEOPLE[..3] {
        p.child(who, Birth::Fork, |p| {
            prepare(p);
            pair(p, libc::SOCK_STREAM, [216, 217]);
            for name in [SO_PEERCRED, SO_PEERGROUPS] {
                let ask = |p: &mut Probe, number: i32, buffer: Arg, length: Arg| {
                    let answer = p.quiet(
                        calls::GETSOCKOPT,
                        &[
                            Arg::Fd(number),
                            Arg::Number(SOL_SOCKET),
                            Arg::Number(name),
                            buffer,
                            length,
                        ],
                    );
                    // The first word may be a process id.
                    let rest: Vec<String> = answer
                        .words(3)
                        .iter()
                        .skip(1)
                        .map(|word| print::id(*word))
                        .collect();
                    let length = answer.words(4);
                    p.say(&format!(
                        "getsockopt({number}, {name}) = {}, {} {length:?}",
                        print::answer(&answer, &[]),
                        rest.join(" ")
                    ));
                };
                let room = || Arg::Words(vec![77; 5], Place::Heap);
                for number in [216, 217, 210, 212, 213, 214, 215, 9999, -1] {
                    for length in [0, 1, 4, 5, 8, 11, 12, 13, 20, u32::MAX, 0x8000_0000] {
                        let length = Arg::Words(vec![length], Place::Heap);
                        ask(p, number, room(), length);
                    }
                }
                for place in [Place::Null, Place::Unmapped, Place::ReadOnly, Place::Kernel] {
                    let twelve = Arg::Words(vec![12], Place::Heap);
                    ask(p, 216, Arg::Words(vec![77; 5], place), twelve);
                    let none = Arg::Words(vec![0], Place::Heap);
                    ask(p, 216, Arg::Words(vec![77; 5], place), none);
                    ask(p, 216, room(), Arg::Words(vec![12], place));
                    ask(
                        p,
                        212,
                        Arg::Words(vec![77; 5], place),
                        Arg::Words(vec![12], place),
                    );
                }
            }
        });
    }
}

/// The ids of a peer are those at the time when it connected, listened or created the pair.
fn later(p: &mut Probe) {
    p.chmod(".", 0o777);
    p.child("a pair of somebody who is another now", Birth::Fork, |p| {
        p.somebody(&[100], [999; 3], [0, 0, 0]);
        pair(p, libc::SOCK_STREAM, [210, 211]);
        p.somebody(&[50], [998; 3], [998; 3]);
        both(p, 210, sys::process_id());
    });
    listen(p, libc::SOCK_STREAM, b"socket");
    let server = sys::process_id();
    p.beside(
        "a client that is another now",
        |p| {
            p.somebody(&[100], [999, 999, 0], [999, 999, 0]);
            p.socket(libc::SOCK_STREAM, 201);
            p.connect(201, b"socket");
            p.somebody(&[], [0; 3], [0; 3]);
            p.somebody(&[50], [998; 3], [998; 3]);
            both(p, 201, server);
        },
        |p, pid| {
            accept(p, 200, 202);
            both(p, 202, pid);
        },
    );
    let (mut told, tell) = std::io::pipe().expect("a pipe");
    p.child("a client that is no more", Birth::Fork, |p| {
        p.somebody(&[100], [999; 3], [999; 3]);
        p.socket(libc::SOCK_STREAM, 201);
        p.connect(201, b"socket");
        let pid = sys::process_id().to_ne_bytes();
        std::io::Write::write_all(&mut (&tell), &pid).expect("a reader");
    });
    let mut pid = [0; 4];
    told.read_exact(&mut pid).expect("a process id");
    accept(p, 200, 202);
    both(p, 202, i32::from_ne_bytes(pid));
    p.child("a server that is another now", Birth::Fork, |p| {
        p.somebody(&[100], [999, 999, 0], [999, 999, 0]);
        listen(p, libc::SOCK_STREAM, b"another");
        let server = sys::process_id();
        p.somebody(&[], [0; 3], [0; 3]);
        p.somebody(&[50], [998; 3], [998; 3]);
        p.child("a client", Birth::Fork, |p| {
            p.socket(libc::SOCK_STREAM, 201);
            p.connect(201, b"another");
            both(p, 201, server);
        });
    });
    p.beside(
        "a thread that connects as somebody else",
        |p| {
            p.thread("a thread", |p| {
                p.somebody(&[100], [999; 3], [999; 3]);
                p.socket(libc::SOCK_STREAM, 201);
                p.connect(201, b"socket");
            });
            p.state();
        },
        |p, pid| {
            accept(p, 200, 202);
            both(p, 202, pid);
        },
    );
}

pub(super) fn owner_of(p: &mut Probe, shown: &str, file: &str) {
    let buffer = Arg::Stat(Place::Heap);
    let args = [Arg::Path(file.into(), Place::Heap), buffer];
    let owner = |answer: &sys::Answer| match answer.result {
        Ok(_) => {
            let stat = answer.stat();
            format!("{}:{} {:o}", stat.st_uid, stat.st_gid, stat.st_mode)
        }
        Err(errno) => print::errno(errno),
    };
    let (followed, itself) = (p.quiet(calls::STAT, &args), p.quiet(calls::LSTAT, &args));
    p.say(&format!(
        "  {shown} {}, not followed {}",
        owner(&followed),
        owner(&itself)
    ));
}

fn process(p: &mut Probe, name: &str) {
    for file in [
        "",
        "/",
        "/status",
        "/stat",
        "/cmdline",
        "/task",
        "/attr",
        "/net",
        "/uid_map",
        "/oom_score_adj",
    ] {
        owner_of(p, &format!("PROCESS{file}"), &format!("/proc/{name}{file}"));
    }
}

fn own_process(p: &mut Probe) {
    for name in ["self", "thread-self"] {
        p.say(name);
        process(p, name);
    }
    process(p, &sys::process_id().to_string());
    process(p, &format!("self/task/{}", sys::thread_id()));
}

fn proc(p: &mut Probe) {
    own_process(p);
    for (who, prepare) in PEOPLE {
        p.beside(
            who,
            |p| {
                prepare(p);
                p.prctl(PR_SET_DUMPABLE, &[1]);
                own_process(p);
            },
            |p, pid| {
                process(p, &pid.to_string());
                process(p, &format!("{pid}/task/{pid}"));
                p.child("a stranger", Birth::Fork, |p| {
                    p.somebody(&[], [3; 3], [3; 3]);
                    process(p, &pid.to_string());
                });
            },
        );
    }
}

/// The files in the procfs directory of a process that is not dumpable belong to root; the
/// directory itself does not.
fn undumpable(p: &mut Probe) {
    for (who, prepare) in PEOPLE {
        p.beside(
            who,
            |p| {
                prepare(p);
                p.prctl(PR_SET_DUMPABLE, &[0]);
                own_process(p);
            },
            |p, pid| process(p, &pid.to_string()),
        );
    }
}
