//! Under low limits of setrlimit(2) everything works, or says which limit is in the way, where that
//! could be raised.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::process::Command;

use serde_json::{Value, json};

use common::{Bundle, Place, Ran, Runtime, Started, run, small_rootfs};

const OWNERS: &str = "touch f; chown 42:43 f; stat -c %u:%g f";

/// `subuidless` under limits, as prlimit(1) takes them.
fn under(place: &Place, limits: &str, arguments: &[&str]) -> Ran {
    let mut command: Command = place.as_user("prlimit");
    command.arg(limits).arg(place.binary()).args(arguments);
    run(&mut command)
}

/// A program in a user namespace of its own, where the limit of processes counts only these.
fn alone(place: &Place, program: &str) -> Command {
    let mut command = place.as_user("unshare");
    command.args(["-U", "--map-current-user", program]);
    command
}

#[track_caller]
fn is_refused(ran: Ran, code: i32, limit: &str) {
    assert_eq!(ran.status.code(), Some(code), "{}", ran.stderr);
    assert!(
        ran.stderr.contains(limit) && ran.stderr.contains("raise the limit where it was lowered"),
        "{limit}: {}",
        ran.stderr
    );
}

#[test]
fn what_cannot_work_is_refused_and_the_limit_is_named() {
    let place = Place::new();
    let rootfs = small_rootfs(&place);
    let rootfs = rootfs.to_str().unwrap();
    for (limits, words) in [
        (
            "--nofile=16:16",
            "the limit of open files (ulimit -n) is 16",
        ),
        (
            "--fsize=1000000:1000000",
            "the limit of file sizes (ulimit -f) is 976",
        ),
        (
            "--nproc=9:9",
            "the limit of user processes (ulimit -u) is 9",
        ),
        (
            "--as=200000000:200000000",
            "the limit of virtual memory (ulimit -v) is 195312, and has to be 262144 or more",
        ),
    ] {
        let told =
            |arguments: &[&str], code| is_refused(under(&place, limits, arguments), code, words);
        told(&["run", "--", "true"], 125);
        told(&["run", "--rootfs", rootfs, "--", "true"], 125);
        told(&["serve"], 1);
        told(&["fakeroot", "--", "true"], 125);
        told(&["podman", "--", "info"], 125);
        let text = under(&place, limits, &["check", "--json"]);
        let found: Value = serde_json::from_slice(&text.stdout).unwrap();
        let checks = found["checks"].as_array().unwrap();
        let line = checks.iter().find(|line| line["name"] == "limits").unwrap();
        assert_eq!(line["result"], "fail", "{line}");
        assert!(line["reason"].as_str().unwrap().contains(words), "{line}");
    }
}

#[test]
fn where_ids_cannot_be_changed_only_what_changes_none_is_run() {
    let place = Place::new();
    let rootfs = small_rootfs(&place);
    let rootfs = rootfs.to_str().unwrap();
    let limit = "--locks=100:100";
    let words = "the limit of file locks (ulimit -x) is 100, and has to be unlimited";
    let ran = under(&place, limit, &["run", "--", "sh", "-euc", OWNERS]);
    assert!(ran.stderr.contains(words), "{}", ran.stderr);
    assert_eq!(ran.ok(), "42:43\n");
    is_refused(
        under(&place, limit, &["run", "--user", "5", "--", "id"]),
        125,
        words,
    );
    is_refused(
        under(&place, limit, &["run", "--rootfs", rootfs, "id"]),
        125,
        words,
    );
}

#[test]
fn soft_limits_are_the_commands_alone() {
    let place = Place::new();
    for (limits, option) in [
        ("--nofile=20:", "-n"),
        ("--fsize=1024000:", "-f"),
        ("--as=1024000000:", "-v"),
    ] {
        let script =
            format!("{OWNERS}; ln -s f l; chown -h 5:6 l; stat -c %u:%g l; ulimit {option}");
        let kept = limits.trim_end_matches(':').rsplit_once('=').unwrap().1;
        let kept: u64 = kept.parse().unwrap();
        // dash counts blocks of 512 bytes, and memory in KiB.
        let unit = match option {
            "-f" => 512,
            "-v" => 1024,
            _ => 1,
        };
        let ran = under(&place, limits, &["run", "--", "sh", "-euc", &script]);
        assert_eq!(
            ran.ok(),
            format!("42:43\n5:6\n{}\n", kept / unit),
            "{limits}"
        );
        std::fs::remove_file(place.path("home/l")).unwrap();
    }
}

/// The side store must not take what the worker needs: a command would wait for it forever.
#[test]
fn in_little_address_space_there_is_room_for_all_parts() {
    let place = Place::new();
    let script = format!("{OWNERS}; ln -sf f l; chown -h 5:6 l; stat -c %u:%g l");
    for mebibytes in [256_u64, 290, 380, 1000, 2110] {
        let limit = format!("--as={0}:{0}", mebibytes << 20);
        let ran = under(&place, &limit, &["run", "--", "sh", "-euc", &script]);
        assert!(
            ran.stderr.contains("the limit of virtual memory"),
            "{}",
            ran.stderr
        );
        assert_eq!(ran.ok(), "42:43\n5:6\n", "{mebibytes}");
    }
}

#[test]
fn a_limit_of_locks_in_config_json_is_in_nobodys_way() {
    for runtime in [Runtime::Crun, Runtime::Runc] {
        let place = Place::new();
        let _started = Started(&place);
        let bundle = Bundle::fronted(&place, runtime).with_config(|config| {
            config["process"]["rlimits"] = json!([
                {"type": "RLIMIT_LOCKS", "soft": 10, "hard": 10},
                {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
            ]);
            config["process"]["user"] = json!({"uid": 999, "gid": 5});
        });
        assert_eq!(
            bundle.sh("id -u; id -g; ulimit -c"),
            "999\n5\n0\n",
            "{runtime:?}"
        );
    }
}

/// What batch systems limit as well, to what they limit it to.
#[test]
fn other_limits_are_in_nobodys_way() {
    let place = Place::new();
    let rootfs = small_rootfs(&place);
    let rootfs = rootfs.to_str().unwrap();
    let script = "cd /tmp; ln -s x l; : >f; chown -h 5:6 l f; stat -c %u:%g l f; rm l f";
    for limit in [
        "--memlock=0:0",
        "--stack=1048576:1048576",
        "--stack=unlimited:unlimited",
        "--core=0:0",
        "--data=67108864:67108864",
        "--rss=1000:1000",
        "--sigpending=0:0",
        "--msgqueue=0:0",
        "--nproc=48:48",
    ] {
        for words in [&["run"][..], &["run", "--rootfs", rootfs]] {
            let arguments = [words, &["--", "sh", "-euc", script]].concat();
            let mut command = alone(&place, "prlimit");
            command.arg(limit).arg(place.binary()).args(arguments);
            assert_eq!(run(&mut command).ok(), "5:6\n5:6\n", "{limit} {words:?}");
        }
    }
}

/// The limit of processes counts all that a user has.
#[test]
fn where_other_processes_use_up_the_limit_the_message_names_it() {
    let place = Place::new();
    let script = "for i in $(seq 60); do sleep 1000 & done; \
                  prlimit --nproc=62 \"$1\" run -- true; echo $?; \
                  kill $(jobs -p)";
    let mut command = alone(&place, "bash");
    command.args(["-c", script, "-"]).arg(place.binary());
    let ran = run(&mut command);
    assert!(ran.stderr.contains("`ulimit -u`"), "{}", ran.stderr);
    assert_eq!(ran.ok(), "125\n");
}
