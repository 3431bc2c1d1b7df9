//! `subuidless status`: daemons, containers, their processes and their calls.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use common::status::{container, status};
use common::{Bundle, Daemon, Peer, Place, Running, Target, run, until};

fn syscall<'a>(container: &'a Value, name: &str) -> &'a Value {
    container["syscalls"]
        .as_array()
        .unwrap()
        .iter()
        .find(|syscall| syscall["name"] == name)
        .unwrap_or_else(|| panic!("{name} is not in {container}"))
}

/// The processes of `running` by another way: everything in the pid namespace of its init.
fn processes_in(running: &Running) -> Vec<u64> {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid"));
    let own = namespace(&running.init.to_string()).unwrap();
    let mut found: Vec<u64> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|pid| namespace(pid).is_ok_and(|other| other == own))
        .filter_map(|pid| pid.parse().ok())
        .collect();
    found.sort_unstable();
    found
}

#[test]
fn status_tells_containers_their_processes_and_their_calls() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundle = Bundle::new(&place, &daemon);
    let script = "cd /work; touch f; for i in 1 2 3; do chown $i:$i f; done; chown 1:1 gone || true
        stat -c %u f; sleep 1000000 & : >ready; wait";
    let container_one = bundle.start(&["/bin/sh", "-euc", script]);
    let other = bundle.start(&["/bin/sleep", "1000000"]);
    other.sh("touch /work/g; chown 5:5 /work/g");
    let ready = bundle.rootfs().join("work/ready");
    until("the container is ready", || ready.exists().then_some(()));
    let status = status(&place);
    assert_eq!(status["daemons"][0]["pid"], daemon.pid().as_raw());
    assert_eq!(
        status["daemons"][0]["socket"],
        daemon.socket.to_str().unwrap()
    );

    let one = container(&status, &container_one);
    assert_eq!(one["bundle"], bundle.directory().to_str().unwrap());
    assert_eq!(one["status"], "creating");
    let workers = place.workers_of(&container_one.id);
    assert_eq!(one["workers"], json!([workers[0].as_raw()]));
    assert_eq!(one["worker_deaths"], 0);
    // The shell and its sleep, and neither the worker nor those of the other container.
    let processes = processes_in(&container_one);
    assert_eq!(processes.len(), 2, "{processes:?}");
    assert_eq!(one["processes"], json!(processes));
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let since = one["since"].as_u64().unwrap();
    assert!(now.as_secs().abs_diff(since) < 600, "{since}");

    // busybox calls lchown or chown.
    let chowns: Vec<&Value> = one["syscalls"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| ["chown", "lchown", "fchownat"].contains(&one["name"].as_str().unwrap()))
        .collect();
    let sum = |key: &str| {
        chowns
            .iter()
            .map(|one| one[key].as_u64().unwrap())
            .sum::<u64>()
    };
    assert_eq!((sum("answered"), sum("continued")), (3, 0), "{chowns:?}");
    let execve = syscall(one, "execve");
    assert_eq!(execve["total"], execve["continued"]);
    for one in one["syscalls"].as_array().unwrap() {
        let number = |key: &str| one[key].as_u64().unwrap();
        let parts = number("continued") + number("answered") + number("failed");
        assert_eq!(number("total"), parts, "{one}");
        assert!(number("p50_ns") <= number("p90_ns") && number("p90_ns") <= number("p99_ns"));
        assert!(number("p50_ns") > 0 && number("p99_ns") < 600_000_000_000);
    }

    let text = run(&mut place.subuidless(["status"])).ok();
    let line = text
        .lines()
        .find(|line| line.starts_with(&container_one.id));
    let words: Vec<&str> = line.unwrap().split_whitespace().collect();
    assert_eq!(
        words[2..4],
        [workers[0].to_string().as_str(), "2"],
        "{text}"
    );
    assert!(text.lines().next().unwrap().starts_with("CONTAINER "));
    container_one.stop();
    other.stop();
    until("no container is left", || {
        let status = run(&mut place.subuidless(["status"])).ok();
        (status == "no container is served\n").then_some(())
    });
}

#[test]
fn the_processes_of_exec_and_those_in_namespaces_of_their_own_are_the_containers() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundle = Bundle::new(&place, &daemon);
    let container_one = bundle.start(&["/bin/sleep", "1000000"]);
    container_one.sh("unshare -m sleep 1000000 </dev/null >/dev/null 2>&1 &");
    let all = until("three processes run", || {
        let processes = processes_in(&container_one);
        let unshared = processes.iter().any(|pid| {
            let of = |pid: u64| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
            let init = u64::try_from(container_one.init.as_raw()).unwrap();
            of(*pid).is_some() && of(*pid) != of(init)
        });
        (processes.len() == 2 && unshared).then_some(processes)
    });
    let status = status(&place);
    let one = container(&status, &container_one);
    assert_eq!(one["processes"], json!(all));
    assert_eq!(one["listeners"], 2);
    container_one.stop();
}

#[test]
fn status_goes_on_counting_after_a_worker_and_after_a_daemon() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundle = Bundle::new(&place, &daemon);
    let script = "cd /work; touch f; chown 1:1 f; mkfifo go; read word <go; chown 2:2 f
        : >done; exec sleep 1000000";
    let container_one = bundle.start(&["/bin/sh", "-euc", script]);
    let fifo = bundle.rootfs().join("work/go");
    until("the container waits", || fifo.exists().then_some(()));
    let before = status(&place);
    let before = container(&before, &container_one);
    let worker = before["workers"][0].as_i64().unwrap();
    kill(Pid::from_raw(worker.try_into().unwrap()), Signal::SIGKILL).unwrap();
    let find_worker = |known: i64| {
        until("there is another worker", || {
            let status = status(&place);
            let found = container(&status, &container_one)["workers"][0].as_i64();
            found.filter(|found| *found != known)
        })
    };
    find_worker(worker);
    fs::write(&fifo, "go\n").unwrap();
    let done = bundle.rootfs().join("work/done");
    until("the container goes on", || done.exists().then_some(()));
    let after = status(&place);
    let after = container(&after, &container_one);
    assert_eq!(after["worker_deaths"], 1);
    assert_eq!(after["since"], before["since"]);
    let total = |status: &Value| status["calls"]["total"].as_u64().unwrap();
    assert!(total(after) > total(before));

    daemon.terminate();
    let _next = Daemon::start(&place);
    let adopted = until("the next daemon has taken over", || {
        let status = status(&place);
        (status["containers"].as_array().unwrap().len() == 1).then_some(status)
    });
    let adopted = container(&adopted, &container_one);
    assert!(total(adopted) >= total(after));
    assert_eq!(adopted["since"], before["since"]);
    assert_eq!(adopted["workers"], after["workers"]);
    container_one.stop();
}

#[test]
fn without_a_daemon_status_is_empty_and_fails_only_for_one_that_is_named() {
    let place = Place::new();
    let default = place.runtime_directory().join("subuidless.sock");
    let says_nothing = |change: fn(&mut Command) -> &mut Command| {
        let text = run(change(&mut place.subuidless(["status"]))).ok();
        assert_eq!(text, "no container is served, and no daemon listens\n");
    };
    says_nothing(|command| command);
    let empty = run(&mut place.subuidless(["status", "--json"])).ok();
    let empty: Value = serde_json::from_str(&empty).unwrap();
    assert_eq!(empty, json!({"daemons": [], "containers": []}));
    // What a killed one left counts for nothing.
    let mut daemon = Daemon::start(&place);
    daemon.signal(Signal::SIGKILL);
    daemon.wait();
    assert!(default.exists());
    says_nothing(|command| command);
    says_nothing(|command| command.env_remove("XDG_RUNTIME_DIR"));
    let default = default.to_str().unwrap();
    for (words, named) in [
        (&["status", "--socket", "missing.sock"][..], "missing.sock"),
        (&["status", "--socket", default], default),
        (&["trace"], default),
    ] {
        let message = run(&mut place.subuidless(words)).error();
        let expected = format!("no daemon listens on {named}");
        assert!(message.contains(&expected), "{message}");
    }
}

#[test]
fn every_supervisor_in_the_runtime_directory_is_asked_and_dead_ones_are_not() {
    let place = Place::new();
    let directory = place.runtime_directory().join("subuidless");
    fs::create_dir(&directory).unwrap();
    place.give_to_user(&directory);
    let supervisor = |name: &str| {
        let socket = directory.join(name);
        let mut command = place.subuidless(["serve"]);
        command.arg(&socket);
        Daemon::spawn(&place, command, socket)
    };
    let [one, other] = ["a.sock", "b.sock"].map(supervisor);
    let mut dead = supervisor("c.sock");
    dead.signal(Signal::SIGKILL);
    dead.wait();
    let found = status(&place);
    let pids: Vec<&Value> = found["daemons"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["pid"])
        .collect();
    assert_eq!(pids, [one.pid().as_raw(), other.pid().as_raw()]);
    let bundle = Bundle::new(&place, &other);
    let mut command = place.subuidless(["status", "--json", "--socket"]);
    command.arg(&one.socket);
    let only: Value = serde_json::from_str(&run(&mut command).ok()).unwrap();
    assert_eq!(only["daemons"].as_array().unwrap().len(), 1);
    assert_eq!(bundle.sh("touch f; chown 1:2 f; stat -c %u:%g f"), "1:2\n");
}

#[test]
fn a_daemon_of_somebody_else_is_not_believed() {
    let place = Place::new();
    let path = place.path("home/other.sock");
    let listener = UnixListener::bind(&path).unwrap();
    common::set_mode(&path, 0o666);
    let ask = |place: &Place| {
        let mut command: Command = place.subuidless(["status", "--socket"]);
        command.arg(&path);
        run(&mut command).error()
    };
    let message = ask(&place);
    assert!(message.contains("another user"), "{message}");
    drop(listener);
}

#[test]
fn questions_that_are_none_are_refused() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let before = daemon.open_fds();
    let questions = [
        json!({"subuidless": 5, "message": {"ask": {"what": "secrets"}}}).to_string(),
        json!({"subuidless": 7, "message": {"ask": {"what": "status"}}}).to_string(),
        json!({"subuidless": 5, "message": {"ask": {"what": "status"}}, "pad": "x".repeat(20_000)})
            .to_string(),
    ];
    for (before, question) in questions.iter().enumerate() {
        let peer = Peer::connect(&place, &daemon);
        peer.send(question.as_bytes(), &[]);
        peer.finish();
        peer.wait_for_close();
        until("it is refused", || {
            (daemon.lines(&["refused"]).len() == before + 1).then_some(())
        });
    }
    // With an fd it is a runtime's message, and none that is understood.
    let target = Target::start(&place);
    let peer = Peer::connect(&place, &daemon);
    peer.send(
        br#"{"subuidless":6,"message":{"ask":{"what":"status"}}}"#,
        &[target.listener()],
    );
    peer.finish();
    peer.wait_for_close();
    drop(target);
    until("every fd is closed", || {
        (daemon.open_fds() == before).then_some(())
    });
    status(&place);
}

#[test]
fn what_run_has_started_can_be_looked_at_too_and_leaves_nothing_to_ask() {
    let place = Place::new();
    let none = "no container is served, and no daemon listens\n";
    let is_quiet = || run(&mut place.subuidless(["status"])).ok() == none;
    assert!(is_quiet());
    let script = "mkfifo go; echo >ready; read word <go; touch f; chown 5:6 f; echo >done
        exec sleep 1000000";
    let mut command = place.subuidless(["run", "--", "sh", "-euc", script]);
    let mut child = command.stdin(Stdio::null()).spawn().unwrap();
    let home = place.path("home");
    until("the command runs", || {
        home.join("ready").exists().then_some(())
    });
    let id = format!("run-{}", child.id());
    let found = status(&place);
    let [one] = found["containers"].as_array().unwrap().as_slice() else {
        panic!("{found:#}");
    };
    assert_eq!(one["id"], id.as_str());
    assert_eq!(one["processes"], json!([child.id()]));
    let output = place.path("trace.out");
    let mut trace = place.subuidless(["trace", "-c", "chown,lchown,fchownat", &id]);
    trace.stdout(fs::File::create(&output).unwrap());
    let mut trace = trace.spawn().unwrap();
    // Whether it watches already is seen at the worker: beside its standard error the pipe is the
    // only one that it has.
    let worker = one["workers"][0].as_u64().unwrap();
    until("it watches", || {
        let fds = fs::read_dir(format!("/proc/{worker}/fd")).ok()?;
        fds.flatten()
            .filter(|fd| fd.file_name() != "2")
            .filter_map(|fd| fs::read_link(fd.path()).ok())
            .find(|fd| fd.to_string_lossy().starts_with("pipe:"))
    });
    fs::write(home.join("go"), "go\n").unwrap();
    until("the command has gone on", || {
        home.join("done").exists().then_some(())
    });
    let line = until("its chown is shown", || {
        let shown = fs::read_to_string(&output).unwrap();
        shown.ends_with('\n').then_some(shown)
    });
    assert!(line.starts_with(&format!("[{id}] ")), "{line}");
    assert!(
        line.contains("\"f\", 5, 6") && line.ends_with(" = 0\n"),
        "{line}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    let ended = until("the trace ends", || trace.try_wait().unwrap());
    assert!(ended.success(), "{ended}");
    until("nobody is left to ask", || {
        place.processes().is_empty().then_some(())
    });
    assert!(is_quiet());
}

#[test]
fn containers_of_run_are_among_those_that_are_shown() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundle = Bundle::new(&place, &daemon);
    let rootfs = bundle.rootfs();
    let mut command = place.subuidless(["run", "--name", "looked-at", "--rootfs"]);
    command
        .arg(&rootfs)
        .args([
            "--",
            "/bin/sh",
            "-c",
            "cd /work; touch f; chown 1:2 f; : >ready; exec sleep 1000000",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    until("the container runs", || {
        rootfs.join("work/ready").exists().then_some(())
    });
    let found = status(&place);
    let daemons = found["daemons"].as_array().unwrap();
    assert_eq!(daemons.len(), 2, "{found:#}");
    let [one] = found["containers"].as_array().unwrap().as_slice() else {
        panic!("{found:#}");
    };
    assert_eq!(one["id"], "looked-at");
    assert_eq!(one["processes"].as_array().unwrap().len(), 1, "{found:#}");
    let socket = place.runtime_directory().join("subuidless/sock/looked-at");
    assert_eq!(one["socket"], socket.to_str().unwrap());
    let init = one["processes"][0].clone();
    child.kill().unwrap();
    child.wait().unwrap();
    // Its supervisor ends it, and must not be ended by the end of this test before.
    until("the container ends", || {
        let stat = fs::read_to_string(format!("/proc/{init}/stat")).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    });
}
