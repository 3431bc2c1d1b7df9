//! The runtime front: crun and runc behind it, with nothing else set up. podman and buildah are in
//! podman.rs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use common::{
    Bundle, Daemon, Place, Runtime, Started, assert_same_lines, example, run, tool, until,
};

/// Runs with everything as it is where the front is called: one namespace with one mapped id.
const ME: &str = "id; cd /work; touch by-$(id -u); stat -c '%u:%g %n' by-*
    grep NoNewPrivs /proc/self/status; echo HOME=$HOME";

#[test]
fn a_bundle_runs_as_its_user_and_what_its_owner_wrote_stays() {
    for runtime in [Runtime::Crun, Runtime::Runc] {
        for privileges in [false, true] {
            let place = Place::new();
            let _started = Started(&place);
            let user = json!({"uid": 999, "gid": 5, "additionalGids": [7, 100_000]});
            let change = |config: &mut Value| {
                config["process"]["user"] = user.clone();
                config["process"]["noNewPrivileges"] = privileges.into();
                config["process"]["env"]
                    .as_array_mut()
                    .unwrap()
                    .retain(|variable| variable != "HOME=/root");
            };
            let bundle = Bundle::fronted(&place, runtime).with_config(change);
            let oracle = Bundle::oracle(&place).with_config(change);
            for bundle in [&bundle, &oracle] {
                common::set_mode(&bundle.rootfs().join("work"), 0o777);
                fs::write(
                    bundle.rootfs().join("etc/passwd"),
                    "root:x:0:0::/root:/bin/sh\nme:x:999:5::/home/me:/bin/sh\n",
                )
                .unwrap();
            }
            let expected = oracle.sh(ME);
            assert!(expected.contains("HOME=/home/me\n"), "{expected}");
            assert_eq!(bundle.sh(ME), expected, "{runtime:?}");
            let text = fs::read(bundle.directory().join("config.json")).unwrap();
            let config: Value = serde_json::from_slice(&text).unwrap();
            if runtime == Runtime::Crun {
                assert_eq!(config["process"]["user"], user);
                assert_eq!(config["linux"]["seccomp"], Value::Null);
            }
            assert_eq!(config["process"]["noNewPrivileges"], privileges);
        }
    }
}

#[test]
fn what_runc_reads_means_the_same_when_it_is_read_again() {
    let place = Place::new();
    let _daemon = Daemon::start(&place);
    let bundle = Bundle::fronted(&place, Runtime::Runc).with_config(|config| {
        config["process"]["user"] = json!({"uid": 999, "gid": 5, "additionalGids": [7]});
    });
    let expected = "uid=999 gid=5 groups=7\n";
    assert_eq!(bundle.sh("id"), expected);
    let path = bundle.directory().join("config.json");
    let once = fs::read(&path).unwrap();
    let command = bundle.runtime.run(&bundle, &place.name(), &[]);
    assert_eq!(run(&mut { command }).ok(), expected);
    assert_eq!(fs::read(&path).unwrap(), once);
}

/// `exec` of the runtime itself, with options.
fn exec_command(container: &common::Running, options: &[&str], script: &str) -> Command {
    let command = container.exec_command(&["sh", "-c", script]);
    let words: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let at = words.iter().rposition(|word| word == "exec").unwrap();
    let mut changed = Command::new(command.get_program());
    changed
        .args(&words[..=at])
        .args(options)
        .args(&words[at + 1..]);
    changed.env_clear();
    for (name, value) in command.get_envs() {
        changed.env(name, value.unwrap());
    }
    changed.current_dir(command.get_current_dir().unwrap());
    changed
}

fn exec(container: &common::Running, options: &[&str], script: &str) -> String {
    run(&mut exec_command(container, options, script)).ok()
}

#[test]
fn exec_takes_its_user_from_the_option_the_file_or_the_container() {
    for runtime in [Runtime::Crun, Runtime::Runc] {
        let place = Place::new();
        let _started = Started(&place);
        let bundle = Bundle::fronted(&place, runtime).with_config(|config| {
            config["process"]["user"] = json!({"uid": 999, "gid": 5, "additionalGids": [7]});
        });
        let container = bundle.start(&["/bin/sleep", "1000000"]);
        assert_eq!(exec(&container, &[], "id"), "uid=999 gid=5 groups=7\n");
        assert_eq!(
            exec(&container, &["--user", "33:34"], "id"),
            "uid=33 gid=34\n"
        );
        assert_eq!(exec(&container, &["-u", "0"], "id"), "uid=0 gid=0\n");
        if runtime == Runtime::Runc {
            let options = ["--user=33:34", "-g", "70000", "-g", "8"];
            assert_eq!(
                exec(&container, &options, "id"),
                "uid=33 gid=34 groups=8,70000\n"
            );
        }
        let process = place.path("home/process.json");
        let text = json!({
            "user": {"uid": 70000, "gid": 70001, "additionalGids": [70002]},
            "args": ["sh", "-c", "id; echo HOME=$HOME"], "env": ["PATH=/bin"], "cwd": "/",
            "noNewPrivileges": true,
        });
        fs::write(&process, text.to_string()).unwrap();
        let option = format!("--process={}", process.display());
        let seen = exec(&container, &[&option], "true");
        assert_eq!(
            seen, "uid=70000 gid=70001 groups=70002\nHOME=/\n",
            "{runtime:?}"
        );
        assert_eq!(fs::read_to_string(&process).unwrap(), text.to_string());
        container.stop();
    }
}

#[test]
fn a_set_user_id_program_gains_nothing_under_no_new_privs_and_its_owner_without() {
    let program = example("target");
    for runtime in [Runtime::Crun, Runtime::Runc] {
        for privileges in [false, true] {
            let place = Place::new();
            let _started = Started(&place);
            let change = |config: &mut Value| {
                config["process"]["user"] = json!({"uid": 999, "gid": 998});
                config["process"]["noNewPrivileges"] = privileges.into();
            };
            // First root makes it.
            let make = "cp /target /work/target; chown 5:6 /work/target; chmod 6755 /work/target
                chmod 777 /work";
            let both = [Bundle::oracle(&place), Bundle::fronted(&place, runtime)];
            let [oracle, ours] = both.map(|bundle| {
                let bundle = bundle.with_program(&program);
                bundle.sh(make);
                bundle
                    .with_config(change)
                    .run(&["/work/target", "identity"])
                    .ok()
            });
            let expected = if privileges { "999 998\n" } else { "5 6\n" };
            assert!(oracle.starts_with(expected), "{oracle}");
            assert_same_lines(oracle.as_bytes(), ours.as_bytes());
        }
    }
}

#[test]
fn into_a_container_that_notifies_nobody_the_runtime_goes_alone() {
    for runtime in [Runtime::Crun, Runtime::Runc] {
        let place = Place::new();
        let started = Started(&place);
        let bundle = Bundle::fronted(&place, runtime);
        bundle.fronted.set(false);
        let container = bundle.start(&["/bin/sleep", "1000000"]);
        bundle.fronted.set(true);
        assert_eq!(exec(&container, &[], "echo $(id -u)"), "0\n");
        let mut command = exec_command(&container, &["--user", "999"], "id");
        let said = run(&mut command).error();
        assert!(said.contains("nvalid argument"), "{said}");
        assert!(started.daemons().is_empty());
        container.stop();
    }
}

#[test]
fn a_hook_that_asks_the_daemon_takes_nobodys_user() {
    for runtime in [Runtime::Crun, Runtime::Runc] {
        let place = Place::new();
        let _started = Started(&place);
        let asked = place.path("home/asked");
        let script = format!(
            "XDG_RUNTIME_DIR={} {} status >>{}",
            place.runtime_directory().display(),
            place.binary().display(),
            asked.display()
        );
        let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"]}]);
        let bundle = Bundle::fronted(&place, runtime).with_config(|config| {
            config["process"]["user"] = json!({"uid": 999, "gid": 5});
            config["hooks"] = json!({"prestart": hook, "createRuntime": hook});
        });
        assert_eq!(bundle.sh("id"), "uid=999 gid=5\n", "{runtime:?}");
        assert!(asked.exists(), "no hook was run by {runtime:?}");
    }
}

#[test]
fn a_profile_of_the_users_own_is_extended_and_forbids_what_it_forbade() {
    let place = Place::new();
    let _started = Started(&place);
    let bundle = Bundle::fronted(&place, Runtime::Crun).with_config(|config| {
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["sethostname", "chmod", "fchmodat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}],
        });
    });
    let seen = bundle.sh(
        "cd /work; touch f; chown 1:2 f; stat -c %u:%g f; chmod 700 f 2>&1 || true
        hostname x 2>&1 || true",
    );
    assert_eq!(
        seen,
        "1:2\nchmod: f: Function not implemented\nhostname: sethostname: Function not implemented\n"
    );
}

#[test]
fn two_containers_of_one_name_know_nothing_of_each_other() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    // Each runtime has a place of its own for its containers.
    let bundle = |runtime, groups: Value| {
        let bundle = Bundle::new(&place, &daemon).under(runtime, &daemon);
        bundle.with_config(|config| config["process"]["user"]["additionalGids"] = groups)
    };
    let first = bundle(Runtime::Crun, json!([7]));
    let second = bundle(Runtime::Runc, json!([8]));
    let [one, other] = [&first, &second].map(|bundle| {
        let script = "id -G >/work/groups; exec sleep 1000000";
        bundle.start_as(place.name(), &["/bin/sh", "-c", script])
    });
    // crun leaves them out in exec, with all ids mapped as well.
    let expected = [
        (&first, &one, "0 7\n", "0\n"),
        (&second, &other, "0 8\n", "0 8\n"),
    ];
    for (bundle, container, groups, in_exec) in expected {
        let path = bundle.rootfs().join("work/groups");
        until("the container says its groups", || {
            let seen = fs::read_to_string(&path).unwrap_or_default();
            (seen == groups).then_some(())
        });
        // crun alone does not say which one is meant.
        bundle.fronted.set(true);
        assert_eq!(exec(container, &[], "id -G"), in_exec);
        bundle.fronted.set(false);
    }
    assert!(daemon.lines(&["several containers"]).is_empty());
    run(&mut one.exec_command(&["id", "-G"])).ok();
    daemon.wait_for(&["several containers have this name"]);
    one.stop();
    other.stop();
}

#[test]
fn a_daemon_that_listens_is_used_and_none_is_started() {
    let place = Place::new();
    let started = Started(&place);
    let daemon = Daemon::start(&place);
    let bundle = Bundle::fronted(&place, Runtime::Crun);
    assert_eq!(bundle.sh("touch f; chown 1:2 f; stat -c %u:%g f"), "1:2\n");
    daemon.wait_for(&["container ended"]);
    assert_eq!(started.sockets(), std::slice::from_ref(&daemon.socket));
    assert_eq!(started.daemons().len(), 1);
}

#[test]
fn each_container_gets_a_daemon_that_ends_with_it() {
    let place = Place::new();
    let started = Started(&place);
    let bundle = Bundle::fronted(&place, Runtime::Crun);
    let [first, second] = [(); 2].map(|()| bundle.start(&["/bin/sleep", "1000000"]));
    let daemons = started.daemons();
    assert_eq!(daemons.len(), 2, "{daemons:?}");
    assert!(
        daemons[0].1[0].starts_with("subuidless serve /"),
        "{daemons:?}"
    );
    assert_eq!(started.sockets().len(), 2);
    let status = run(&mut place.subuidless(["status"])).ok();
    for container in [&first, &second] {
        assert!(status.contains(&container.id), "{status}");
        let seen = exec(container, &[], "cd; touch f; chown 1:2 f; stat -c %u:%g f");
        assert_eq!(seen, "1:2\n");
    }
    first.stop();
    until("a daemon ends", || {
        (started.daemons().len() == 1).then_some(())
    });
    assert_eq!(exec(&second, &["--user", "5"], "id -u"), "5\n");
    second.stop();
    until("the other one ends", || {
        started.daemons().is_empty().then_some(())
    });
    assert!(started.sockets().is_empty(), "{:?}", started.sockets());
}

#[test]
fn what_a_killed_daemon_of_a_container_leaves_is_removed_and_the_container_is_served() {
    let place = Place::new();
    let started = Started(&place);
    let bundle = Bundle::fronted(&place, Runtime::Crun);
    let container = bundle.start(&["/bin/sleep", "1000000"]);
    let [(daemon, _)] = &started.daemons()[..] else {
        panic!("{:?}", started.daemons());
    };
    kill(*daemon, Signal::SIGKILL).unwrap();
    until("the daemon has ended", || {
        started.daemons().is_empty().then_some(())
    });
    assert_eq!(started.sockets().len(), 1);
    // Another container comes by.
    assert_eq!(bundle.sh("touch f; chown 1:2 f; stat -c %u:%g f"), "1:2\n");
    until("nothing is left but the container", || {
        (started.daemons().is_empty() && started.sockets().is_empty()).then_some(())
    });
    // Whoever is put into it brings another daemon, to which its worker hands it over.
    let seen = exec(&container, &["--user", "5"], "id -u");
    assert_eq!(seen, "5\n");
    container.stop();
}

#[test]
fn containers_that_start_at_once_in_one_namespace_get_on() {
    let place = Place::new();
    let started = Started(&place);
    let bundle = Bundle::fronted(&place, Runtime::Crun);
    bundle.run(&["/bin/true"]).ok();
    let front = place.front("crun");
    let mut command = place.as_user("unshare");
    let script = format!(
        "{}
        for n in 1 2 3 4 5 6
        do {} --root $XDG_RUNTIME_DIR/crun --cgroup-manager=disabled run -b {} {}-$n & done; wait",
        match Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            true => "",
            false => "mount --bind /sys/fs/cgroup/unified /sys/fs/cgroup",
        },
        front.display(),
        bundle.directory().display(),
        place.name(),
    );
    command.args(["-r", "-m", "sh", "-euc", &script]);
    let ran = run(&mut command);
    assert!(
        ran.status.success() && ran.stderr.is_empty(),
        "{}",
        ran.stderr
    );
    until("all daemons have ended", || {
        started.daemons().is_empty().then_some(())
    });
    assert!(started.sockets().is_empty(), "{:?}", started.sockets());
}

#[test]
fn a_daemon_in_the_background_holds_nothing_open_and_ends_when_it_has_nothing_to_do() {
    let place = Place::new();
    let started = Started(&place);
    let socket = place.runtime_directory().join("subuidless.sock");
    // Its standard output is a pipe, as podman's are: `output` reads to the end of it.
    let mut command = place.subuidless(["serve", "--background", "--idle", "5"]);
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(
        output.stdout.is_empty() && output.stderr.is_empty(),
        "{output:?}"
    );
    assert_eq!(started.sockets(), std::slice::from_ref(&socket));
    let [(pid, _)] = &started.daemons()[..] else {
        panic!("{:?}", started.daemons());
    };
    assert_eq!(
        fs::read_link(format!("/proc/{pid}/cwd")).unwrap(),
        Path::new("/")
    );
    let log = socket.with_file_name("subuidless.log");
    assert_eq!(fs::read_link(format!("/proc/{pid}/fd/2")).unwrap(), log);
    assert_eq!(fs::metadata(&log).unwrap().mode() & 0o777, 0o600);
    until("the daemon ends", || {
        started.daemons().is_empty().then_some(())
    });
    assert!(started.sockets().is_empty());
}

#[test]
fn a_daemon_with_a_container_is_not_idle() {
    let place = Place::new();
    // Enough for a slow machine to start the container.
    let mut daemon = Daemon::start_with(&place, &["--idle", "5"]);
    let bundle = Bundle::new(&place, &daemon);
    let container = bundle.start(&[
        "/bin/sh",
        "-c",
        "sleep 8; touch /work/a; exec sleep 1000000",
    ]);
    until("eight idle seconds are over", || {
        bundle.rootfs().join("work/a").exists().then_some(())
    });
    assert_eq!(
        container.sh("touch f; chown 1:2 f; stat -c %u:%g f"),
        "1:2\n"
    );
    container.stop();
    assert!(daemon.wait().success());
}

#[test]
fn what_starts_no_process_goes_on_to_the_runtime_as_it_is() {
    let place = Place::new();
    let started = Started(&place);
    for runtime in ["crun", "runc"] {
        for arguments in [
            &["--version"][..],
            &["--help"],
            &["state", "nobody"],
            &["--root", "/nowhere", "list"],
            &["kill", "nobody", "KILL"],
            &["run"],
            &["exec", "nobody"],
            &["no-such-thing"],
            &[],
        ] {
            let [real, front] = [tool(runtime), place.front(runtime)].map(|program| {
                let mut command = place.as_user("sh");
                // Under one name: runtimes say what they were called.
                command.args(["-c", "exec \"$0\" \"$@\""]).arg(program);
                let ran = run(command.args(arguments));
                let text = ran.stderr.lines().filter(|line| !line.starts_with("time="));
                (ran.status.code(), ran.stdout, text.collect::<String>())
            });
            assert_eq!(
                real.0, front.0,
                "{runtime} {arguments:?}: {} {}",
                real.2, front.2
            );
            assert_eq!(real, front, "{runtime} {arguments:?}");
        }
    }
    // `exec nobody` was announced.
    assert!(started.daemons().len() <= 1);
}

#[test]
fn by_the_name_of_crun_the_front_finds_the_other_crun() {
    let place = Place::new();
    let directory = place.path("home/bin");
    fs::create_dir(&directory).unwrap();
    std::os::unix::fs::symlink(place.binary(), directory.join("crun")).unwrap();
    let mut command = place.as_user(directory.join("crun"));
    let path = format!("{}:/usr/sbin:/usr/bin", directory.display());
    let seen = run(command.env("PATH", path).arg("--version")).ok();
    assert!(seen.starts_with("crun version"), "{seen}");
    // Two copies would call each other for ever.
    fs::remove_file(directory.join("crun")).unwrap();
    fs::copy(place.binary(), directory.join("crun")).unwrap();
    let mut command = place.as_user(place.front("crun"));
    let path = format!("{}:/usr/sbin:/usr/bin", directory.display());
    let said = run(command.env("PATH", path).arg("--version")).error();
    assert_eq!(
        said,
        "subuidless: the runtime behind subuidless is subuidless itself, as crun: name the real one with --runtime\n"
    );
    let seen = run(&mut place.subuidless(["runtime", "--runtime", "runc", "--version"])).ok();
    assert!(seen.starts_with("runc version"), "{seen}");
}

/// Runs the front where it must fail; what it says.
fn complaint(place: &Place, runtime: &str, arguments: &[&str]) -> String {
    run(place.as_user(place.front(runtime)).args(arguments)).error()
}

#[test]
fn what_is_wrong_is_said_in_one_sentence_there_and_in_the_runtimes_log() {
    let place = Place::new();
    let said = complaint(&place, "crun", &["run", "-b", "/nowhere", "c1"]);
    assert_eq!(
        said,
        "subuidless: /nowhere/config.json: not found: a bundle is a directory with a config.json; name it with --bundle\n"
    );
    let broken = place.path("home/config.json");
    fs::write(&broken, "{").unwrap();
    let log = place.path("home/log");
    let log = log.to_str().unwrap();
    let said = complaint(
        &place,
        "runc",
        &["--log", log, "--log-format=json", "create", "c1"],
    );
    assert!(
        said.starts_with(
            "subuidless: ./config.json: not a JSON object that this program understands: "
        ),
        "{said}"
    );
    let logged: Value = serde_json::from_str(&fs::read_to_string(log).unwrap()).unwrap();
    assert_eq!(logged["msg"], said.trim_end());
    assert_eq!(logged["level"], "error");
    fs::write(
        &broken,
        json!({"process": {}, "linux": {"namespaces": [{"type": "user"}]}}).to_string(),
    )
    .unwrap();
    let said =
        run(&mut place.subuidless(["runtime", "--socket", "/nowhere/s.sock", "run", "c1"])).error();
    assert!(
        said.starts_with(
            "subuidless: /nowhere/s.sock: no daemon listens there, and none can be started: "
        ),
        "{said}"
    );
}

#[test]
fn without_a_runtime_the_front_says_what_is_missing() {
    let place = Place::new();
    let hidden: String = ["crun", "runc"]
        .map(|runtime| format!("mount --bind /dev/null {}\n", tool(runtime).display()))
        .concat();
    let script = format!("{hidden}exec \"$@\"");
    let mut command = place.as_root("unshare");
    command.args(["-m", "sh", "-euc", &script, "--"]);
    command
        .arg("setpriv")
        .arg(format!("--reuid={}", place.user.uid));
    command
        .arg(format!("--regid={}", place.user.gid))
        .args(["--clear-groups", "--"]);
    let said = run(command.arg(place.front("crun")).args(["run", "c1"])).error();
    assert_eq!(
        said,
        "subuidless: neither crun nor runc is on PATH: install one of them, or name it with --runtime\n"
    );
}
