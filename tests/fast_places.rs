//! Where the fast path is on, and that `status` says why it is not.

mod common;

use std::fs;
use std::process::Stdio;

use serde_json::{Value, json};

use common::status::{container, status};
use common::{Bundle, Daemon, Place, Runtime, SHORT, compile, run, until};

/// How many calls of one kind the worker has answered for a container.
fn total(container: &Value, syscall: &str) -> u64 {
    let list = container["syscalls"].as_array().expect("a list");
    let of_name = list.iter().find(|one| one["name"] == syscall);
    of_name.map_or(0, |one| one["total"].as_u64().expect("a number"))
}

#[test]
fn a_bundle_has_the_library_in_it_and_goes_with_it() {
    for runtime in [Runtime::Crun, Runtime::Runc] {
        let place = Place::new();
        let daemon = Daemon::start(&place);
        let bundle = Bundle::debian(&place, &daemon).under(runtime, &daemon);
        let script = "echo >/f; chown 42:43 /f
            perl -e 'for (1 .. 1000) { (lstat q(/f))[4] == 42 or die }'; : >/ready; sleep 1000000";
        // Nothing in the runtime directory is needed, nor can it be: it may be gone by then.
        let library = place.runtime_directory().join("subuidless");
        for entry in fs::read_dir(&library).into_iter().flatten().flatten() {
            assert!(!entry.file_name().to_string_lossy().contains("fast"));
        }
        let running = bundle.start(&["/bin/sh", "-euc", script]);
        let ready = bundle.rootfs().join("ready");
        until("the container is ready", || ready.exists().then_some(()));
        let found = status(&place);
        let one = container(&found, &running);
        assert_eq!(one["fast_path"], "on", "{one:#}");
        let notified = total(one, "newfstatat") + total(one, "lstat");
        assert!(notified < 500, "{one:#}");
        // An exec by the runtime alone is of the same container.
        assert_eq!(running.sh("perl -e 'print +(lstat q(/f))[5]'"), "43");
        let files = || {
            let entries = fs::read_dir(bundle.directory()).expect("the bundle");
            let names = entries.flatten().map(|entry| entry.file_name());
            names
                .filter(|name| name.to_string_lossy().contains("fast"))
                .count()
        };
        assert_eq!(files(), 1);
        // Turned off, the file goes, too.
        let mut command = place.subuidless(["bundle"]);
        command
            .arg(bundle.directory())
            .env("SUBUIDLESS_FAST", "0")
            .args(["--runtime", runtime.name()]);
        run(&mut command).ok();
        assert_eq!(files(), 0);
        let text = fs::read_to_string(bundle.directory().join("config.json")).expect("config");
        assert!(!text.contains("subuidless-fast"), "{text}");
    }
}

#[test]
fn no_loader_says_a_word_in_another_root_directory_of_a_container() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let short = compile(&place, SHORT, "short", "fast/nothing.c");
    let bundle = Bundle::debian(&place, &daemon).with_program(&short);
    // dash executes programs after vfork(2), and what is removed from their environment is removed
    // from its own until it executes the next one.
    let script = "for file in /bin/ls $(ldd /bin/ls | grep -o '/[^ ]*'); do
            mkdir -p /other$(dirname $file); cp $file /other$file; done
        chroot /other /bin/ls -d /; /short; ls -d /; [ -e ${LD_PRELOAD:?} ]
        export LD_PRELOAD=libc.so.6:$LD_PRELOAD
        /short; /bin/true; echo ${LD_PRELOAD##*:} | cut -c 1-22";
    let ran = bundle.run(&["/bin/sh", "-euc", script]);
    assert_eq!(ran.stderr, "");
    assert_eq!(ran.ok(), "/\n/\n/dev/.subuidless-fast-\n");
}

/// With CAP_SYS_ADMIN a container can make the mount of its library writable.
#[test]
fn a_container_that_changes_its_library_changes_no_other_one() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundle = Bundle::debian(&place, &daemon);
    let rootfs = bundle.rootfs();
    let run_in = |options: &[&str], script: &str| {
        let mut command = place.subuidless(["run", "--rootfs"]);
        command.arg(&rootfs).args(options);
        run(command.args(["--", "sh", "-euc", script]))
    };
    let hash = "sha256sum <$LD_PRELOAD";
    let before = run_in(&[], hash).ok();
    assert_eq!(
        run(&mut place.subuidless(["run", "--", "sh", "-c", hash])).ok(),
        before
    );
    run_in(&["--name", "other", "--detach"], "exec sleep 1000000").ok();
    let change = format!(
        "for file in $LD_PRELOAD $(realpath $LD_PRELOAD) $(dirname $LD_PRELOAD); do
             mount -o remount,bind,rw $file || true; done
         echo >>$LD_PRELOAD; {hash}"
    );
    let changed = run_in(&["--cap-add", "SYS_ADMIN"], &change);
    assert_ne!(changed.ok(), before);
    let mut look = place.subuidless(["exec", "other", "--", "sh", "-c", hash]);
    assert_eq!(run(&mut look).ok(), before);
    // A new start would repair it.
    for entry in fs::read_dir(place.runtime_directory().join("subuidless")).expect("a directory") {
        let file = entry.expect("an entry").path().join("libasan.so");
        if file.exists() {
            let mut command = place.as_user("sh");
            let ran = run(command.args(["-c", hash]).env("LD_PRELOAD", file));
            assert_eq!(ran.ok(), before);
        }
    }
    run(&mut place.subuidless(["kill", "other", "KILL"])).ok();
}

/// A bind mount of /dev alone does not have the library.
#[test]
fn no_loader_says_a_word_in_a_root_directory_with_dev_alone() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundle = Bundle::debian(&place, &daemon);
    let rootfs = bundle.rootfs();
    // `run` warns of what others can reach.
    common::set_mode(rootfs.as_ref(), 0o700);
    let mut command = place.subuidless(["run", "--cap-add", "SYS_ADMIN", "--rootfs"]);
    command.arg(&rootfs).args(["--", "sh", "-euc"]);
    let ran = run(command.arg(
        "mkdir -p /mnt/dev; mount --bind /dev /mnt/dev
         for d in bin lib lib64 usr; do mkdir -p /mnt/$d; mount --rbind /$d /mnt/$d; done
         chroot /mnt /bin/true; [ -e $LD_PRELOAD ]; echo done",
    ));
    assert_eq!(ran.stderr, "");
    assert_eq!(ran.ok(), "done\n");
}

#[test]
fn status_says_why_a_command_has_no_fast_path() {
    let place = Place::new();
    let short = compile(&place, SHORT, "short", "fast/nothing.c");
    let script = format!("#!{}\n", short.display());
    fs::write(place.path("home/script"), script).expect("a script");
    common::set_mode(&place.path("home/script"), 0o755);
    let wait = "echo >ready; exec sleep 1000000";
    for (options, command, word) in [
        (&[][..], &["sh", "-c", wait][..], "on"),
        (&["--no-fast"], &["sh", "-c", wait], "turned-off"),
        (
            &["--env=SUBUIDLESS_FAST=0"],
            &["sh", "-c", wait],
            "turned-off",
        ),
        (
            &["--keep-id"],
            &["unshare", "-r", "sh", "-c", wait],
            "keep-id",
        ),
    ] {
        let ready = place.path("home/ready");
        let _ = fs::remove_file(&ready);
        let mut run = place.subuidless(["run"]);
        run.args(options).arg("--").args(command);
        let mut child = run.stdin(Stdio::null()).spawn().expect("subuidless run");
        until("the command runs", || ready.exists().then_some(()));
        let found = until("there is a worker", || {
            let found = status(&place);
            let one = found["containers"].get(0).cloned();
            one.filter(|one| one["workers"] != json!([]))
        });
        assert_eq!(found["fast_path"], word, "{found:#}");
        let text = common::run(&mut place.subuidless(["status"])).ok();
        let state = if word == "on" { "on\n" } else { "off: " };
        assert!(text.contains(&format!("\nfast path {state}")), "{text}");
        child.kill().expect("the command");
        child.wait().expect("the command");
        until("it is gone", || place.processes().is_empty().then_some(()));
    }
}

#[test]
fn status_says_why_a_container_has_no_fast_path() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundle = Bundle::new(&place, &daemon).slow();
    let running = bundle.start(&["/bin/sleep", "1000000"]);
    let found = status(&place);
    let one = container(&found, &running);
    assert_eq!(one["fast_path"], "not-in-config", "{one:#}");
    for (word, change) in [
        ("on", (|_| ()) as fn(&mut Value)),
        ("no-dev", |config| {
            let mounts = config["mounts"].as_array_mut().expect("mounts");
            mounts.retain(|mount| !mount["destination"].to_string().contains("/dev"));
        }),
        ("turned-off", |config| {
            let environment = config["process"]["env"].as_array_mut().expect("env");
            environment.push("SUBUIDLESS_FAST=0".into());
        }),
        ("forbidden", |config| {
            config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["getxattr"], "action": "SCMP_ACT_KILL"}],
            });
        }),
    ] {
        let bundle = Bundle::fronted(&place, Runtime::Crun).with_config(change);
        let running = bundle.start(&["/bin/sleep", "1000000"]);
        let found = status(&place);
        let one = container(&found, &running);
        assert_eq!(one["fast_path"], word, "{one:#}");
    }
}
