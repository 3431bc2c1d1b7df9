//! `subuidless run` with namespaces but without a container. What is compared with are unshare(1)
//! and real root.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use common::command::{launch, with_tun};
use common::house::House;
use common::{Place, Ran, free_port, run, set_mode, until};

/// A place where users other than root may make files.
fn open_place() -> Place {
    let place = Place::new();
    set_mode(&place.path("home"), 0o777);
    place
}

fn sh(place: &Place, options: &[&str], script: &str) -> Ran {
    run(&mut launch(
        place,
        &[options, &["--", "sh", "-euc", script]].concat(),
    ))
}

/// Starts it in the background, and waits for the file `ready` that it makes in its directory.
fn start(place: &Place, command: &mut Command) -> Child {
    let ready = place.path("home/ready");
    let _ = fs::remove_file(&ready);
    let child = command
        .stdin(Stdio::null())
        .spawn()
        .expect("subuidless run");
    until("the command is ready", || ready.exists().then_some(()));
    child
}

/// Neither processes nor files are left, but for the directories that all runs share.
fn is_left_alone(place: &Place) {
    until("no process and no file is left", || {
        let rooms = place.own_directory();
        let rooms = rooms.iter().filter_map(|room| fs::read_dir(room).ok());
        let is_empty = rooms.flatten().count() == 0;
        (is_empty && place.processes().is_empty()).then_some(())
    });
}

#[test]
fn a_command_has_the_namespaces_that_unshare_would_give_it() {
    let place = Place::new();
    // Kinds of namespaces that are not those of the test, and what they show.
    let script = r#"
        for kind in cgroup ipc mnt net pid user uts; do
            case " $OUTSIDE " in *" $(readlink /proc/self/ns/$kind) "*) ;; *) echo "$kind" ;; esac
        done
        hostname; cat /proc/net/dev | wc -l
        [ "$(ls -d /proc/[0-9]* | wc -l)" -gt 10 ] || echo few processes
        awk -F: '$1 > 1 { print $3; exit }' /proc/self/cgroup"#;
    let outside: Vec<_> = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"]
        .iter()
        .map(|kind| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap())
        .map(|link| link.to_str().unwrap().to_owned())
        .collect();
    let outside = outside.join(" ");
    for (ours, oracle) in [
        (&["--name", "plain"][..], &["--mount"][..]),
        (&["--net", "host"], &["--mount"]),
        (&["--net", "none"], &["--mount", "--net"]),
        (&["--uts"], &["--mount", "--uts"]),
        (&["--ipc"], &["--mount", "--ipc"]),
        (&["--cgroup"], &["--mount", "--cgroup"]),
        (&["--pid"], &["--mount", "--pid", "--fork", "--mount-proc"]),
        (
            &["--network", "none", "--pid", "--uts", "--ipc", "--cgroup"],
            &[
                "--mount",
                "--net",
                "--uts",
                "--ipc",
                "--cgroup",
                "--pid",
                "--fork",
                "--mount-proc",
            ],
        ),
    ] {
        let mut unshare = place.as_user("unshare");
        unshare.arg("-r").args(oracle).args(["sh", "-euc", script]);
        let expected = run(unshare.env("OUTSIDE", &outside)).ok();
        let ours = [ours, &["--", "sh", "-euc", script]].concat();
        let printed = run(launch(&place, &ours).env("OUTSIDE", &outside)).ok();
        assert_eq!(printed, expected, "{ours:?}");
    }
    is_left_alone(&place);
}

#[test]
fn owners_are_emulated_and_a_network_of_none_has_a_loopback() {
    let place = open_place();
    let options = [
        "--net",
        "none",
        "--pid",
        "--hostname",
        "other",
        "--user",
        "77:78",
    ];
    let script = "hostname; id -u; id -g; touch f; stat -c %u:%g f; cat /sys/class/net/lo/operstate
        ls /sys/class/net /sys/fs/cgroup >&2; ls /sys/class/net
        perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(Listen => 1, LocalAddr => \"127.0.0.1\")
            or die $!; IO::Socket::INET->new(PeerAddr => \"127.0.0.1\", PeerPort => $s->sockport)
            or die $!; print \"reached\\n\"'";
    let printed = sh(&place, &options, script).ok();
    assert_eq!(printed, "other\n77\n78\n77:78\nunknown\nlo\nreached\n");
    is_left_alone(&place);
    assert_eq!(sh(&place, &[], "stat -c %u:%g f").ok(), "77:78\n");
}

#[test]
fn exit_codes_signals_and_orphans_of_a_pid_namespace_are_the_commands() {
    let place = Place::new();
    let code = |arguments: &[&str]| {
        let arguments = [&["--pid", "--"], arguments].concat();
        run(&mut launch(&place, &arguments)).status
    };
    assert_eq!(code(&["sh", "-c", "exit 42"]).code(), Some(42));
    assert_eq!(code(&["/no/such/program"]).code(), Some(127));
    assert_eq!(code(&["/etc/passwd"]).code(), Some(126));
    let killed = code(&["sh", "-c", "kill -SEGV $$"]);
    assert_eq!(killed.signal(), Some(Signal::SIGSEGV as i32));
    // Real-time signals have no names.
    assert_eq!(code(&["sh", "-c", "kill -36 $$"]).signal(), Some(36));
    // Who ignores SIGCHLD has no children to wait for.
    let mut deaf = place.as_user("env");
    deaf.args(["--ignore-signal=CHLD"]).arg(place.binary());
    let ran = run(deaf.args(["run", "--pid", "--", "sh", "-c", "exit 5"]));
    assert_eq!(ran.status.code(), Some(5));
    // Orphans leave no zombies, and nothing outlives the command.
    let script = "(sh -c 'exit 0' & exec sh -c 'exit 0'); (sleep 1000 >/dev/null 2>&1 &)
        while ps -eo stat= | grep -q Z; do sleep 0.01; done
        ps -eo ppid=,args= | grep -c '^ *1 sleep 1000$'";
    assert_eq!(sh(&place, &["--pid"], script).ok(), "1\n");
    is_left_alone(&place);
    // Signals are passed on.
    let script = "trap 'echo got >>got; exit 9' TERM; touch ready; while :; do sleep 0.01; done";
    let arguments = ["--pid", "--", "sh", "-c", script];
    let mut child = start(&place, &mut launch(&place, &arguments));
    let pid = Pid::from_raw(child.id().cast_signed());
    kill(pid, Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(9));
    assert_eq!(fs::read_to_string(place.path("home/got")).unwrap(), "got\n");
    is_left_alone(&place);
}

/// The first process of the only command or container that runs.
fn first_process(place: &Place) -> Pid {
    let text = run(&mut place.subuidless(["ps", "--json"])).ok();
    let rows: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(rows.as_array().unwrap().len(), 1, "{rows}");
    Pid::from_raw(rows[0]["pid"].as_i64().expect("a pid").try_into().unwrap())
}

/// The pids of this test's processes with this in their command line.
fn with_name(place: &Place, name: &str) -> Vec<Pid> {
    let all = place.processes().into_iter();
    let of_it = all.filter(|(_, command)| {
        let command = String::from_utf8_lossy(command).replace('\0', " ");
        command.contains(name)
    });
    of_it.map(|(pid, _)| pid).collect()
}

#[test]
fn whichever_process_of_a_pid_namespace_is_killed_nothing_stays() {
    let place = Place::new();
    let script = "(sleep 1000 >/dev/null 2>&1 &); touch ready; sleep 1000";
    for name in ["caller", "reaper", "command"] {
        let arguments = ["--pid", "--net", "none", "--", "sh", "-c", script];
        let mut child = start(&place, &mut launch(&place, &arguments));
        let victim = match name {
            "caller" => Pid::from_raw(child.id().cast_signed()),
            "reaper" => with_name(&place, "subuidless reaper")[0],
            _ => first_process(&place),
        };
        kill(victim, Signal::SIGKILL).unwrap();
        let ended = child.wait().unwrap();
        assert_eq!(ended.signal(), Some(Signal::SIGKILL as i32), "{name}");
        is_left_alone(&place);
    }
}

#[test]
fn mounts_show_what_was_asked_for_and_the_host_stays_as_it_is() {
    let place = Place::new();
    let home = place.path("home");
    fs::create_dir(home.join("own")).unwrap();
    fs::write(home.join("own/f"), "old\n").unwrap();
    place.give_to_user(&home.join("own"));
    place.give_to_user(&home.join("own/f"));
    let own = home.join("own");
    let own = own.to_str().unwrap();
    // A directory of root's: what is in it can be seen and replaced, not written to.
    let script = "cat /etc/hostname; touch /etc/new; chown 5:6 /etc/new; stat -c %u:%g /etc/new
        ! echo x 2>/dev/null >>/etc/passwd; rm /etc/hostname; echo mine >/etc/hostname
        cat /etc/hostname; stat -c %a:%u /etc; readlink /etc/mtab";
    let printed = sh(&place, &["--copy-up", "/etc"], script).ok();
    let host = fs::read_to_string("/etc/hostname").unwrap();
    let mtab = fs::read_link("/etc/mtab").unwrap();
    assert_eq!(
        printed,
        format!("{host}5:6\nmine\n755:0\n{}\n", mtab.display())
    );
    assert_eq!(fs::read_to_string("/etc/hostname").unwrap(), host);
    assert!(!fs::exists("/etc/new").unwrap());
    // One of the user's: everything in it can be changed, and is what it was afterwards.
    let script = "cd own; echo new >>f; chown 7:8 f; cat f; stat -c %u:%g f; touch g; rm f; ls";
    let printed = sh(&place, &["--copy-up", own], script).ok();
    assert_eq!(printed, "old\nnew\n7:8\ng\n");
    assert_eq!(
        sh(&place, &[], "cat own/f; stat -c %u:%g own/f").ok(),
        "old\n0:0\n"
    );
    let bind = format!("{own}:/etc/mine/deep");
    let file = format!("{own}/f:/etc/mine/file:ro");
    let options = ["--copy-up", "/etc", "--bind", &bind, "--bind", &file];
    let script = "cat /etc/mine/file; ! echo x 2>/dev/null >/etc/mine/file
        echo bound >/etc/mine/deep/h; cat own/h";
    assert_eq!(sh(&place, &options, script).ok(), "old\nbound\n");
    is_left_alone(&place);
    for (options, named) in [
        (&["--bind", &format!("{own}:/nosuch/x")][..], "/nosuch/x"),
        (&["--copy-up", "/nosuch"], "/nosuch"),
        (&["--copy-up", "/"], "other than /"),
    ] {
        let ran = sh(&place, options, "true");
        assert_eq!(ran.status.code(), Some(125));
        assert!(ran.stderr.contains(named), "{}", ran.stderr);
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    }
    for root in ["/", "/etc/..", "//."] {
        let ran = sh(&place, &["--bind", &format!("{own}:{root}")], "true");
        assert_eq!(ran.status.code(), Some(2));
        assert!(ran.stderr.contains("mounted at /"), "{}", ran.stderr);
    }
    is_left_alone(&place);
}

#[test]
fn a_procfs_with_a_group_shows_the_processes_of_who_mounts_it() {
    let place = Place::new();
    let script = "mkdir p; mount -t proc -o gid=5,hidepid=2 proc p; cmp p/1/cmdline /proc/1/cmdline
        test p/self/ns/pid -ef /proc/self/ns/pid; echo mounted";
    assert_eq!(sh(&place, &["--pid"], script).ok(), "mounted\n");
    // One further down.
    let script = format!(
        "unshare --pid --fork --mount-proc sh -euc '{}'",
        script.replace("mkdir p; ", "")
    );
    assert_eq!(sh(&place, &["--pid"], &script).ok(), "mounted\n");
    // The host's processes are not the user's to show.
    let refused = sh(&place, &[], "mount -t proc -o gid=5 proc p").error();
    assert!(refused.contains("permission denied"), "{refused}");
    is_left_alone(&place);
}

#[test]
fn a_plain_command_mounts_what_makers_of_root_file_systems_mount() {
    let place = Place::new();
    let script = "mkdir pts tmp proc sys; touch console
        mount -t devpts -o gid=5,uid=3,mode=620,ptmxmode=666 devpts pts; stat -c '%u:%g %a' pts/ptmx
        mount -t tmpfs -o uid=33,gid=34,mode=750 tmpfs tmp; stat -c '%u:%g %a' tmp
        mount --rbind /proc proc; test -e proc/self; mount --rbind /sys sys; mount -o bind /dev/console console; stat -c %F console
        umount console tmp pts; umount -l proc sys; rmdir pts tmp proc sys; rm console";
    let mut oracle = place.as_root("unshare");
    let expected = run(oracle.args(["-m", "sh", "-euc", script])).ok();
    let before = fs::read_to_string("/proc/self/mounts").unwrap();
    assert_eq!(sh(&place, &[], script).ok(), expected);
    assert_eq!(fs::read_to_string("/proc/self/mounts").unwrap(), before);
}

#[test]
fn a_read_only_command_writes_only_where_it_may() {
    let place = Place::new();
    let home = place.path("home");
    fs::create_dir(home.join("w")).unwrap();
    place.give_to_user(&home.join("w"));
    let bind = format!("{0}:{0}", home.join("w").display());
    let options = [
        "--read-only",
        "--bind",
        &bind,
        "--copy-up",
        "/etc",
        "--pid",
        "--net",
        "none",
    ];
    let script = "for d in . /tmp /var/tmp /run; do ! touch $d/x 2>/dev/null; done
        touch w/x /etc/x /dev/shm/x-$$; rm /dev/shm/x-$$; chown 3:4 w/x; stat -c %u:%g w/x
        echo x >/dev/null; ! echo x 2>/dev/null >>/etc/.ro/passwd; exit 0";
    assert_eq!(sh(&place, &options, script).ok(), "3:4\n");
    is_left_alone(&place);
}

#[test]
fn mounts_of_the_host_arrive_as_propagation_says() {
    let place = Place::new();
    let point = place.path("home/point");
    fs::create_dir(&point).unwrap();
    let script = r#"
        mount --make-rshared /
        for kind in slave private shared; do
            rm -f ready go
            "$@" --propagation $kind -- sh -c '
                touch ready; while ! test -e go; do sleep 0.01; done
                findmnt -no PROPAGATION /; findmnt -no FSTYPE "$1" || echo nothing' -- "$POINT" &
            while ! test -e ready; do sleep 0.01; done
            mount -t tmpfs tmpfs "$POINT"; touch go; wait; umount "$POINT"
        done"#;
    let ours = launch(&place, &[]);
    let mut outer = place.as_root("unshare");
    outer.args(["-m", "--", "sh", "-euc", script, "--"]);
    outer.arg(ours.get_program()).args(ours.get_args());
    outer
        .env("POINT", &point)
        .env("XDG_RUNTIME_DIR", place.runtime_directory());
    let printed = run(outer.env("HOME", place.path("home"))).ok();
    assert_eq!(
        printed,
        "private,slave\ntmpfs\nprivate\nnothing\nshared,slave\ntmpfs\n"
    );
    is_left_alone(&place);
}

/// Serves TCP on port 80 and UDP on another one, in the namespace.
const SERVER: &str = r#"
    use IO::Socket::INET;
    my $tcp = IO::Socket::INET->new(LocalPort => 80, Listen => 5) or die $!;
    my $udp = IO::Socket::INET->new(LocalPort => $ARGV[0], Proto => "udp") or die $!;
    if (fork) { while (my $client = $tcp->accept) { print $client "tcp\n"; close $client } }
    while (defined $udp->recv(my $word, 99)) {
        open my $file, ">", "heard"; close $file;
        $udp->send("udp $word");
    }"#;

/// What the port says, once the server has started.
fn heard_by_tcp(address: SocketAddrV4) -> String {
    until("the server answers", || {
        let mut text = String::new();
        let mut connection = TcpStream::connect(address).ok()?;
        connection
            .set_read_timeout(Some(Duration::from_secs(1)))
            .ok()?;
        connection.read_to_string(&mut text).ok()?;
        (!text.is_empty()).then_some(text)
    })
}

/// Sends a word until the server has heard it, or has answered.
fn talk_by_udp(place: &Place, address: SocketAddrV4, answers: bool) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_nonblocking(true).unwrap();
    let heard = place.path("home/heard");
    until("the server hears and answers", || {
        let _ = socket.send_to(b"word", address);
        let mut text = [0; 99];
        match answers {
            true => socket.recv(&mut text).ok().map(|length| {
                assert_eq!(&text[..length], b"udp word");
            }),
            false => heard.exists().then_some(()),
        }
    });
    fs::remove_file(&heard).unwrap();
}

#[test]
fn published_ports_lead_in_until_the_command_ends() {
    let house = House::new();
    let place = &house.place;
    let rootfs = house.rootfs.to_str().unwrap().to_owned();
    // Nobody else uses this address of the loopback.
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let address = Ipv4Addr::new(127, 77, high, low);
    for net in ["pasta", "slirp4netns"] {
        let port = free_port();
        let tcp = format!("{address}:{port}:80");
        let udp = format!("{address}:{port}:{port}/udp");
        let options = ["--net", net, "-p", &tcp, "--publish", &udp];
        let script = format!(
            "cat /etc/resolv.conf >dns; ip route >route 2>/dev/null || cat /proc/net/route >route
             touch ready; exec perl -e '{SERVER}' {port}"
        );
        let arguments = [
            &options[..],
            &["--pid", "--name", "web", "--", "sh", "-euc", &script],
        ]
        .concat();
        let mut child = start(
            place,
            &mut with_tun(place, true, &launch(place, &arguments)),
        );
        let at = SocketAddrV4::new(address, port);
        assert_eq!(heard_by_tcp(at), "tcp\n");
        // slirp4netns does not answer to the loopback (docs/limits.md).
        talk_by_udp(place, at, net == "pasta");
        let dns = fs::read_to_string(place.path("home/dns")).unwrap();
        let own = fs::read_to_string("/etc/resolv.conf").unwrap();
        match net {
            "pasta" => assert!(dns == own || dns == "nameserver 169.254.1.1\n", "{dns}"),
            _ => assert_eq!(dns, "nameserver 10.0.2.3\n"),
        }
        assert_ne!(fs::read_to_string(place.path("home/route")).unwrap(), "");
        // A port that is taken, for a command and for a container.
        for place_of in [&[][..], &["--rootfs", &rootfs]] {
            let other = [&options[..4], place_of, &["--", "true"]].concat();
            let ran = run(&mut with_tun(place, true, &launch(place, &other)));
            assert_ne!(ran.status.code(), Some(0));
            let said = ran.stderr;
            assert!(
                said.contains(net) && said.contains(&port.to_string()),
                "{said}"
            );
        }
        house.other(&["kill", "web"]).ok();
        assert!(!child.wait().unwrap().success());
        is_left_alone(place);
        assert!(TcpStream::connect(at).is_err());
    }
}

#[test]
fn a_network_ends_with_its_keeper_and_a_container_has_ports_too() {
    let house = House::new();
    let place = &house.place;
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let address = Ipv4Addr::new(127, 78, high, low);
    for net in ["pasta", "slirp4netns"] {
        let port = free_port();
        let tcp = format!("{address}:{port}:80");
        let serve = "mkdir -p /www; echo page >/www/index.html; exec httpd -f -p 80 -h /www";
        let options = ["--net", net, "-p", &tcp, "--", "sh", "-c", serve];
        let mut inner = with_tun(place, true, &house.command(&options));
        let mut child = inner.stdin(Stdio::null()).spawn().unwrap();
        let at = SocketAddrV4::new(address, port);
        let page = until("the server answers", || {
            let mut text = String::new();
            let mut connection = TcpStream::connect(at).ok()?;
            connection
                .write_all(b"GET /index.html HTTP/1.0\r\n\r\n")
                .ok()?;
            connection.read_to_string(&mut text).ok()?;
            text.contains("200 OK").then_some(text)
        });
        assert!(page.ends_with("page\n"), "{page}");
        // The network's program cannot outlive who looks after it.
        let keepers = with_name(place, "network-keeper");
        kill(keepers[0], Signal::SIGKILL).unwrap();
        until("nobody listens", || {
            TcpStream::connect(at).is_err().then_some(())
        });
        child.kill().unwrap();
        child.wait().unwrap();
        is_left_alone(place);
    }
}

#[test]
fn commands_are_found_entered_and_killed_by_their_names() {
    let house = House::new();
    let place = &house.place;
    set_mode(&place.path("home"), 0o777);
    for extra in [
        &[][..],
        &["--pid", "--net", "none", "--uts", "--copy-up", "/etc"],
    ] {
        let script = "touch ready; exec sleep 1000";
        let own = ["--name", "c1", "--user", "70:71", "--", "sh", "-c", script];
        let mut child = start(place, &mut launch(place, &[extra, &own[..]].concat()));
        let ps: Value = serde_json::from_str(&house.other(&["ps", "--json"]).ok()).unwrap();
        let pid = ps[0]["pid"].as_i64().expect("a pid");
        assert_eq!(ps[0]["name"], "c1");
        until("it is the command", || {
            let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
            (command == "sleep\x001000\0").then_some(())
        });
        // In its namespaces, as its user or another one, with owners of its own.
        let script = "for kind in ipc mnt net pid user uts; do readlink /proc/self/ns/$kind; done";
        let inside = house.other(&["exec", "c1", "sh", "-c", script]).ok();
        let expected: String = ["ipc", "mnt", "net", "pid", "user", "uts"]
            .iter()
            .map(|kind| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap())
            .map(|link| format!("{}\n", link.display()))
            .collect();
        assert_eq!(inside, expected);
        let script = "id -u; touch e; chown 9:9 e; stat -c %u:%g e; rm e; exit 3";
        let ran = house.other(&["exec", "--user", "root", "c1", "sh", "-c", script]);
        assert_eq!(ran.status.code(), Some(3), "{}", ran.stderr);
        assert_eq!(String::from_utf8_lossy(&ran.stdout), "0\n9:9\n");
        assert_eq!(house.other(&["exec", "c1", "id", "-u"]).ok(), "70\n");
        let variables = ["-e", "A=a b", "-e", "HOME", "-w", "/usr"];
        let script = "echo \"$A $HOME\"; pwd";
        let words = [&["exec"], &variables[..], &["c1", "sh", "-c", script]].concat();
        let printed = house.other(&words).ok();
        assert_eq!(
            printed,
            format!("a b {}\n/usr\n", place.path("home").display())
        );
        let ran = house.other(&["exec", "c1", "no-such-program"]);
        assert_eq!(ran.status.code(), Some(127), "{}", ran.stderr);
        // The name is taken.
        let ran = sh(place, &["--name", "c1"], "true");
        assert!(ran.stderr.contains("c1"), "{}", ran.stderr);
        assert!(house.other(&["status"]).ok().contains("c1"));
        house.other(&["kill", "c1", "TERM"]).ok();
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::SIGTERM as i32));
        is_left_alone(place);
        assert!(
            house
                .other(&["exec", "c1", "true"])
                .error()
                .contains("no container")
        );
    }
}
