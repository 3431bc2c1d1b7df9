//! The supervisor of `subuidless run` and its workers: a command goes on without them, and they end
//! with it.

mod common;

use std::fs;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use common::command::{is_left_alone, launch, sh};
use common::file_system::Disk;
use common::{Place, example, run, set_mode, small_rootfs, until};

/// A command that runs until it is told to end by a file, and then uses what is emulated.
fn start_waiting(place: &Place) -> std::process::Child {
    let script = "touch f; chown 5:6 f; touch ready; while ! test -e go; do sleep 0.01; done
        chown 7:8 f; stat -c %u:%g f >out";
    let child = launch(place, &["--", "sh", "-euc", script])
        .stdin(Stdio::null())
        .spawn()
        .expect("subuidless run");
    let home = place.path("home");
    until("the command is ready", || {
        home.join("ready").exists().then_some(())
    });
    child
}

fn go_on(place: &Place) {
    fs::write(place.path("home/go"), "").expect("a file");
    let out = place.path("home/out");
    until("the command has gone on", || {
        (fs::read_to_string(&out).ok()? == "7:8\n").then_some(())
    });
}

/// That would take longer than all the rest of the start.
#[test]
fn neither_the_supervisor_nor_the_first_worker_executes_a_program() {
    let place = Place::new();
    let log = place.path("home/strace");
    let mut command = place.as_user("strace");
    command.args(["-f", "-qq", "-e", "trace=execve,setsid", "-o"]);
    command.arg(&log).arg(place.binary());
    run(command.args(["run", "--", "stat", "/"])).ok();
    let log = fs::read_to_string(log).expect("what was executed");
    assert!(log.contains("\"stat\""), "{log}");
    // Both were traced.
    assert!(log.matches("setsid(").count() >= 2, "{log}");
    for mode in ["supervise", "worker"] {
        assert!(!log.contains(&format!("\"{mode}\"")), "{log}");
    }
}

#[test]
fn a_command_goes_on_when_its_supervisor_and_its_workers_are_killed_at_random() {
    let place = Place::new();
    let home = place.path("home");
    for name in ["target", "work"] {
        match name {
            "target" => drop(fs::copy(example(name), home.join(name)).unwrap()),
            _ => fs::create_dir(home.join(name)).unwrap(),
        }
        place.give_to_user(&home.join(name));
    }
    let mut child = launch(&place, &["--", "./target", "steady"])
        .arg(home.join("work"))
        .arg("2")
        .stdout(fs::File::create(home.join("said")).unwrap())
        .spawn()
        .expect("subuidless run");
    let rounds = || {
        let said = fs::read_to_string(home.join("said")).unwrap();
        said.matches("round").count()
    };
    let goes_on = || {
        let before = rounds();
        until("the command goes on making calls", || {
            (rounds() > before + 2).then_some(())
        });
    };
    goes_on();
    let guard = common::guard_of(&place, place.supervisor());
    until("the guard keeps the command", || {
        common::has_listener(guard).then_some(())
    });
    let mut dead = vec![place.supervisor()];
    kill(dead[0], Signal::SIGKILL).unwrap();
    for n in 0..common::many(20, 200) {
        let worker = until("there is a worker", || {
            let workers = place.workers().into_iter();
            let mut workers = workers.filter(|worker| !dead.contains(worker));
            workers.find(|worker| n == 0 || common::has_listener(*worker))
        });
        kill(worker, Signal::SIGKILL).unwrap();
        dead.push(worker);
        std::thread::sleep(std::time::Duration::from_millis(u64::from(n * 7 % 23)));
    }
    goes_on();
    fs::write(home.join("work/stop"), "").unwrap();
    let status = until("the command ends", || child.try_wait().unwrap());
    assert!(status.success());
    let said = fs::read_to_string(home.join("said")).unwrap();
    assert!(said.ends_with("all calls went well\n"), "{said}");
    is_left_alone(&place);
}

#[test]
fn a_killed_worker_is_replaced() {
    let place = Place::new();
    let mut child = start_waiting(&place);
    kill(place.workers()[0], Signal::SIGKILL).unwrap();
    go_on(&place);
    assert!(child.wait().unwrap().success());
    is_left_alone(&place);
}

#[test]
fn a_killed_supervisor_is_not_missed() {
    let place = Place::new();
    let mut child = start_waiting(&place);
    kill(place.supervisor(), Signal::SIGKILL).unwrap();
    go_on(&place);
    assert!(child.wait().unwrap().success());
    is_left_alone(&place);
}

/// While a runtime makes a container, it holds the listener, too: it would wait for an answer for
/// ever.
#[test]
fn a_supervisor_that_is_killed_before_there_is_another_process_ends_the_runtime() {
    let place = Place::new();
    let rootfs = small_rootfs(&place);
    // The supervisor is stopped before the runtime begins, and then never gets a call.
    let runtime = place.path("home/crun");
    let script = "#!/bin/sh\necho >\"$HOME/ready\"; until test -e \"$HOME/go\"; do sleep 0.01; done
        exec crun \"$@\"\n";
    fs::write(&runtime, script).expect("a script");
    set_mode(&runtime, 0o755);
    let options = [
        "--rootfs",
        rootfs.to_str().expect("UTF-8"),
        "--runtime",
        runtime.to_str().expect("UTF-8"),
        "--env",
        "HOME",
    ];
    for detach in [&[][..], &["--detach"]] {
        let mut command = launch(&place, &options);
        command.args(detach).args(["--", "true"]);
        let child = command.stderr(Stdio::piped()).spawn().expect("run");
        let home = place.path("home");
        until("the runtime is ready", || {
            home.join("ready").exists().then_some(())
        });
        let supervisor = place.supervisor();
        kill(supervisor, Signal::SIGSTOP).expect("stopping it");
        fs::write(home.join("go"), "").expect("a file");
        until("a call waits for an answer", || {
            let waits = |pid: &Pid| {
                let wchan = fs::read_to_string(format!("/proc/{pid}/wchan"));
                wchan.is_ok_and(|wchan| wchan.contains("seccomp"))
            };
            let mut processes = place.processes().into_iter();
            processes.any(|(pid, _)| waits(&pid)).then_some(())
        });
        kill(supervisor, Signal::SIGKILL).expect("killing it");
        let ended = child.wait_with_output().expect("waiting for run");
        let told = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(125), "{told}");
        assert!(told.contains("the supervisor of this command"), "{told}");
        let left: Vec<_> = place
            .processes()
            .into_iter()
            .map(|(pid, words)| (pid, String::from_utf8_lossy(&words).replace('\0', " ")))
            .collect();
        assert_eq!(left, [], "{detach:?}");
        for name in ["ready", "go"] {
            fs::remove_file(home.join(name)).expect("a file");
        }
    }
}

/// Its supervisor is killed, as soon as a worker has it, and its runtime directory is removed.
#[test]
fn a_container_goes_on_without_its_supervisor_and_without_its_files() {
    let place = Place::new();
    let rootfs = small_rootfs(&place);
    let script = "echo >/ready; until test -e /go; do sleep 0.01; done
        chown 5:6 /ready; stat -c %u:%g /ready; exit 7";
    let kill_after = |milliseconds| {
        std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        kill(place.supervisor(), Signal::SIGKILL).expect("killing it");
    };
    let remove = || {
        fs::remove_dir_all(place.runtime_directory().join("subuidless")).expect("its files");
    };
    let losses: [(&str, &dyn Fn()); 4] = [
        ("at once", &|| kill_after(0)),
        ("soon", &|| kill_after(10)),
        ("late", &|| kill_after(1000)),
        ("its files", &remove),
    ];
    for (name, lose) in losses {
        let options = ["--rootfs", rootfs.to_str().expect("UTF-8")];
        let mut command = launch(&place, &options);
        command.args(["--", "sh", "-c", script]);
        let child = command.stdout(Stdio::piped()).spawn().expect("run");
        until("the command is ready", || {
            rootfs.join("ready").exists().then_some(())
        });
        lose();
        fs::write(rootfs.join("go"), "").expect("a file");
        let ended = child.wait_with_output().expect("waiting for run");
        assert_eq!(ended.status.code(), Some(7), "{name}");
        assert_eq!(String::from_utf8_lossy(&ended.stdout), "5:6\n", "{name}");
        for file in ["ready", "go"] {
            fs::remove_file(rootfs.join(file)).expect("a file");
        }
    }
}

#[test]
fn a_process_that_outlives_the_command_is_served_to_its_end() {
    let place = Place::new();
    let script =
        "(while ! test -e go; do sleep 0.01; done; touch f; chown 7:8 f; stat -c %u:%g f >out) & :";
    sh(&place, script).ok();
    go_on(&place);
    is_left_alone(&place);
}

#[test]
fn the_file_system_that_a_command_was_started_in_is_not_kept_busy() {
    let place = Place::new();
    let mounted = Disk::new(&place, "mount -t tmpfs none $1").mount("other");
    let script = "cd /; sleep 1000000 </dev/null >/dev/null 2>&1 & echo $!";
    let mut command = launch(&place, &["--", "sh", "-euc", script]);
    let pid = run(command.current_dir(&mounted.point)).ok();
    mounted.unmount();
    let pid = pid.trim_end().parse().expect("the pid of sleep");
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    is_left_alone(&place);
}

#[test]
fn a_killed_command_leaves_nothing() {
    let place = Place::new();
    let mut child = start_waiting(&place);
    child.kill().unwrap();
    child.wait().unwrap();
    is_left_alone(&place);
    assert_eq!(sh(&place, "stat -c %u:%g f").ok(), "5:6\n");
}

#[test]
fn a_supervisor_and_its_workers_are_deaf_to_sigterm() {
    let place = Place::new();
    let mut child = start_waiting(&place);
    // As systemd and batch systems end whole groups of processes, but for the command itself, which
    // would end.
    for pid in [place.supervisor()].into_iter().chain(place.workers()) {
        kill(pid, Signal::SIGTERM).unwrap();
    }
    go_on(&place);
    assert!(child.wait().unwrap().success());
}
