//! Calls that libseccomp has no names for: whichever profile a container has, they get by nobody.
//! Where no profile can send them to us, they do not exist, as to an older kernel.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use common::{
    Bundle, Daemon, Place, Podman, Runtime, STATIC_SHORT, Started, run, set_mode, small_image,
    small_rootfs, tool, with_each_runtime,
};

const RUNTIMES: [Runtime; 2] = [Runtime::Crun, Runtime::Runc];

fn program(place: &Place, name: &str, compiler: &[&str]) -> PathBuf {
    let source = place.path("calls.c");
    fs::write(&source, include_str!("unnamed/calls.c")).unwrap();
    let program = place.path(name);
    let mut command = Command::new(tool(compiler[0]));
    command.args(&compiler[1..]).arg("-o");
    run(command.arg(&program).arg(&source)).ok();
    set_mode(&program, 0o755);
    program
}

/// Both word sizes.
fn programs(place: &Place) -> [PathBuf; 2] {
    [("wide", &["gcc", "-static"][..]), ("short", STATIC_SHORT)]
        .map(|(name, compiler)| program(place, name, compiler))
}

/// That no call got by, and the owner is the one that was set. A libseccomp that has names for them
/// lets us answer.
#[track_caller]
fn nothing_got_by(kind: &str, printed: &str, file: &Path) {
    let (calls, owner) = printed.trim_end().rsplit_once('\n').expect(printed);
    assert_eq!(owner, "42:43 640", "{kind}: {printed}");
    for line in calls.lines() {
        assert!(!line.ends_with(" got by"), "{kind}: {printed}");
    }
    assert!(calls.lines().count() >= 4, "{kind}: {printed}");
    assert_eq!(
        xattr::get(file, "user.rootlesscontainers")
            .unwrap()
            .as_deref(),
        Some(&b"\x08\x2a\x10\x2b"[..]),
        "{kind}"
    );
}

/// Profiles of one's own that allow by default.
fn bases() -> [(&'static str, Option<Value>); 3] {
    let forbidden = json!({"names": ["ptrace"], "action": "SCMP_ACT_ERRNO"});
    let conditional = json!({
        "names": ["socket"],
        "action": "SCMP_ACT_ERRNO",
        "args": [{"index": 0, "value": 16, "op": "SCMP_CMP_EQ"}],
    });
    let base = |action: &str, rule: &Value| {
        json!({"defaultAction": action, "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": [rule]})
    };
    [
        ("no profile", None),
        ("allow", Some(base("SCMP_ACT_ALLOW", &forbidden))),
        (
            "log, with conditions",
            Some(base("SCMP_ACT_LOG", &conditional)),
        ),
    ]
}

#[test]
fn behind_the_front_they_do_not_exist() {
    for runtime in RUNTIMES {
        for (kind, base) in bases() {
            let place = Place::new();
            let _started = Started(&place);
            for program in programs(&place) {
                let bundle = Bundle::fronted(&place, runtime)
                    .with_mount(&program, "/program", &["bind", "ro"])
                    .with_config(|config| {
                        if let Some(base) = &base {
                            config["linux"]["seccomp"] = base.clone();
                        }
                    });
                let printed = bundle.run(&["/program"]).ok();
                let file = bundle.rootfs().join("work/f");
                nothing_got_by(&format!("{runtime:?}, {kind}"), &printed, &file);
            }
        }
    }
}

#[test]
fn with_profiles_of_ours_they_do_not_exist() {
    for runtime in RUNTIMES {
        let place = Place::new();
        let daemon = Daemon::start(&place);
        for program in programs(&place) {
            let bundle = Bundle::new(&place, &daemon)
                .under(runtime, &daemon)
                .with_mount(&program, "/program", &["bind", "ro"]);
            let printed = bundle.run(&["/program"]).ok();
            let file = bundle.rootfs().join("work/f");
            nothing_got_by(&format!("{runtime:?}, profile"), &printed, &file);
        }
    }
}

#[test]
fn a_profile_that_allows_by_default_is_closed_or_a_warning_says_that_it_cannot_be() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    for (kind, base) in bases() {
        let directory = place.path(&format!("bundles/{}", kind.replace([' ', ','], "-")));
        fs::create_dir(&directory).unwrap();
        let mut config = json!({"linux": {}});
        if let Some(base) = base {
            config["linux"]["seccomp"] = base;
        }
        let path = directory.join("config.json");
        fs::write(&path, config.to_string()).unwrap();
        place.give_to_user(&directory);
        place.give_to_user(&path);
        let mut command = place.subuidless(["bundle"]);
        command
            .arg(&directory)
            .arg("--listener-path")
            .arg(&daemon.socket);
        let ran = run(&mut command);
        let has_conditions = kind.contains("conditions");
        assert_eq!(
            ran.stderr.contains("bypass subuidless"),
            has_conditions,
            "{}",
            ran.stderr
        );
        ran.ok();
        let config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let profile = config["linux"]["seccomp"].clone();
        if has_conditions {
            assert_eq!(profile["defaultAction"], "SCMP_ACT_LOG");
            continue;
        }
        let [wide, _] = programs(&place);
        let bundle = Bundle::new(&place, &daemon)
            .with_mount(&wide, "/program", &["bind", "ro"])
            .with_config(|config| config["linux"]["seccomp"] = profile);
        let printed = bundle.run(&["/program"]).ok();
        nothing_got_by(kind, &printed, &bundle.rootfs().join("work/f"));
    }
}

#[test]
fn in_containers_of_run_they_do_not_exist() {
    let place = Place::new();
    let [wide, short] = programs(&place);
    let rootfs = small_rootfs(&place);
    for runtime in ["crun", "runc"] {
        for program in [&wide, &short] {
            let bind = format!("{}:/program", program.display());
            let mut command = place.subuidless(["run", "--rootfs"]);
            command
                .arg(&rootfs)
                .args(["--env", "SUBUIDLESS_TEST_PLACE", "--runtime", runtime])
                .args(["--bind", &bind, "/program"]);
            let printed = run(&mut command).ok();
            nothing_got_by(runtime, &printed, &rootfs.join("work/f"));
        }
    }
}

/// Imports the image, and runs or executes the program in a container.
fn in_podman(place: &Place, podman: &Podman, kind: &str, runs: &str) {
    let [wide, _] = programs(place);
    let work = place.path("home/work");
    fs::create_dir_all(&work).unwrap();
    place.give_to_user(&work);
    let script = format!(
        "\"$@\" image exists small || \"$@\" import small.tar small >/dev/null 2>&1
        OPTIONS=\"--network=none $OPTIONS -v {}:/program:ro -v {}:/work\"
        {runs}",
        wide.display(),
        work.display()
    );
    let printed = podman.sh(&script).ok();
    nothing_got_by(kind, &printed, &work.join("f"));
}

#[test]
fn in_containers_of_podman_they_do_not_exist() {
    with_each_runtime(|place, podman, runtime| {
        for more in ["", "--security-opt seccomp=unconfined", "--privileged"] {
            let runs = format!("said \"$@\" run --rm $OPTIONS {more} small /program");
            in_podman(place, podman, &format!("{runtime} {more}"), &runs);
        }
        let runs = "\"$@\" run -d --name c $OPTIONS --security-opt seccomp=unconfined small \
            sleep 1000000 >/dev/null
            \"$@\" exec c /program; \"$@\" rm -f -t 0 c >/dev/null";
        in_podman(place, podman, &format!("{runtime} exec"), runs);
    });
}

#[test]
fn in_containers_of_podman_with_a_profile_of_ours_they_do_not_exist() {
    for runtime in ["crun", "runc"] {
        let place = Place::new();
        let _one_at_a_time = common::lock();
        small_image(&place);
        let daemon = Daemon::start(&place);
        let podman = Podman::of_user(&place, &daemon, runtime);
        let runs = "said \"$@\" run --rm $OPTIONS small /program";
        in_podman(&place, &podman, runtime, runs);
    }
}
