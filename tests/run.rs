//! `subuidless run`: a command of the host, with owners and ids that are compared with real root's.

mod common;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use common::{
    Place, Ran, Terminal, assert_same_lines, example, run, run_with_input, set_mode, small_rootfs,
    tool, until,
};

/// `subuidless run` with arguments.
fn launch(place: &Place, arguments: &[&str]) -> Command {
    let mut command = place.subuidless(["run"]);
    command.args(arguments);
    command
}

/// A shell script under `subuidless run`.
fn sh(place: &Place, script: &str) -> Ran {
    run(&mut launch(place, &["--", "sh", "-euc", script]))
}

/// A directory for root and one for the user.
fn directories(place: &Place) -> (PathBuf, PathBuf) {
    let (oracle, ours) = (place.path("oracle"), place.path("ours"));
    for directory in [&oracle, &ours] {
        fs::create_dir(directory).expect("a new directory");
        set_mode(directory, 0o755);
    }
    place.give_to_user(&ours);
    (oracle, ours)
}

/// Runs `script` as real root and under `subuidless run`, and compares what is printed; the result
/// is that.
fn compare(place: &Place, (oracle, ours): &(PathBuf, PathBuf), script: &str) -> String {
    let script = format!("umask 022\n{script}");
    let mut real = place.as_root("bash");
    real.args(["-euc", &script]).current_dir(oracle);
    let mut emulated = launch(place, &["--", "bash", "-euc", &script]);
    emulated.current_dir(ours);
    let expected = run(&mut real).ok();
    assert_same_lines(expected.as_bytes(), run(&mut emulated).ok().as_bytes());
    expected
}

/// Nothing of ours runs any more.
fn is_left_alone(place: &Place) {
    until("no process and no socket is left", || {
        let processes = place.processes();
        processes.is_empty().then_some(())
    });
    let left: Vec<_> = fs::read_dir(place.runtime_directory())
        .expect("the runtime directory")
        .flatten()
        .map(|entry| entry.file_name())
        .filter(|name| name != "subuidless-recent")
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

const LIST: &str = "find . -printf '%p %M %U:%G %n %l\\n' | LC_ALL=C sort";

#[test]
fn owners_and_ids_are_those_that_real_root_sees() {
    let place = Place::new();
    let directories = directories(&place);
    let busybox = tool("busybox");
    let script = format!(
        r#"
        mkdir -p d/e; echo x >d/f; ln -s f d/l; ln d/f d/h; mkfifo d/p; mknod d/null c 1 3
        chown 42:42 d/f; chown -h 7:8 d/l; chown 100000:200000 d/e; chown 3000000000:5 d/p; chown 1:5 d/null
        # A static program.
        echo y >d/s; {busybox} chown 11:12 d/s; {busybox} stat -c '%u:%g %a' d/s
        chmod 4755 d/s; chown 13:14 d/s; chmod 2755 d/s
        stat -c '%n %u:%g %a %F %t:%T' d/*
        setpriv --reuid 77 --regid 78 --groups 79,80 sh -c 'id -u; id -g; id -G; chown 0:0 d/f 2>&1; :'
        setpriv --reuid 42 --regid 42 --clear-groups sh -c 'chmod 600 d/f; chgrp 9 d/f 2>&1; stat -c "%u:%g %a" d/f'
        tar --numeric-owner -cf - d | tar --numeric-owner -tvf - | awk '{{ print $1, $2, $NF }}'
        mkdir c; tar -cf - d | tar -xpf - -C c
        cp -a d c2; {LIST}"#,
        busybox = busybox.display()
    );
    let printed = compare(&place, &directories, &script);
    assert!(printed.contains("100000:200000"), "{printed}");
    is_left_alone(&place);
    // What was set outlives the command.
    compare(&place, &directories, LIST);
    is_left_alone(&place);
}

#[test]
fn links_lead_where_they_lead_real_root() {
    let place = Place::new();
    let directories = directories(&place);
    // A user, for whom the worker creates.
    let script = r#"
        user() { setpriv --reuid 42 --regid 42 --clear-groups "$@" 2>&1 ||:; }
        mkdir m; export -f user 2>/dev/null ||:
        unshare -m bash -c '
            mount -t tmpfs -o nosymfollow,mode=777 none m; cd m; umask 0; mkdir d; : >d/f
            ln -s d l; ln -s new dangling
            user touch l/x; user touch dangling; user mkdir l/d; user ln -s x l/y; user mkfifo l/p
            chown 5:6 l/f 2>&1; stat -c %u l/f 2>&1; find . | sort'
        # Created through a link of procfs, in a directory with a group.
        mkdir z; cd z; chgrp 42 .; chmod 2755 .; ln -s /proc/self/cwd/new ../through; : >../through
        stat -c "%n %u:%g" *; cd ..
        # A socket behind a link of procfs, and a relative one.
        mkdir -m 777 s; cd s
        user perl -MSocket -e '
            opendir(D, ".");
            for my $path ("/proc/self/fd/" . fileno(D) . "/by-fd", "/proc/self/cwd/by-cwd", "plain") {
                socket(S, PF_UNIX, SOCK_STREAM, 0);
                print bind(S, sockaddr_un($path)) ? "bound\n" : "$!\n";
            }'
        stat -c "%n %F" *; stat -c "%n %u:%g" plain; cd ..
        # No regular file, but it loses the bit all the same.
        mkfifo g; chown 5:6 g; chmod 2644 g
        setpriv --clear-groups --inh-caps=-all --bounding-set=-fsetid chown 5:7 g; stat -c "%a %u:%g" g
    "#;
    let printed = compare(&place, &directories, script);
    assert!(printed.contains("Too many levels"), "{printed}");
    assert!(printed.contains("plain 42:42"), "{printed}");
    is_left_alone(&place);
}

#[test]
fn a_store_that_cannot_be_had_is_an_error_before_the_command_runs() {
    let place = Place::new();
    for place_of_store in ["/nosuch/x", "/proc/x", "/etc/hostname"] {
        let ran = run(&mut launch(
            &place,
            &["--store", place_of_store, "--", "touch", "ran"],
        ));
        assert_eq!(ran.status.code(), Some(125), "{}", ran.stderr);
        assert!(ran.stderr.contains(place_of_store), "{}", ran.stderr);
        assert!(!place.path("home/ran").exists());
    }
}

#[test]
fn exit_codes_and_signals_are_the_commands_own() {
    let place = Place::new();
    let code = |arguments: &[&str]| run(&mut launch(&place, arguments)).status.code();
    assert_eq!(code(&["--", "true"]), Some(0));
    assert_eq!(code(&["sh", "-c", "exit 42"]), Some(42));
    assert_eq!(code(&["--", "/no/such/program"]), Some(127));
    assert_eq!(code(&["--", "/etc/passwd"]), Some(126));
    assert_eq!(
        code(&["--user", "nobody-knows-me", "--", "true"]),
        Some(125)
    );
    let killed = sh(&place, "kill -TERM $$").status;
    assert_eq!(killed.signal(), Some(Signal::SIGTERM as i32));
    // As a shell sees it.
    let mut outer = place.as_user("sh");
    outer.args(["-c", "\"$S\" run -- sh -c 'kill -9 $$'; echo $?"]);
    assert_eq!(run(outer.env("S", place.binary())).ok(), "137\n");
    is_left_alone(&place);
}

#[test]
fn standard_input_is_the_commands_alone() {
    let place = Place::new();
    let lines = place.path("home/lines");
    fs::write(&lines, "one\ntwo\n").unwrap();
    let mut outer = place.as_user("sh");
    outer.args(["-c", "\"$S\" run -- sh -c 'read x; echo got $x'; cat"]);
    outer.env("S", place.binary());
    let input = fs::File::open(&lines).unwrap();
    assert_eq!(
        run_with_input(&mut outer, input.into()).ok(),
        "got one\ntwo\n"
    );
}

#[test]
fn who_waits_for_the_end_of_a_pipe_does_not_wait_for_us() {
    let place = Place::new();
    // A process that goes on, with its own output elsewhere, has the filter, and so a supervisor.
    let script = "x=$(\"$S\" run -- sh -c 'sleep 1000 >/dev/null 2>&1 3>&- & echo hello' 2>&1 3>&1); echo $x";
    let mut outer = place.as_user("sh");
    outer.args(["-c", script]).env("S", place.binary());
    assert_eq!(run(&mut outer).ok(), "hello\n");
    assert!(!place.processes().is_empty());
}

#[test]
fn user_env_and_cwd_are_what_was_asked_for() {
    let place = Place::new();
    let ok = |arguments: &[&str]| run(&mut launch(&place, arguments)).ok();
    let ids = ["--", "sh", "-c", "id -u; id -g; id -G"];
    let of = |user: &str| ok(&[&["--user", user], &ids[..]].concat());
    assert_eq!(ok(&ids), "0\n0\n0\n");
    assert_eq!(of("999"), "999\n0\n0\n");
    assert_eq!(of("4000000000:70000"), "4000000000\n70000\n70000\n");
    // As the host's own name service has it.
    let expected = run(place
        .as_root("sh")
        .args(["-c", "id -u www-data; id -g www-data; id -G www-data"]))
    .ok();
    assert_eq!(of("www-data"), expected);
    let printed = ok(&[
        "--env",
        "A=b c",
        "--env",
        "HOME",
        "--cwd",
        "/usr",
        "--",
        "sh",
        "-c",
        "pwd; echo $A ${HOME-none}",
    ]);
    assert_eq!(printed, "/usr\nb c none\n");
    // A file that this user makes is his.
    sh(&place, "mkdir open; chmod 777 open").ok();
    let script = "touch open/f; stat -c %u:%g open/f";
    let made = ok(&["--user", "999:70000", "--", "sh", "-euc", script]);
    assert_eq!(made, "999:70000\n");
}

#[test]
fn what_stands_in_the_way_is_named() {
    let place = Place::new();
    let told = |arguments: &[&str]| run(&mut launch(&place, arguments)).error();
    assert!(
        told(&["--user", "nobody-knows-me", "--", "true"])
            .contains("\"nobody-knows-me\" is not a user in")
    );
    assert!(told(&["--user", "0:nobody-knows-me", "--", "true"]).contains("is not a group in"));
    assert!(
        told(&["--cwd", "/no/such/directory", "--", "true"])
            .contains("/no/such/directory: No such file or directory")
    );
    assert!(told(&["--log-file", "/no/such/log", "--", "true"]).contains("/no/such/log"));
    assert!(told(&[]).contains("COMMAND"));
    // The kernel takes one listener only.
    let inner = format!("{} run -- true", place.binary().display());
    let nested = run(&mut launch(&place, &["--", "sh", "-c", &inner]));
    assert_eq!(nested.status.code(), Some(125));
    assert!(
        nested
            .error()
            .contains("already runs under a seccomp listener")
    );
    let mut limited = place.as_user("unshare");
    let script = "echo 0 >/proc/sys/user/max_user_namespaces; exec \"$S\" run -- true";
    limited
        .args(["-r", "sh", "-c", script])
        .env("S", place.binary());
    let refused = run(&mut limited);
    assert_eq!(refused.status.code(), Some(125));
    assert!(refused.error().contains("cannot create a user namespace"));
    is_left_alone(&place);
}

/// A command that runs until it is told to end by a file, and then uses what is emulated.
fn start_waiting(place: &Place) -> std::process::Child {
    let script = "touch f; chown 5:6 f; touch ready; while ! test -e go; do sleep 0.01; done; chown 7:8 f; stat -c %u:%g f >out";
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

/// The supervisor of the command.
fn supervisor(place: &Place) -> Pid {
    let found = place
        .processes()
        .into_iter()
        .find(|(_, command)| command.windows(11).any(|part| part == b"\0supervise\0"));
    found.expect("a command has a supervisor").0
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
    let guard = common::guard_of(&place, supervisor(&place));
    until("the guard keeps the command", || {
        common::has_listener(guard).then_some(())
    });
    let mut dead = vec![supervisor(&place)];
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
    kill(supervisor(&place), Signal::SIGKILL).unwrap();
    go_on(&place);
    assert!(child.wait().unwrap().success());
    is_left_alone(&place);
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
    for pid in [supervisor(&place)].into_iter().chain(place.workers()) {
        kill(pid, Signal::SIGTERM).unwrap();
    }
    go_on(&place);
    assert!(child.wait().unwrap().success());
}

/// Waits until the process of this command line is what a terminal's keys are for.
fn is_in_the_foreground(place: &Place, wanted: &[u8]) {
    until("it is in the foreground", || {
        let processes = place.processes();
        let (pid, _) = processes.iter().find(|(_, command)| command == wanted)?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // proc_pid_stat(5): state, parent, process group, session, terminal, its foreground process
        // group.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        (fields[2] == fields[5] && fields[0] != "T").then_some(())
    });
}

#[test]
fn the_terminal_is_the_commands() {
    let place = Place::new();
    let mut terminal = Terminal::open(&place);
    terminal.enter("\"$S\" run -- sh -c 'trap \"echo inter''rupted; exit 7\" INT; echo rea''dy; while :; do sleep 0.05; done'");
    terminal.see("ready");
    terminal.press("\x03");
    terminal.see("interrupted");
    terminal.enter("echo code=$?");
    terminal.see("code=7");
    // Job control.
    terminal.enter("\"$S\" run -- sleep 1000");
    is_in_the_foreground(&place, b"sleep\x001000\0");
    terminal.press("\x1a");
    terminal.see("Stopped");
    terminal.enter("bg; jobs");
    terminal.see("Running");
    terminal.enter("fg");
    is_in_the_foreground(&place, b"sleep\x001000\0");
    terminal.press("\x03");
    terminal.enter("echo code=$?");
    terminal.see("code=130");
    // The size of the window.
    terminal.enter("\"$S\" run -- bash -c 'trap \"stty size\" WINCH; echo rea''dy; while :; do sleep 0.05; done'");
    terminal.see("ready");
    terminal.resize(33, 77);
    terminal.see("33 77");
    terminal.press("\x03");
    // A shell with jobs of its own.
    terminal.enter("\"$S\" run -- bash --norc -i");
    terminal.enter("sleep 1000");
    is_in_the_foreground(&place, b"sleep\x001000\0");
    terminal.press("\x1a");
    terminal.see("Stopped");
    terminal.enter("kill %1; touch f; chown 3:4 f; stat -c is=%u:%g f");
    terminal.see("is=3:4");
    terminal.enter("exit; exit");
    terminal.enter("echo here=$BASHPID again");
    terminal.see("again");
}

#[test]
fn a_command_that_makes_its_worker_complain_at_each_call_fills_no_log() {
    let place = Place::new();
    let mut command = place.as_user("prlimit");
    // With a hard limit, no process can be given ids.
    command
        .args(["--locks=1000:1000", "--"])
        .arg(place.binary());
    command.args(["run", "--log-file", "log", "--", "perl", "-e"]);
    let script = "for (1..1000) { $> = 5; $n += $! != 0 } print $n";
    assert_eq!(run(command.arg(script)).ok(), "1000");
    is_left_alone(&place);
    let log = fs::read_to_string(place.path("home/log")).unwrap();
    let said = log.matches("RLIMIT_LOCKS").count();
    assert!((100..110).contains(&said), "{said}");
    assert!(log.lines().count() < 200, "{log}");
    let left_out = log.lines().find(|line| line.contains("left_out="));
    let left_out: usize = common::number_after(left_out.unwrap_or(&log), "left_out=");
    assert!(left_out >= 800, "{log}");
}

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
    let supervisor = supervisor(&place);
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
    let script = "unshare -r sh -c 'touch f; mkfifo go; touch ready; read x <go; chown 7:8 f'";
    let mut child = launch(&place, &["--keep-id", "--", "sh", "-c", script])
        .stderr(Stdio::null())
        .spawn()
        .expect("subuidless run");
    let home = place.path("home");
    until("the command is ready", || {
        home.join("ready").exists().then_some(())
    });
    kill(supervisor(&place), Signal::SIGKILL).unwrap();
    fs::write(home.join("go"), "").unwrap();
    until("the command has ended", || {
        child.try_wait().unwrap().map(drop)
    });
    is_left_alone(&place);
}

/// Changes the user or the group of a file and a fifo, and looks whether it stays changed until the
/// next time; `$0`: which.
const CHANGE: &str = r#"
    my $is_user = shift; my $count = shift;
    for my $n (1 .. $count) {
        for my $file ("f", "p") {
            ($is_user ? chown($n, -1, $file) : chown(-1, $n, $file)) or die "chown: $!";
            my $found = (stat $file)[$is_user ? 4 : 5];
            $found == $n or die "$file: $n has become $found";
        }
    }
"#;

/// One changes the user and another one the group, at once: neither undoes the other's change.
#[test]
fn two_that_change_one_file_do_not_undo_each_other() {
    let place = Place::new();
    sh(&place, "touch f; mkfifo p").ok();
    let change = |is_user: &str, count: &str| {
        let mut command = launch(&place, &["--", "perl", "-e", CHANGE, is_user, count]);
        command.stdin(Stdio::null()).spawn().expect("a command")
    };
    // Two containers, so to speak.
    for mut child in [change("1", "3000"), change("0", "3000")] {
        assert!(child.wait().expect("its end").success());
    }
    assert_eq!(
        sh(&place, "stat -c %u:%g f p").ok(),
        "3000:3000\n3000:3000\n"
    );
    // A container, and somebody outside.
    let mut container = change("1", "10000");
    let mut group = 5000;
    while container.try_wait().expect("its end").is_none() {
        group += 1;
        let owner = format!(":{group}");
        let mut set = vec!["owners", "set", &owner];
        // Often for each process.
        set.extend(["f", "p"].iter().cycle().take(200));
        run(&mut place.subuidless(set)).ok();
    }
    assert!(container.wait().expect("its end").success() && group > 5000);
    let expected = format!("10000:{group}\n10000:{group}\n");
    assert_eq!(sh(&place, "stat -c %u:%g f p").ok(), expected);
}

/// A file and a directory whose inode has no room for one more attribute: their owners are kept all
/// the same, as nothing else is different there.
#[test]
fn an_inode_that_is_full_of_attributes_has_an_owner() {
    const FILL: &str = "fill() { for size in 3800 400 100 20 1; do n=0; \
        while setfattr -n user.$size.$n -v $(head -c $size /dev/zero | tr '\\0' a) $1 2>/dev/null; do n=$((n + 1)); done; done; \
        while setfattr -n user.1.0 -v 1$(getfattr --only-values -n user.1.0 $1 2>/dev/null) $1 2>/dev/null; do :; done; }; ";
    let place = Place::new();
    let ours = |script: &str| sh(&place, &format!("{FILL}{script}")).ok();
    let outside = |script: &str| run(place.as_user("sh").args(["-euc", script])).ok();
    ours("umask 022; mkdir t; cd t; touch f g; mkdir d; chown 3:4 g; fill f; fill d; fill g");
    assert_eq!(
        ours(
            "cd t; chown 5:6 f; chown 7:8 d; chown 100000:200000 g; touch d/x; stat -c %u:%g f d g d/x"
        ),
        "5:6\n7:8\n100000:200000\n0:0\n"
    );
    let look = "stat -c %u:%g f d g; getfattr -d f | grep -c rootless || :";
    assert_eq!(
        ours(&format!("cd t; {look}")),
        "5:6\n7:8\n100000:200000\n0\n"
    );
    // Nothing of it is in the attributes.
    assert_eq!(
        outside("getfattr -d t/f t/d | grep -c rootless || :"),
        "0\n"
    );
    // Who may change them, without opening them.
    let by = |user: &str, script: &str| {
        let mut command = launch(&place, &["--user", user, "--", "sh", "-c", script]);
        run(&mut command).status.code()
    };
    assert_eq!(by("5", "chmod 640 t/f && chmod 644 t/f"), Some(0));
    assert_eq!(by("6", "chmod 640 t/f"), Some(1));
    assert_eq!(by("7", "touch t/d/y"), Some(0));
    assert_eq!(by("6", "touch t/d/z"), Some(1));
    // From outside, too, and to a copy.
    let owners = |words: &[&str]| run(place.subuidless(["owners"]).args(words)).ok();
    assert!(owners(&["ls", "-d", "t/f"]).contains("      5      6 "));
    owners(&["export", "t", "-o", "list"]);
    outside("cp -a t copy");
    owners(&["import", "copy", "-i", "list"]);
    assert_eq!(
        ours(&format!("cd copy; {look}")),
        "5:6\n7:8\n100000:200000\n0\n"
    );
    owners(&["set", "9:9", "copy/f"]);
    assert_eq!(ours("stat -c %u:%g copy/f"), "9:9\n");
    // Room again: the next chown goes into the attribute, and nothing older shows when that goes.
    let room = "cd t; setfattr -x user.3800.0 f; stat -c %u:%g f; chown 11:12 f; stat -c %u:%g f";
    assert_eq!(ours(room), "5:6\n11:12\n");
    assert_eq!(outside("getfattr -d t/f | grep -c rootless"), "1\n");
    assert_eq!(ours("cd t; chown 0:0 f d; stat -c %u:%g f d"), "0:0\n0:0\n");
    assert_eq!(ours("stat -c %u:%g t/g copy/d"), "100000:200000\n7:8\n");
}

/// Runs `script` below `subuidless run`, with a place for what is recent that `prepare` makes on
/// `$R` and `/dev/shm`, where only this script sees it; its standard error is no terminal.
fn with_recent(place: &Place, prepare: &str, script: &str) -> Ran {
    let mut command = place.as_root("unshare");
    let words = format!(
        "{prepare}; exec setpriv --reuid={} --regid={} --init-groups -- \"$S\" run -- sh -c \"$1\"",
        place.user.uid, place.user.gid
    );
    command
        .args(["--mount", "sh", "-euc", &words, "sh", script])
        .env("S", place.binary())
        .env("R", place.runtime_directory())
        .env("HOME", place.path("home"))
        .env("XDG_RUNTIME_DIR", place.runtime_directory());
    // To the end of the pipe: the supervisor may pass the last lines on when the command has ended.
    let output = command.stdin(Stdio::null()).output().expect("a command");
    Ran {
        status: output.status,
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

const USERS: &str = "mode=1777";

/// An owner that cannot be kept is an error of the chown that sets it, and the command's standard
/// error says why.
#[test]
fn an_owner_that_cannot_be_kept_is_an_error_of_chown() {
    let script = "ln -sfn x l; touch f; chown 5:6 f; chown -h 0:0 l; stat -c %u:%g f l; chown -h 5:6 l; echo $?; stat -c %u:%g l";
    let nowhere =
        "mount -t tmpfs -o mode=755 none /dev/shm; rm -rf \"$R\"; touch \"$R\"".to_owned();
    let full = format!(
        "mount -t tmpfs -o {USERS},size=4k none /dev/shm; mount -t tmpfs -o {USERS},size=8k none \"$R\"; : >\"$R/full\"; \
         head -c 8192 /dev/zero >\"$R/full\""
    );
    for (prepare, errno, reason) in [
        (nowhere, "Input/output error", "no place for the side store"),
        (full, "No space left on device", "No space left on device"),
    ] {
        let place = Place::new();
        let ran = with_recent(&place, &prepare, script);
        assert_eq!(
            String::from_utf8_lossy(&ran.stdout),
            "5:6\n0:0\n1\n0:0\n",
            "{}",
            ran.stderr
        );
        // chown(1) writes its line in two pieces, and ours may come between them.
        assert!(
            ran.stderr.contains("'l'") && ran.stderr.contains(&format!(": {errno}\n")),
            "{}",
            ran.stderr
        );
        let ours: Vec<_> = ran
            .stderr
            .lines()
            .filter(|line| line.contains("side store"))
            .collect();
        assert!(
            ours.iter().any(|line| line.contains(reason)),
            "{}",
            ran.stderr
        );
        let failed = ours
            .iter()
            .filter(|line| line.contains("logged once"))
            .count();
        assert_eq!(failed, 1, "{}", ran.stderr);
    }
}

/// The same of a container, whose supervisor says it as long as the runtime is there.
#[test]
fn an_owner_that_cannot_be_kept_is_an_error_in_a_container_of_run() {
    let place = Place::new();
    let rootfs = small_rootfs(&place);
    let prepare = "mount -t tmpfs -o mode=755 none /dev/shm; : >\"$R/subuidless-recent\"";
    let words = format!(
        "{prepare}; exec setpriv --reuid={} --regid={} --init-groups -- \"$S\" run --rootfs \"$1\" -- /bin/sh -c \"$2\"",
        place.user.uid, place.user.gid
    );
    let mut command = place.as_root("unshare");
    command
        .args(["--mount", "sh", "-euc", &words, "sh"])
        .arg(&rootfs)
        .arg("cd /tmp; ln -s x l; chown -h 5:6 l; echo $?; stat -c %u:%g l")
        .env("S", place.binary())
        .env("R", place.runtime_directory())
        .env("HOME", place.path("home"))
        .env("XDG_RUNTIME_DIR", place.runtime_directory());
    let ran = run(&mut command);
    assert_eq!(ran.stdout, b"1\n0:0\n", "{}", ran.stderr);
    assert!(
        ran.stderr.contains("no place for the side store"),
        "{}",
        ran.stderr
    );
}

/// One errno, however often it is tried.
#[test]
fn memory_that_fills_up_is_no_space_left() {
    let place = Place::new();
    let (uid, gid) = (place.user.uid, place.user.gid);
    // Another one would not be her runtime directory.
    let prepare = format!("mount -t tmpfs -o mode=700,uid={uid},gid={gid},size=400k none \"$R\"");
    let script = "mkdir d; cd d; n=0; while [ $n -lt 4000 ]; do ln -s x $n; n=$((n + 1)); done; \
                  LC_ALL=C chown -h 5:6 * 2>&1 | sed 's/.*: //' | sort | uniq -c | sed 's/^ *[0-9]* //'; \
                  stat -c %u:%g * | sort | uniq";
    // A lasting store would take it all.
    fs::write(place.path("home/.local"), "").unwrap();
    let ran = with_recent(&place, &prepare, script);
    assert_eq!(
        String::from_utf8_lossy(&ran.stdout),
        "No space left on device\n0:0\n5:6\n",
        "{}",
        ran.stderr
    );
}

/// A limit of address space, and no runtime directory that can be used, are no reason to lose an
/// owner.
#[test]
fn where_owners_can_be_kept_they_are() {
    let place = Place::new();
    let script = "ln -sfn x l; chown -h 5:6 l; stat -c %u:%g l";
    let missing =
        format!("mount -t tmpfs -o {USERS} none /dev/shm; export XDG_RUNTIME_DIR=/no/such");
    for prepare in [&missing, "ulimit -v 1000000"] {
        let ran = with_recent(&place, prepare, script);
        assert_eq!(ran.stdout, b"5:6\n", "{}", ran.stderr);
    }
}
