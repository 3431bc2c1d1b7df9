//! `subuidless trace`: the answered calls of containers, as they are made.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use common::command::launch;
use common::status::{container, status};
use common::{Bundle, Daemon, Place, Runtime, example, run, until};

/// `subuidless trace`, and what it has shown.
struct Trace {
    child: Child,
    output: PathBuf,
    said: PathBuf,
}

impl Trace {
    /// Starts it, and waits until it watches.
    fn start(place: &Place, daemon: &Daemon, arguments: &[&str]) -> Self {
        let watching = daemon.lines(&[" traced"]).len();
        let [output, said] = ["trace.out", "trace.err"].map(|name| {
            (0..)
                .map(|n| place.path(&format!("{n}-{name}")))
                .find(|path| !path.exists())
                .unwrap()
        });
        let mut command = place.subuidless(["trace"]);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(fs::File::create(&output).unwrap())
            .stderr(fs::File::create(&said).unwrap());
        let child = command.spawn().unwrap();
        until("it watches", || {
            (daemon.lines(&[" traced"]).len() > watching).then_some(())
        });
        Self {
            child,
            output,
            said,
        }
    }

    fn shown(&self) -> String {
        fs::read_to_string(&self.output).unwrap()
    }

    #[track_caller]
    fn wait_for(&self, parts: &[&str]) -> String {
        until(&format!("{parts:?} in\n{}", self.shown()), || {
            let shown = self.shown();
            let line = shown
                .lines()
                .find(|line| parts.iter().all(|part| line.contains(part)));
            line.map(str::to_owned)
        })
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn trace_shows_each_answered_call_with_its_arguments_and_its_result() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundle = Bundle::new(&place, &daemon).with_program(&example("target"));
    let trace = Trace::start(&place, &daemon, &[]);
    // Watched from its first call on, although it starts later.
    bundle.sh(
        "cd /work; touch f; chown 42:43 f; chown -h -- 7 f; stat f >/dev/null
        mkdir -p /etc d; echo nobody:x:65534:65534::/:/bin/sh >/etc/passwd; chmod 2711 d
        mknod dev b 7 9
        chmod 600 f; su -s /bin/sh nobody -c 'chown 5:5 f' || true; touch end; chown 9:9 end",
    );
    trace.wait_for(&["end", "9, 9"]);
    let shown = trace.shown();
    let chown = trace.wait_for(&["chown(\"f\", 42, 43) = 0"]);
    let words: Vec<&str> = chown.split(' ').collect();
    assert!(
        words[0].starts_with(&format!("[{}-", place.name())),
        "{chown}"
    );
    assert!(words[1].parse::<u32>().is_ok(), "{chown}");
    assert_eq!(words[2], "chown", "{chown}");
    trace.wait_for(&["lchown(\"f\", 7, 43) = 0"]);
    trace.wait_for(&[" stat ", "\"f\", {st_uid=7, st_gid=43, ...}"]);
    trace.wait_for(&["mknodat(AT_FDCWD, \"dev\", 060666, makedev(0x7, 0x9)) = 0"]);
    trace.wait_for(&["setgroups(1, [65534]) = 0"]);
    trace.wait_for(&["setuid(65534) = 0"]);
    trace.wait_for(&["\"f\", 5, 5) = -1 EPERM (Operation not permitted)"]);
    assert!(!shown.contains("left to the kernel"), "{shown}");
    assert!(shown.lines().all(|line| line.starts_with('[')), "{shown}");
}

#[test]
fn trace_shows_calls_of_one_container_of_some_names_and_those_of_the_kernel_if_asked() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundle = Bundle::new(&place, &daemon);
    let one = bundle.start(&["/bin/sleep", "1000000"]);
    let other = bundle.start(&["/bin/sleep", "1000000"]);
    let named = Trace::start(&place, &daemon, &[&one.id]);
    let calls = Trace::start(&place, &daemon, &["--calls", "setuid,setgid"]);
    let all = Trace::start(&place, &daemon, &["--continued", "-c", "execve"]);
    for container in [&one, &other] {
        container.sh(
            "mkdir -p /etc; echo nobody:x:65534:65534::/:/bin/true >/etc/passwd
            touch /work/f; chown 1:1 /work/f; chown 2:2 /work/f; su nobody",
        );
    }
    for container in [&one, &other] {
        let name = format!("[{}] ", container.id);
        calls.wait_for(&[&name, "setuid(65534) = 0"]);
        let execve = all.wait_for(&[&name, "execve(\"/bin/true\", 0x"]);
        assert!(execve.ends_with(" = ? (left to the kernel)"), "{execve}");
    }
    named.wait_for(&["chown(\"/work/f\", 2, 2) = 0"]);
    for line in named.shown().lines() {
        assert!(line.starts_with(&format!("[{}] ", one.id)), "{line}");
    }
    for line in calls.shown().lines() {
        assert!(
            line.contains(" setuid(") || line.contains(" setgid("),
            "{line}"
        );
    }
    for line in all.shown().lines() {
        assert!(line.contains(" execve("), "{line}");
    }
    let message = run(&mut place.subuidless(["trace", "-c", "read"])).error();
    assert!(message.contains("docs/syscalls.md lists them"), "{message}");
    one.stop();
    other.stop();
}

#[test]
fn what_a_container_says_cannot_reach_the_terminal() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundle = Bundle::new(&place, &daemon);
    let trace = Trace::start(&place, &daemon, &["--continued"]);
    let script = r#"cd /work; e=$(printf '\033]0;owned\007\nx\233'); cp /bin/busybox "$e"
        printf '%s' "$e" >/proc/self/comm || true; mkdir "d$e"; chown 3:3 "d$e"
        ln -s /work/f "l$e"; chown -h 4:4 "l$e"; touch end; chown 9:9 end"#;
    bundle.sh(script);
    trace.wait_for(&["\"end\", 9, 9) = 0"]);
    let chown = trace.wait_for(&["owned", "3, 3) = 0"]);
    assert!(
        chown.contains(r#""d\x1b]0;owned\x07\nx\x9b", 3, 3)"#),
        "{chown}"
    );
    let shown = fs::read(&trace.output).unwrap();
    let is_plain = |byte: &u8| *byte == b'\n' || (0x20..0x7f).contains(byte);
    assert!(shown.iter().all(is_plain), "{}", shown.escape_ascii());
    assert!(trace.shown().lines().all(|line| line.starts_with('[')));
}

#[test]
fn a_tracer_that_does_not_read_holds_up_nobody_and_is_told_what_it_missed() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundle = Bundle::new(&place, &daemon).with_program(&example("target"));
    let script = "exec /target steady /work 2 >/work/said 2>&1";
    let container_one = bundle.start(&["/bin/sh", "-euc", script]);
    let trace = Trace::start(&place, &daemon, &[&container_one.id]);
    trace.wait_for(&["chown"]);
    let pid = Pid::from_raw(trace.child.id().cast_signed());
    kill(pid, Signal::SIGSTOP).unwrap();
    let calls = || {
        let status = status(&place);
        container(&status, &container_one)["calls"]["total"]
            .as_u64()
            .unwrap()
    };
    // More than any pipe holds.
    let before = calls();
    until("the container goes on making calls", || {
        (calls() > before + 40_000).then_some(())
    });
    kill(pid, Signal::SIGCONT).unwrap();
    trace.wait_for(&[" calls are missing here: they came faster than they were read"]);
    fs::write(bundle.rootfs().join("work/stop"), "").unwrap();
    until("the container ends", || {
        (!container_one.is_running()).then_some(())
    });
    let said = fs::read_to_string(bundle.rootfs().join("work/said")).unwrap();
    assert!(said.ends_with("all calls went well\n"), "{said}");
}

#[test]
fn a_tracer_that_dies_is_forgotten_by_everybody() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundle = Bundle::new(&place, &daemon);
    let container_one = bundle.start(&["/bin/sleep", "1000000"]);
    let worker = place.workers_of(&container_one.id)[0];
    let fds = |pid: Pid| fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    // It has joined by now, and nobody has written a line.
    let before = until("the worker has joined", || {
        let fds = fds(worker);
        let status = status(&place);
        (container(&status, &container_one)["processes"] == json!([container_one.init.as_raw()]))
            .then_some((fds, daemon.open_fds().len()))
    });
    let mut trace = Trace::start(&place, &daemon, &["-c", "setgroups"]);
    until("the worker is told", || {
        (fds(worker) > before.0).then_some(())
    });
    trace.child.kill().unwrap();
    trace.child.wait().unwrap();
    until("they have closed what was open for it", || {
        (fds(worker) == before.0 && daemon.open_fds().len() == before.1).then_some(())
    });
    daemon.wait_for(&["not traced any more"]);
    container_one.sh("touch /work/f; chown 1:1 /work/f; chown 2:2 /work/f");
    container_one.stop();
}

#[test]
fn a_trace_goes_on_when_a_worker_or_the_daemon_dies() {
    let place = Place::new();
    let mut daemon = Daemon::start(&place);
    let bundle = Bundle::new(&place, &daemon).under(Runtime::Runc, &daemon);
    let script = "cd /work; touch f; mkfifo one two; chown 1:1 f; read word <one; chown 2:2 f
        read word <two; chown 3:3 f
        exec sleep 1000000";
    let mut trace = Trace::start(&place, &daemon, &[]);
    let container_one = bundle.start(&["/bin/sh", "-euc", script]);
    trace.wait_for(&["\"f\", 1, 1) = 0"]);
    kill(place.workers_of(&container_one.id)[0], Signal::SIGKILL).unwrap();
    daemon.wait_for(&["worker died"]);
    let work = bundle.rootfs().join("work");
    fs::write(work.join("one"), "go\n").unwrap();
    trace.wait_for(&["\"f\", 2, 2) = 0"]);
    daemon.signal(Signal::SIGKILL);
    daemon.wait();
    until("it says that the daemon has exited", || {
        let said = fs::read_to_string(&trace.said).unwrap();
        said.contains("the daemon has exited").then_some(())
    });
    fs::write(work.join("two"), "go\n").unwrap();
    trace.wait_for(&["\"f\", 3, 3) = 0"]);
    container_one.stop();
    // With the last worker its pipe ends, and with the pipe the command.
    let status = until("the trace ends", || trace.child.try_wait().unwrap());
    assert!(status.success(), "{status}");
}

#[test]
fn more_tracers_than_there_is_room_for_are_refused() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let some: Vec<Trace> = (0..16)
        .map(|_| Trace::start(&place, &daemon, &["nobody"]))
        .collect();
    let said = fs::read_to_string(&some[0].said).unwrap();
    assert!(
        said.contains("there is no container nobody: waiting for it"),
        "{said}"
    );
    let message = run(&mut place.subuidless(["trace"])).error();
    assert!(message.contains("16 others trace already"), "{message}");
    drop(some);
    until("there is room again", || {
        (daemon.lines(&["not traced any more"]).len() == 16).then_some(())
    });
    Trace::start(&place, &daemon, &[]);
}

#[test]
fn a_trace_ends_with_the_command_of_a_name_and_does_not_keep_that() {
    let place = Place::new();
    let script = "until test -e ready; do touch f; chown 5:6 f; done";
    let arguments = ["--name", "seen", "--uts", "--", "sh", "-euc", script];
    let mut command = launch(&place, &arguments).spawn().unwrap();
    let output = place.path("seen.out");
    let mut trace = until("there is something to trace", || {
        let file = fs::File::create(&output).unwrap();
        let mut tracer = place.subuidless(["trace", "seen"]);
        let mut tracer = tracer.stdin(Stdio::null()).stdout(file).spawn().unwrap();
        let sees = until("it traces, or has ended", || {
            let sees = fs::read_to_string(&output).unwrap().contains("\"f\", 5, 6");
            (sees || tracer.try_wait().unwrap().is_some()).then_some(sees)
        });
        sees.then_some(tracer)
    });
    fs::write(place.path("home/ready"), "").unwrap();
    assert!(command.wait().unwrap().success());
    let status = until("the trace ends", || trace.try_wait().unwrap());
    assert!(status.success(), "{status}");
    until("nothing of it is left", || {
        let names = fs::read_dir(place.path("run/subuidless/run")).unwrap();
        (names.count() == 0 && place.processes().is_empty()).then_some(())
    });
}
