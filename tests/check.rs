//! `subuidless check`: on this host, which can do the job, and on hosts that lack one thing or
//! another, made of mount and user namespaces.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use common::{Place, Ran, run, set_mode, small_rootfs, tool, until};

/// The document, and whether the exit code says the same as it does.
#[track_caller]
fn document(ran: &Ran) -> Value {
    let text = String::from_utf8(ran.stdout.clone()).unwrap();
    let found: Value = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text}\n{}", ran.stderr));
    let failures = found["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["result"] == "fail")
        .count();
    assert_eq!(found["ok"], failures == 0, "{text}");
    assert_eq!(ran.status.code(), Some(i32::from(failures > 0)), "{text}");
    for check in found["checks"].as_array().unwrap() {
        assert!(!check["reason"].as_str().unwrap().is_empty(), "{check}");
        assert_eq!(
            check["change"].is_null(),
            check["result"] == "ok",
            "{check}"
        );
    }
    found
}

#[track_caller]
fn line<'a>(document: &'a Value, name: &str) -> &'a Value {
    document["checks"]
        .as_array()
        .unwrap()
        .iter()
        .find(|check| check["name"] == name)
        .unwrap_or_else(|| panic!("no line {name} in {document:#}"))
}

/// The line says `result`, its reason names `reason`, and what to change `change`.
#[track_caller]
fn says(document: &Value, name: &str, result: &str, reason: &str, change: &str) {
    let line = line(document, name);
    assert_eq!(line["result"], result, "{line}");
    assert!(line["reason"].as_str().unwrap().contains(reason), "{line}");
    let told = line["change"].as_str().unwrap_or_default();
    assert!(told.contains(change), "{line}");
}

fn check(place: &Place, change: impl FnOnce(&mut Command)) -> Value {
    let mut command = place.subuidless(["check", "--json"]);
    change(&mut command);
    document(&run(&mut command))
}

/// On a host that root has changed by `script`, in a mount namespace.
fn on_changed_host(place: &Place, script: &str, arguments: &[&str]) -> Value {
    let arguments = [&["check", "--json"], arguments].concat();
    document(&ran_on_changed_host(place, script, &arguments))
}

fn ran_on_changed_host(place: &Place, script: &str, arguments: &[&str]) -> Ran {
    let (uid, gid) = (place.user.uid, place.user.gid);
    let script = format!(
        "{script}\nexec setpriv --reuid={uid} --regid={gid} --init-groups -- \"$0\" \"$@\""
    );
    let mut command = place.as_root("unshare");
    command
        .args(["-m", "--", "sh", "-euc", &script])
        .arg(place.binary())
        .args(arguments)
        .env("HOME", place.path("home"))
        .env("XDG_RUNTIME_DIR", place.runtime_directory());
    run(&mut command)
}

/// A program of that name, in a directory of its own, that says `text`.
fn false_program(place: &Place, name: &str, text: &str) -> PathBuf {
    let directory = place.path(&format!("false-{name}"));
    fs::create_dir_all(&directory).unwrap();
    let path = directory.join(name);
    fs::write(&path, format!("#!/bin/sh\ncat <<'END'\n{text}\nEND\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

fn everything_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        found.push(entry.path());
        if entry.file_type().unwrap().is_dir() {
            found.extend(everything_below(&entry.path()));
        }
    }
    found.sort();
    found
}

#[test]
fn this_host_can_do_the_job_and_nothing_is_left_on_it() {
    let place = Place::new();
    let before = everything_below(&place.path("."));
    let found = check(&place, |command| {
        command.env("TMPDIR", place.path("home"));
    });
    assert_eq!(found["ok"], true, "{found:#}");
    for name in [
        "user",
        "kernel",
        "user namespaces",
        "seccomp notification",
        "joining a container",
        "memory of targets",
        "files for targets",
        "side store",
        "XDG_RUNTIME_DIR",
        "subuid range",
        "run",
        "crun",
        "run --rootfs",
    ] {
        assert_eq!(line(&found, name)["result"], "ok", "{found:#}");
    }
    let home = place.path("home").canonicalize().unwrap();
    says(
        &found,
        &format!("attributes in {}", home.display()),
        "ok",
        "carry",
        "",
    );
    assert_eq!(everything_below(&place.path(".")), before);
    assert!(place.processes().is_empty());

    let text = run(&mut place.subuidless(["check"])).ok();
    let checks = found["checks"].as_array().unwrap();
    let (of_checks, verdicts) = text.split_once("\n\n").unwrap();
    assert!(
        verdicts.contains("commands (subuidless run)  yes\n"),
        "{text}"
    );
    let lines: Vec<&str> = of_checks
        .lines()
        .filter(|line| !line.starts_with(' '))
        .collect();
    assert_eq!(lines.len(), checks.len(), "{text}");
    for (line, check) in lines.iter().zip(checks) {
        let result = line.split_whitespace().next().unwrap().to_lowercase();
        assert_eq!(result, check["result"].as_str().unwrap(), "{text}");
        assert!(line.contains(check["name"].as_str().unwrap()), "{text}");
    }
}

#[test]
fn each_use_has_a_verdict_and_an_exit_code() {
    let place = Place::new();
    let hide = "for name in crun runc dockerd; do
        for place in /usr/local/bin /usr/local/sbin /usr/bin /usr/sbin; do
            test ! -e $place/$name || mount --bind /dev/null $place/$name
        done; done";
    let found = on_changed_host(&place, hide, &[]);
    let works: Vec<(&str, bool)> = found["uses"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["name"].as_str().unwrap(), it["works"] == true))
        .collect();
    let expected = [
        ("run", true),
        ("container", false),
        ("podman", false),
        ("docker", false),
    ];
    assert_eq!(works, expected, "{found:#}");
    for (wanted, works) in expected {
        let command = format!("\"$0\" check --for {wanted}");
        let script = format!("{hide}; setpriv --reuid={} -- {command}", place.user.uid);
        let mut host = place.as_root("unshare");
        host.args(["-m", "--", "sh", "-euc", &script])
            .arg(place.binary());
        host.env("XDG_RUNTIME_DIR", place.runtime_directory());
        let ran = run(host.env("HOME", place.path("home")));
        assert_eq!(ran.status.code(), Some(i32::from(!works)), "{}", ran.stderr);
        assert_eq!(ran.stderr.contains("crun"), !works, "{}", ran.stderr);
    }
}

#[test]
fn a_tree_whose_programs_others_can_execute_as_the_user_is_named() {
    let place = Place::new();
    let tree = place.path("home/tree");
    fs::create_dir_all(tree.join("usr/bin")).unwrap();
    let program = tree.join("usr/bin/su");
    fs::write(&program, "").unwrap();
    place.give_to_user(&program);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
    let names = |mode| {
        set_mode(&place.path("home"), mode);
        let found = check(&place, |command| {
            command.arg(&tree);
        });
        found.to_string().contains("usr/bin/su")
    };
    assert!(names(0o755) && !names(0o700));
}

#[test]
fn without_user_namespaces_the_setting_is_named() {
    let place = Place::new();
    // The limit of a namespace goes for those below it: this host keeps its own.
    let script = "echo 0 >/proc/sys/user/max_user_namespaces; exec \"$0\" check \"$@\"";
    let ask = |arguments: &[&str]| {
        let mut command = place.as_user("unshare");
        command.args(["-r", "--", "sh", "-euc", script]);
        run(command.arg(place.binary()).args(arguments))
    };
    let found = document(&ask(&["--json"]));
    let reason = "user.max_user_namespaces is 0";
    says(
        &found,
        "user namespaces",
        "fail",
        reason,
        "sysctl -w user.max_user_namespaces=",
    );
    says(&found, "user", "ok", "root of a user namespace", "");
    let ran = ask(&[]);
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(text.contains("FAIL  user namespaces"), "{text}");
    assert!(ran.error().contains("1 of these checks failed"));
}

/// `scripts/test --vm 5.10 -- check:a_kernel` runs it where that is so.
#[test]
fn a_kernel_that_is_too_old_is_refused() {
    let place = Place::new();
    let version = place.path("osrelease");
    fs::write(&version, "5.10.0-32-cloud-amd64\n").unwrap();
    let path = version.display();
    let script = format!("mount --bind '{path}' /proc/sys/kernel/osrelease");
    let found = on_changed_host(&place, &script, &[]);
    says(&found, "kernel", "fail", "5.10.0-32-cloud-amd64", "5.14");
    let root = place.path("home/rootfs");
    for arguments in [
        &["run", "--", "true"][..],
        &["run", "--rootfs", &root.display().to_string(), "true"],
        &["fakeroot", "true"],
        &["serve"],
    ] {
        let ran = ran_on_changed_host(&place, &script, arguments);
        assert!(!ran.status.success(), "{arguments:?}");
        let said = "this is Linux 5.10.0-32-cloud-amd64, but 5.14 or newer is needed";
        assert!(ran.stderr.contains(said), "{arguments:?}: {}", ran.stderr);
    }
}

#[test]
fn under_another_listener_nothing_can_be_answered() {
    let place = Place::new();
    let mut command = place.subuidless(["run", "--"]);
    command.arg(place.binary()).args(["check", "--json"]);
    let found = document(&run(&mut command));
    says(
        &found,
        "seccomp notification",
        "fail",
        "EBUSY",
        "outside of `subuidless run`",
    );
    says(&found, "filters", "warn", "1 on this process", "");
}

#[test]
fn runtimes_that_are_missing_old_or_without_seccomp_are_named() {
    let place = Place::new();
    let hide = |names: &[&str]| -> String {
        names
            .iter()
            .map(|name| format!("mount --bind /dev/null {}\n", tool(name).display()))
            .collect()
    };
    // One runtime is enough.
    let found = on_changed_host(&place, &hide(&["crun"]), &[]);
    says(&found, "crun", "ok", "the other runtime is enough", "");
    assert_eq!(found["ok"], true, "{found:#}");
    let found = on_changed_host(&place, &hide(&["crun", "runc", "podman"]), &[]);
    says(&found, "crun", "fail", "so is runc", "or runc 1.1");
    says(&found, "podman", "ok", "only `subuidless podman`", "");
    let checks = found["checks"].as_array().unwrap();
    let failed = checks.iter().filter(|check| check["result"] == "fail");
    assert_eq!(failed.count(), 1, "{found:#}");
    assert_eq!(found["uses"][1]["missing"], json!(["crun"]), "{found:#}");

    let old = false_program(&place, "runc", "runc version 1.0.3\nlibseccomp: 2.5.1");
    let bare = false_program(&place, "crun", "crun version 1.8.1\n+SYSTEMD +CAP +YAJL");
    let path = format!("{}:{}:/usr/bin:/bin", old.display(), bare.display());
    let found = check(&place, |command| {
        command.env("PATH", path);
    });
    says(&found, "runc", "fail", "1.0.3", "install runc 1.1");
    says(
        &found,
        "crun",
        "fail",
        "built without seccomp",
        "install crun 0.19",
    );
    // Other causes are not taken for those.
    fs::write(bare.join("crun"), "#!/bin/sh\nexit 3\n").unwrap();
    let path = format!("{}:{}:/usr/bin:/bin", old.display(), bare.display());
    let found = check(&place, |command| {
        command.env("PATH", path);
    });
    says(&found, "crun", "fail", "exit status: 3", "run that");
    // A user's PATH often leaves out /usr/sbin.
    let mut command = place.as_user("sh");
    command
        .args(["-c", "PATH=/nowhere exec \"$0\" check --json"])
        .arg(place.binary());
    let found = document(&run(&mut command));
    says(&found, "crun", "ok", "which is not on PATH", "");
}

#[test]
fn a_network_that_does_not_lead_out_is_told_where_it_is_missed() {
    let place = Place::new();
    let device = place.path("tun");
    let device = device.display();
    let open = format!(
        "mknod -m 666 {device} c 10 200; mkdir -p /dev/net; touch /dev/net/tun
        mount --bind {device} /dev/net/tun\n"
    );
    let hide = |name: &str| format!("mount --bind /dev/null {}\n", tool(name).display());
    let both = hide("pasta") + &hide("slirp4netns");
    let found = on_changed_host(&place, &open, &[]);
    says(&found, "network", "ok", "pasta", "");
    assert_eq!(found["uses"][2]["without"], json!([]), "{found:#}");
    let closed = "mkdir -p /dev/net; touch /dev/net/tun; mount --bind /dev/null /dev/net/tun";
    for (script, reason, change) in [
        (closed, "/dev/net/tun: ", "modprobe tun"),
        (
            &(format!("rm -f {device}; {open}{both}")),
            "are missing",
            "install",
        ),
    ] {
        let found = on_changed_host(&place, script, &[]);
        says(&found, "network", "warn", reason, change);
        let podman = &found["uses"][2];
        assert_eq!(podman["name"], "podman");
        assert_eq!(podman["works"], true, "{found:#}");
        assert_eq!(podman["without"], json!(["network"]), "{found:#}");
        assert_eq!(found["uses"][1]["without"], json!([]), "{found:#}");
    }
}

#[test]
fn a_program_that_never_answers_is_given_up() {
    let place = Place::new();
    let directory = false_program(&place, "podman", "podman version 4.3.1");
    fs::write(directory.join("podman"), "#!/bin/sh\nexec sleep 1000000\n").unwrap();
    let found = check(&place, |command| {
        command.env("PATH", format!("{}:/usr/bin:/bin", directory.display()));
    });
    says(&found, "podman", "ok", "unknown version", "");
    assert!(place.processes().is_empty());
}

#[test]
fn a_slow_storage_driver_of_podmans_is_told() {
    let place = Place::new();
    says(&check(&place, |_| ()), "podman", "ok", "podman", "");
    fs::create_dir_all(place.path("home/.local/share/containers/storage/vfs-images")).unwrap();
    let found = check(&place, |_| ());
    let change = "`subuidless podman system reset` deletes";
    says(
        &found,
        "podman",
        "warn",
        "its storage driver is vfs",
        change,
    );
}

#[test]
fn a_runtime_directory_has_to_be_ones_own() {
    let place = Place::new();
    let found = check(&place, |command| {
        command.env_remove("XDG_RUNTIME_DIR");
    });
    says(
        &found,
        "XDG_RUNTIME_DIR",
        "warn",
        "not set",
        "export XDG_RUNTIME_DIR=",
    );
    assert_eq!(found["ok"], true);
    let script = "mount -t tmpfs -o mode=755 none /tmp; mount -t tmpfs none /run/user
        export XDG_RUNTIME_DIR=/nowhere";
    let found = on_changed_host(&place, script, &[]);
    says(
        &found,
        "XDG_RUNTIME_DIR",
        "fail",
        "/nowhere: No such file",
        "export XDG_RUNTIME_DIR=",
    );
    let others = place.path("others");
    fs::create_dir(&others).unwrap();
    chown(&others, Some(0), Some(0)).unwrap();
    set_mode(&others, 0o700);
    let open = place.path("home/open");
    fs::create_dir(&open).unwrap();
    place.give_to_user(&open);
    set_mode(&open, 0o775);
    for (directory, reason) in [
        (others, "owner 0"),
        (open, "mode 775"),
        (place.path("missing"), "No such file"),
    ] {
        let found = check(&place, |command| {
            command.env("XDG_RUNTIME_DIR", &directory);
        });
        says(
            &found,
            "XDG_RUNTIME_DIR",
            "warn",
            reason,
            "export XDG_RUNTIME_DIR=",
        );
    }
}

#[test]
fn directories_without_attributes_and_those_that_are_closed_are_told() {
    let place = Place::new();
    let mount = place.path("ramfs");
    fs::create_dir(&mount).unwrap();
    let mount = mount.to_str().unwrap();
    let script = format!("mount -t ramfs none {mount}; chmod 777 {mount}");
    let found = on_changed_host(&place, &script, &[mount]);
    let name = format!("attributes in {mount}");
    says(&found, &name, "warn", "kept in the side store", "ext4");
    let found = check(&place, |command| {
        command.arg("/proc");
    });
    says(
        &found,
        "attributes in /proc",
        "warn",
        "cannot create a file there",
        "check DIR",
    );
}

#[test]
fn a_state_directory_that_cannot_hold_the_store_is_told() {
    let place = Place::new();
    let found = check(&place, |command| {
        command.env("XDG_STATE_HOME", "/proc/state");
    });
    says(
        &found,
        "side store",
        "warn",
        "/proc/state/subuidless",
        "--store DIR",
    );
    let found = check(&place, |command| {
        command.env_remove("HOME");
    });
    says(
        &found,
        "side store",
        "warn",
        "neither XDG_STATE_HOME nor HOME",
        "--store DIR",
    );
}

#[test]
fn a_subuid_range_and_hidden_processes_are_told() {
    let place = Place::new();
    let ranges = place.path("subuid");
    fs::write(&ranges, format!("{}:100000:65536\n", place.user.uid)).unwrap();
    let script = format!(
        "mount --bind {} /etc/subuid; mount -t proc -o hidepid=2 proc /proc",
        ranges.display()
    );
    let found = on_changed_host(&place, &script, &[]);
    let reason = "65536 ids from 100000 on";
    says(&found, "subuid range", "warn", reason, "native mapping");
    says(&found, "/proc", "ok", "hidepid=", "");
    assert_eq!(found["ok"], true, "{found:#}");
}

#[test]
fn root_is_told_that_it_needs_none_of_this() {
    let place = Place::new();
    let mut command = place.as_root(place.binary());
    let found = document(&run(command.args(["check", "--json"])));
    says(
        &found,
        "user",
        "warn",
        "the kernel knows all ids",
        "as the user who",
    );
}

/// For perl: the command with a filter that answers unshare(2) and clone(2) with the number
/// $ARGV[0] if they have a flag of $ARGV[1], as filters of outer containers do, and as AppArmor does.
const WITHOUT_NAMESPACES: &str = r#"my ($errno, $flags, @command) = @ARGV;
    my ($prctl, $unshare, $clone) = `uname -m` =~ /^aarch64/ ? (167, 97, 220) : (157, 272, 56);
    my $clone3 = 435;
    my $filter = pack "SCCL" x 10, 0x20, 0, 0, 0,
        0x15, 3, 0, $unshare, 0x15, 2, 0, $clone, 0x15, 4, 0, $clone3, 6, 0, 0, 0x7fff0000,
        0x20, 0, 0, 16, 0x45, 2, 0, hex $flags, 6, 0, 0, 0x7fff0000,
        6, 0, 0, 0x50000 | 38, 6, 0, 0, 0x50000 | $errno;
    syscall($prctl, 38, 1, 0, 0, 0) == 0 or die "no_new_privs: $!";
    syscall($prctl, 22, 2, pack("SxxxxxxP", 10, $filter), 0, 0) == 0 or die "filter: $!";
    exec @command or die "@command: $!""#;

/// Whatever needs a user namespace names what `check` names, and what to change.
#[test]
fn what_forbids_user_namespaces_is_named_by_everything_that_makes_one() {
    const ANY: &str = "10000000";
    const OF_MOUNTS: &str = "20000";
    let place = Place::new();
    let rootfs = small_rootfs(&place);
    let rootfs = rootfs.to_str().unwrap();
    let setting = |name: &str, value: &str| {
        format!("mount -t tmpfs none /proc/sys/kernel; echo {value} >/proc/sys/kernel/{name}")
    };
    let filtered = |errno: i32, flags: &str| {
        let errno = errno.to_string();
        ["perl", "-e", WITHOUT_NAMESPACES, &errno, flags].map(str::to_owned)
    };
    // podman takes root of a user namespace for root.
    let map = format!("--map-user={}", place.user.uid);
    let limited = ["unshare", "--keep-caps", &map, "--", "sh", "-euc"].map(str::to_owned);
    let limit = "echo 0 >/proc/sys/user/max_user_namespaces
        exec setpriv --inh-caps=-all --ambient-caps=-all -- \"$0\" \"$@\""
        .to_owned();
    for (prepare, words, reason, change) in [
        (
            String::new(),
            [&limited[..], &[limit]].concat(),
            "user.max_user_namespaces is 0",
            "sysctl -w user.max_user_namespaces=",
        ),
        (
            setting("unprivileged_userns_clone", "0"),
            filtered(libc::EPERM, ANY).to_vec(),
            "kernel.unprivileged_userns_clone is 0",
            "sysctl -w kernel.unprivileged_userns_clone=1",
        ),
        (
            setting("apparmor_restrict_unprivileged_userns", "1"),
            filtered(libc::EACCES, OF_MOUNTS).to_vec(),
            "kernel.apparmor_restrict_unprivileged_userns is 1",
            "an AppArmor profile",
        ),
        (
            String::new(),
            filtered(libc::EPERM, ANY).to_vec(),
            "a seccomp filter of this process forbids it",
            "seccomp=unconfined",
        ),
        (
            String::new(),
            filtered(libc::ENOSYS, ANY).to_vec(),
            "a seccomp filter of this process forbids it",
            "outside of the container or sandbox",
        ),
    ] {
        let ask = |arguments: &[&str]| {
            let (uid, gid) = (place.user.uid, place.user.gid);
            let script = format!(
                "{prepare}\nexec setpriv --reuid={uid} --regid={gid} --init-groups -- \"$@\""
            );
            let mut command = place.as_root("unshare");
            command.args(["-m", "--", "sh", "-euc", &script, "sh"]);
            command.args(&words).arg(place.binary()).args(arguments);
            command.env("HOME", place.path("home"));
            run(command.env("XDG_RUNTIME_DIR", place.runtime_directory()))
        };
        let found = document(&ask(&["check", "--json"]));
        says(&found, "user namespaces", "fail", reason, change);
        for arguments in [
            &["run", "--", "true"][..],
            &["run", "--net", "none", "--", "true"],
            &["run", "--rootfs", rootfs, "--", "true"],
            &["fakeroot", "--", "true"],
            &["podman", "info"],
            &["owners", "ls", "."],
        ] {
            // It makes no mount namespace.
            if arguments[0] == "owners" && words.iter().any(|word| word == OF_MOUNTS) {
                continue;
            }
            let error = ask(arguments).error();
            assert!(
                error.contains(reason) && error.contains(change),
                "{arguments:?}: {error}"
            );
        }
    }
}

/// As with kernel.yama.ptrace_scope=3, which nothing but a boot ends.
#[test]
fn where_memory_cannot_be_read_the_command_says_so() {
    let place = Place::new();
    let number = libc::SYS_process_vm_readv.to_string();
    let ask = |arguments: &[&str]| {
        let mut command = place.as_user("perl");
        command.args(["-e", WITHOUT_ONE_CALL, &number]);
        run(command.arg(place.binary()).args(arguments))
    };
    let found = document(&ask(&["check", "--json"]));
    says(&found, "memory of targets", "fail", "process_vm_readv", "");
    let ran = ask(&["run", "--", "sh", "-c", "touch f; chown 5:6 f"]);
    assert!(
        ran.stderr.contains("the memory of programs cannot be read")
            && ran
                .stderr
                .contains("process_vm_readv: Operation not permitted"),
        "{}",
        ran.stderr
    );
}

/// No part of `run` waits for one that has failed.
#[test]
fn a_supervisor_that_cannot_serve_ends_what_waits_for_it() {
    let place = Place::new();
    let rootfs = small_rootfs(&place);
    let rootfs = rootfs.to_str().unwrap();
    for number in [
        libc::SYS_epoll_create1,
        libc::SYS_eventfd2,
        libc::SYS_seccomp,
    ] {
        for words in [
            &["run"][..],
            &["run", "--rootfs", rootfs],
            &["run", "--rootfs", rootfs, "--detach", "--name", "a"],
        ] {
            let mut command = place.as_user("timeout");
            command.args(["300", "perl", "-e", WITHOUT_ONE_CALL, &number.to_string()]);
            command.arg(place.binary()).args(words);
            let ran = run(command.args(["--", "true"]));
            assert_eq!(ran.status.code(), Some(125), "{number} {words:?}");
            assert!(!ran.stderr.is_empty(), "{number} {words:?}");
        }
    }
    until("nothing runs any more", || {
        place.processes().is_empty().then_some(())
    });
}

/// Where `run` does not work, `check` does not say that it does, whatever it is that is missing.
#[test]
fn what_ends_a_command_or_a_container_is_found_by_a_check_that_runs_one() {
    let place = Place::new();
    let rootfs = small_rootfs(&place);
    let rootfs = rootfs.to_str().unwrap();
    let script = "touch /tmp/f; chown 5:6 /tmp/f; stat -c %u:%g /tmp/f; rm /tmp/f";
    let ask = |number: libc::c_long, arguments: &[&str]| {
        let mut command = place.as_user("perl");
        command.args(["-e", WITHOUT_ONE_CALL, &number.to_string()]);
        run(command.arg(place.binary()).args(arguments))
    };
    let works = |number, root: &[&str], wanted: &str| {
        let command = [&["run"], root, &["--", "sh", "-c", script]].concat();
        let ran = ask(number, &command);
        let works = ran.status.success() && ran.stdout == b"5:6\n";
        let checked = ask(number, &["check", "--for", wanted]);
        let said = String::from_utf8_lossy(&checked.stdout).into_owned();
        assert_eq!(
            checked.status.success(),
            works,
            "{number} {wanted}: {}\n{said}{}",
            ran.stderr,
            checked.stderr
        );
        works
    };
    // What ends all, what ends containers, and what both do without.
    let of_all = [
        libc::SYS_setns,
        libc::SYS_openat2,
        libc::SYS_close_range,
        libc::SYS_eventfd2,
        libc::SYS_process_vm_writev,
        libc::SYS_memfd_create,
        libc::SYS_capset,
        libc::SYS_clone,
    ];
    let of_containers = [
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_pidfd_open,
        libc::SYS_flock,
    ];
    let of_none = [libc::SYS_inotify_init1, libc::SYS_kcmp];
    let all = of_all.iter().map(|number| (number, false, false));
    let containers = of_containers.iter().map(|number| (number, true, false));
    let none = of_none.iter().map(|number| (number, true, true));
    for (number, command, container) in all.chain(containers).chain(none) {
        assert_eq!(works(*number, &[], "run"), command, "{number}");
        let root = ["--rootfs", rootfs];
        assert_eq!(works(*number, &root, "container"), container, "{number}");
    }
    until("nothing runs any more", || {
        place.processes().is_empty().then_some(())
    });
}

/// For perl: the command with a filter that answers the call $ARGV[0] with EPERM.
const WITHOUT_ONE_CALL: &str = r#"my ($number, @command) = @ARGV;
    my $prctl = `uname -m` =~ /^aarch64/ ? 167 : 157;
    my $filter = pack "SCCL" x 4, 0x20, 0, 0, 0, 0x15, 0, 1, $number,
        6, 0, 0, 0x50000 | 1, 6, 0, 0, 0x7fff0000;
    syscall($prctl, 38, 1, 0, 0, 0) == 0 or die "no_new_privs: $!";
    syscall($prctl, 22, 2, pack("SxxxxxxP", 4, $filter), 0, 0) == 0 or die "filter: $!";
    exec @command or die "@command: $!""#;

/// Owners are kept, by a command and by a container, on hosts that have less than others.
#[test]
fn a_host_that_lacks_this_and_that_keeps_owners_all_the_same() {
    let script = "cd /tmp; ln -s x l; : >f; chown -h 5:6 l f; stat -c %u:%g l f; rm l f";
    for prepare in [
        "mount -t proc -o hidepid=1 proc /proc",
        "mount -t proc -o hidepid=2 proc /proc",
        "mount -t proc -o hidepid=4 proc /proc",
        "mount -t tmpfs -o mode=755 none /dev/shm",
        "mount --bind \"$HOME\" \"$HOME\"; mount -o remount,ro,bind \"$HOME\"",
        "mount --bind \"$HOME\" \"$HOME\"; mount -o remount,noexec,bind \"$HOME\"
        mount -t tmpfs -o mode=1777,noexec none /tmp; mount -t tmpfs none /run/user
        unset XDG_RUNTIME_DIR",
        "mount -t tmpfs -o mode=777,size=4k none \"$HOME\"; head -c 4096 /dev/zero >\"$HOME/full\"
        mount -t tmpfs -o mode=1777 none /tmp",
        "unset HOME",
    ] {
        let place = Place::new();
        // Not in the home, which is what these hosts lack.
        let rootfs = small_rootfs(&place);
        let elsewhere = place.path("rootfs");
        fs::rename(&rootfs, &elsewhere).unwrap();
        let (uid, gid) = (place.user.uid, place.user.gid);
        let words = format!(
            "{prepare}
            cd /; as_user() {{ setpriv --reuid={uid} --regid={gid} --init-groups -- \"$@\"; }}
            as_user \"$S\" run -- sh -euc \"$1\"
            as_user \"$S\" run --rootfs \"$2\" -- sh -euc \"$1\"
            as_user \"$S\" check --json --for run >/dev/null"
        );
        let mut command = place.as_root("unshare");
        command
            .args(["-m", "--", "sh", "-euc", &words, "sh", script])
            .arg(&elsewhere)
            .env("S", place.binary())
            .env("HOME", place.path("home"))
            .env("XDG_RUNTIME_DIR", place.runtime_directory());
        let ran = run(&mut command);
        let told = ran.stderr.clone();
        assert_eq!(ran.ok(), "5:6\n5:6\n5:6\n5:6\n", "{prepare}: {told}");
    }
}
