//! Containers of `subuidless run` and their names: `exec`, `ps`, `kill`, and what is left of them.

mod common;

use std::fs;

use nix::sys::signal::{Signal, kill};

use serde_json::Value;

use common::house::House;
use common::{Daemon, until};

const RUNTIMES: [&str; 2] = ["crun", "runc"];

#[test]
fn exec_ps_and_kill_are_for_what_runs() {
    let house = House::new();
    for runtime in RUNTIMES {
        house
            .run(&[
                "--runtime",
                runtime,
                "--detach",
                "--user",
                "web",
                "--name",
                "one",
                "--env",
                "A=b",
                "sleep",
                "1000",
            ])
            .ok();
        assert_eq!(house.names(), ["one"]);
        let exec = |arguments: &[&str]| house.other(&[&["exec"], arguments].concat());
        // As the container's own process is, unless it is told otherwise.
        let ids = ["one", "sh", "-c", "id -u; id -G; echo $A; hostname; pwd"];
        assert_eq!(exec(&ids).ok(), "998\n997 50\nb\none\n/\n");
        let ids = [
            "--user",
            "root",
            "--cwd",
            "/work",
            "--env",
            "A=c",
            "one",
            "sh",
            "-c",
            "id -u; id -G; echo $A $HOME; pwd",
        ];
        assert_eq!(exec(&ids).ok(), "0\n0\nc /root\n/work\n");
        assert_eq!(
            exec(&[
                "--user",
                "70000",
                "one",
                "sh",
                "-c",
                "touch /tmp/$0; id -u",
                runtime
            ])
            .ok(),
            "70000\n"
        );
        assert_eq!(
            exec(&[
                "--user",
                "0",
                "one",
                "stat",
                "-c",
                "%u",
                &format!("/tmp/{runtime}")
            ])
            .ok(),
            "70000\n"
        );
        assert_eq!(exec(&["one", "sh", "-c", "exit 3"]).status.code(), Some(3));
        let table = house.other(&["ps"]).ok();
        assert!(
            table.contains("one") && table.contains("sleep 1000"),
            "{table}"
        );
        house.other(&["kill", "one"]).ok();
        house.is_left_alone();
        assert!(house.names().is_empty());
    }
}

#[test]
fn of_several_who_want_a_name_at_once_one_has_it() {
    let house = House::new();
    for _ in 0..10 {
        let start = || {
            house
                .command(&["--name", "same", "--", "sleep", "1.5"])
                .stderr(std::process::Stdio::null())
                .spawn()
                .expect("subuidless run")
        };
        let mut children = [start(), start(), start()];
        let codes = children
            .each_mut()
            .map(|child| child.wait().unwrap().code());
        let winners = codes.iter().filter(|code| **code == Some(0)).count();
        assert_eq!(winners, 1, "{codes:?}");
        assert!(
            codes.iter().all(|code| matches!(code, Some(0 | 125))),
            "{codes:?}"
        );
    }
    // One after the other there is a place for each.
    for _ in 0..20 {
        house.run(&["--name", "same", "--", "true"]).ok();
    }
    house.is_left_alone();
}

#[test]
fn no_name_of_a_container_is_the_name_of_anything_else() {
    let house = House::new();
    let names = [
        "a",
        "a.sock",
        "lock",
        "run",
        "sock",
        "subuidless.log",
        "userns-1",
        "userns-1.sock",
    ];
    let socket = house
        .place
        .runtime_directory()
        .join("subuidless/userns-1.sock");
    let mut command = house.place.subuidless(["serve"]);
    command.arg(&socket);
    house.run(&["--name", "first", "--", "true"]).ok();
    let daemon = Daemon::spawn(&house.place, command, socket.clone());
    for name in names {
        let options = ["--detach", "--name", name, "--", "sleep", "1000000"];
        let mut command = house.command(&options);
        command.stdout(std::process::Stdio::null());
        assert!(command.status().expect("subuidless run").success());
    }
    assert_eq!(house.names(), names);
    let status: Value =
        serde_json::from_str(&house.other(&["status", "--json"]).ok()).expect("JSON");
    let served = status["containers"].as_array().expect("a list");
    assert_eq!(served.len(), names.len(), "{status:#}");
    assert_eq!(
        status["daemons"].as_array().expect("a list").len(),
        1 + names.len()
    );
    for name in names {
        assert_eq!(
            house.other(&["exec", name, "hostname"]).ok(),
            format!("{name}\n")
        );
        house.other(&["kill", name]).ok();
    }
    until("all have ended", || house.names().is_empty().then_some(()));
    assert!(socket.exists());
    daemon.terminate();
}

#[test]
fn nothing_is_left_whoever_dies_first() {
    let house = House::new();
    let start = |name: &str, runtime: &str| {
        let sign = house.rootfs.join("work/f");
        // That of the one before.
        let _ = fs::remove_file(&sign);
        let child = house
            .command(&[
                "--name",
                name,
                "--runtime",
                runtime,
                "--",
                "sh",
                "-c",
                "while :; do touch /work/f; sleep 0.05; done",
            ])
            .spawn()
            .expect("subuidless run");
        until("its program runs", || fs::remove_file(&sign).ok());
        // runc looks for it until then, and would say that the container is dead already.
        let state = house.place.runtime_directory().join("subuidless/run");
        let fifo = state.join(format!("{name}/state/{name}/exec.fifo"));
        until("the runtime has seen it run", || {
            (!fifo.exists()).then_some(())
        });
        (child, house.init(name))
    };
    for runtime in RUNTIMES {
        // The runtime, which waits for the container.
        let (mut child, _) = start("a", runtime);
        child.kill().unwrap();
        child.wait().unwrap();
        house.is_left_alone();
        // The container's first process.
        let (mut child, init) = start("b", runtime);
        kill(init, Signal::SIGKILL).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(137));
        house.is_left_alone();
        // The supervisor: the container goes on, its worker ends with it, and its name can be used
        // again.
        let (mut child, init) = start("c", runtime);
        kill(house.place.supervisor(), Signal::SIGKILL).unwrap();
        kill(init, Signal::SIGKILL).unwrap();
        child.wait().unwrap();
        until("no process is left", || {
            house.place.processes().is_empty().then_some(())
        });
        assert_eq!(house.sh(&["--name", "c"], "echo again"), "again\n");
        house.is_left_alone();
    }
}

#[test]
fn what_a_killed_run_leaves_is_removed_by_the_next_and_what_lives_is_not() {
    let house = House::new();
    for runtime in RUNTIMES {
        let options = [
            "--runtime",
            runtime,
            "--name",
            "old",
            "--",
            "sleep",
            "1000000",
        ];
        let mut child = house.command(&options).spawn().expect("subuidless run");
        let init = house.init("old");
        // Until then the runtime needs the supervisor.
        until("its program runs", || {
            let comm = fs::read_to_string(format!("/proc/{init}/comm")).ok()?;
            (comm == "sleep\n").then_some(())
        });
        kill(house.place.supervisor(), Signal::SIGKILL).unwrap();
        // The container goes on, and is no leftover.
        house.run(&["--name", "next", "--", "true"]).ok();
        assert_eq!(house.init("old"), init);
        let told = house.run(&["--name", "old", "--", "true"]).error();
        assert!(
            told.contains("a container named old is already running"),
            "{told}"
        );
        child.kill().unwrap();
        child.wait().unwrap();
        house.other(&["kill", "old"]).ok();
        until("no process is left", || {
            house.place.processes().is_empty().then_some(())
        });
        let directory = house.place.runtime_directory().join("subuidless");
        assert!(directory.join("run/old").exists() && directory.join("sock/old").exists());
        house.run(&["--name", "next", "--", "true"]).ok();
        house.is_left_alone();
    }
}
