//! Real containers: what they set is what they see, whoever looks and however often anything is
//! restarted.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Bundle, Daemon, Owned, Place, Ran, Runtime, run, set_mode, tool, until};

const XATTR: &str = "user.rootlesscontainers";

/// Prints the owner, type and name of each file.
const STAT: &str = "stat -c '%u:%g %F %n'";

fn repository(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn the_session_of_the_readme_shows_the_owner_that_was_set() {
    let place = Place::new();
    let socket = place.path("home/.subuidless.sock");
    let daemon = Daemon::spawn(&place, place.subuidless([&socket]), socket.clone());
    let bundle = Bundle::new(&place, &daemon);
    // The bundle that the project ships, on a terminal, found by the environment variable.
    fs::copy(
        repository("test-bundle/config.json"),
        bundle.directory().join("config.json"),
    )
    .unwrap();
    let crun = bundle.runtime.run(&bundle, "session", &[]);
    let words: Vec<String> = std::iter::once(crun.get_program())
        .chain(crun.get_args())
        .map(|word| format!("'{}'", word.to_str().unwrap().replace('\'', r"'\''")))
        .collect();
    let mut command = place.as_root("script");
    command
        .args(["-qec", &words.join(" "), "/dev/null"])
        .env("RUN_OCI_SECCOMP_RECEIVER", &socket)
        .env("HOME", place.path("home"))
        .env("XDG_RUNTIME_DIR", place.runtime_directory());
    let output = type_into(
        &mut command,
        "touch foo; chown 42:42 foo; ls -ln foo; exit\n",
    );
    let line = output
        .lines()
        .find(|line| line.starts_with("-rw"))
        .unwrap_or_else(|| panic!("{output}"));
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    assert_eq!(
        fields[..5],
        ["-rw-r--r--", "1", "42", "42", "0"],
        "{output}"
    );
}

fn type_into(command: &mut Command, text: &str) -> String {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Makes files of every kind, with owners all over the range of ids.
const MAKE_ALL: &str = "cd /work
    mkdir directory; touch file locked readonly directory/inside uid-only gid-only largest back
    ln -s file link; ln -s /nowhere dangling; mkfifo fifo; mknod device c 0 0
    ln file hard
    chmod 0000 locked; chmod 0444 readonly
    chown 42:43 file
    chown -h 44:45 link; chown -h 46:47 dangling
    chown 48:49 fifo; chown 50:51 device
    chown 65536:100000 directory; chown 1:4294967294 directory/inside
    chown 4294967294:4294967294 largest
    chown 52 uid-only; chgrp 53 gid-only
    chown 999:999 locked; chown 1000:0 readonly
    chown 7:7 back; chown 0:0 back";

const STAT_ALL: &str = "cd /work; stat -c '%u:%g %F %n' * directory/inside";

const ALL: &str = "\
0:0 regular empty file back
46:47 symbolic link dangling
50:51 character special file device
65536:100000 directory directory
48:49 fifo fifo
42:43 regular empty file file
0:53 regular empty file gid-only
42:43 regular empty file hard
4294967294:4294967294 regular empty file largest
44:45 symbolic link link
999:999 regular empty file locked
1000:0 regular empty file readonly
52:0 regular empty file uid-only
1:4294967294 regular empty file directory/inside
";

#[test]
fn owners_of_all_kinds_of_files_outlive_the_container_and_the_daemon() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundle = Bundle::new(&place, &daemon);
    bundle.sh(MAKE_ALL);
    assert_eq!(bundle.sh(STAT_ALL), ALL);
    daemon.terminate();
    let _daemon = Daemon::start(&place);
    assert_eq!(bundle.sh(STAT_ALL), ALL);
}

#[test]
fn the_oracle_shows_the_same_owners() {
    let place = Place::new();
    let bundle = Bundle::oracle(&place);
    bundle.sh(MAKE_ALL);
    assert_eq!(bundle.sh(STAT_ALL), ALL);
}

#[test]
fn owners_are_those_of_the_file_and_not_of_its_name() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundle = Bundle::new(&place, &daemon);
    bundle.sh(MAKE_ALL);
    let moved = bundle.sh(&format!(
        "cd /work; mkdir -p moved; for name in link fifo device file; do mv $name moved/; done
         cd moved; {STAT} *"
    ));
    assert_eq!(
        moved,
        "50:51 character special file device\n48:49 fifo fifo\n42:43 regular empty file file\n44:45 symbolic link link\n"
    );
    // What is made anew under an old name is root's.
    let again = bundle.sh(&format!(
        "cd /work/moved; rm *; ln -s file link; mkfifo fifo; mknod device c 0 0; touch file
        {STAT} *"
    ));
    assert_eq!(
        again,
        "0:0 character special file device\n0:0 fifo fifo\n0:0 regular empty file file\n0:0 symbolic link link\n"
    );
}

#[test]
fn a_process_that_enters_a_container_sees_its_owners_and_the_other_way_round() {
    for runtime in [Runtime::Crun, Runtime::Runc] {
        let place = Place::new();
        let daemon = Daemon::start(&place);
        let bundle = Bundle::new(&place, &daemon).under(runtime, &daemon);
        // What the first process says comes when it is told so.
        let script =
            "cd /work; touch inside; chown 1:2 inside; ln -s inside link; chown -h 3:4 link
            mkfifo go done
            while read word <go; do stat -c '%u:%g %n' * >/tmp/seen; echo >done; done";
        let container = bundle.start(&["/bin/sh", "-euc", script]);
        let seen = container.sh("cd /work; until test -p done; do :; done
            touch outside; chown 5:6 outside; chown -h 7:8 link
            stat -c '%u:%g %n' inside link outside
            echo >go; read word <done; cat /tmp/seen");
        let expected = "1:2 inside\n7:8 link\n5:6 outside\n";
        let all = "0:0 done\n0:0 go\n1:2 inside\n7:8 link\n5:6 outside\n";
        assert_eq!(seen, format!("{expected}{all}"), "{runtime:?}");
        until("one worker for both", || {
            (place.workers_of(&container.id).len() == 1).then_some(())
        });
        container.stop();
    }
}

#[test]
fn several_containers_run_side_by_side_and_keep_to_themselves() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundles: Vec<Bundle> = (0..4).map(|_| Bundle::new(&place, &daemon)).collect();
    let containers: Vec<_> = bundles
        .iter()
        .enumerate()
        .map(|(n, bundle)| {
            let script = format!(
                "cd /work; touch f; for i in $(seq 1 50); do chown $i:{n} f
                test $(stat -c %u:%g f) = $i:{n}; done
                 echo all went well >result; chown {n}:{n} result; exec sleep 1000000"
            );
            bundle.start(&["/bin/sh", "-euc", &script])
        })
        .collect();
    for (n, container) in containers.into_iter().enumerate() {
        let seen = container.sh(
            "cd /work; until test $(stat -c %g result) = $(stat -c %g f); do :; done
            cat result; stat -c %u:%g f result",
        );
        assert_eq!(seen, format!("all went well\n50:{n}\n{n}:{n}\n"));
        container.stop();
    }
    let ended = |_| daemon.lines(&[" ended "]).len() == 8;
    common::until("eight listeners have ended", || ended(()).then_some(()));
}

#[test]
fn another_mount_namespace_or_root_directory_shows_its_own_files() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let script = format!(
        "cd /work; touch f; chown 1:1 f
         unshare -m sh -euc 'mount -t tmpfs none /work; cd /work; touch f; chown 2:2 f; ln -s f l; chown -h 3:3 l; {0} f l; {0} /work/f'
         {0} f /work/f
         mkdir -p jail/bin jail/work; cp /bin/busybox jail/bin/sh; cp /bin/busybox jail/bin/busybox
         chroot jail /bin/sh -euc 'busybox touch /work/f; busybox chown 4:4 /work/f; busybox {1} /work/f'
         {0} jail/work/f f",
        STAT.replace('\'', "\""),
        STAT.replace('\'', "\""),
    );
    let expected = Bundle::oracle(&place).sh(&script);
    assert!(
        expected.ends_with("1:1 regular empty file f\n"),
        "{expected}"
    );
    assert_eq!(Bundle::new(&place, &daemon).sh(&script), expected);
}

#[test]
fn runc_runs_a_container_that_keeps_its_owners() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundle = Bundle::new(&place, &daemon).under(Runtime::Runc, &daemon);
    bundle.sh(MAKE_ALL);
    assert_eq!(bundle.sh(STAT_ALL), ALL);
    // The two runtimes share their files.
    let bundle = bundle.under(Runtime::Crun, &daemon);
    assert_eq!(bundle.sh(STAT_ALL), ALL);
}

#[test]
fn a_container_without_new_privileges_keeps_its_owners() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundle = Bundle::new(&place, &daemon)
        .with_config(|config| config["process"]["noNewPrivileges"] = true.into());
    bundle.sh(MAKE_ALL);
    assert_eq!(bundle.sh(STAT_ALL), ALL);
}

#[test]
fn the_owner_lies_in_the_attribute_that_other_tools_read_and_write() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundle = Bundle::new(&place, &daemon);
    bundle.sh("cd /work; touch f; chown 100000:200000 f");
    let file = bundle.rootfs().join("work/f");
    let value = xattr::get(&file, XATTR).unwrap().unwrap();
    assert_eq!(
        value,
        [0x08, 0xa0, 0x8d, 0x06, 0x10, 0xc0, 0x9a, 0x0c],
        "as umoci writes it"
    );
    // For the host it is the user's as before.
    assert_eq!(fs::metadata(&file).unwrap().uid(), place.user.uid.as_raw());
    let umoci_0_42 = [0x08, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x10, 0x2a];
    xattr::set(&file, XATTR, &umoci_0_42).unwrap();
    assert_eq!(bundle.sh("stat -c %u:%g /work/f"), "0:42\n");
    bundle.sh("chown 0:0 /work/f");
    assert_eq!(bundle.sh("stat -c %u:%g /work/f"), "0:0\n");
}

#[test]
fn a_record_that_cannot_be_read_counts_as_absent_and_is_told_once() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundle = Bundle::new(&place, &daemon);
    for name in ["one", "other"] {
        let file = bundle.rootfs().join("work").join(name);
        fs::write(&file, "text").unwrap();
        place.give_to_user(&file);
        xattr::set(&file, XATTR, b"\xff\xff\xff").unwrap();
    }
    let seen = bundle
        .sh("cd /work; stat -c '%u:%g' one other; cat one; chown 1:2 one; stat -c '%u:%g' one");
    assert_eq!(seen, "0:0\n0:0\ntext1:2\n");
    assert_eq!(daemon.lines(&["WARN", XATTR]).len(), 1, "{}", daemon.log());
}

#[test]
fn files_of_another_host_user_stay_out_of_reach() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let foreign = place.path("foreign");
    fs::create_dir(&foreign).unwrap();
    // Everybody may write to it: even so nobody but its owner may chown it.
    let file = foreign.join("f");
    fs::write(&file, "").unwrap();
    set_mode(&foreign, 0o777);
    set_mode(&file, 0o666);
    let bundle = Bundle::new(&place, &daemon).with_mount(&foreign, "/mnt", &["rbind"]);
    fs::create_dir(bundle.rootfs().join("mnt")).unwrap();
    let seen = bundle.sh("
        for owner in 42:42 0:0 42 :42 65534:65534; do
            if chown $owner /mnt/f 2>/tmp/error; then echo chown $owner went through; fi
            if chown -h $owner /mnt 2>/tmp/error; then echo chown $owner went through; fi
        done
        grep -Ev 'Operation not permitted|Invalid argument' /tmp/error || true
        stat -c %u:%g /mnt/f /mnt");
    assert_eq!(seen, "65534:65534\n65534:65534\n");
    for path in [&file, &foreign] {
        assert_eq!(xattr::get(path, XATTR).unwrap(), None);
        assert_eq!(fs::metadata(path).unwrap().uid(), 0);
    }
}

#[test]
fn a_mount_that_is_read_only_stays_unchanged() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let shared = place.path("home/shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("f"), "").unwrap();
    place.give_to_user(&shared);
    place.give_to_user(&shared.join("f"));
    let bundle = Bundle::new(&place, &daemon).with_mount(&shared, "/mnt", &["rbind", "ro"]);
    fs::create_dir(bundle.rootfs().join("mnt")).unwrap();
    let seen = bundle.sh("chown 1:1 /mnt/f 2>&1 || true; stat -c %u:%g /mnt/f");
    assert_eq!(seen, "chown: /mnt/f: Read-only file system\n0:0\n");
    assert_eq!(xattr::get(shared.join("f"), XATTR).unwrap(), None);
}

#[test]
fn without_a_daemon_the_container_does_not_start_and_the_runtime_says_why() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundle = Bundle::new(&place, &daemon);
    daemon.terminate();
    let message = bundle.run(&["/bin/true"]).error();
    assert!(message.contains("seccomp"), "{message}");
}

/// podman with a storage of its own below the place.
struct Podman<'a> {
    place: &'a Place,
    runtime: &'static str,
}

impl Podman<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.place.as_user(tool("podman"));
        command
            .arg("--runtime")
            .arg(tool(self.runtime))
            .args(arguments);
        command
    }

    fn podman(&self, arguments: &[&str]) -> Ran {
        run(&mut self.command(arguments))
    }
}

#[test]
fn podman_containers_keep_their_owners() {
    for runtime in ["crun", "runc"] {
        // podman keeps some things for each user, whatever HOME is.
        let _one_at_a_time = common::lock();
        let place = Place::new();
        let daemon = Daemon::start(&place);
        let settings = place.path("home/.config/containers");
        fs::create_dir_all(&settings).unwrap();
        fs::write(
            settings.join("storage.conf"),
            "[storage]\ndriver = \"overlay\"\n[storage.options.overlay]\nignore_chown_errors = \"true\"\n",
        )
        .unwrap();
        for path in [".config", ".config/containers"] {
            place.give_to_user(&place.path("home").join(path));
        }
        let mut profile = place.subuidless([
            "profile",
            "--format",
            "podman",
            "--base",
            "default",
            "--runtime",
            runtime,
            "--listener-path",
        ]);
        let profile = run(profile.arg(&daemon.socket)).ok();
        let profile_path = place.path("home/profile.json");
        fs::write(&profile_path, profile).unwrap();
        fs::set_permissions(&profile_path, fs::Permissions::from_mode(0o644)).unwrap();

        let bundle = Bundle::oracle(&place);
        let tar = place.path("home/rootfs.tar");
        run(Command::new(tool("tar"))
            .arg("-C")
            .arg(bundle.rootfs())
            .arg("-cf")
            .arg(&tar)
            .arg("."))
        .ok();
        let podman = Podman {
            place: &place,
            runtime,
        };
        if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            // podman wants a cgroup2 file system there; its own mount namespace keeps this.
            let mount = [
                "unshare",
                "mount",
                "--bind",
                "/sys/fs/cgroup/unified",
                "/sys/fs/cgroup",
            ];
            podman.podman(&mount).ok();
        }
        podman
            .podman(&["import", tar.to_str().unwrap(), "small"])
            .ok();
        let seccomp = format!("seccomp={}", profile_path.display());
        let mark = place.mark();
        let mut options = vec![
            "run",
            "--network=none",
            "--security-opt",
            &seccomp,
            "--env",
            &mark,
            "--name",
            "c1",
        ];
        if runtime == "crun" {
            options.push("--cgroups=disabled");
        }
        options.extend(["-d", "localhost/small", "/bin/sleep", "1000000"]);
        podman.podman(&options).ok();
        // podman's own set of capabilities has no CAP_MKNOD.
        let make_all = MAKE_ALL.replace("mknod device c 0 0", "mkfifo device");
        podman
            .podman(&["exec", "c1", "/bin/sh", "-euc", &make_all])
            .ok();
        let all = ALL.replace("50:51 character special file", "50:51 fifo");
        assert_eq!(
            podman
                .podman(&["exec", "c1", "/bin/sh", "-euc", STAT_ALL])
                .ok(),
            all
        );
        podman.podman(&["stop", "-t", "0", "c1"]).ok();
        podman.podman(&["start", "c1"]).ok();
        assert_eq!(
            podman
                .podman(&["exec", "c1", "/bin/sh", "-euc", STAT_ALL])
                .ok(),
            all
        );
        podman.podman(&["rm", "-f", "-t", "0", "c1"]).ok();
    }
}

#[test]
fn an_empty_root_file_system_is_the_runtimes_error_and_the_daemon_goes_on() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let good = Bundle::new(&place, &daemon);
    let missing = good.run(&["/no/such/program"]).error();
    assert!(missing.contains("/no/such/program"), "{missing}");
    assert_eq!(good.sh("touch f; chown 1:2 f; stat -c %u:%g f"), "1:2\n");
    assert_eq!(good.owned, Owned::ByUser);
}

/// A container that sees the host's processes, its own worker among them.
fn with_the_hosts_processes(config: &mut serde_json::Value) {
    let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "pid");
    let mounts = config["mounts"].as_array_mut().unwrap();
    for mount in mounts
        .iter_mut()
        .filter(|mount| mount["destination"] == "/proc")
    {
        *mount = serde_json::json!({
            "destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"],
        });
    }
}

#[test]
fn no_link_to_the_workers_own_directories_leads_out_of_the_container() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let outside = place.path("home/outside");
    fs::write(&outside, "").unwrap();
    place.give_to_user(&outside);
    let bundle = Bundle::new(&place, &daemon).with_config(with_the_hosts_processes);
    let script = format!(
        "ln -s /proc/self/cwd/..{outside} by-self
         ! chown 77:77 by-self 2>/dev/null
         for process in /proc/[0-9]*; do
             ln -s $process/cwd/..{outside} link
             chown 77:77 $process/cwd/..{outside} $process/root{outside} link 2>/dev/null ||:
             stat link >/dev/null 2>&1 ||:
             rm link
         done
         touch f; exec 7<f; chown 5:6 /proc/self/fd/7
         ln -s /proc/self/fd/7 to-f; stat -L -c %u:%g f to-f",
        outside = outside.display()
    );
    assert_eq!(bundle.sh(&script), "5:6\n5:6\n");
    assert_eq!(xattr::get(&outside, XATTR).unwrap(), None);
}

#[test]
fn nothing_is_created_outside_by_way_of_a_second_procfs_that_shows_the_worker() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let outside = place.path("home/outside");
    fs::create_dir(&outside).unwrap();
    place.give_to_user(&outside);
    // With another group than the kernel's a worker creates for the container.
    let bundle = Bundle::new(&place, &daemon)
        .with_mount(Path::new("/proc"), "/hostproc", &["rbind"])
        .with_config(|config| config["process"]["user"] = serde_json::json!({"uid": 0, "gid": 5}));
    let script = format!(
        "cd /work; : >inside; stat -c %u:%g inside
         for process in /hostproc/[0-9]*; do
             # Others of the same user namespace are as open to it as without a worker.
             grep -q ^subuidless: $process/cmdline 2>/dev/null || continue
             for link in cwd root fd/3 fd/4 fd/5 fd/6 fd/7 fd/8 fd/9 fd/10 fd/11 fd/12; do
                 way=$process/$link/../../../../../../../..{outside}
                 (: >$way/file; mkdir $way/directory; ln -s x $way/link; mkfifo $way/fifo
                 chown 7:7 $way
                  chmod 7777 $way; stat $way && echo seen) 2>/dev/null ||:
             done
         done",
        outside = outside.display()
    );
    assert_eq!(bundle.sh(&script), "0:5\n");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert_eq!(xattr::get(&outside, XATTR).unwrap(), None);
}

#[test]
fn a_file_system_without_user_attributes_keeps_owners_too() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let bundle = Bundle::new(&place, &daemon);
    let script = "unshare -m sh -euc 'mount -t ramfs none /mnt; cd /mnt; touch f; mkdir d
        chown 42:43 f d; stat -c %u:%g f d; rm f; touch f; stat -c %u:%g f'";
    assert_eq!(
        bundle.sh(&format!("mkdir -p /mnt; {script}")),
        "42:43\n42:43\n0:0\n"
    );
}

#[test]
fn a_daemon_of_root_leaves_containers_with_many_ids_to_the_kernel() {
    const FIRST: u32 = 500_000;
    let place = Place::new();
    let directory = place.path("of-root");
    fs::create_dir(&directory).unwrap();
    let socket = directory.join("sock");
    let mut command = place.as_root(place.binary());
    command
        .arg("serve")
        .arg(&socket)
        .env("XDG_RUNTIME_DIR", &directory)
        .env("XDG_STATE_HOME", &directory);
    let daemon = Daemon::spawn(&place, command, socket);
    for runtime in [Runtime::Crun, Runtime::Runc] {
        let bundle = Bundle::oracle(&place)
            .with_config(|config| {
                for mappings in ["uidMappings", "gidMappings"] {
                    config["linux"][mappings] =
                        serde_json::json!([{"containerID": 0, "hostID": FIRST, "size": 65536}]);
                }
            })
            .under(runtime, &daemon);
        let work = bundle.rootfs().join("work");
        std::os::unix::fs::chown(&work, Some(FIRST), Some(FIRST)).unwrap();
        let printed =
            bundle.sh("touch /work/f; chown 33:34 /work/f; stat -c %u:%g /work/f; touch /work/g");
        assert_eq!(printed, "33:34\n");
        let owner = |name: &str| {
            let file = fs::metadata(work.join(name)).unwrap();
            (file.uid(), file.gid())
        };
        assert_eq!(owner("f"), (FIRST + 33, FIRST + 34));
        // Else it would still be the host's root to the kernel.
        assert_eq!(owner("g"), (FIRST, FIRST));
    }
    daemon.terminate();
}
