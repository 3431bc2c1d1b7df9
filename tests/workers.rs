//! Workers: one dies and another takes over, the daemon goes and they stay, one call hangs and the
//! others do not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use common::{
    Bundle, Daemon, Place, Running, Runtime, compile, example, guard_of, set_mode, until,
};

/// A container whose only process makes calls until it is told to stop, and says how far it is.
struct Steady<'a> {
    container: Running<'a>,
    directory: std::path::PathBuf,
}

/// What the container writes to, in its /work.
const SAID: &str = "said";

impl<'a> Steady<'a> {
    fn start(bundle: &'a Bundle<'a>, threads: &str) -> Self {
        let script = format!("exec /target steady /work {threads} >/work/{SAID} 2>&1");
        let container = bundle.start(&["/bin/sh", "-euc", &script]);
        let steady = Self {
            container,
            directory: bundle.rootfs().join("work"),
        };
        steady.wait_for_progress();
        steady
    }

    /// Beside `count` calls that hang in a file system of FUSE, when `wait` has ended.
    fn beside_stuck_calls(bundle: &'a Bundle<'a>, count: usize, wait: &str) -> Self {
        let directory = bundle.rootfs().join("work");
        fs::create_dir(directory.join("mnt")).unwrap();
        let script = format!(
            "/target stuck /work/mnt {count} >/work/stuck 2>&1 &
             {wait}
             exec /target steady /work 2 >/work/{SAID} 2>&1"
        );
        Self {
            container: bundle.start(&["/bin/sh", "-euc", &script]),
            directory,
        }
    }

    fn said(&self) -> String {
        fs::read_to_string(self.directory.join(SAID)).unwrap_or_default()
    }

    /// Waits until every thread has said something more, twice: the second time, it has begun after
    /// this call.
    fn wait_for_progress(&self) {
        let rounds = || -> Vec<usize> {
            let said = self.said();
            let of = |n: u32| said.matches(&format!("thread {n}, ")).count();
            (0..2).map(of).collect()
        };
        let before = rounds();
        until("the container goes on making calls", || {
            let now = rounds();
            assert!(self.container.is_running(), "{}", self.said());
            now.iter()
                .zip(&before)
                .all(|(now, before)| *now >= before + 2)
                .then_some(())
        });
    }

    /// Has it end by itself: whether any call of it went wrong is seen then.
    fn finish(self) {
        fs::write(self.directory.join("stop"), "").unwrap();
        until("the container ends", || {
            (!self.container.is_running()).then_some(())
        });
        let said = self.said();
        assert!(said.ends_with("all calls went well\n"), "{said}");
    }
}

fn steady_bundle<'a>(place: &'a Place, daemon: &Daemon, runtime: Runtime) -> Bundle<'a> {
    Bundle::new(place, daemon)
        .with_program(&example("target"))
        .under(runtime, daemon)
}

/// The one worker of a container.
fn worker_of(place: &Place, container: &Running) -> nix::unistd::Pid {
    until("there is one worker", || {
        match place.workers_of(&container.id).as_slice() {
            [worker] => Some(*worker),
            _ => None,
        }
    })
}

fn no_workers_are_left(place: &Place) {
    until("no worker is left", || {
        place.workers().is_empty().then_some(())
    });
}

#[test]
fn a_container_does_not_notice_that_its_worker_is_killed() {
    for runtime in [Runtime::Crun, Runtime::Runc] {
        let place = Place::new();
        let daemon = Daemon::start(&place);
        let bundle = steady_bundle(&place, &daemon, runtime);
        let steady = Steady::start(&bundle, "2");
        for times in 1..=10 {
            kill(worker_of(&place, &steady.container), Signal::SIGKILL).unwrap();
            until("the daemon starts another worker", || {
                (daemon.lines(&["worker died"]).len() == times).then_some(())
            });
            steady.wait_for_progress();
        }
        steady.finish();
        no_workers_are_left(&place);
        daemon.wait_for(&["container ended"]);
    }
}

#[test]
fn an_idle_container_gets_another_worker_when_its_worker_is_killed() {
    let place = Place::new();
    let mut daemon = Daemon::start(&place);
    let bundle = Bundle::new(&place, &daemon);
    let script = "cd /work; touch f; chown 1:1 f; mkfifo go; read word <go
        chown 2:2 f; stat -c %u:%g f >result; exec sleep 1000000";
    let container = bundle.start(&["/bin/sh", "-euc", script]);
    let fifo = bundle.rootfs().join("work/go");
    until("the container waits", || fifo.exists().then_some(()));
    let first = worker_of(&place, &container);
    kill(first, Signal::SIGKILL).unwrap();
    until("there is another worker", || {
        let workers = place.workers_of(&container.id);
        (!workers.is_empty() && !workers.contains(&first)).then_some(())
    });
    // Neither has any call come to it when its daemon ends, nor to the next one.
    until("it has taken over", || {
        place
            .workers_of(&container.id)
            .into_iter()
            .find(|worker| common::has_listener(*worker))
    });
    daemon.signal(Signal::SIGKILL);
    daemon.wait();
    let next = Daemon::start(&place);
    next.wait_for(&["container of an earlier daemon", &container.id]);
    kill(worker_of(&place, &container), Signal::SIGKILL).unwrap();
    next.wait_for(&["worker died", &container.id]);
    fs::write(fifo, "go\n").unwrap();
    let result = bundle.rootfs().join("work/result");
    let seen = until("the container goes on", || {
        fs::read_to_string(&result)
            .ok()
            .filter(|text| text.ends_with('\n'))
    });
    assert_eq!(seen, "2:2\n");
    container.stop();
}

fn a_daemon_that_ends_leaves_containers_alone(signal: Signal) {
    let place = Place::new();
    let mut daemon = Daemon::start(&place);
    let bundle = steady_bundle(&place, &daemon, Runtime::Crun);
    let steady = Steady::start(&bundle, "2");
    daemon.signal(signal);
    daemon.wait();
    steady.wait_for_progress();
    // What a killed daemon leaves of its socket does not keep the next one away.
    let next = Daemon::start(&place);
    let other = Bundle::new(&place, &next);
    assert_eq!(other.sh("touch f; chown 1:2 f; stat -c %u:%g f"), "1:2\n");
    steady.wait_for_progress();
    // The next daemon looks after the container as the first one did.
    next.wait_for(&["container of an earlier daemon", &steady.container.id]);
    kill(worker_of(&place, &steady.container), Signal::SIGKILL).unwrap();
    next.wait_for(&["worker died", &steady.container.id]);
    steady.wait_for_progress();
    let id = steady.container.id.clone();
    steady.finish();
    no_workers_are_left(&place);
    next.wait_for(&["container ended", &id]);
}

#[test]
fn a_daemon_ended_by_sigterm_leaves_containers_alone() {
    a_daemon_that_ends_leaves_containers_alone(Signal::SIGTERM);
}

#[test]
fn a_daemon_ended_by_sigint_leaves_containers_alone() {
    a_daemon_that_ends_leaves_containers_alone(Signal::SIGINT);
}

#[test]
fn a_killed_daemon_leaves_containers_alone() {
    a_daemon_that_ends_leaves_containers_alone(Signal::SIGKILL);
}

/// Ends processes for which nobody waits but init.
fn kill_at_once(pids: &[nix::unistd::Pid], between: u64) {
    for pid in pids {
        kill(*pid, Signal::SIGKILL).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(between));
    }
}

#[test]
fn a_container_goes_on_whichever_two_of_daemon_worker_and_guard_are_killed() {
    let place = Place::new();
    let mut daemon = Daemon::start(&place);
    let bundle = steady_bundle(&place, &daemon, Runtime::Crun);
    let steady = Steady::start(&bundle, "2");
    let id = steady.container.id.clone();
    for between in [0, 10] {
        for which in 0..6 {
            let worker = worker_of(&place, &steady.container);
            let (guard, own) = (guard_of(&place, daemon.pid()), daemon.pid());
            let victims = [
                [own, worker],
                [worker, own],
                [guard, worker],
                [worker, guard],
                [guard, own],
                [own, guard],
            ][which];
            kill_at_once(&victims, between);
            steady.wait_for_progress();
            if victims.contains(&own) {
                daemon.wait();
                daemon = Daemon::start(&place);
                daemon.wait_for(&["container of an earlier daemon", &id]);
            }
            steady.wait_for_progress();
            // All three are there again.
            until("the guard keeps the container", || {
                let guard = guard_of(&place, daemon.pid());
                common::has_listener(guard).then_some(())
            });
        }
    }
    steady.finish();
    no_workers_are_left(&place);
    daemon.wait_for(&["container ended", &id]);
    let guard = guard_of(&place, daemon.pid());
    until("the guard keeps nothing any more", || {
        (!common::has_listener(guard)).then_some(())
    });
    daemon.terminate();
    until("no guard is left", || {
        let processes = place.processes();
        processes.is_empty().then_some(())
    });
}

#[test]
fn a_container_that_two_workers_hand_over_one_after_the_other_has_one_worker() {
    let place = Place::new();
    let mut first = Daemon::start(&place);
    let bundle = steady_bundle(&place, &first, Runtime::Crun);
    let steady = Steady::start(&bundle, "2");
    let guard = guard_of(&place, first.pid());
    until("the guard keeps the container", || {
        common::has_listener(guard).then_some(())
    });
    let worker = worker_of(&place, &steady.container);
    kill(worker, Signal::SIGSTOP).unwrap();
    first.signal(Signal::SIGKILL);
    first.wait();
    // One that listens, and hears nobody yet.
    let second = Daemon::start(&place);
    second.signal(Signal::SIGSTOP);
    let handed_over = |times: usize| {
        until("a worker has handed over its container", || {
            (first.lines(&["found a new daemon"]).len() == times).then_some(())
        });
    };
    kill(worker, Signal::SIGCONT).unwrap();
    handed_over(1);
    kill(worker, Signal::SIGKILL).unwrap();
    // The guard has started another one.
    handed_over(2);
    second.signal(Signal::SIGCONT);
    until("the daemon has heard both", || {
        let heard = second.lines(&["container of an earlier daemon"]);
        (heard.len() == 2).then_some(())
    });
    steady.wait_for_progress();
    kill(worker_of(&place, &steady.container), Signal::SIGKILL).unwrap();
    steady.wait_for_progress();
    let id = steady.container.id.clone();
    steady.finish();
    no_workers_are_left(&place);
    second.wait_for(&["container ended", &id]);
    let log = second.log();
    assert!(!log.contains("taking charge"), "{log}");
    assert_eq!(second.lines(&["container ended"]).len(), 1, "{log}");
}

#[test]
fn a_store_that_is_damaged_while_there_is_no_daemon_ends_no_service() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    Bundle::new(&place, &daemon).sh("cd /work; ln -s x l; chown -h 5:6 l");
    // What it leaves is on the disk.
    daemon.terminate();
    let mut daemon = Daemon::start(&place);
    let bundle = Bundle::new(&place, &daemon);
    let script = "cd /work; touch f; chown 1:1 f; mkfifo go; read word <go
        # Of the new one there is nothing in memory: it is looked for on the disk.
        ln -s x new; stat new >/dev/null 2>&1 || :; chown 2:3 f; stat -c %u:%g f >result
        exec sleep 1000000";
    let container = bundle.start(&["/bin/sh", "-euc", script]);
    let fifo = bundle.rootfs().join("work/go");
    until("the container waits", || fifo.exists().then_some(()));
    let guard = guard_of(&place, daemon.pid());
    until("the guard keeps the container", || {
        common::has_listener(guard).then_some(())
    });
    let lasting = place.path("home/.local/state/subuidless/data.mdb");
    daemon.signal(Signal::SIGKILL);
    daemon.wait();
    // What is left is sound, and says that there is more.
    let file = fs::File::options().write(true).open(&lasting).unwrap();
    file.set_len(2 * 4096).unwrap();
    fs::write(&fifo, "go\n").unwrap();
    let result = bundle.rootfs().join("work/result");
    let seen = until("the container goes on", || {
        fs::read_to_string(&result)
            .ok()
            .filter(|text| text.ends_with('\n'))
    });
    assert_eq!(seen, "2:3\n");
    daemon.wait_for(&["side store"]);
    container.stop();
    no_workers_are_left(&place);
}

#[test]
fn sighup_leaves_the_daemon_and_its_containers_alone() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundle = steady_bundle(&place, &daemon, Runtime::Crun);
    let steady = Steady::start(&bundle, "2");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for(&["SIGHUP"]);
    steady.wait_for_progress();
    let other = Bundle::new(&place, &daemon);
    assert_eq!(other.sh("touch f; chown 1:2 f; stat -c %u:%g f"), "1:2\n");
    steady.finish();
}

#[test]
fn a_worker_ends_with_its_container_and_the_log_tells_how_many_calls_were_served() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundle = Bundle::new(&place, &daemon);
    let container = bundle.start(&["/bin/sleep", "1000000"]);
    container.sh("cd /work; for i in 1 2 3 4 5 6 7 8 9 10; do touch f$i; chown $i:$i f$i; done");
    let id = container.id.clone();
    container.stop();
    no_workers_are_left(&place);
    // One listener for the first process, one for the second.
    until("both have ended", || {
        let ended = |what| !daemon.lines(&[what, &id]).is_empty();
        (ended("INFO container ended") && ended("INFO exec ended")).then_some(())
    });
    let answered = daemon
        .lines(&[" ended ", &id])
        .iter()
        .map(|line| common::number_after(line, "answered="))
        .max();
    assert!(answered >= Some(10), "{}", daemon.log());
    for line in daemon.lines(&[" ended ", &id]) {
        let parts = ["continued=", "answered=", "failed="];
        let sum: usize = parts
            .iter()
            .map(|part| common::number_after(&line, part))
            .sum();
        assert_eq!(common::number_after(&line, "calls="), sum, "{line}");
    }
}

#[test]
fn a_process_that_outlives_the_first_of_its_container_is_served_until_it_ends() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundle = steady_bundle(&place, &daemon, Runtime::Crun);
    // Under the listener of the process that entered, whose first process ends at once.
    let container = bundle.start(&["/bin/sleep", "1000000"]);
    let work = bundle.rootfs().join("work");
    let script = format!("/target steady /work 2 >/work/{SAID} 2>&1 </dev/null &");
    container.exec(&["/bin/sh", "-c", &script]).ok();
    let steady = Steady {
        container,
        directory: work,
    };
    steady.wait_for_progress();
    assert_eq!(place.workers().len(), 2);
    fs::write(steady.directory.join("stop"), "").unwrap();
    until("it ends", || {
        let said = steady.said();
        said.ends_with("all calls went well\n").then_some(())
    });
    until("its worker ends", || {
        (place.workers().len() == 1).then_some(())
    });
    steady.container.stop();
    no_workers_are_left(&place);
}

#[test]
fn parallel_processes_go_on_while_the_call_of_one_is_stuck() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let fuse = fuse_device(&place);
    let bundle =
        steady_bundle(&place, &daemon, Runtime::Crun).with_mount(&fuse, "/dev/fuse", &["bind"]);
    let steady = Steady::beside_stuck_calls(
        &bundle,
        1,
        "while ! grep -q '^stuck' /work/stuck; do /bin/true; done
         # Long enough without a call for the worker's watch to go to sleep.
         sleep 1",
    );
    let work = &steady.directory;
    until("a call is stuck", || {
        let said = fs::read_to_string(work.join("stuck")).unwrap_or_default();
        assert!(!said.contains("target:"), "{said}");
        said.contains("\nstuck\n").then_some(())
    });
    steady.wait_for_progress();
    // Its successor takes up the call that is stuck, and does not get stuck itself.
    kill(worker_of(&place, &steady.container), Signal::SIGKILL).unwrap();
    steady.wait_for_progress();
    steady.finish();
    no_workers_are_left(&place);
}

#[test]
fn a_worker_finishes_no_creation_elsewhere_than_a_killed_one_began_it() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let fuse = fuse_device(&place);
    let meanwhile = compile(&place, &["gcc", "-O1"], "meanwhile", "workers/meanwhile.c");
    for (call, other) in [("open", "/work/file"), ("mkdir", "/work/directory")] {
        let bundle = Bundle::new(&place, &daemon)
            .with_mount(&fuse, "/dev/fuse", &["bind"])
            .with_program(&meanwhile);
        let work = bundle.rootfs().join("work");
        let script = format!(
            "cd /work; mkdir mnt directory; echo kept >file; chown 8:9 file directory
             /meanwhile {call} /work/mnt {other} >said
             stat -c %u:%g {other} >>said; touch ended; sleep 1000"
        );
        let container = bundle.start(&["/bin/sh", "-euc", &script]);
        let said = || fs::read_to_string(work.join("said")).unwrap_or_default();
        until("the call has begun", || {
            said().contains("creating\n").then_some(())
        });
        kill(worker_of(&place, &container), Signal::SIGKILL).unwrap();
        fs::write(work.join("go"), "").unwrap();
        until("the call has ended", || {
            work.join("ended").exists().then_some(())
        });
        assert_eq!(said(), "creating\nEEXIST\n8:9\n", "{call}");
        container.stop();
    }
}

const STUCK: usize = 300;

/// Waits until a worker of the container has a thread for each call that hangs; which one.
fn all_hang(place: &Place, work: &Path, container: &str) -> nix::unistd::Pid {
    let threads = |worker: &nix::unistd::Pid| {
        fs::read_dir(format!("/proc/{worker}/task")).map_or(0, Iterator::count)
    };
    until("a worker has a thread for each call that hangs", || {
        let said = fs::read_to_string(work.join("stuck")).unwrap_or_default();
        assert!(!said.contains("target:"), "{said}");
        let workers = place.workers_of(container);
        workers.into_iter().rfind(|worker| threads(worker) > STUCK)
    })
}

#[test]
fn one_more_call_is_answered_while_three_hundred_hang_in_a_file_system() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let fuse = fuse_device(&place);
    // With the fast path they would hang in the program.
    let bundle = steady_bundle(&place, &daemon, Runtime::Crun)
        .slow()
        .with_mount(&fuse, "/dev/fuse", &["bind"]);
    let steady = Steady::beside_stuck_calls(
        &bundle,
        STUCK,
        "while ! test -e /work/go; do sleep 0.1; done",
    );
    let work = &steady.directory;
    let first = all_hang(&place, work, &steady.container.id);
    fs::write(work.join("go"), "").unwrap();
    steady.wait_for_progress();
    // Its successor takes them all up.
    kill(first, Signal::SIGKILL).unwrap();
    steady.wait_for_progress();
    let second = all_hang(&place, work, &steady.container.id);
    assert_ne!(first, second);
    steady.finish();
    no_workers_are_left(&place);
}

/// /dev/fuse for everybody, as Debian has it.
fn fuse_device(place: &Place) -> std::path::PathBuf {
    assert!(
        Path::new("/sys/module/fuse").exists()
            || Command::new("modprobe")
                .arg("fuse")
                .status()
                .is_ok_and(|status| status.success()),
        "this kernel has no FUSE"
    );
    let path = place.path("fuse");
    mknod(&path, SFlag::S_IFCHR, Mode::empty(), makedev(10, 229)).unwrap();
    set_mode(&path, 0o666);
    path
}

#[test]
fn a_worker_after_another_one_tells_root_directories_apart() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundle = Bundle::new(&place, &daemon);
    // The one in the other root calls first.
    let script = "cd /work; mkdir -p ch/bin ch/work; cp /bin/busybox ch/bin
        touch f ch/work/f; chown 1:1 f; mkfifo ch/go
        chroot ch /bin/busybox sh -c 'read word </go; /bin/busybox stat /work/f' &
        wait; chown 55:56 /work/f; stat -c %u:%g /work/f >result; exec sleep 1000000";
    let container = bundle.start(&["/bin/sh", "-euc", script]);
    let work = bundle.rootfs().join("work");
    let fifo = work.join("ch/go");
    until("the container waits", || fifo.exists().then_some(()));
    let first = worker_of(&place, &container);
    kill(first, Signal::SIGKILL).unwrap();
    fs::write(fifo, "go\n").unwrap();
    let seen = until("the other one has called", || {
        fs::read_to_string(work.join("result"))
            .ok()
            .filter(|text| text.ends_with('\n'))
    });
    assert_eq!(seen, "55:56\n");
    let other = xattr::get(work.join("ch/work/f"), "user.rootlesscontainers");
    assert_eq!(other.unwrap(), None);
    container.stop();
}

#[test]
fn a_log_that_nobody_reads_any_more_ends_nothing() {
    let place = Place::new();
    let socket = place.runtime_directory().join("subuidless.sock");
    let mut command = place.as_user("sh");
    // `head` goes after the first line, and the next one is a broken pipe.
    let script = format!(
        "{} serve {} 2>&1 | head -n 1 >&2; exec sleep 1000000",
        place.binary().display(),
        socket.display()
    );
    command.args(["-c", &script]);
    let daemon = Daemon::spawn(&place, command, socket);
    let bundle = Bundle::new(&place, &daemon);
    for _ in 0..2 {
        assert_eq!(bundle.sh("touch f; chown 1:2 f; stat -c %u:%g f"), "1:2\n");
    }
}
