//! `subuidless run --rootfs` and `run --bundle`: containers without a daemon.

mod common;

use std::fs;

use serde_json::Value;

use common::command::with_tun;
use common::house::House;
use common::{Ran, Terminal, run, set_mode, tool, until};

const RUNTIMES: [&str; 2] = ["crun", "runc"];

#[test]
fn a_container_has_owners_ids_mounts_and_a_name_of_its_own() {
    let house = House::new();
    for runtime in RUNTIMES {
        let script = "
            id -u; cat /proc/self/uid_map | wc -l; hostname; echo $$; pwd
            touch f; chown 42:70000 f; ln -s f l; chown -h 7:8 l; stat -c %u:%g f l; rm f l
            awk '$5 ~ /^.sys/ && $6 !~ /^ro/' /proc/self/mountinfo
            test -c /dev/null && echo x >/dev/null; ls /proc/1/exe >/dev/null
            echo end";
        let printed = house.sh(&["--runtime", runtime, "--name", "box"], script);
        assert_eq!(
            printed, "0\n1\nbox\n1\n/\n42:70000\n7:8\nend\n",
            "{runtime}"
        );
        house.is_left_alone();
    }
}

#[test]
fn options_say_who_where_and_with_what() {
    let house = House::new();
    let home = house.place.path("home");
    fs::write(home.join("data"), "data\n").unwrap();
    let bind = format!("{}:/mnt:ro", home.display());
    for runtime in RUNTIMES {
        let ok = |options: &[&str], script: &str| {
            house.sh(&[&["--runtime", runtime], options].concat(), script)
        };
        assert_eq!(
            ok(&["--user", "web"], "id -u; id -g; id -G; echo $HOME"),
            "998\n997\n997 50\n/work\n"
        );
        assert_eq!(
            ok(&["--user", "4000000000:70000"], "id -u; id -g"),
            "4000000000\n70000\n"
        );
        assert_eq!(ok(&["--user", "web:extra"], "id -u; id -G"), "998\n50\n");
        assert_eq!(
            ok(&["--cwd", "/work", "--env", "A=b c"], "pwd; echo $A"),
            "/work\nb c\n"
        );
        assert_eq!(ok(&["--hostname", "elsewhere"], "hostname"), "elsewhere\n");
        assert_eq!(
            ok(
                &["-it", "-v", &bind],
                "cat /mnt/data; touch /mnt/x 2>/dev/null || echo kept"
            ),
            "data\nkept\n"
        );
        assert_eq!(ok(&["--net", "none"], "ls /sys/class/net"), "lo\n");
        let outside = run(house.place.as_user("sh").args(["-c", "ls /sys/class/net"])).ok();
        assert_eq!(ok(&["--net", "host"], "ls /sys/class/net"), outside);
        assert!(
            ok(
                &["--cap-add", "sys_admin"],
                "mount -t tmpfs t /tmp && echo mounted"
            )
            .contains("mounted")
        );
        let status = house
            .run(&["--runtime", runtime, "--", "sh", "-c", "exit 42"])
            .status;
        assert_eq!(status.code(), Some(42));
    }
    house.is_left_alone();
}

#[test]
fn a_root_without_etc_hosts_has_one_while_it_runs_and_no_mount_point_stays_behind() {
    let house = House::new();
    let home = house.place.path("home");
    fs::write(home.join("data"), "data\n").unwrap();
    for name in ["dev", "proc", "sys"] {
        let _ = fs::remove_dir(house.rootfs.join(name));
    }
    let entries = || run(house.place.as_user("find").arg(&house.rootfs)).ok();
    let before = entries();
    let hosts = house.rootfs.join("etc/hosts");
    let data = format!("{}:/new/dir/data", home.join("data").display());
    for runtime in RUNTIMES {
        let options = ["--runtime", runtime, "--name", "box", "-v", &data];
        let script = "cat /etc/hosts /new/dir/data; test -s /etc/resolv.conf
            ! echo x 2>/dev/null >>/etc/hosts";
        let printed = house.sh(&options, script);
        assert!(printed.contains("127.0.0.1 localhost\n"), "{printed}");
        assert!(printed.ends_with("127.0.1.1 box\ndata\n"), "{printed}");
        // At once.
        assert_eq!(entries(), before, "{runtime}");
        house.is_left_alone();
        // One ends while another one of the same tree goes on.
        let detached = ["--runtime", runtime, "--detach", "--name", "long"];
        let sleep = ["--", "sleep", "1000000"];
        house.run(&[&detached[..], &sleep].concat()).ok();
        house.sh(&options, "test -s /etc/hosts");
        assert!(hosts.exists());
        let lines = ["exec", "long", "grep", "-c", "127", "/etc/hosts"];
        assert_eq!(house.other(&lines).ok(), "2\n");
        house.other(&["kill", "long"]).ok();
        house.is_left_alone();
        assert_eq!(entries(), before, "{runtime}");
    }
    // The tree's own file is used, and an option's goes before all.
    fs::write(&hosts, "own\n").unwrap();
    assert_eq!(house.sh(&[], "cat /etc/hosts"), "own\n");
    let bind = format!("{}:/etc/hosts", home.join("data").display());
    assert_eq!(house.sh(&["-v", &bind], "cat /etc/hosts"), "data\n");
    assert_eq!(fs::read_to_string(&hosts).unwrap(), "own\n");
}

#[test]
fn what_a_detached_container_prints_is_kept_for_logs() {
    let house = House::new();
    let logs = |name: &str| house.other(&["logs", name]);
    for runtime in RUNTIMES {
        let start = |script: &str| {
            let options = ["--runtime", runtime, "-d", "--name", "c", "--user", "web"];
            house.run(&[&options[..], &["--", "sh", "-c", script]].concat())
        };
        let started = start("echo out; echo err >&2; echo own >/dev/stdout; exec sleep 1000000");
        assert_eq!(started.ok(), "");
        until("all is there", || {
            (logs("c").ok() == "out\nerr\nown\n").then_some(())
        });
        let mut follow = house.place.subuidless(["logs", "--follow", "c"]);
        let follow = follow.stdout(std::process::Stdio::piped()).spawn().unwrap();
        house.other(&["kill", "c"]).ok();
        let followed = follow.wait_with_output().unwrap();
        assert_eq!(followed.stdout, b"out\nerr\nown\n");
        house.is_left_alone();
        assert_eq!(logs("c").ok(), "out\nerr\nown\n");
        // The next one of the name says nothing.
        assert_eq!(start("exit 3").ok(), "");
        house.is_left_alone();
        assert_eq!(logs("c").ok(), "");
        let said = logs("d").error();
        assert!(said.contains("no container named d"), "{said}");
        // Nobody reads what a runtime says that fails.
        let impossible = format!("{}:/bin/sh", house.rootfs.display());
        let options = ["--runtime", runtime, "-d", "--bind", &impossible];
        let failed = house.run(&[&options[..], &["--", "busybox", "true"]].concat());
        assert_eq!(failed.status.code(), Some(125));
        assert!(failed.stderr.contains("bin/sh"), "{}", failed.stderr);
        house.is_left_alone();
    }
    let mut attached = house.command(&["--name", "a", "--", "sleep", "1000000"]);
    let mut attached = attached.spawn().unwrap();
    house.init("a");
    assert!(logs("a").error().contains("--detach"));
    house.other(&["kill", "a"]).ok();
    attached.wait().unwrap();
    let kept = house.place.own_directory();
    let kept = kept.iter().find(|kind| kind.ends_with("logs")).unwrap();
    let kept = fs::read_dir(kept).unwrap().flatten();
    assert_eq!(kept.map(|it| it.file_name()).collect::<Vec<_>>(), ["c"]);
}

#[test]
fn a_read_only_root_has_directories_that_are_copied_up_with_their_owners() {
    let house = House::new();
    house.sh(
        &[],
        "mkdir -p /srv/d; touch /srv/d/f; chown 5:6 /srv/d/f; ln -s f /srv/d/l
        chown -h 7:8 /srv/d/l; chown 9:9 /srv/d",
    );
    for runtime in RUNTIMES {
        let printed = house.sh(
            &[
                "--runtime",
                runtime,
                "--read-only",
                "--copy-up",
                "/srv",
                "--copy-up",
                "/etc",
            ],
            "stat -c '%n %u:%g' /srv/d /srv/d/f /srv/d/l
            echo more >>/srv/d/f; chown 50:60 /srv/d/f; mv /srv/d/f /srv/d/m; touch /srv/d/new
            chown 1:2 /srv/d/new /etc/passwd
            stat -c '%n %u:%g' /srv/d/l /srv/d/m /srv/d/new /etc/passwd
            touch /x 2>/dev/null || echo kept",
        );
        assert_eq!(
            printed,
            "/srv/d 9:9\n/srv/d/f 5:6\n/srv/d/l 7:8\n\
             /srv/d/l 7:8\n/srv/d/m 50:60\n/srv/d/new 1:2\n/etc/passwd 1:2\nkept\n"
        );
    }
    // Below it is as it was.
    assert_eq!(
        house.sh(&[], "cd /srv/d; stat -c %u:%g f l /etc/passwd; ls"),
        "5:6\n7:8\n0:0\nf\nl\n"
    );
}

#[test]
fn a_bundle_is_run_and_stays_as_it_was() {
    let house = House::new();
    let bundle = house.place.path("home/bundle");
    fs::create_dir(&bundle).unwrap();
    let mut config: Value =
        serde_json::from_slice(&fs::read("test-bundle/config.json").unwrap()).unwrap();
    config["process"]["args"] = serde_json::json!([
        "sh",
        "-c",
        "id -u; touch /work/f; chown 3:4 /work/f; stat -c %u:%g /work/f"
    ]);
    config["process"]["terminal"] = false.into();
    config["process"]["noNewPrivileges"] = true.into();
    config["process"]["user"] = serde_json::json!({"uid": 998, "gid": 997});
    config["root"]["path"] = "../rootfs".into();
    let text = serde_json::to_string(&config).unwrap();
    fs::write(bundle.join("config.json"), &text).unwrap();
    for runtime in RUNTIMES {
        let run_bundle = |more: &[&str]| {
            let mut command = house
                .place
                .subuidless(["run", "--runtime", runtime, "--bundle"]);
            run(command.arg(&bundle).args(more))
        };
        // Who is not root may not give files away.
        let other = run_bundle(&[]);
        assert_eq!(other.stdout, b"998\n", "{}", other.stderr);
        assert_eq!(run_bundle(&["--user", "0"]).ok(), "0\n3:4\n");
        assert_eq!(run_bundle(&["--", "id", "-u"]).ok(), "998\n");
        fs::remove_file(house.rootfs.join("work/f")).unwrap();
    }
    assert_eq!(
        fs::read_to_string(bundle.join("config.json")).unwrap(),
        text
    );
    house.is_left_alone();
}

#[test]
fn a_bundle_that_umoci_has_unpacked_runs_as_it_is() {
    let house = House::new();
    let script = "umoci init --layout img; umoci new --image img:small
        umoci unpack --image img:small unpacked
        cp -r rootfs/bin unpacked/rootfs; touch unpacked/rootfs/f; chown 5:6 unpacked/rootfs/f";
    run(&mut house.place.subuidless(["run", "--", "sh", "-euc", script])).ok();
    let config = fs::read(house.place.path("home/unpacked/config.json")).unwrap();
    assert!(String::from_utf8_lossy(&config).contains("gid=5"));
    for runtime in RUNTIMES {
        let options = ["run", "--runtime", runtime, "--bundle", "unpacked"];
        let script = "stat -c %u:%g /f; test -c /dev/pts/ptmx; hostname; ls /sys/class/net";
        let words = ["--", "sh", "-euc", script];
        let printed = house.other(&[&options[..], &words].concat()).ok();
        assert_eq!(printed, "5:6\numoci-default\nlo\n", "{runtime}");
    }
    house.is_left_alone();
}

#[test]
fn a_program_that_cannot_be_run_has_the_exit_codes_that_it_has_without_a_container() {
    let house = House::new();
    let work = house.rootfs.join("work");
    fs::write(work.join("text"), "exit 3").unwrap();
    fs::write(work.join("script"), "#!/no/such/shell\n").unwrap();
    common::set_mode(&work.join("script"), 0o755);
    for name in ["sh", "loop", "echo"] {
        let target = match name {
            "sh" => "/bin/busybox",
            "loop" => "loop",
            // Where something is mounted.
            _ => "/mnt/busybox",
        };
        std::os::unix::fs::symlink(target, work.join(name)).unwrap();
    }
    std::os::unix::fs::symlink("../bin", work.join("to-bin")).unwrap();
    let cases = [
        ("no-such-program", 127),
        ("/work/none", 127),
        ("./none", 127),
        ("/bin/sh/none", 126),
        ("/work/script", 127),
        ("/work/text", 126),
        ("/work", 126),
        ("/work/sh", 0),
        ("../bin/sh", 0),
    ];
    for runtime in RUNTIMES {
        let exit_code = |ran: Ran| (ran.status.code(), ran.stderr);
        let options = ["--runtime", runtime, "--cwd", "/work"];
        let mut command = house.command(&[&options[..], &["--detach", "--name", "c"]].concat());
        command
            .args(["--", "sleep", "1000000"])
            .stdout(std::process::Stdio::null());
        assert!(command.status().expect("subuidless run").success());
        for (program, code) in cases {
            let words = ["--", program, "-c", "true"];
            let alone = exit_code(house.run(&[&options[..], &words].concat()));
            let more =
                exit_code(house.other(&[&["exec", "--cwd", "/work", "c"], &words[..]].concat()));
            for (found, told) in [alone, more] {
                assert_eq!(found, Some(code), "{runtime}: {program}: {told}");
                assert!(code == 0 || told.contains(program), "{told}");
            }
        }
        house.other(&["kill", "c"]).ok();
        let bind = format!("{}:/mnt", house.rootfs.join("bin").display());
        let bound = |program: &str| {
            let words = ["--bind", &bind, "--", program, "there"];
            house.run(&[&options[..], &words].concat())
        };
        assert_eq!(bound("/work/echo").ok(), "there\n");
        assert_eq!(exit_code(bound("/mnt/none")).0, Some(127), "{runtime}");
        assert_eq!(exit_code(bound("/mnt/../mnt")).0, Some(126), "{runtime}");
        // Below a link, as /bin is in many root file systems.
        let busybox = house.rootfs.join("bin/busybox");
        let below = format!("{}:/work/to-bin/busybox-2", busybox.display());
        let words = ["--bind", &below, "--", "/work/to-bin/busybox-2", "true"];
        assert_eq!(
            exit_code(house.run(&[&options[..], &words].concat())).0,
            Some(0)
        );
        // The runtime fails, with an exit code that could be a program's.
        let impossible = format!("{}:/bin/sh", house.rootfs.display());
        let words = ["--bind", &impossible, "--", "busybox", "true"];
        let failed = exit_code(house.run(&[&options[..], &words].concat()));
        assert_eq!(failed.0, Some(125), "{runtime}: {}", failed.1);
        house.is_left_alone();
    }
}

#[test]
fn a_terminal_is_the_containers_whoever_its_user_is() {
    let house = House::new();
    for runtime in RUNTIMES {
        let mut terminal = Terminal::open(&house.place);
        terminal.enter(&format!(
            "\"$S\" run --runtime {runtime} --name tty --rootfs {} --user web -- sh",
            house.rootfs.display()
        ));
        terminal.see("$ ");
        terminal.enter("echo \"<$(id -u) $(tty)>\"; stty size; trap 'echo caught' INT");
        terminal.see("<998 /dev/pts/0>");
        terminal.see("24 300");
        // crun, in Debian 12's version, does not pass this on.
        if runtime == "runc" {
            terminal.resize(30, 100);
            until("the new size has come through", || {
                terminal.enter("stty size");
                std::thread::sleep(std::time::Duration::from_millis(20));
                terminal.text().contains("30 100").then_some(())
            });
        }
        // A second one beside it.
        let mut second = Terminal::open(&house.place);
        second.enter("\"$S\" exec --user 70000 tty sh");
        second.see("$ ");
        second.enter("echo \"<$(id -u) $(tty)>\"; exit");
        second.see("<70000 /dev/pts/1>");
        terminal.enter("exit 9");
        terminal.see("> ");
        terminal.enter("echo code=$?");
        terminal.see("code=9");
        house.is_left_alone_but_for_shells();
    }
}

#[test]
fn networks_of_its_own_lead_out_and_end_with_the_container() {
    let house = House::new();
    for (kind, interface) in [("slirp4netns", "tap0"), ("pasta", "")] {
        let run = |tun: bool| {
            let arguments = [
                "--net",
                kind,
                "--",
                "sh",
                "-c",
                "cat /proc/net/route; cat /etc/resolv.conf",
            ];
            common::run(&mut with_tun(&house.place, tun, &house.command(&arguments)))
        };
        let printed = run(true).ok();
        let default = printed
            .lines()
            .find(|line| line.split_whitespace().nth(1) == Some("00000000"));
        assert!(
            default.is_some_and(|line| line.contains(interface)),
            "{kind}: {printed}"
        );
        assert!(printed.contains("nameserver"), "{kind}: {printed}");
        house.is_left_alone();
        let refused = run(false).error();
        assert!(
            refused.contains(kind) && refused.contains("/dev/net/tun"),
            "{refused}"
        );
        house.is_left_alone();
    }
}

#[test]
fn what_stands_in_the_way_is_named() {
    let house = House::new();
    let told = |arguments: &[&str]| house.other(arguments).error();
    let rootfs = house.rootfs.to_str().unwrap();
    assert!(
        told(&["run", "--rootfs", "/no/such", "true"])
            .contains("/no/such: No such file or directory")
    );
    assert!(told(&["run", "--rootfs", "/etc/passwd", "true"]).contains("/etc/passwd: "));
    assert!(
        told(&["run", "--bundle", rootfs, "true"])
            .contains("config.json: No such file or directory")
    );
    assert!(
        told(&[
            "run",
            "--rootfs",
            rootfs,
            "--user",
            "nobody-knows-me",
            "true"
        ])
        .contains("is not a user in")
    );
    assert!(
        told(&[
            "run",
            "--rootfs",
            rootfs,
            "--runtime",
            "no-such-runtime",
            "true"
        ])
        .contains("no-such-runtime")
    );
    assert!(
        told(&["run", "--rootfs", rootfs, "--name", "../x", "true"])
            .contains("is not a valid container name")
    );
    assert!(
        told(&["run", "--rootfs", rootfs, "--copy-up", "/no/such", "true"]).contains("/no/such")
    );
    assert!(
        told(&["run", "--rootfs", rootfs, "--bind", "/no/such:/mnt", "true"]).contains("/no/such")
    );
    assert!(told(&["exec", "nobody", "true"]).contains("no container named nobody is running"));
    assert!(told(&["kill", "nobody"]).contains("no container named nobody is running"));
    assert!(told(&["run", "--rootfs", rootfs, "no-such-program"]).contains("no-such-program"));
    house
        .run(&["--detach", "--name", "one", "sleep", "1000"])
        .ok();
    assert!(
        told(&["run", "--rootfs", rootfs, "--name", "one", "true"])
            .contains("a container named one is already running")
    );
    house.other(&["kill", "one"]).ok();
    // Somebody else's directory, in which no mount point can be made.
    let others = house.place.path("others");
    fs::create_dir(&others).unwrap();
    assert!(!told(&["run", "--rootfs", others.to_str().unwrap(), "true"]).is_empty());
    // Under a listener there can be no other one: the outer one answers.
    let script = "touch /work/n; chown 5:6 /work/n; stat -c %u:%g /work/n";
    let mut nested = house.place.subuidless(["run", "--"]);
    nested
        .arg(house.place.binary())
        .args(["run", "--rootfs", rootfs, "--", "sh", "-c", script]);
    assert_eq!(run(&mut nested).ok(), "5:6\n");
    house.is_left_alone();
    assert!(tool("crun").is_file());
}

#[test]
fn programs_that_others_could_execute_as_the_user_are_told_once() {
    let house = House::new();
    let program = house.rootfs.join("bin/become");
    fs::copy(tool("busybox"), &program).unwrap();
    house.place.give_to_user(&program);
    set_mode(&program, 0o4755);
    let home = house.place.path("home");
    let told = || {
        let ran = house.run(&["--", "true"]);
        assert!(ran.status.success(), "{}", ran.stderr);
        ran.stderr
            .contains("bin/become, which then runs as you: chmod 700")
    };
    set_mode(&home, 0o700);
    assert!(!told());
    set_mode(&home, 0o755);
    assert!(told() && !told());
}
