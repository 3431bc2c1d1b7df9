//! `subuidless run --keep-id`: the user stays herself, and user namespaces that are made are emulated.

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};

use common::command::{is_left_alone, launch};
use common::{Place, example, run, until};

#[test]
fn with_keep_id_the_user_stays_herself_and_namespaces_are_emulated() {
    let place = Place::new();
    let home = place.path("home");
    let uid = place.user.uid;
    let script = r#"
        id -u; touch f; chown 42:42 f 2>/dev/null || echo refused
        unshare -r sh -euc 'chown 42:43 f; stat -c %u:%g f; setpriv --reuid 55 --clear-groups id -u'
        stat -c %u f
        # Another namespace, and one below it with other mounts.
        unshare -r sh -euc 'stat -c %u:%g f; unshare -m sh -euc "mount -t tmpfs t /mnt; touch /mnt/g; chown 8:9 /mnt/g; stat -c %u:%g /mnt/g"'
        unshare -r -m sh -euc 'mount -t tmpfs t /mnt; touch /mnt/g; chown 10:11 /mnt/g; stat -c %u:%g /mnt/g' &
        unshare -r sh -euc 'chown 12:13 f; stat -c %u:%g f'
        wait"#;
    let mut command = launch(&place, &["--keep-id", "--", "sh", "-euc", script]);
    let printed = run(command.current_dir(&home)).ok();
    let mut lines: Vec<&str> = printed.lines().collect();
    lines[6..].sort_unstable();
    let uid = uid.to_string();
    assert_eq!(
        lines,
        [
            &uid, "refused", "42:43", "55", &uid, "42:43", "10:11", "12:13", "8:9"
        ],
        "{printed}"
    );
    is_left_alone(&place);
}

#[test]
fn with_keep_id_a_namespace_is_not_spoilt_by_a_look_before_its_ids_are_mapped() {
    let place = Place::new();
    let program = place.path("home/target");
    fs::copy(example("target"), &program).unwrap();
    let script = "touch f; ./target unmapped f";
    let mut command = launch(&place, &["--keep-id", "--", "sh", "-euc", script]);
    assert_eq!(run(&mut command).ok(), "42:43\n");
    is_left_alone(&place);
}

#[test]
fn with_keep_id_a_supervisor_without_descriptors_waits_for_some() {
    let place = Place::new();
    let home = place.path("home");
    let script = "touch f; mkfifo go; touch ready; read x <go
        unshare -r sh -euc 'chown 7:8 f; stat -c %u:%g f'";
    let options = ["--keep-id", "--log-file", "log", "--", "sh", "-euc", script];
    let child = launch(&place, &options)
        .stdout(Stdio::piped())
        .spawn()
        .expect("subuidless run");
    until("the command is ready", || {
        home.join("ready").exists().then_some(())
    });
    let supervisor = place.supervisor();
    let allow = |count: usize| {
        let mut command = place.as_user("prlimit");
        command.arg(format!("--pid={supervisor}"));
        run(command.arg(format!("--nofile={count}:"))).ok();
    };
    // Not one more than it has; some may be open for a moment only.
    let open = || {
        std::thread::sleep(std::time::Duration::from_millis(5));
        let open = fs::read_dir(format!("/proc/{supervisor}/fd")).expect("its descriptors");
        open.count()
    };
    allow((0..20).map(|_| open()).min().unwrap_or_default());
    fs::write(home.join("go"), "go\n").unwrap();
    until("the log says what is missing", || {
        let log = fs::read_to_string(home.join("log")).unwrap_or_default();
        log.contains("cannot start a worker for a user namespace")
            .then_some(())
    });
    allow(1024);
    let output = child.wait_with_output().unwrap();
    let log = fs::read_to_string(home.join("log")).unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "7:8\n", "{log}");
    is_left_alone(&place);
}

#[test]
fn with_keep_id_a_dead_supervisor_means_enosys_and_no_hang() {
    let place = Place::new();
    // test(1) would ask the dead whether a file is there.
    let script =
        "unshare -r sh -c 'touch f; mkfifo go; exec 3<>go; touch ready; read x <&3; chown 7:8 f'";
    let mut child = launch(&place, &["--keep-id", "--", "sh", "-c", script])
        .stderr(Stdio::null())
        .spawn()
        .expect("subuidless run");
    let home = place.path("home");
    until("the command is ready", || {
        home.join("ready").exists().then_some(())
    });
    kill(place.supervisor(), Signal::SIGKILL).unwrap();
    // Also for reading, so that this waits for nobody.
    let go = File::options().read(true).write(true).open(home.join("go"));
    let mut go = go.unwrap();
    go.write_all(b"\n").unwrap();
    until("the command has ended", || {
        child.try_wait().unwrap().map(drop)
    });
    // What the dead one has left in the runtime directory goes with the next.
    let mut next = launch(&place, &["--keep-id", "--", "unshare", "-r", "true"]);
    run(&mut next).ok();
    is_left_alone(&place);
}
