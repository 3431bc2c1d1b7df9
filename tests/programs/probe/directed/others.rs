//! What may be done to other processes: signals, priorities, limits, tracing; and calls that take a
//! capability.

use std::io::{PipeReader, Read};

use super::mounts::{mount, own_mounts};
use super::peers::{PEOPLE, Somebody};
use crate::print;
use crate::probe::*;
use crate::sys::{self, Arg, Birth, Place, calls};

pub(super) fn run(p: &mut Probe) {
    p.group("signals", signals);
    p.group("signals-group", groups);
    p.group("priorities", priorities);
    p.group("limits-others", limits);
    p.group("tracing", tracing);
    p.group("process-info", process_info);
    p.group("handles", handles);
    p.group("privileges", privileges);
}

fn pid(pid: i32) -> Arg {
    Arg::Named(pid.into(), "PID")
}

fn number(number: i32) -> Arg {
    Arg::Number(number.into())
}

fn null() -> Arg {
    Arg::Path(Vec::new(), Place::Null)
}

/// Lets everybody do `work` to everybody, who is dumpable.
fn to_each_other(p: &mut Probe, work: fn(&mut Probe, i32)) {
    for (whom, prepare) in PEOPLE {
        p.beside(
            whom,
            |p| {
                prepare(p);
                p.prctl(PR_SET_DUMPABLE, &[1]);
            },
            |p, pid| {
                for (who, prepare) in PEOPLE {
                    p.child(&format!("{who} to {whom}"), Birth::Fork, |p| {
                        prepare(p);
                        work(p, pid);
                    });
                }
            },
        );
    }
}

/// A pidfd of the process, as file descriptor 200.
fn open_pidfd(p: &mut Probe, process: i32) {
    match p
        .quiet(calls::PIDFD_OPEN, &[pid(process), number(0)])
        .result
    {
        Ok(opened) => p.keep(fd(opened), 200),
        Err(errno) => p.say(&format!("pidfd_open: {}", print::errno(errno))),
    }
}

/// struct siginfo with si_signo and si_code.
fn info(signal: i32, code: i32) -> Arg {
    let mut words = vec![0; 32];
    words[0] = signal.cast_unsigned();
    words[2] = code.cast_unsigned();
    Arg::Words(words, Place::Heap)
}

fn signal_each_way(p: &mut Probe, to: i32) {
    const SI_QUEUE: i32 = -1;
    const SI_USER: i32 = 0;
    for signal in [0, libc::SIGWINCH, libc::SIGCONT, libc::SIGURG, 65, -1] {
        p.call(calls::KILL, &[pid(to), number(signal)]);
    }
    for code in [SI_QUEUE, SI_USER] {
        for signal in [0, libc::SIGWINCH, 65] {
            let info = || info(signal, code);
            p.call(calls::RT_SIGQUEUEINFO, &[pid(to), number(signal), info()]);
            let args = [pid(to), pid(to), number(signal), info()];
            p.call(calls::RT_TGSIGQUEUEINFO, &args);
        }
    }
    p.call(calls::RT_SIGQUEUEINFO, &[pid(to), number(0), null()]);
    open_pidfd(p, to);
    for (signal, flags) in [(0, 0), (libc::SIGCONT, 0), (65, 0), (0, 1), (0, 3), (0, 4)] {
        let args = [Arg::Fd(200), number(signal), null(), number(flags)];
        p.call(calls::PIDFD_SEND_SIGNAL, &args);
    }
    // In another session, SIGCONT is a signal as any other.
    p.quiet(calls::SETSID, &[]);
    for signal in [libc::SIGWINCH, libc::SIGCONT] {
        p.call(calls::KILL, &[pid(to), number(signal)]);
    }
}

fn signals(p: &mut Probe) {
    to_each_other(p, signal_each_way);
    p.child("somebody to no process", Birth::Fork, |p| {
        p.somebody(&[], [999; 3], [999; 3]);
        for nobody in [0x3fff_ffff, -0x3fff_ffff, i32::MIN] {
            p.call(calls::KILL, &[number(nobody), number(0)]);
        }
        for bad in [-1, 9999] {
            let args = [Arg::Fd(bad), number(0), null(), number(0)];
            p.call(calls::PIDFD_SEND_SIGNAL, &args);
        }
        p.call(calls::KILL, &[number(0), number(65)]);
        p.call(calls::KILL, &[number(1), number(0)]);
        p.call(calls::KILL, &[number(1), number(libc::SIGKILL)]);
    });
    p.child("somebody to itself", Birth::Fork, |p| {
        p.somebody(&[], [999, 998, 997], [999, 998, 997]);
        let itself = sys::process_id();
        p.call(calls::KILL, &[pid(itself), number(libc::SIGWINCH)]);
        open_pidfd(p, itself);
        let args = [Arg::Fd(200), number(libc::SIGWINCH), null(), number(0)];
        p.call(calls::PIDFD_SEND_SIGNAL, &args);
        p.thread("as another thread, which is somebody else", |p| {
            p.quietly_set(calls::SETRESUID, &[KEEP, 997, 997]);
            p.call(calls::KILL, &[pid(itself), number(libc::SIGWINCH)]);
        });
    });
}

/// Processes of one group, which wait until they are released or killed.
struct Crowd {
    members: Vec<(&'static str, i32)>,
    release: Option<std::io::PipeWriter>,
}

fn wait_for_end(mut pipe: PipeReader) {
    pipe.read_to_end(&mut Vec::new()).expect("a pipe");
}

impl Crowd {
    fn new(p: &mut Probe, people: &[Somebody]) -> Crowd {
        let (released, release) = std::io::pipe().expect("a pipe");
        let mut release = Some(release);
        let mut members: Vec<(&'static str, i32)> = Vec::new();
        for (who, prepare) in people {
            let group = members.first().map_or(0, |(_, leader)| *leader);
            let (ready, done) = std::io::pipe().expect("a pipe");
            let mut done = Some(done);
            let member = sys::spawn(Birth::Fork, || {
                drop(release.take());
                p.quiet(calls::SETPGID, &[number(0), number(group)]);
                prepare(p);
                drop(done.take());
                wait_for_end(released.try_clone().expect("a pipe"));
            });
            drop(done);
            wait_for_end(ready);
            members.push((who, member));
        }
        Crowd { members, release }
    }

    fn leader(&self) -> i32 {
        self.members[0].1
    }

    /// Says which of them have been killed.
    fn end(mut self, p: &mut Probe) {
        drop(self.release.take());
        for (who, member) in &self.members {
            let status = sys::wait(*member);
            p.say(&format!("  {who}: status {status:#x}"));
        }
    }
}

fn groups(p: &mut Probe) {
    let [root, user, other] = [PEOPLE[0], PEOPLE[1], PEOPLE[2]];
    for (name, people) in [
        ("users", vec![user, user]),
        ("root", vec![root, root]),
        ("mixed", vec![root, user, other, user]),
    ] {
        for (who, prepare) in [user, other, root] {
            for signal in [0, libc::SIGTERM, 65] {
                let crowd = Crowd::new(p, &people);
                p.child(&format!("{who} to the group: {name}"), Birth::Fork, |p| {
                    prepare(p);
                    let group = Arg::Named((-crowd.leader()).into(), "-GROUP");
                    p.call(calls::KILL, &[group, number(signal)]);
                });
                crowd.end(p);
            }
            let crowd = Crowd::new(p, &people);
            p.child(&format!("{who} in the group: {name}"), Birth::Fork, |p| {
                p.quiet(calls::SETPGID, &[number(0), number(crowd.leader())]);
                prepare(p);
                sys::ignore(libc::SIGTERM);
                p.call(calls::KILL, &[number(0), number(libc::SIGTERM)]);
            });
            crowd.end(p);
        }
        for (who, prepare) in [user, other] {
            for signal in [0, libc::SIGTERM] {
                let crowd = Crowd::new(p, &people);
                p.child(&format!("{who} to everybody: {name}"), Birth::Fork, |p| {
                    prepare(p);
                    p.call(calls::KILL, &[number(-1), number(signal)]);
                });
                crowd.end(p);
            }
        }
    }
    p.child("somebody who is alone, to everybody", Birth::Fork, |p| {
        p.somebody(&[], [12345; 3], [12345; 3]);
        p.call(calls::KILL, &[number(-1), number(libc::SIGTERM)]);
    });
}

fn change_priority(p: &mut Probe, of: i32) {
    for nice in [19, 100] {
        p.call(calls::SETPRIORITY, &[number(0), pid(of), number(nice)]);
    }
    let mask = || Arg::Words(vec![1, 0], Place::Heap);
    let affinity = [pid(of), number(8), mask()];
    p.call(calls::SCHED_SETAFFINITY, &affinity);
    p.call(calls::SCHED_SETAFFINITY, &[pid(of), number(8), null()]);
    let zero = || Arg::Words(vec![0], Place::Heap);
    for policy in [libc::SCHED_BATCH, 99, -1, libc::SCHED_OTHER] {
        let args = [pid(of), number(policy), zero()];
        p.call(calls::SCHED_SETSCHEDULER, &args);
    }
    let batch = number(libc::SCHED_BATCH);
    p.call(calls::SCHED_SETSCHEDULER, &[pid(of), batch, null()]);
    p.call(calls::SCHED_SETPARAM, &[pid(of), zero()]);
    p.call(calls::SCHED_SETPARAM, &[pid(of), null()]);
    // size, policy, flags, nice, priority: SCHED_BATCH with a nice value of 19.
    let attribute = || Arg::Words(vec![48, 3, 0, 0, 19, 0, 0, 0, 0, 0, 0, 0], Place::Heap);
    p.call(calls::SCHED_SETATTR, &[pid(of), attribute(), number(0)]);
    p.call(calls::SCHED_SETATTR, &[pid(of), attribute(), number(1)]);
    // IOPRIO_WHO_PROCESS; IOPRIO_CLASS_BE and a bad class.
    for priority in [2 << 13 | 6, 5 << 13] {
        p.call(calls::IOPRIO_SET, &[number(1), pid(of), number(priority)]);
    }
}

fn priorities(p: &mut Probe) {
    to_each_other(p, change_priority);
    let [root, user, other] = [PEOPLE[0], PEOPLE[1], PEOPLE[2]];
    for people in [vec![user, user], vec![root, user, other]] {
        for (who, prepare) in [user, other, root] {
            let crowd = Crowd::new(p, &people);
            p.child(&format!("{who} to a group"), Birth::Fork, |p| {
                prepare(p);
                let group = || Arg::Named(crowd.leader().into(), "GROUP");
                p.call(calls::SETPRIORITY, &[number(1), group(), number(7)]);
                p.call(
                    calls::IOPRIO_SET,
                    &[number(2), group(), number(2 << 13 | 7)],
                );
            });
            nice_of(p, &crowd);
            p.child(&format!("{who} to a user"), Birth::Fork, |p| {
                prepare(p);
                for user in [999, 54321] {
                    p.call(calls::SETPRIORITY, &[number(2), Arg::Id(user), number(9)]);
                    p.call(
                        calls::IOPRIO_SET,
                        &[number(3), Arg::Id(user), number(2 << 13 | 7)],
                    );
                }
            });
            nice_of(p, &crowd);
            crowd.end(p);
        }
    }
    p.child("somebody to itself", Birth::Fork, |p| {
        p.somebody(&[], [999; 3], [999; 3]);
        for which in [0, 1, 2, 3, -1] {
            p.call(calls::SETPRIORITY, &[number(which), number(0), number(3)]);
            p.call(
                calls::IOPRIO_SET,
                &[number(which), number(0), number(2 << 13 | 7)],
            );
        }
    });
}

fn nice_of(p: &mut Probe, crowd: &Crowd) {
    for (who, member) in &crowd.members {
        let args = [number(0), pid(*member)];
        let answer = p.quiet(calls::GETPRIORITY, &args);
        p.say(&format!("  {who}: 20 - nice = {:?}", answer.result));
    }
}

fn limit_another(p: &mut Probe, of: i32) {
    let room = || Arg::Output(16, Place::Heap);
    let same = || Arg::Words(vec![0, 0, 0, 0], Place::Heap);
    for resource in [libc::RLIMIT_NOFILE, libc::RLIMIT_LOCKS, 99] {
        let resource = || Arg::Number(resource.into());
        p.call(calls::PRLIMIT64, &[pid(of), resource(), null(), room()]);
        p.call(calls::PRLIMIT64, &[pid(of), resource(), null(), null()]);
        let bad = Arg::Output(16, Place::Unmapped);
        p.call(calls::PRLIMIT64, &[pid(of), resource(), bad, null()]);
    }
    let core = Arg::Number(libc::RLIMIT_CORE.into());
    p.call(calls::PRLIMIT64, &[pid(of), core, same(), room()]);
}

fn limits(p: &mut Probe) {
    to_each_other(p, limit_another);
}

fn look_into(p: &mut Probe, into: i32) {
    // struct iovec with an address that is not mapped anywhere.
    let nowhere = || Arg::Words(vec![0x1000, 0, 8, 0], Place::Heap);
    let one = || number(1);
    for call in [calls::PROCESS_VM_READV, calls::PROCESS_VM_WRITEV] {
        for (count, flags) in [(1, 0), (0, 0), (1, 1), (1025, 0)] {
            let args = [
                pid(into),
                nowhere(),
                one(),
                nowhere(),
                number(count),
                number(flags),
            ];
            p.call(call, &args);
        }
    }
    open_pidfd(p, into);
    for (number_there, flags) in [(9999, 0), (0, 1)] {
        let args = [Arg::Fd(200), number(number_there), number(flags)];
        p.call(calls::PIDFD_GETFD, &args);
    }
    const PTRACE_SEIZE: i64 = 0x4206;
    let zero = || Arg::Number(0);
    for address in [1, 0] {
        let args = [
            Arg::Named(PTRACE_SEIZE, "PTRACE_SEIZE"),
            pid(into),
            number(address),
            zero(),
        ];
        p.call(calls::PTRACE, &args);
    }
}

fn tracing(p: &mut Probe) {
    to_each_other(p, look_into);
    p.child("somebody into its own threads", Birth::Fork, |p| {
        p.somebody(&[], [999, 998, 997], [999, 998, 997]);
        look_into(p, sys::process_id());
    });
    for missing in [0x3fff_ffff, -1] {
        look_into(p, missing);
    }
}

/// struct pidfd_info: a mask, a control group, pid, tgid, ppid, and eight ids; 64 bytes at first.
fn ask_about(p: &mut Probe, process: i32) {
    const PIDFD_GET_INFO: u64 = 0xc000_ff0b;
    open_pidfd(p, process);
    for size in [64, 72, 8, 0] {
        let request = Arg::Word(PIDFD_GET_INFO | size << 16);
        let info = Arg::Words(vec![0; 18], Place::Heap);
        let answer = p.quiet(calls::IOCTL, &[Arg::Fd(200), request, info]);
        let words = answer.words(2);
        let is_right = words[4..6] == [process.cast_unsigned(); 2];
        p.say(&format!(
            "PIDFD_GET_INFO, {size} bytes: {}, {} {}",
            print::answer(&answer, &[]),
            if is_right {
                "the right process"
            } else {
                "none"
            },
            print::ids(&words[7..15])
        ));
    }
    let request = || Arg::Word(PIDFD_GET_INFO | 64 << 16);
    p.call(calls::IOCTL, &[Arg::Fd(200), request(), null()]);
    p.call(calls::IOCTL, &[Arg::Fd(9999), request(), null()]);
}

fn process_info(p: &mut Probe) {
    to_each_other(p, ask_about);
    p.child("a parent", Birth::Fork, |p| {
        p.somebody(&[], [999, 998, 997], [999, 998, 997]);
        let parent = sys::process_id();
        p.child("its child", Birth::Fork, |p| {
            ask_about(p, parent);
            ask_about(p, sys::process_id());
        });
    });
}

/// Users open nothing by its handle, not even in a file system that root of a user namespace has
/// mounted.
fn handles(p: &mut Probe) {
    p.mkdir("t", 0o755);
    p.child("with a tmpfs", Birth::Fork, |p| {
        own_mounts(p);
        mount(p, "none", "t", "tmpfs", 0, "mode=755");
        p.create(b"t/file", 0o644, 1);
        let handle = || Arg::Words(vec![128, 0, 0, 0], Place::Heap);
        for (who, prepare) in &PEOPLE[1..4] {
            p.child(who, Birth::Fork, |p| {
                prepare(p);
                p.open("t/file", libc::O_RDONLY, 0, Some(201));
                for fd in [CWD, 201, 9999] {
                    for flags in [libc::O_RDONLY, libc::O_DIRECTORY] {
                        let args = [Arg::Fd(fd), handle(), number(flags)];
                        p.call(calls::OPEN_BY_HANDLE_AT, &args);
                    }
                }
            });
        }
    });
}

fn take_privilege(p: &mut Probe) {
    let [uts, pids, all] = [libc::CLONE_NEWUTS, libc::CLONE_NEWPID, libc::CLONE_NEWNS];
    for flags in [
        uts,
        pids,
        all,
        0x80,
        uts | 0x1,
        uts | libc::CLONE_FILES,
        libc::CLONE_FILES,
    ] {
        p.call(calls::UNSHARE, &[Arg::Word(flags.unsigned_abs().into())]);
    }
    for flags in [uts, all | libc::CLONE_FS, libc::CLONE_THREAD | uts, 0] {
        for (name, answer) in [("clone", sys::clone(flags)), ("clone3", sys::clone3(flags))] {
            let answer = answer.map_or_else(print::errno, |()| "0".to_owned());
            p.say(&format!("{name}({flags:#x}) = {answer}"));
        }
    }
    for kind in ["uts", "ipc", "net"] {
        let file = format!("/proc/self/ns/{kind}");
        p.open(&file, libc::O_RDONLY, 0, Some(200));
        for flag in [0, libc::CLONE_NEWUTS, -1] {
            p.call(calls::SETNS, &[Arg::Fd(200), number(flag)]);
        }
    }
    p.call(calls::SETNS, &[Arg::Fd(9999), number(0)]);
    let path = |path: &str| Arg::Path(path.into(), Place::Heap);
    for (from, to) in [("missing", "missing"), (".", "."), ("file", "file")] {
        p.call(calls::CHROOT, &[path(from)]);
        p.call(calls::PIVOT_ROOT, &[path(from), path(to)]);
        for flags in [0, 8, 1 << 20] {
            p.call(calls::UMOUNT2, &[path(to), number(flags)]);
        }
        for flags in [
            0,
            libc::MS_BIND | libc::MS_REC,
            libc::MS_REMOUNT,
            libc::MS_PRIVATE,
        ] {
            let flags = Arg::Word(flags);
            p.call(
                calls::MOUNT,
                &[path("no"), path(to), path("nothing"), flags, null()],
            );
        }
        let clone = Arg::Number(1);
        let fd = Arg::Fd(CWD);
        let keeps = p.quiet(calls::OPEN_TREE, &[fd.clone(), path(to), clone]);
        p.say(&format!("open_tree = {:?}", keeps.result.map(|_| ())));
        let args = [fd.clone(), path(from), fd.clone(), path(to), number(0)];
        p.call(calls::MOVE_MOUNT, &args);
    }
    p.call(calls::CHROOT, &[null()]);
    p.call(calls::CHROOT, &[path("closed")]);
    p.call(
        calls::SETHOSTNAME,
        &[Arg::Input(b"probe".to_vec()), number(65)],
    );
    p.call(
        calls::SETDOMAINNAME,
        &[Arg::Input(b"probe".to_vec()), number(-1)],
    );
    // Bad magic numbers.
    p.call(calls::REBOOT, &[number(1), number(2), number(3), null()]);
}

fn privileges(p: &mut Probe) {
    p.create(b"file", 0o644, 1);
    p.mkdir("closed", 0o755);
    p.chmod("closed", 0o700);
    for (who, prepare) in PEOPLE {
        p.child(who, Birth::Fork, |p| {
            prepare(p);
            take_privilege(p);
        });
    }
}
