//! Workers, daemons and guards that are killed at random points, while a container makes and changes
//! files: nothing is lost, and nothing is done twice.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use common::real::{bash, reboot};
use common::{Bundle, Daemon, Pair, Place, assert_same_lines, compile, guard_of, until};

/// A job in a container that goes on by a hundred steps when it is told to (`churn.c`).
struct Churn {
    child: Child,
    to: ChildStdin,
    from: ChildStdout,
}

impl Churn {
    fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starting the job");
        let (to, from) = (child.stdin.take(), child.stdout.take());
        Self {
            child,
            to: to.expect("a pipe"),
            from: from.expect("a pipe"),
        }
    }

    fn begin(&mut self) {
        self.to.write_all(b"x").expect("the job reads");
    }

    fn finish(&mut self) {
        self.from.read_exact(&mut [0]).expect("the job answers");
    }

    /// Whether it has not answered yet.
    fn is_busy(&self) -> bool {
        let mut fds = [PollFd::new(self.from.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO) == Ok(0)
    }

    fn end(mut self) {
        drop(self.to);
        let status = self.child.wait().expect("waiting for the job");
        assert!(status.success(), "{status}");
    }
}

/// Runs the job for real, and in a container whose worker, daemon and guard are killed so many
/// times at random points: what `victims` picks of [`ALL`]. One of them is always left.
#[track_caller]
#[expect(
    clippy::print_stderr,
    reason = "how much was killed is told with --nocapture"
)]
fn kill_at_random(job: &str, kills: u32, victims: impl Fn(&mut Random) -> &'static [Victim]) {
    /// To find out how long a round takes.
    const UNDISTURBED: u32 = 4;
    let place = Place::new();
    let mut daemon = Daemon::start(&place);
    let program = compile(&place, &["gcc", "-static"], "churn", "kills/churn.c");
    let pair = Pair::real(&place, &daemon)
        .with(|bundle| bundle.with_mount(&program, "/churn", &["bind", "ro"]));
    let script = format!("mkdir /work; cd /work; exec /churn {job}");
    let words = ["/bin/sh", "-euc", &script];
    let mut churn = Churn::start(pair.oracle.command(&words).0);
    for _ in 0..UNDISTURBED + kills {
        churn.begin();
        churn.finish();
    }
    churn.end();

    let (command, id) = pair.ours.command(&words);
    let mut churn = Churn::start(command);
    let mut random = Random(20_201_122);
    let start = Instant::now();
    for _ in 0..UNDISTURBED {
        churn.begin();
        churn.finish();
    }
    let round = start.elapsed() / UNDISTURBED;
    let mut in_time = 0;
    let mut counts = [0; ALL.len()];
    let mut dead = Vec::new();
    for _ in 0..kills {
        let victims = victims(&mut random);
        // Their numbers may be those of new processes by now.
        dead.retain(|pid| kill(*pid, None).is_ok());
        let pids: Vec<Pid> = victims
            .iter()
            .map(|victim| victim.pid(&place, &daemon, &id, &dead))
            .collect();
        churn.begin();
        // Into the middle of something, mostly.
        std::thread::sleep(round.mul_f64(random.fraction()));
        in_time += u32::from(churn.is_busy());
        for pid in pids {
            kill(pid, Signal::SIGKILL).expect("killing a process of ours");
            dead.push(pid);
        }
        for victim in victims {
            counts[*victim as usize] += 1;
        }
        if victims.contains(&Victim::Daemon) {
            daemon.wait();
            daemon = Daemon::start(&place);
            daemon.wait_for(&["container of an earlier daemon", &id]);
        }
        churn.finish();
    }
    churn.end();
    eprintln!("{kills} rounds, {in_time} in time; killed: {ALL:?}: {counts:?}");
    // How many is the machine's affair: a round takes longer or shorter than the first ones did.
    assert!(
        in_time > kills / 10,
        "only {in_time} of {kills} were in time"
    );
    let log = |bundle: &Bundle| fs::read(bundle.rootfs().join("work/log")).expect("the job's log");
    assert_same_lines(&log(&pair.oracle), &log(&pair.ours));
    let listed = bash(&pair.oracle, "list /work");
    assert_same_lines(&listed, &bash(&pair.ours, "list /work"));
    let daemon = reboot(&place, daemon);
    assert_same_lines(&listed, &bash(&pair.ours, "list /work"));
    daemon.terminate();
}

/// Who may be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Worker,
    Daemon,
    Guard,
}

const ALL: [Victim; 3] = [Victim::Worker, Victim::Daemon, Victim::Guard];

impl Victim {
    /// Which process that is. All of them have the container by then: with none of them the kernel
    /// has nobody to ask. Those that were killed are `dead`, and may not have gone yet.
    fn pid(self, place: &Place, daemon: &Daemon, container: &str, dead: &[Pid]) -> Pid {
        let lives = |pid: &Pid| !dead.contains(pid) && common::has_listener(*pid);
        let worker = until("a worker has the listener", || {
            place.workers_of(container).into_iter().find(lives)
        });
        let guard = until("the guard has the listener", || {
            Some(guard_of(place, daemon.pid())).filter(lives)
        });
        match self {
            Self::Worker => worker,
            Self::Daemon => daemon.pid(),
            Self::Guard => guard,
        }
    }
}

#[test]
fn nothing_is_lost_when_worker_daemon_and_guard_are_killed_alone_and_together() {
    use Victim::{Daemon, Guard, Worker};
    kill_at_random(
        "20201122 log",
        common::many(150, 500),
        |random| match random.below(16) {
            0 => &[Daemon],
            1 => &[Guard],
            2 => &[Daemon, Worker],
            3 => &[Worker, Daemon],
            4 => &[Guard, Worker],
            5 => &[Worker, Guard],
            6 => &[Guard, Daemon],
            7 => &[Daemon, Guard],
            _ => &[Worker],
        },
    );
}

#[test]
fn nothing_is_done_twice_when_workers_are_killed() {
    let kills = common::many(150, 500);
    kill_at_random("20201122 log attributes", kills, |_| &[Victim::Worker]);
}

#[test]
fn ipc_objects_are_their_makers_when_workers_are_killed() {
    let kills = common::many(100, 500);
    kill_at_random("20201122 log objects", kills, |_| &[Victim::Worker]);
}

/// xorshift64*
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        let Self(state) = self;
        *state ^= *state >> 12;
        *state ^= *state << 25;
        *state ^= *state >> 27;
        let [a, b, c, d, ..] = state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes();
        u32::from_be_bytes([a, b, c, d]) % bound
    }

    /// At least 0, below 1.
    fn fraction(&mut self) -> f64 {
        f64::from(self.below(65536)) / 65536.0
    }
}

/// A job of which every step leaves something that only we keep.
const JOB: &str = "cd /work; umask 022; i=0
    while [ $i -lt 250 ]; do
        i=$((i+1)); ln -s x l$i; chown -h $i:$((i+1)) l$i; mkfifo p$i; chown $i:5 p$i
        mknod d$i c 1 $i; chown 6:$i d$i
        : >f$i; chown $i:7 f$i; mkdir o$i; chown 8:$i o$i; mv l$i m$i; mv d$i o$i/d
        case $i in *3) rm m$i p$i;; *5) chown -h 0:0 m$i;; *7) rm -r o$i; ln -s y o$i;; esac
    done; echo done >state";
const LISTING: &str = "cd /work; rm -f state; find . | sort | while read f
    do stat -c '%n %F %u:%g %t:%T %a' $f; done";

#[test]
fn workers_and_daemons_that_are_killed_two_hundred_times_lose_nothing() {
    let place = Place::new();
    let mut daemon = Daemon::start(&place);
    let undisturbed = Bundle::new(&place, &daemon);
    undisturbed.sh(JOB);
    let expected = undisturbed.sh(LISTING);
    assert!(
        expected.contains("./o1/d character special file 6:1 1:1 644\n"),
        "{expected}"
    );
    let mut kills = 0;
    let mut seed = 1u64;
    while kills < 200 {
        let bundle = Bundle::new(&place, &daemon);
        let container = bundle.start(&[
            "/bin/sh",
            "-euc",
            &format!("({JOB}) 2>/work/state || echo failed >>/work/state"),
        ]);
        let state = bundle.rootfs().join("work/state");
        let is_done = || fs::read_to_string(&state).is_ok_and(|state| !state.is_empty());
        while !is_done() {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            std::thread::sleep(std::time::Duration::from_micros(2_000 + (seed >> 50)));
            let workers = place.workers_of(&container.id);
            let is_daemons_turn = seed >> 33 & 15 == 0 && !workers.is_empty();
            let victims = if is_daemons_turn {
                vec![daemon.pid()]
            } else {
                workers
            };
            for victim in victims {
                if nix::sys::signal::kill(victim, nix::sys::signal::Signal::SIGKILL).is_ok() {
                    kills += 1;
                }
            }
            if is_daemons_turn {
                daemon.wait();
                daemon = Daemon::start(&place);
                // With neither of them the kernel has nobody to ask.
                common::until(
                    "the worker has found the daemon, or ended with its job",
                    || {
                        let is_found =
                            !daemon.lines(&["container of an earlier daemon"]).is_empty();
                        (is_found || is_done()).then_some(())
                    },
                );
            }
        }
        assert_eq!(
            fs::read_to_string(&state).expect("its state"),
            "done\n",
            "{}",
            daemon.log()
        );
        assert_same_lines(expected.as_bytes(), bundle.sh(LISTING).as_bytes());
    }
}
