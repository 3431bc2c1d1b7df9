//! `subuidless run`: a command of the host, with owners and ids that are compared with real root's.

mod common;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Stdio;

use nix::sys::signal::Signal;

use common::command::{is_left_alone, launch, sh};
use common::{Place, Terminal, assert_same_lines, run, run_with_input, set_mode, tool, until};

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

const LIST: &str = "find . -printf '%p %M %U:%G %n %l\\n' | LC_ALL=C sort";

#[test]
fn owners_and_ids_are_those_that_real_root_sees() {
    let place = Place::new();
    let directories = directories(&place);
    let busybox = tool("busybox");
    let script = format!(
        r#"
        mkdir -p d/e; echo x >d/f; ln -s f d/l; ln d/f d/h; mkfifo d/p; mknod d/null c 1 3
        chown 42:42 d/f; chown -h 7:8 d/l; chown 100000:200000 d/e; chown 3000000000:5 d/p
        chown 1:5 d/null
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
    let script = include_str!("run/links.sh");
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
    let script = "x=$(\"$S\" run -- sh -c 'sleep 1000 >/dev/null 2>&1 3>&- & echo hello' 2>&1 3>&1)
        echo $x";
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
fn options_that_people_type_out_of_habit_are_known_and_others_are_not_taken_for_the_command() {
    let place = Place::new();
    sh(
        &place,
        "mkdir d; echo x >d/f; printf '# none\\nA=b c\\nB=file\\n' >variables",
    )
    .ok();
    let script = "cat /mnt/f; pwd; echo $A $B";
    let ran = run(&mut launch(
        &place,
        &[
            "-it",
            "--workdir",
            "/usr",
            "-v",
            "d:/mnt",
            "--env-file",
            "variables",
            "-e",
            "B=option",
            "sh",
            "-c",
            script,
        ],
    ));
    assert_eq!(
        String::from_utf8_lossy(&ran.stdout),
        "x\n/usr\nb c option\n"
    );
    assert!(ran.stderr.contains("--tty"), "{}", ran.stderr);
    let quiet = run(&mut launch(&place, &["--interactive", "--", "true"]));
    assert_eq!((quiet.status.code(), quiet.stderr.as_str()), (Some(0), ""));
    let wrong = run(&mut launch(&place, &["--env-file", "d/f d", "true"]));
    assert_eq!(wrong.status.code(), Some(125));
    assert!(wrong.stderr.contains("d/f d: "), "{}", wrong.stderr);
    for rest in [&["--", "touch", "ran"][..], &["touch", "ran"]] {
        let unknown = run(&mut launch(&place, &[&["--foo"], rest].concat()));
        assert_eq!(unknown.status.code(), Some(2));
        assert!(unknown.stderr.contains("-- --foo"), "{}", unknown.stderr);
        assert!(!place.path("home/ran").exists());
    }
}

#[test]
fn without_a_command_there_is_a_shell() {
    let place = Place::new();
    let script = place.path("home/script");
    fs::write(&script, "touch f; chown 5:6 f; stat -c %u:%g f; echo $0\n").unwrap();
    let shell = |options: &[&str], shell: &str| {
        let mut command = launch(&place, options);
        command.current_dir(place.path("home"));
        let input = fs::File::open(&script).unwrap();
        run_with_input(command.env("SHELL", shell), input.into()).ok()
    };
    assert_eq!(shell(&[], "/bin/bash"), "5:6\n/bin/bash\n");
    assert_eq!(shell(&["--uts"], ""), "5:6\n/bin/sh\n");
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
    let mut deceived = place.as_user("fakeroot");
    deceived.arg(place.binary()).args(["run", "--", "true"]);
    let refused = run(&mut deceived);
    assert_eq!(refused.status.code(), Some(125), "{}", refused.stderr);
    let words = "believe that its uid is 0: start subuidless outside of it";
    assert!(refused.error().contains(words));
    is_left_alone(&place);
}

/// Waits until the process of this command line is what a terminal's keys are for.
fn is_in_the_foreground(place: &Place, wanted: &[u8]) {
    until("it is in the foreground", || {
        let processes = place.processes();
        // Others may execute the same elsewhere.
        let mut wanted = processes.iter().filter(|(_, command)| command == wanted);
        wanted.find_map(|(pid, _)| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // proc_pid_stat(5): state, parent, process group, session, terminal, its foreground
            // process group.
            let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
            (fields[2] == fields[5] && fields[0] != "T").then_some(())
        })
    });
}

#[test]
fn the_terminal_is_the_commands() {
    use_a_terminal("");
}

#[test]
fn the_terminal_is_the_commands_in_a_pid_namespace() {
    use_a_terminal("--pid ");
}

fn use_a_terminal(options: &str) {
    let place = Place::new();
    let mut terminal = Terminal::open(&place);
    terminal.enter(&format!("R=\"$S run {options}--\""));
    terminal.enter("$R sh -c 'trap \"echo inter''rupted; exit 7\" INT; echo rea''dy; while :; do sleep 0.05; done'");
    terminal.see("ready");
    terminal.press("\x03");
    terminal.see("interrupted");
    terminal.enter("echo code=$?");
    terminal.see("code=7");
    // Job control.
    terminal.enter("$R sleep 1000");
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
    // Without a trap, bash goes on if its child has just exited by itself.
    let script =
        "trap \"stty size\" WINCH; trap exit INT; echo rea''dy; while :; do sleep 0.05; done";
    terminal.enter(&format!("$R bash -c '{script}'"));
    terminal.see("ready");
    terminal.resize(33, 77);
    terminal.see("33 77");
    terminal.press("\x03");
    // A shell with jobs of its own.
    terminal.enter("$R bash --norc -i");
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

#[test]
fn root_finds_the_programs_of_administrators() {
    const PATH: &str = "/usr/bin:/bin";
    let place = Place::new();
    let path = |arguments: &[&str]| {
        let mut command = place.subuidless(arguments);
        run(command
            .args(["--", "sh", "-c", "echo $PATH"])
            .env("PATH", PATH))
        .ok()
    };
    let longer = format!("{PATH}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/sbin\n");
    assert_eq!(path(&["run"]), longer);
    assert_eq!(path(&["run", "--user", "root", "--uts"]), longer);
    assert_eq!(path(&["fakeroot"]), longer);
    for options in [
        &["--user", "nobody"][..],
        &["--keep-id"],
        &["--env", "PATH=/usr/bin:/bin"],
    ] {
        assert_eq!(path(&[&["run"], options].concat()), format!("{PATH}\n"));
    }
    // The program itself, too.
    let mut useradd = place.subuidless(["run", "--", "useradd", "--help"]);
    assert!(
        run(useradd.env("PATH", PATH))
            .ok()
            .contains("--create-home")
    );
}
