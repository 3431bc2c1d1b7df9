//! Ids belong to a thread, not to a process: the kernel changes those of the caller, and libc makes
//! the call in every thread. Only one thread runs at a time, so that all runs are alike.

use std::sync::Barrier;
use std::thread::ScopedJoinHandle;

use crate::probe::{KEEP, PR_SET_KEEPCAPS, Probe, Worker};
use crate::sys::{self, Arg, Birth, Everywhere, Memory, Place, Syscall, calls};

pub(super) fn run(p: &mut Probe) {
    p.group("ids-threads", |p| {
        p.child("raw calls of two threads", Birth::Fork, raw);
        p.child("who comes from a thread", Birth::Fork, heirs);
        p.child("libc's calls in four threads", Birth::Fork, broadcast);
        p.child("swaps by libc", Birth::Fork, swaps);
        p.child(
            "raw calls, then libc's",
            Birth::Fork,
            diverged_then_broadcast,
        );
        p.child("the first thread ends", Birth::Fork, without_the_first);
        p.child("threads that come and go", Birth::Fork, come_and_go);
        if !p.skips("exec") {
            p.child("exec by a thread", Birth::Fork, exec);
            p.child(
                "exec by the first of two threads",
                Birth::Fork,
                exec_by_the_first,
            );
        }
        p.state();
    });
    p.group("ids-storm", storm);
}

fn raw(p: &mut Probe) {
    let (one, two) = (Worker::start(), Worker::start());
    one.does(p, "one", |p| {
        p.setgroups(&[11, 12]);
        p.set(calls::SETRESGID, &[1, 2, 3]);
        p.set(calls::SETRESUID, &[4, 5, 0]);
    });
    two.does(p, "two", |p| {
        p.state();
        p.setgroups(&[21]);
        p.set(calls::SETFSGID, &[22]);
        p.set(calls::SETFSUID, &[23]);
    });
    p.state();
    one.does(p, "one", |p| {
        p.state();
        p.set(calls::SETREUID, &[5, 0]);
        p.prctl(PR_SET_KEEPCAPS, &[1]);
        p.set(calls::SETUID, &[6]);
    });
    two.does(p, "two", |p| {
        p.state();
        p.set(calls::SETUID, &[7]);
        p.set(calls::SETUID, &[0]);
    });
    p.set(calls::SETGID, &[31]);
    p.set(calls::SETUID, &[32]);
    one.does(p, "one", Probe::state);
    two.does(p, "two", Probe::state);
    one.end();
    two.end();
    p.state();
}

fn heirs(p: &mut Probe) {
    let one = Worker::start();
    p.setgroups(&[41]);
    p.set(calls::SETGID, &[42]);
    let heir = one.does(p, "one", |p| {
        p.set(calls::SETRESGID, &[1, 2, 3]);
        p.set(calls::SETRESUID, &[4, 5, 0]);
        Worker::start()
    });
    heir.does(p, "one's", |p| {
        p.state();
        p.set(calls::SETRESUID, &[KEEP, 0, KEEP]);
        p.set(calls::SETUID, &[6]);
    });
    one.does(p, "one", |p| {
        p.state();
        p.set(calls::SETRESUID, &[KEEP, 0, 7]);
    });
    let theirs = heir.does(p, "one's", |_| Worker::start());
    theirs.does(p, "one's one's", Probe::state);
    let last = Worker::start();
    last.does(p, "the first thread's", Probe::state);
    last.end();
    for birth in [Birth::Fork, Birth::Vfork, Birth::Clone3, Birth::Orphan] {
        for (who, worker) in [("one", &one), ("one's", &heir)] {
            worker.does(p, who, move |p| {
                p.child(&format!("a child by {birth:?}"), birth, |p| {
                    p.state();
                    p.set(calls::SETRESUID, &[KEEP, 4, KEEP]);
                    p.set(calls::SETREGID, &[KEEP, 3]);
                });
                p.state();
            });
        }
        p.child(
            &format!("the first thread's child by {birth:?}"),
            birth,
            Probe::state,
        );
    }
    one.end();
    // The end of the thread that started it does not change a thread's credentials.
    heir.does(p, "one's", Probe::state);
}

fn everybody(p: &mut Probe, workers: &[Worker]) {
    p.state();
    for worker in workers {
        worker.does(p, "a thread", Probe::state);
    }
}

fn broadcast(p: &mut Probe) {
    let calls = [
        Everywhere::Setgroups(vec![5, 3, 4]),
        Everywhere::Setresgid(1, 2, 3),
        Everywhere::Setegid(3),
        Everywhere::Setregid(KEEP, 1),
        Everywhere::Setgid(9),
        Everywhere::Setresuid(4, 0, 5),
        Everywhere::Seteuid(5),
        Everywhere::Setgroups(vec![8]),
        Everywhere::Seteuid(4),
        Everywhere::Setreuid(KEEP, 4),
        Everywhere::Seteuid(0),
        Everywhere::Setuid(4),
        Everywhere::Setresuid(KEEP, KEEP, 6),
    ];
    let workers = [Worker::start(), Worker::start(), Worker::start()];
    for call in calls {
        p.everywhere(&call);
        everybody(p, &workers);
    }
    // As postgres does: from a thread that is not the first, with threads that start later.
    p.child("dropped by another thread", Birth::Fork, |p| {
        let workers = [Worker::start(), Worker::start(), Worker::start()];
        workers[1].does(p, "a thread", |p| {
            p.everywhere(&Everywhere::Setuid(4));
            p.everywhere(&Everywhere::Setuid(0));
        });
        everybody(p, &workers);
        Worker::start().does(p, "a new thread", Probe::state);
    });
}

/// In a call that libc makes in each thread, no thread's ids may change twice.
fn swaps(p: &mut Probe) {
    let workers = [Worker::start(), Worker::start(), Worker::start()];
    p.everywhere(&Everywhere::Setresgid(5, 6, 5));
    p.everywhere(&Everywhere::Setresuid(1, 0, 2));
    everybody(p, &workers);
    for round in 0..4 {
        p.everywhere(&Everywhere::Setregid(6, 5));
        p.everywhere(&Everywhere::Setreuid(0, 1));
        everybody(p, &workers);
        p.everywhere(&Everywhere::Setreuid(1, 0));
        p.everywhere(&Everywhere::Setregid(5, 6));
        everybody(p, &workers);
        // The real and the effective id are exchanged, and the saved id follows the effective one.
        let swap = if round % 2 == 0 {
            Everywhere::Setreuid(0, 1)
        } else {
            Everywhere::Setreuid(1, 0)
        };
        workers[round % 3].does(p, "a thread", move |p| p.everywhere(&swap));
        everybody(p, &workers);
    }
}

fn diverged_then_broadcast(p: &mut Probe) {
    let workers = [Worker::start(), Worker::start(), Worker::start()];
    workers[0].does(p, "a thread", |p| {
        p.set(calls::SETRESUID, &[1, 0, 2]);
    });
    workers[1].does(p, "a thread", |p| {
        p.set(calls::SETRESGID, &[3, 4, 5]);
        p.set(calls::SETFSUID, &[6]);
    });
    everybody(p, &workers);
    for call in [
        Everywhere::Setgroups(vec![1, 2]),
        Everywhere::Setegid(7),
        Everywhere::Setreuid(8, KEEP),
        Everywhere::Setresuid(KEEP, KEEP, 9),
        Everywhere::Seteuid(10),
    ] {
        p.everywhere(&call);
        everybody(p, &workers);
    }
}

fn without_the_first(p: &mut Probe) {
    let mut left = p.clone();
    p.set(calls::SETRESUID, &[1, 2, 0]);
    std::thread::spawn(move || {
        while !std::fs::read("/proc/self/stat")
            .is_ok_and(|stat| stat.windows(3).any(|part| part == b") Z"))
        {
            std::thread::yield_now();
        }
        left.say("the thread that is left");
        left.state();
        left.set(calls::SETRESUID, &[KEEP, 0, 3]);
        left.set(calls::SETGID, &[4]);
        left.child("a child of it", Birth::Fork, Probe::state);
        left.set(calls::SETUID, &[5]);
        sys::exit(0);
    });
    sys::exit_thread();
}

/// A new thread may soon have the thread id of one that has ended.
fn come_and_go(p: &mut Probe) {
    for id in 1..20 {
        let worker = Worker::start();
        worker.does(p, "a thread", move |p| {
            p.state();
            p.set(calls::SETRESUID, &[id, id, id]);
        });
        worker.end();
    }
    p.state();
    p.set(calls::SETRESUID, &[1, 1, 0]);
    for id in 20..24 {
        let worker = Worker::start();
        worker.does(p, "a thread", move |p| {
            p.state();
            p.set(calls::SETRESUID, &[KEEP, 0, KEEP]);
            p.set(calls::SETRESUID, &[id, id, id]);
        });
        worker.end();
    }
}

/// The thread that calls execve(2) becomes the only one of its process: it gets the process's id,
/// and its own credentials count. The other threads end.
fn exec(p: &mut Probe) {
    let program = p.program();
    for ids in [[4, 5, 6], [4, 0, 6]] {
        let program = program.clone();
        p.child("a process", Birth::Fork, move |p| {
            p.set(calls::SETRESUID, &[1, 2, 0]);
            let (one, two) = (Worker::start(), Worker::start());
            two.does(p, "two", |p| p.set(calls::SETRESUID, &[KEEP, KEEP, 1]));
            let program = program.clone();
            one.does(p, "one", move |p| {
                p.set(calls::SETRESUID, &[KEEP, 0, KEEP]);
                p.setgroups(&[7, 8]);
                p.set(calls::SETRESGID, &[1, 2, 3]);
                p.set(calls::SETRESUID, &ids);
                p.execve(&program);
            });
        });
    }
}

fn exec_by_the_first(p: &mut Probe) {
    let program = p.program();
    let one = Worker::start();
    p.set(calls::SETRESUID, &[1, 2, 0]);
    one.does(p, "one", |p| p.set(calls::SETRESUID, &[4, 5, 6]));
    p.child("a child by vfork", Birth::Vfork, |p| p.execve(&program));
    one.does(p, "one", move |p| {
        let program = p.program();
        p.child("a child by vfork", Birth::Vfork, move |p| {
            p.execve(&program);
        });
    });
    p.execve(&program);
}

const THREADS: u32 = 8;
const ROUNDS: u32 = 2000;

/// Eight threads at the same time, each with ids of its own.
fn storm(p: &mut Probe) {
    for (what, work) in [
        ("user ids", uid_storm as fn(u32) -> u32),
        ("group ids", gid_storm),
    ] {
        p.child(what, Birth::Fork, |p| {
            let start = Barrier::new(THREADS as usize);
            let wrong: Vec<u32> = std::thread::scope(|scope| {
                let threads: Vec<_> = (1..=THREADS)
                    .map(|thread| {
                        let start = &start;
                        scope.spawn(move || {
                            start.wait();
                            work(1000 * thread)
                        })
                    })
                    .collect();
                let join = |thread: ScopedJoinHandle<u32>| thread.join().expect("a good end");
                threads.into_iter().map(join).collect()
            });
            p.say(&format!("wrong answers of each thread: {wrong:?}"));
            p.state();
        });
    }
}

/// Rotates three ids of which one is 0: with 0 as the effective id, new ids are allowed, otherwise
/// only the present ones.
fn uid_storm(first: u32) -> u32 {
    let memory = Memory::new();
    let mut wrong = 0;
    let mut ids = [0, 0, 0];
    for round in 0..ROUNDS {
        ids = match ids {
            [_, 0, _] => [first + round % 5, first + 5 + round % 7, 0],
            [real, effective, saved] => [effective, saved, real],
        };
        wrong += wrongs(
            memory,
            [calls::SETRESUID, calls::GETRESUID, calls::GETEUID],
            ids,
        );
    }
    wrong
}

fn gid_storm(first: u32) -> u32 {
    let memory = Memory::new();
    (0..ROUNDS)
        .map(|round| {
            let ids = [5, 7, 11].map(|period| first + round % period);
            wrongs(
                memory,
                [calls::SETRESGID, calls::GETRESGID, calls::GETEGID],
                ids,
            )
        })
        .sum()
}

/// Sets the ids, reads them, and counts wrong results.
fn wrongs(memory: Memory, [set, get, effective]: [Syscall; 3], ids: [u32; 3]) -> u32 {
    let done = sys::invoke(memory, set, &ids.map(Arg::Id));
    let words = [0; 3].map(|word| Arg::Words(vec![word], Place::Heap));
    let seen = sys::invoke(memory, get, &words);
    let seen = [0, 1, 2].map(|index| seen.words(index)[0]);
    let alone = sys::invoke(memory, effective, &[]);
    u32::from(done.result != Ok(0))
        + u32::from(seen != ids)
        + u32::from(alone.result != Ok(ids[1].into()))
}
