//! System V IPC: whose an object is, and who may do what with it. Ids of objects and of processes
//! are not printed.

use super::peers::PEOPLE;
use crate::print;
use crate::probe::*;
use crate::sys::{self, Arg, Birth, Place, Syscall, calls};

pub(super) fn run(p: &mut Probe) {
    p.group("ipc", ipc);
    p.group("ipc-keys", keys);
    p.group("ipc-faults", faults);
}

const PRIVATE: i64 = 0;
const CREATE: i64 = 0o1000;
const EXCLUSIVE: i64 = 0o2000;
const NOWAIT: i64 = 0o4000;
const RMID: i64 = 0;
const SET: i64 = 1;
const STATE: i64 = 2;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Memory,
    Semaphores,
    Queue,
}

const KINDS: [Kind; 3] = [Kind::Memory, Kind::Semaphores, Kind::Queue];

/// Room for each of the three structures.
const ROOM: usize = 30;
/// The index of the words with the ids of processes, and of some that tell what was done.
fn processes(kind: Kind) -> &'static [usize] {
    match kind {
        Kind::Memory => &[20, 21],
        Kind::Semaphores => &[],
        Kind::Queue => &[24, 25],
    }
}

fn sizes(kind: Kind) -> &'static [usize] {
    match kind {
        Kind::Memory => &[12, 22],
        Kind::Semaphores => &[20],
        Kind::Queue => &[20, 22],
    }
}

fn result(result: Result<i64, i32>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(errno) => print::errno(errno),
    }
}

fn get(p: &mut Probe, kind: Kind, key: i64, flags: i64) -> Result<i64, i32> {
    let (call, args) = match kind {
        Kind::Memory => (calls::SHMGET, vec![key, 100, flags]),
        Kind::Semaphores => (calls::SEMGET, vec![key, 3, flags]),
        Kind::Queue => (calls::MSGGET, vec![key, flags]),
    };
    let args: Vec<Arg> = args.into_iter().map(Arg::Number).collect();
    p.quiet(call, &args).result
}

fn control(p: &mut Probe, kind: Kind, id: i64, command: i64, argument: Arg) -> sys::Answer {
    let (id, command) = (Arg::Number(id), Arg::Number(command));
    match kind {
        Kind::Memory => p.quiet(calls::SHMCTL, &[id, command, argument]),
        Kind::Semaphores => p.quiet(calls::SEMCTL, &[id, Arg::Number(0), command, argument]),
        Kind::Queue => p.quiet(calls::MSGCTL, &[id, command, argument]),
    }
}

/// Prints what one of the commands that show a state says.
fn show(p: &mut Probe, what: &str, kind: Kind, id: i64, command: i64) {
    let answer = control(
        p,
        kind,
        id,
        command,
        Arg::Words(vec![77; ROOM], Place::Heap),
    );
    let argument = if kind == Kind::Semaphores { 3 } else { 2 };
    let words = answer.words(argument);
    let shown = match answer.result {
        Ok(_) => {
            let own = sys::process_id().cast_unsigned();
            // Of a process that has ended, the number may be forgotten (see `keys`).
            let whose = |word: u32| match word {
                pid if pid == own => "its own",
                _ => "not its own",
            };
            let ids: Vec<String> = words[1..5].iter().map(|id| print::id(*id)).collect();
            let sizes: Vec<u32> = sizes(kind).iter().map(|index| words[*index]).collect();
            let processes: Vec<&str> = processes(kind)
                .iter()
                .map(|index| whose(words[*index]))
                .collect();
            format!(
                "{} mode {:o}, {sizes:?} {processes:?}",
                ids.join(":"),
                words[5]
            )
        }
        Err(errno) => {
            let untouched = words.iter().all(|word| *word == 77);
            format!("{}, untouched: {untouched}", print::errno(errno))
        }
    };
    p.say(&format!("  {what}: {shown}"));
}

fn try_to(p: &mut Probe, what: &str, call: Syscall, args: &[Arg]) -> Option<i64> {
    let answer = p.quiet(call, args).result;
    p.say(&format!("  {what}: {}", result(answer)));
    answer.ok()
}

fn attach(p: &mut Probe, what: &str, id: i64, flags: i64) {
    let args = [id, 0, flags].map(Arg::Number);
    if let Some(address) = try_to(p, what, calls::SHMAT, &args) {
        p.quiet(calls::SHMDT, &[Arg::Number(address)]);
    }
}

/// `struct sembuf`: number and operation, flags.
fn operate(p: &mut Probe, what: &str, id: i64, number: u16, operation: i16, call: Syscall) {
    let low = u32::from(operation.cast_unsigned()) << 16 | u32::from(number);
    let nowait = u32::try_from(NOWAIT).expect("a flag");
    // The next one begins in the upper half; one is enough.
    let words = Arg::Words(vec![low, nowait], Place::Heap);
    let null = Arg::Path(Vec::new(), Place::Null);
    let args = [Arg::Number(id), words, Arg::Number(1), null];
    try_to(p, what, call, &args);
}

/// Everything that one can do with an object, except to remove it.
fn use_all(p: &mut Probe, kind: Kind, id: i64) {
    match kind {
        Kind::Memory => {
            attach(p, "attach", id, 0);
            attach(p, "attach to read", id, 0o10000);
            attach(p, "attach to execute", id, 0o110_000);
            for (what, command) in [("lock", 11), ("unlock", 12)] {
                let null = Arg::Path(Vec::new(), Place::Null);
                let answer = control(p, kind, id, command, null).result;
                p.say(&format!("  {what}: {}", result(answer)));
            }
        }
        Kind::Semaphores => {
            operate(p, "add", id, 1, 1, calls::SEMOP);
            operate(p, "take", id, 1, -1, calls::SEMTIMEDOP);
            operate(p, "see that it is zero", id, 1, 0, calls::SEMOP);
            operate(p, "one that is not there", id, 3, 1, calls::SEMOP);
            for (what, command) in [
                ("GETPID", 11),
                ("GETVAL", 12),
                ("GETNCNT", 14),
                ("GETZCNT", 15),
                ("SETVAL", 16),
            ] {
                let answer = control(p, kind, id, command, Arg::Number(0)).result;
                p.say(&format!("  {what}: {}", result(answer)));
            }
            for (what, command) in [("GETALL", 13), ("SETALL", 17)] {
                let room = Arg::Words(vec![0; 2], Place::Heap);
                let answer = control(p, kind, id, command, room).result;
                p.say(&format!("  {what}: {}", result(answer)));
            }
        }
        Kind::Queue => {
            let message = || Arg::Words(vec![1, 0, 5, 5], Place::Heap);
            let send = [
                Arg::Number(id),
                message(),
                Arg::Number(8),
                Arg::Number(NOWAIT),
            ];
            try_to(p, "send", calls::MSGSND, &send);
            let receive = [
                Arg::Number(id),
                message(),
                Arg::Number(8),
                Arg::Number(0),
                Arg::Number(NOWAIT),
            ];
            try_to(p, "receive", calls::MSGRCV, &receive);
        }
    }
    // Of Linux's own: by index, and for anybody.
    let (by_index, of_any) = match kind {
        Kind::Memory => (13, 15),
        Kind::Semaphores => (18, 20),
        Kind::Queue => (11, 13),
    };
    show(p, "state", kind, id, STATE);
    show(p, "state by index", kind, id & 0x7fff, by_index);
    show(p, "state for anybody", kind, id & 0x7fff, of_any);
}

/// Sets owner and mode, and leaves all else.
fn set(p: &mut Probe, kind: Kind, id: i64, [uid, gid, mode]: [u32; 3]) {
    let mut words = vec![0; ROOM];
    words[1] = uid;
    words[2] = gid;
    words[5] = mode;
    words[22] = 1000;
    let answer = control(p, kind, id, SET, Arg::Words(words, Place::Heap)).result;
    let ids = [uid, gid].map(print::id).join(":");
    p.say(&format!("  set {ids} {mode:o}: {}", result(answer)));
}

fn remove(p: &mut Probe, kind: Kind, id: i64) {
    let null = Arg::Path(Vec::new(), Place::Null);
    let answer = control(p, kind, id, RMID, null).result;
    p.say(&format!("  remove: {}", result(answer)));
}

fn ipc(p: &mut Probe) {
    for kind in KINDS {
        let name = ["memory", "semaphores", "a queue"][kind as usize];
        for (maker, be_maker) in PEOPLE {
            for mode in [0o600, 0o060, 0o006, 0o640, 0o604, 0o222, 0o777, 0] {
                p.child(&format!("{name} of {maker}, {mode:o}"), Birth::Fork, |p| {
                    p.child("a child of root's beside", Birth::Fork, |_| ());
                    object_of(p, kind, be_maker, mode);
                });
            }
        }
    }
}

/// Makes an object, which others use afterwards. The caller stays root, and removes what is left.
fn object_of(p: &mut Probe, kind: Kind, be_maker: fn(&mut Probe), mode: i64) {
    const KEY: i64 = 0x5ca1_ab1e;
    p.child("its maker", Birth::Fork, |p| {
        be_maker(p);
        let made = get(p, kind, KEY, CREATE | EXCLUSIVE | mode);
        p.say(&format!("make: {}", result(made)));
        use_all(p, kind, made.unwrap_or(-1));
    });
    let id = get(p, kind, KEY, 0).unwrap_or(-1);
    for (who, prepare) in &PEOPLE[..5] {
        p.child(who, Birth::Fork, |p| {
            prepare(p);
            for wanted in [0, 0o400, 0o200, 0o060, CREATE, CREATE | EXCLUSIVE] {
                let found = get(p, kind, KEY, wanted);
                p.say(&format!("  get {wanted:o}: {}", result(found)));
            }
            use_all(p, kind, id);
        });
    }
    p.child("who changes it", Birth::Fork, |p| {
        p.somebody(&[], [3; 3], [4; 3]);
        set(p, kind, id, [4, 3, 0o666]);
        remove(p, kind, id);
        show(p, "state", kind, id, STATE);
    });
    p.child("its maker, once more", Birth::Fork, |p| {
        be_maker(p);
        set(p, kind, id, [KEEP, 3, 0o600]);
        set(p, kind, id, [4, KEEP, 0o600]);
        set(p, kind, id, [4, 70000, 0o460]);
        show(p, "state", kind, id, STATE);
    });
    p.child("its owner", Birth::Fork, |p| {
        p.somebody(&[], [3; 3], [4; 3]);
        use_all(p, kind, id);
        set(p, kind, id, [5, 3, 0o640]);
        set(p, kind, id, [4, 3, 0o666]);
        show(p, "state", kind, id, STATE);
        remove(p, kind, id);
        show(p, "state", kind, id, STATE);
    });
    remove(p, kind, id);
}

/// Objects without a key, those that are there already, and many after each other.
fn keys(p: &mut Probe) {
    for kind in KINDS {
        for (who, prepare) in &PEOPLE[..4] {
            p.child(who, Birth::Fork, |p| {
                prepare(p);
                let id = get(p, kind, PRIVATE, 0o600).unwrap_or(-1);
                show(p, "private", kind, id, STATE);
                let other = get(p, kind, PRIVATE, CREATE | EXCLUSIVE | 0o640).unwrap_or(-1);
                p.say(&format!("another one: {}", other != id));
                for key in [7, 8] {
                    let missing = get(p, kind, key, 0o600);
                    p.say(&format!("missing: {}", result(missing)));
                    let made = get(p, kind, key, CREATE | 0o660);
                    p.say(&format!("made: {}", result(made)));
                    let found = get(p, kind, key, CREATE | 0o660);
                    p.say(&format!("the same: {}", made == found));
                    show(p, "state", kind, made.unwrap_or(-1), STATE);
                    remove(p, kind, made.unwrap_or(-1));
                    show(p, "state", kind, made.unwrap_or(-1), STATE);
                }
                remove(p, kind, id);
                remove(p, kind, other);
                remove(p, kind, other);
                for _ in 0..100 {
                    let id = get(p, kind, PRIVATE, 0o600).unwrap_or(-1);
                    let null = Arg::Path(Vec::new(), Place::Null);
                    control(p, kind, id, RMID, null);
                }
                let last = get(p, kind, PRIVATE, 0o600).unwrap_or(-1);
                show(p, "after many", kind, last, STATE);
                remove(p, kind, last);
            });
        }
    }
    // A segment that is removed while it is in use, and of whose users one has ended.
    p.child("attached", Birth::Fork, |p| {
        p.somebody(&[], [3; 3], [4; 3]);
        let id = get(p, Kind::Memory, 9, CREATE | 0o600).unwrap_or(-1);
        let args = [id, 0, 0].map(Arg::Number);
        let address = p.quiet(calls::SHMAT, &args).result.unwrap_or(0);
        remove(p, Kind::Memory, id);
        show(p, "removed", Kind::Memory, id, STATE);
        p.child("a stranger", Birth::Fork, |p| {
            p.somebody(&[], [5; 3], [5; 3]);
            attach(p, "attach", id, 0);
        });
        let words = Arg::Words(vec![77; ROOM], Place::Heap);
        let answer = control(p, Kind::Memory, id, STATE, words);
        p.say(&format!(
            "last used by somebody: {}",
            answer.words(2)[21] != 0
        ));
        p.quiet(calls::SHMDT, &[Arg::Number(address)]);
        show(p, "gone", Kind::Memory, id, STATE);
    });
}

/// Which of several faults is found.
fn faults(p: &mut Probe) {
    for kind in KINDS {
        let id = get(p, kind, PRIVATE, 0o600).unwrap_or(-1);
        for (who, prepare) in &PEOPLE[..3] {
            p.child(who, Birth::Fork, |p| {
                prepare(p);
                for id in [id, -1, 0x7fff_0000] {
                    for command in [RMID + 100, SET, STATE, 13, 18, 20] {
                        for place in [Place::Null, Place::Unmapped, Place::ReadOnly] {
                            // Those of Linux's own take an index, which may be anybody's.
                            if command > 11 && id != -1 {
                                continue;
                            }
                            let words = Arg::Words(vec![5; ROOM], place);
                            let answer = control(p, kind, id, command, words).result;
                            p.say(&format!("{command} {place:?}: {}", result(answer)));
                        }
                    }
                }
                let call = |p: &mut Probe, what: &str, call, args: &[Arg]| {
                    try_to(p, what, call, args);
                };
                let number = Arg::Number;
                let (id, bad) = (|| number(id), || Arg::Words(vec![1, 0, 1], Place::Unmapped));
                match kind {
                    Kind::Memory => {
                        for address in [1, 4096 * 16 + 1] {
                            let args = [id(), number(address), number(0)];
                            call(p, "odd address", calls::SHMAT, &args);
                        }
                        let args = [id(), number(0), number(0o40000)];
                        call(p, "remap nothing", calls::SHMAT, &args);
                    }
                    Kind::Semaphores => {
                        let good = || Arg::Words(vec![0x10007, 0, 0], Place::Heap);
                        call(p, "bad", calls::SEMOP, &[id(), bad(), number(1)]);
                        call(p, "none", calls::SEMOP, &[id(), good(), number(0)]);
                        call(p, "many", calls::SEMOP, &[id(), good(), number(1 << 20)]);
                        call(p, "far", calls::SEMOP, &[id(), good(), number(1)]);
                    }
                    Kind::Queue => {
                        let of_type = |kind: u32| Arg::Words(vec![kind, 0, 1], Place::Heap);
                        let size = || number(4);
                        call(p, "bad", calls::MSGSND, &[id(), bad(), size(), number(0)]);
                        let args = [id(), of_type(0), size(), number(0)];
                        call(p, "of type 0", calls::MSGSND, &args);
                        let args = [id(), of_type(1), number(-1), number(0)];
                        call(p, "negative", calls::MSGSND, &args);
                        let args = [id(), of_type(1), number(-1), number(0), number(NOWAIT)];
                        call(p, "receive negative", calls::MSGRCV, &args);
                    }
                }
            });
        }
        let found = get(p, kind, PRIVATE, 0o600);
        p.say(&format!("still there: {}", found.is_ok()));
        remove(p, kind, id);
        remove(p, kind, found.unwrap_or(-1));
    }
}
