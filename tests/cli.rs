//! The command line: profiles that runtimes load, bundles that keep what they had, a daemon that
//! respects what is there.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use common::{Bundle, Daemon, Owned, Place, Ran, Runtime, run, set_mode, until};

fn profile(place: &Place, arguments: &[&str]) -> Value {
    let mut command = place.subuidless(["profile"]);
    serde_json::from_str(&run(command.args(arguments)).ok()).expect("a profile is JSON")
}

/// The calls that are notified in a container without CAP_SYS_ADMIN and CAP_DAC_READ_SEARCH.
fn notified(profile: &Value) -> BTreeSet<&str> {
    let rules = profile["syscalls"].as_array().unwrap();
    let is_for_others = |rule: &&Value| {
        let caps = rule["includes"]["caps"].to_string();
        caps.contains("CAP_SYS_ADMIN") || caps.contains("CAP_DAC_READ_SEARCH")
    };
    rules
        .iter()
        .filter(|rule| rule["action"] == "SCMP_ACT_NOTIFY" && !is_for_others(rule))
        .flat_map(|rule| rule["names"].as_array().unwrap())
        .map(|name| name.as_str().unwrap())
        .collect()
}

#[test]
fn profiles_of_every_kind_are_loaded_by_the_runtime_that_they_are_for() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let socket = daemon.socket.to_str().unwrap();
    for runtime in [Runtime::Crun, Runtime::Runc] {
        for base in ["allow", "default"] {
            let arguments = [
                "--base",
                base,
                "--runtime",
                runtime.name(),
                "--listener-path",
                socket,
            ];
            let profile = profile(&place, &arguments);
            assert_eq!(profile["listenerPath"], socket);
            assert!(notified(&profile).contains("fchownat"), "{profile}");
            let bundle = Bundle::new(&place, &daemon)
                .under(runtime, &daemon)
                .with_config(|config| config["linux"]["seccomp"] = profile);
            let seen = bundle.sh("touch f; chown 1:2 f; stat -c %u:%g f");
            assert_eq!(seen, "1:2\n", "{runtime:?} {base}");
        }
    }
}

#[test]
fn profiles_for_podman_have_the_same_notifications() {
    let place = Place::new();
    for runtime in ["crun", "runc"] {
        for base in ["allow", "default"] {
            let arguments = [
                "--base",
                base,
                "--runtime",
                runtime,
                "--listener-path",
                "/run/s.sock",
            ];
            let oci = profile(&place, &arguments);
            let podman = profile(&place, &[&arguments[..], &["--format", "podman"]].concat());
            assert_eq!(notified(&oci), notified(&podman));
            assert_eq!(podman["listenerPath"], "/run/s.sock");
            assert_eq!(podman["flags"].is_null(), runtime == "runc");
        }
    }
}

#[test]
fn a_listener_path_that_is_not_absolute_is_an_error() {
    let place = Place::new();
    let message = run(&mut place.subuidless(["profile", "--listener-path", "s.sock"])).error();
    assert!(message.contains("absolute path"), "{message}");
}

/// A bundle directory with this config.json.
fn bundle_with(place: &Place, config: &str) -> std::path::PathBuf {
    let bundle = Bundle::empty(place, Owned::ByUser);
    let path = bundle.directory().join("config.json");
    fs::write(&path, config).unwrap();
    place.give_to_user(&path);
    bundle.directory().to_owned()
}

fn weave(place: &Place, directory: &Path, options: &[&str]) -> Ran {
    let mut command = place.subuidless(["bundle"]);
    run(command.args(options).arg(directory))
}

const CONFIG: &str = r#"{
    "zeta": {"b": 1, "a": [1, 2.5, null, "\u00e4"]},
    "ociVersion": "1.0.0",
    "linux": {"resources": {}, "namespaces": [], "seccomp": null, "cgroupsPath": "c"},
    "annotations": {"large": 18446744073709551615, "": ""},
    "alpha": true
}"#;

#[test]
fn bundle_keeps_every_other_key_in_its_order() {
    let place = Place::new();
    let directory = bundle_with(&place, CONFIG);
    weave(&place, &directory, &["--listener-path", "/run/s.sock"]).ok();
    let text = fs::read_to_string(directory.join("config.json")).unwrap();
    let mut after: Value = serde_json::from_str(&text).unwrap();
    let profile = after["linux"]["seccomp"].take();
    assert!(notified(&profile).contains("chown"));
    assert_eq!(profile["listenerPath"], "/run/s.sock");
    // Printed, the order shows.
    let before: Value = serde_json::from_str(CONFIG).unwrap();
    assert_eq!(after.to_string(), before.to_string());
}

#[test]
fn bundle_twice_is_bundle_once() {
    let place = Place::new();
    for base in [&["--base", "allow"][..], &["--base", "default"], &[]] {
        let directory = bundle_with(&place, CONFIG);
        let file = directory.join("config.json");
        weave(&place, &directory, base).ok();
        let once = fs::read_to_string(&file).unwrap();
        weave(&place, &directory, base).ok();
        assert_eq!(fs::read_to_string(&file).unwrap(), once);
        // Without a wish, too: the profile that is there is extended.
        weave(&place, &directory, &[]).ok();
        assert_eq!(fs::read_to_string(&file).unwrap(), once);
    }
}

#[test]
fn bundle_replaces_the_file_in_one_step_and_keeps_its_mode() {
    let place = Place::new();
    let directory = bundle_with(&place, CONFIG);
    let file = directory.join("config.json");
    set_mode(&file, 0o640);
    // Whoever reads the old file goes on reading the old file.
    let mut reader = File::open(&file).unwrap();
    weave(&place, &directory, &[]).ok();
    let mut old = String::new();
    reader.read_to_string(&mut old).unwrap();
    assert_eq!(old, CONFIG);
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o640);
    assert_eq!(names(&directory), ["config.json", "rootfs"]);
}

#[test]
fn a_config_json_that_is_a_link_stays_one() {
    let place = Place::new();
    let real = bundle_with(&place, CONFIG);
    let bundle = Bundle::empty(&place, Owned::ByUser);
    let link = bundle.directory().join("config.json");
    symlink(real.join("config.json"), &link).unwrap();
    weave(&place, bundle.directory(), &[]).ok();
    assert!(link.is_symlink());
    let text = fs::read_to_string(real.join("config.json")).unwrap();
    assert!(text.contains("SCMP_ACT_NOTIFY"));
    assert_eq!(names(&real), ["config.json", "rootfs"]);
    assert_eq!(names(bundle.directory()), ["config.json", "rootfs"]);
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn bundles_that_cannot_be_changed_are_left_as_they_are_and_named() {
    let place = Place::new();
    let foreign = json!({"linux": {"seccomp": {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["bpf"], "action": "SCMP_ACT_NOTIFY"}],
    }}});
    let cases = [
        ("this is no JSON", "not a JSON object"),
        ("[]", "not a JSON object"),
        ("{\"linux\": ", "not a JSON object"),
        ("{\"linux\": 3}", "its \"linux\" is not an object"),
        (
            "{\"linux\": {\"seccomp\": 3}}",
            "its \"linux.seccomp\" is not an object",
        ),
        ("{\"linux\": {\"seccomp\": {}}}", "defaultAction"),
        (&foreign.to_string(), "notifies another agent"),
    ];
    for (config, reason) in cases {
        let directory = bundle_with(&place, config);
        let message = weave(&place, &directory, &[]).error();
        let file = directory.join("config.json");
        assert!(message.contains(reason), "{config}: {message}");
        assert!(
            message.contains(file.to_str().unwrap()),
            "{config}: {message}"
        );
        assert_eq!(fs::read_to_string(&file).unwrap(), config);
        assert_eq!(names(&directory), ["config.json", "rootfs"]);
    }
}

#[test]
fn a_bundle_without_config_json_is_an_error_that_names_it() {
    let place = Place::new();
    for directory in [place.path("home"), place.path("missing")] {
        let message = weave(&place, &directory, &[]).error();
        let file = directory.join("config.json");
        assert!(message.contains(file.to_str().unwrap()), "{message}");
        assert!(message.contains("No such file"), "{message}");
    }
}

#[test]
fn a_bundle_of_somebody_else_is_left_alone() {
    let place = Place::new();
    let bundle = Bundle::empty(&place, Owned::ByRoot);
    let file = bundle.directory().join("config.json");
    fs::write(&file, CONFIG).unwrap();
    let message = weave(&place, bundle.directory(), &[]).error();
    assert!(message.contains("Permission denied"), "{message}");
    assert_eq!(fs::read_to_string(&file).unwrap(), CONFIG);
}

/// Runs `serve` where it cannot; what it says.
fn cannot_serve(place: &Place, socket: &Path) -> String {
    let mut command = place.subuidless(["serve"]);
    run(command.arg(socket)).error()
}

#[test]
fn the_socket_is_for_its_user_alone_and_goes_with_the_daemon() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let socket = daemon.socket.clone();
    let found = fs::symlink_metadata(&socket).unwrap();
    assert_eq!(found.mode() & 0o7777, 0o600);
    assert_eq!(found.uid(), place.user.uid.as_raw());
    daemon.terminate();
    assert!(!socket.exists());
}

#[test]
fn the_default_socket_lies_in_the_runtime_directory() {
    let place = Place::new();
    let socket = place.runtime_directory().join("subuidless.sock");
    let daemon = Daemon::spawn(&place, place.subuidless(["serve"]), socket.clone());
    assert!(UnixStream::connect(&socket).is_ok());
    daemon.terminate();
}

#[test]
fn a_stale_socket_is_replaced() {
    let place = Place::new();
    let mut daemon = Daemon::start(&place);
    daemon.signal(Signal::SIGKILL);
    daemon.wait();
    assert!(daemon.socket.exists());
    Daemon::start(&place).terminate();
}

#[test]
fn a_daemon_that_listens_is_not_replaced() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let message = cannot_serve(&place, &daemon.socket);
    assert!(message.contains("already listening"), "{message}");
    assert!(
        message.contains(daemon.socket.to_str().unwrap()),
        "{message}"
    );
    let bundle = Bundle::new(&place, &daemon);
    assert_eq!(bundle.sh("touch f; chown 1:2 f; stat -c %u:%g f"), "1:2\n");
}

#[test]
fn of_daemons_that_start_at_once_exactly_one_listens() {
    let place = Place::new();
    // One that was killed left its socket: all of them find it stale.
    let mut daemon = Daemon::start(&place);
    daemon.signal(Signal::SIGKILL);
    daemon.wait();
    let socket = daemon.socket.clone();
    let mut started: Vec<_> = (0..8)
        .map(|_| {
            let mut command = place.subuidless(["serve"]);
            command.arg(&socket).stderr(std::process::Stdio::null());
            command.spawn().unwrap()
        })
        .collect();
    until("all but one have given up", || {
        started.retain_mut(|child| child.try_wait().unwrap().is_none());
        (started.len() <= 1).then_some(())
    });
    assert_eq!(started.len(), 1);
    let message = cannot_serve(&place, &socket);
    assert!(message.contains("already listening"), "{message}");
    let mut last = started.pop().unwrap();
    last.kill().unwrap();
    last.wait().unwrap();
}

#[test]
fn what_is_no_socket_is_left_alone() {
    let place = Place::new();
    let file = place.path("home/file");
    fs::write(&file, "precious").unwrap();
    place.give_to_user(&file);
    let link = place.path("home/link");
    symlink("file", &link).unwrap();
    let directory = place.path("home");
    for path in [&file, &link, &directory] {
        let message = cannot_serve(&place, path);
        assert!(message.contains("is not a socket"), "{message}");
        assert!(message.contains(path.to_str().unwrap()), "{message}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    assert!(link.is_symlink());
}

#[test]
fn a_path_too_long_for_a_socket_is_an_error_that_says_so() {
    let place = Place::new();
    let message = cannot_serve(&place, &place.path(&"x".repeat(108)));
    assert!(message.contains("107"), "{message}");
}

#[test]
fn a_directory_that_is_missing_or_closed_is_an_error_that_names_it() {
    let place = Place::new();
    let message = cannot_serve(&place, &place.path("missing/s.sock"));
    assert!(
        message.contains("missing") && message.contains("No such file"),
        "{message}"
    );
    let message = cannot_serve(&place, &place.path("s.sock"));
    assert!(message.contains("Permission denied"), "{message}");
}

#[test]
fn the_daemon_tells_systemd_when_it_is_ready_and_when_it_stops() {
    let place = Place::new();
    let path = place.path("home/notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    set_mode(&path, 0o777);
    systemd.set_read_timeout(Some(common::patience())).unwrap();
    let socket = place.runtime_directory().join("subuidless.sock");
    let mut command = place.subuidless(["serve"]);
    command.env("NOTIFY_SOCKET", &path);
    let daemon = Daemon::spawn(&place, command, socket);
    let hear = || {
        let mut bytes = [0; 256];
        let length = systemd.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    assert_eq!(hear().trim_end(), "READY=1");
    daemon.terminate();
    assert_eq!(hear().trim_end(), "STOPPING=1");
}

/// `serve` with a socket as fd 3, as systemd starts it.
fn activated(place: &Place, listener: UnixListener, count: u32) -> std::process::Command {
    let script = format!("LISTEN_FDS={count} LISTEN_PID=$$ exec \"$@\" 3<&0 4<&0 </dev/null");
    let mut command = place.as_user("sh");
    command
        .env_remove("XDG_RUNTIME_DIR")
        .args(["-c", &script, "--"])
        .arg(place.binary())
        .arg("serve")
        .stdin(OwnedFd::from(listener));
    command
}

#[test]
fn a_socket_that_systemd_passes_is_served_and_stays() {
    let place = Place::new();
    let path = place.path("home/activated.sock");
    let listener = UnixListener::bind(&path).unwrap();
    place.give_to_user(&path);
    let again = listener.try_clone().unwrap();
    for listener in [listener, again] {
        let daemon = Daemon::spawn(&place, activated(&place, listener, 1), path.clone());
        daemon.wait_for(&["listening", path.to_str().unwrap()]);
        let bundle = Bundle::new(&place, &daemon);
        assert_eq!(bundle.sh("touch f; chown 1:2 f; stat -c %u:%g f"), "1:2\n");
        daemon.terminate();
        assert!(path.exists());
    }
}

#[test]
fn two_sockets_from_systemd_are_an_error() {
    let place = Place::new();
    let listener = UnixListener::bind(place.path("home/activated.sock")).unwrap();
    let mut command = activated(&place, listener, 2);
    let child = command
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(
        message.contains("systemd passed 2 file descriptors"),
        "{message}"
    );
}

#[test]
fn json_logs_are_one_object_a_line_from_daemon_and_worker() {
    let place = Place::new();
    let daemon = Daemon::start_with(&place, &["--log-format", "json", "--log-level", "debug"]);
    let bundle = Bundle::new(&place, &daemon);
    // The last reply ends the container, and its worker perhaps before that is logged.
    bundle.sh("touch f; for i in 1 2 3 4 5; do chown $i:2 f; done");
    daemon.wait_for(&["container ended"]);
    let log = daemon.log();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect();
    let with = |message: &str| {
        let found = lines.iter().find(|line| line["message"] == message);
        found.unwrap_or_else(|| panic!("no {message:?} in {log}"))
    };
    assert_eq!(with("listening")["level"], "INFO");
    assert_eq!(with("container")["status"], "creating");
    assert!(with("container ended")["calls"].as_u64() >= Some(1));
    let replied = lines.iter().filter(|line| line["message"] == "replying");
    assert!(replied.clone().any(|line| {
        ["chown", "lchown", "fchownat"].contains(&line["syscall"].as_str().unwrap())
    }));
    assert!(replied.clone().all(|line| line["level"] == "DEBUG"));
}

#[test]
fn a_command_line_that_is_wrong_says_what_is_right() {
    let place = Place::new();
    let cases: [(&[&str], &str); 5] = [
        (&[], "Usage"),
        (&["serve", "a", "b"], "unexpected argument"),
        (&["profile", "--base", "other"], "possible values"),
        (&["bundle"], "DIR"),
        (&["serve", "--log-level", "loud", "/nowhere"], "--log-level"),
    ];
    for (arguments, answer) in cases {
        let ran = run(&mut place.subuidless(arguments));
        assert_eq!(ran.status.code(), Some(2), "{arguments:?}");
        assert!(ran.stderr.contains(answer), "{arguments:?}: {}", ran.stderr);
    }
    // A word that is neither a command nor a path starts no daemon, and an option is no command.
    let rootfs = place.path("home");
    let rootfs = rootfs.to_str().unwrap();
    let cases: [(&[&str], &str); 14] = [
        (&["stauts"], "a similar subcommand exists: 'status'"),
        (&["version"], "unrecognized subcommand 'version'"),
        (&["--idle", "1", "sock"], "unrecognized subcommand 'sock'"),
        (
            &["podmna", "run", "image"],
            "unrecognized subcommand 'podmna'",
        ),
        (&["run", "--foo", "--", "id"], "unexpected argument '--foo'"),
        (
            &["run", "--rootfs", rootfs, "-y", "/etc:/x", "--", "id"],
            "unexpected argument '-y'",
        ),
        (
            &["run", "--rootfs", rootfs, "--nett", "none", "id"],
            "unexpected argument '--nett'",
        ),
        (&["exec", "c", "-xt", "sh"], "unexpected argument '-x'"),
        (&["run", "--cap-add", "CAP_FOO", "true"], "CAP_FOO"),
        (
            &["run", "--log-level", "debug", "true"],
            "add --log-file FILE",
        ),
        (&["owners", "import", "-x", "."], "-x: "),
        (&["owners", "set", ":", "."], "a user, a group or both"),
        (&["run", "-e", "=x", "true"], "needs a name"),
        (
            &["run", "--rootfs", rootfs, "--hostname", "", "true"],
            "1 to 64 bytes",
        ),
    ];
    for (arguments, answer) in cases {
        let ran = run(&mut place.subuidless(arguments));
        assert_eq!(ran.status.code(), Some(2), "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(answer), "{arguments:?}: {}", ran.stderr);
    }
    // Behind the first word, or `--`, all words are the command's.
    for words in [
        &["run", "echo", "-n", "--foo"][..],
        &["run", "--", "echo", "-n", "--foo"],
    ] {
        assert_eq!(run(&mut place.subuidless(words)).ok(), "--foo");
    }
    let version = run(&mut place.subuidless(["--version"])).ok();
    assert_eq!(
        version.trim_end(),
        concat!("subuidless ", env!("CARGO_PKG_VERSION"))
    );
    let help = run(&mut place.subuidless(["--help"])).ok();
    for word in ["serve", "profile", "bundle"] {
        assert!(help.contains(word), "{help}");
    }
    assert!(!help.contains("worker"), "{help}");
}

#[test]
fn a_worker_started_by_hand_says_that_it_is_not_meant_to_be() {
    let place = Place::new();
    let command_line = ["worker", "info", "text", "", "", ""];
    let message = run(&mut place.subuidless(command_line)).error();
    assert!(
        message.contains("started by `subuidless serve` only"),
        "{message}"
    );
}
