//! `install --user` and its undoing: what is written, what is left alone, and that systemd and
//! podman use it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use common::{
    Bundle, Daemon, Manager, Place, Podman, Ran, Runtime, assert_same_lines, run, small_image, tool,
};

const SOCKET: &str = ".config/systemd/user/subuidless.socket";
const SERVICE: &str = ".config/systemd/user/subuidless.service";
const SETTINGS: &str = ".config/containers/containers.conf.d/50-subuidless.conf";
const CRUN: &str = ".local/bin/subuidless-crun";
const RUNC: &str = ".local/bin/subuidless-runc";
const PODMAN: &str = ".local/bin/podman";
const BUILDAH: &str = ".local/bin/buildah";
const ALL: [&str; 7] = [SOCKET, SERVICE, PODMAN, BUILDAH, CRUN, RUNC, SETTINGS];

fn install(place: &Place, options: &[&str]) -> Ran {
    run(place.subuidless(["install", "--user"]).args(options))
}

fn uninstall(place: &Place, options: &[&str]) -> Ran {
    run(place.subuidless(["uninstall", "--user"]).args(options))
}

/// Everything where the user is at home: inode and what it says.
fn home(place: &Place) -> BTreeMap<PathBuf, (u64, Vec<u8>)> {
    fn walk(directory: &Path, found: &mut BTreeMap<PathBuf, (u64, Vec<u8>)>) {
        for entry in fs::read_dir(directory).unwrap().flatten() {
            let path = entry.path();
            let kind = entry.file_type().unwrap();
            let content = match (kind.is_dir(), kind.is_symlink()) {
                (true, _) => Vec::new(),
                (_, true) => fs::read_link(&path)
                    .unwrap()
                    .into_os_string()
                    .into_encoded_bytes(),
                _ => fs::read(&path).unwrap(),
            };
            let inode = entry.metadata().unwrap().ino();
            if kind.is_dir() {
                walk(&path, found);
            }
            found.insert(path, (inode, content));
        }
    }
    let mut found = BTreeMap::new();
    walk(&place.path("home"), &mut found);
    found
}

fn in_home(place: &Place, name: &str) -> PathBuf {
    place.path("home").join(name)
}

/// A file of the user's own.
fn own(place: &Place, name: &str, text: &str) {
    let path = in_home(place, name);
    run(place.as_user("mkdir").arg("-p").arg(path.parent().unwrap())).ok();
    fs::write(&path, text).unwrap();
    place.give_to_user(&path);
}

/// The paths below the home directory that lines beginning with `word` name.
fn told(place: &Place, word: &str, output: &str) -> Vec<String> {
    let prefix = format!("{word} {}/", place.path("home").display());
    let lines = output.lines().filter_map(|line| line.strip_prefix(&prefix));
    lines.map(str::to_owned).collect()
}

#[test]
fn each_thing_is_told_and_undone_exactly() {
    let place = Place::new();
    own(
        &place,
        ".config/systemd/user/other.service",
        "[Service]\nExecStart=/bin/true\n",
    );
    own(&place, ".config/containers/containers.conf", "[engine]\n");
    own(&place, ".local/share/x", "");
    let before = home(&place);

    let planned = install(&place, &["--podman", "--dry-run"]).ok();
    assert_eq!(told(&place, "would write", &planned), ALL);
    assert_eq!(home(&place), before);

    let done = install(&place, &["--podman"]).ok();
    assert_eq!(told(&place, "wrote", &done), ALL);
    assert!(done.contains("cannot reach a user manager"), "{done}");
    let installed = home(&place);
    let wanted = in_home(
        &place,
        ".config/systemd/user/sockets.target.wants/subuidless.socket",
    );
    assert!(installed.contains_key(&wanted), "{installed:?}");

    let again = install(&place, &["--podman"]).ok();
    assert_eq!(told(&place, "unchanged:", &again), ALL);
    assert_eq!(home(&place), installed);

    let planned = uninstall(&place, &["--dry-run"]).ok();
    let mut named = told(&place, "would remove", &planned);
    named.sort();
    let mut all = ALL;
    all.sort_unstable();
    assert_eq!(named, all);
    assert_eq!(home(&place), installed);

    let mut removed = told(&place, "removed", &uninstall(&place, &[]).ok());
    removed.sort();
    assert_eq!(removed, all);
    assert_eq!(home(&place), before);
    assert_eq!(uninstall(&place, &[]).ok(), "");
}

#[test]
fn nothing_is_left_where_nothing_was() {
    let place = Place::new();
    install(&place, &["--podman"]).ok();
    uninstall(&place, &[]).ok();
    assert_eq!(home(&place), BTreeMap::new());
}

#[test]
fn systemd_understands_the_units() {
    let place = Place::new();
    install(&place, &[]).ok();
    let mut verify = place.as_user("systemd-analyze");
    verify.args(["--user", "--man=no", "verify", SOCKET, SERVICE]);
    let verified = run(&mut verify);
    assert_eq!(verified.stderr, "");
    verified.ok();
}

#[test]
fn podman_is_changed_when_asked_only() {
    let place = Place::new();
    let done = install(&place, &[]).ok();
    assert_eq!(told(&place, "wrote", &done), [SOCKET, SERVICE]);
    assert!(done.contains("--podman makes it use subuidless"), "{done}");
}

#[test]
fn settings_go_where_xdg_config_home_says() {
    let place = Place::new();
    let directory = place.path("home/elsewhere");
    let mut command = place.subuidless(["install", "--user", "--podman"]);
    run(command.env("XDG_CONFIG_HOME", &directory)).ok();
    assert!(directory.join("systemd/user/subuidless.service").is_file());
    assert!(
        directory
            .join("containers/containers.conf.d/50-subuidless.conf")
            .is_file()
    );
    assert!(!in_home(&place, ".config").exists());
}

#[test]
fn without_a_home_it_says_so() {
    let place = Place::new();
    let mut command = place.subuidless(["install", "--user"]);
    let message = run(command.env_remove("HOME")).error();
    assert!(message.contains("HOME is not set"), "{message}");
}

#[test]
fn when_systemctl_fails_the_rest_is_done_and_the_reason_told() {
    let place = Place::new();
    let directory = place.path("bin");
    fs::create_dir(&directory).unwrap();
    let systemctl = directory.join("systemctl");
    let script = "#!/bin/sh\ncase $* in *show*) ;; *) echo 'Access denied' >&2; exit 4;; esac\n";
    fs::write(&systemctl, script).unwrap();
    common::set_mode(&systemctl, 0o755);
    let path = format!("{}:/usr/bin:/bin", directory.display());
    for (arguments, command) in [
        (&["install", "--user", "--podman"][..], "daemon-reload"),
        (&["uninstall", "--user"], "disable --now subuidless.socket"),
    ] {
        let ran = run(place.subuidless(arguments).env("PATH", &path));
        let told = String::from_utf8(ran.stdout.clone()).unwrap();
        let reason = format!("`systemctl --user {command}`: Access denied; the rest is done");
        let message = ran.error();
        assert!(message.contains(&reason), "{message}");
        for name in ALL {
            let path = in_home(&place, name);
            assert!(told.contains(path.to_str().unwrap()), "{told}");
            assert_eq!(path.symlink_metadata().is_ok(), arguments[0] == "install");
        }
    }
}

#[test]
fn without_systemctl_it_says_that_nothing_was_enabled() {
    let place = Place::new();
    let mut command = place.as_user("/usr/bin/env");
    command.args(["PATH=/nowhere"]).arg(place.binary());
    let done = run(command.args(["install", "--user"])).ok();
    assert!(
        done.contains("there is no systemctl here, so nothing was enabled"),
        "{done}"
    );
    assert_eq!(told(&place, "wrote", &done), [SOCKET, SERVICE]);
}

/// What was there stays, is named, and fails the command, which does the rest.
#[track_caller]
fn left_alone(place: &Place, name: &str, rest: &[&str]) {
    let before = home(place);
    let path = in_home(place, name);
    for ran in [install(place, &["--podman"]), uninstall(place, &[])] {
        assert_eq!(ran.status.code(), Some(1), "{ran:?}");
        let output = String::from_utf8(ran.stdout).unwrap();
        assert_eq!(
            output
                .lines()
                .filter(|line| line.starts_with("left alone"))
                .count(),
            1,
            "{output}"
        );
        assert!(
            output.contains(&format!("left alone {}: ", path.display())),
            "{output}"
        );
        assert!(
            ran.stderr
                .contains("1 of these files were left alone, as reported above"),
            "{}",
            ran.stderr
        );
        if output.contains("wrote") {
            assert_eq!(told(place, "wrote", &output), rest);
            assert_eq!(home(place)[&path], before[&path]);
        }
    }
    assert_eq!(home(place), before);
}

#[test]
fn units_and_settings_of_the_users_own_are_left_alone() {
    for (name, rest) in [
        (
            SERVICE,
            &[SOCKET, PODMAN, BUILDAH, CRUN, RUNC, SETTINGS][..],
        ),
        (SOCKET, &[SERVICE, PODMAN, BUILDAH, CRUN, RUNC, SETTINGS]),
        (SETTINGS, &[SOCKET, SERVICE]),
    ] {
        let place = Place::new();
        own(&place, name, "# mine\n");
        left_alone(&place, name, rest);
    }
}

#[test]
fn a_masked_unit_stays_masked() {
    let place = Place::new();
    own(&place, ".config/systemd/user/x", "");
    symlink("/dev/null", in_home(&place, SOCKET)).unwrap();
    left_alone(
        &place,
        SOCKET,
        &[SERVICE, PODMAN, BUILDAH, CRUN, RUNC, SETTINGS],
    );
}

#[test]
fn a_front_or_a_podman_of_the_users_own_is_left_alone_and_all_of_podman_with_it() {
    for name in [RUNC, PODMAN] {
        let place = Place::new();
        own(&place, name, "#!/bin/sh\n");
        let before = home(&place);
        let ran = install(&place, &["--podman"]);
        assert_eq!(ran.status.code(), Some(1));
        let output = String::from_utf8(ran.stdout).unwrap();
        let path = in_home(&place, name);
        assert!(
            output.contains(&format!("left alone {}: ", path.display())),
            "{output}"
        );
        assert_eq!(told(&place, "wrote", &output), [SOCKET, SERVICE]);
        uninstall(&place, &[]).ok();
        assert_eq!(home(&place), before);
    }
}

#[test]
fn podman_by_its_own_name_is_served_where_the_link_comes_first() {
    let place = Place::new();
    let done = install(&place, &["--podman"]).ok();
    let hint = format!(
        "podman: {} is not before {} on PATH",
        in_home(&place, ".local/bin").display(),
        tool("podman").display()
    );
    assert!(done.contains(&hint), "{done}");
    let path = format!("{}:/usr/bin:/bin", in_home(&place, ".local/bin").display());
    let mut command = place.subuidless(["install", "--user", "--podman"]);
    let done = run(command.env("PATH", &path)).ok();
    assert!(!done.contains("on PATH"), "{done}");
    // In a shell of podman's it is not served once more.
    let script = "touch f; chown 7:8 f; stat -c %u:%g f; podman unshare stat -c %u:%g f";
    let mut command = place.as_user("podman");
    command.args(["unshare", "sh", "-euc", script]);
    let ran = run(command.env("PATH", &path));
    assert_eq!(ran.ok(), "7:8\n7:8\n");
    // Nobody has chosen a storage driver.
    let mut command = place.as_user("podman");
    command.args(["info", "--format", "{{.Store.GraphDriverName}}"]);
    assert_eq!(run(command.env("PATH", &path)).ok(), "overlay\n");
}

#[test]
fn a_podman_that_is_subuidless_again_is_told_and_does_not_loop() {
    let place = Place::new();
    let binary = place.binary();
    let directory = in_home(&place, "bin");
    let called = directory.join("podman");
    let path = format!("{}:/usr/bin:/bin", directory.display());
    for script in ["exec \"$B\" podman \"$@\"", "\"$B\" podman \"$@\""] {
        own(&place, "bin/podman", &format!("#!/bin/sh\n{script}\n"));
        fs::set_permissions(&called, fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = place.as_user("podman");
        command
            .arg("--version")
            .env("PATH", &path)
            .env("B", &binary);
        let ran = run(&mut command);
        assert_eq!(ran.status.code(), Some(125), "{ran:?}");
        let hint = format!("{} calls subuidless again and again", called.display());
        assert!(ran.stderr.contains(&hint), "{ran:?}");
    }
}

#[test]
fn what_somebody_has_changed_since_is_left_alone() {
    for name in [SOCKET, SERVICE, SETTINGS] {
        let place = Place::new();
        install(&place, &["--podman"]).ok();
        let path = in_home(&place, name);
        let changed = fs::read_to_string(&path).unwrap() + "# and more\n";
        fs::write(&path, &changed).unwrap();
        for ran in [install(&place, &["--podman"]), uninstall(&place, &[])] {
            assert_eq!(ran.status.code(), Some(1), "{ran:?}");
            let output = String::from_utf8(ran.stdout).unwrap();
            assert!(output.contains("it was changed since"), "{output}");
            assert_eq!(fs::read_to_string(&path).unwrap(), changed);
        }
        // podman's settings still name the fronts.
        assert_eq!(in_home(&place, CRUN).exists(), name == SETTINGS);
    }
}

#[test]
fn a_program_that_has_moved_is_installed_from_where_it_is_now() {
    let place = Place::new();
    install(&place, &["--podman"]).ok();
    let moved = place.path("moved 100%");
    fs::create_dir(&moved).unwrap();
    let binary = moved.join("subuidless");
    fs::rename(place.binary(), &binary).unwrap();
    let mut command = place.as_user(&binary);
    let done = run(command.args(["install", "--user", "--podman"])).ok();
    assert_eq!(
        told(&place, "replaced", &done),
        [SERVICE, PODMAN, BUILDAH, CRUN, RUNC, SETTINGS]
    );
    assert_eq!(fs::read_link(in_home(&place, CRUN)).unwrap(), binary);
    let mut verify = place.as_user("systemd-analyze");
    verify.args(["--user", "--man=no", "verify", SOCKET, SERVICE]);
    assert_eq!(run(&mut verify).stderr, "");
    run(place.as_user(&binary).args(["uninstall", "--user"])).ok();
    assert_eq!(home(&place), BTreeMap::new());
}

#[test]
fn podman_and_buildah_use_it_and_their_containers_outlive_it() {
    let place = Place::new();
    let _one_at_a_time = common::lock();
    // Who would start one else, in environments that do not say that it is of this test.
    let _daemon = Daemon::start(&place);
    small_image(&place);
    let podman = Podman::installed(&place);
    let script = "\"$@\" import -q small.tar small >&2
\"$@\" info --format '{{.Host.OCIRuntime.Path}}'
said \"$@\" run --rm $OPTIONS --network=none --env \"$MARK\" --user 999:998 small sh -c 'id -u; touch /tmp/f; stat -c %u:%g /tmp/f'
\"$@\" run --name stays --log-driver=k8s-file $OPTIONS --network=none --env \"$MARK\" small sh -c 'touch /f; chown 42:43 /f || echo refused; stat -c %u:%g /f' >/dev/null
\"$@\" logs stays
printf 'FROM small\\nRUN touch /b && chown 7:8 /b && stat -c built-%%u:%%g /b\\n' > Containerfile
\"$@\" build -q --network=none . >&2
buildah unshare sh -euc 'test -e /sys/fs/cgroup/cgroup.controllers || mount --bind /sys/fs/cgroup/unified /sys/fs/cgroup
    buildah bud --no-cache --network=none .' | grep ^built-";
    let seen = podman.sh(script).ok();
    let front = in_home(&place, CRUN);
    let expected = format!("{}\n999\n999:998\n42:43\nbuilt-7:8\n", front.display());
    assert_eq!(seen, expected);
    uninstall(&place, &[]).ok();
    // Without the front it is a container like any other, and keeps its one mapped id.
    let seen = podman
        .sh("\"$@\" start --attach stays >&2; \"$@\" logs stays 2>&1; \"$@\" rm stays >&2")
        .ok();
    assert!(seen.contains("refused\n"), "{seen}");
}

/// Files with set-user-ID bits, links, fifos, other users and their umask.
const CALLS: &str = "cd /tmp; umask 027; touch a; chmod 0644 a; chown 5:6 a; chmod 6755 a
    stat -c '%u:%g %a' a
ln -s a link; chown -h 7:8 link; stat -c %u:%g link
mkdir shared; chown 0:9 shared; chmod 2777 shared
mkdir -p /etc; echo 'web:x:998:997::/:/bin/sh' >>/etc/passwd
su -s /bin/sh web -c 'umask 022; id -u; touch shared/f; mkdir shared/d; mkfifo shared/p; chown 0 a' || echo refused
stat -c '%u:%g %a %n' shared/*
chroot / stat -c %u /tmp/a";

#[test]
fn the_users_systemd_starts_the_daemon_and_its_workers_outlive_it() {
    let place = Place::new();
    let manager = Manager::start(&place);
    let done = install(&place, &[]).ok();
    assert!(
        done.contains("subuidless.socket is enabled, and listens"),
        "{done}"
    );
    assert_eq!(
        manager
            .systemctl(&["is-active", "subuidless.service"])
            .stdout,
        b"inactive\n"
    );

    let bundle = Bundle::fronted(&place, Runtime::Crun);
    let running = bundle.start(&["sleep", "1000"]);
    assert_eq!(running.sh("touch f; chown 1:2 f; stat -c %u:%g f"), "1:2\n");
    assert_eq!(
        manager.systemctl(&["is-active", "subuidless.service"]).ok(),
        "active\n"
    );
    let workers = place.workers();
    assert!(!workers.is_empty());
    // What the hardening of the service could be in the way of.
    let oracle = Bundle::oracle(&place).sh(CALLS);
    assert_same_lines(oracle.as_bytes(), running.sh(CALLS).as_bytes());
    // Which the oracle's own container forbids.
    let seen = running.sh("mknod device c 1 3; stat -c '%F %t:%T' device");
    assert_eq!(seen, "character special file 1:3\n");
    manager.systemctl(&["restart", "subuidless.service"]).ok();
    assert_eq!(running.sh("stat -c %u:%g f"), "1:2\n");
    assert!(
        workers
            .iter()
            .all(|worker| place.workers().contains(worker))
    );

    let done = uninstall(&place, &[]).ok();
    assert!(done.contains("stopped and disabled"), "{done}");
    assert!(!place.path("run/subuidless.sock").exists());
    assert!(
        workers
            .iter()
            .any(|worker| place.workers().contains(worker))
    );
    assert!(running.is_running());
    running.stop();
}

#[test]
fn what_a_package_has_brought_is_used_and_not_copied() {
    let place = Place::new();
    // A /usr/local of this test's own.
    let script = "mount -t tmpfs tmpfs /usr/local
make -s -C \"$0\" install PREFIX=/usr/local BINARY=\"$1\" OUT=\"$2\"
shift 2
exec \"$@\"";
    let mut command = place.as_root("unshare");
    let user = place.as_user("sh");
    command
        .args(["-m", "--", "sh", "-euc", script])
        .arg(env!("CARGO_MANIFEST_DIR"))
        .arg(place.binary())
        .arg(place.path("generated"))
        .arg(user.get_program())
        .args(user.get_args())
        .args([
            "-euc",
            "subuidless install --user --podman
            cat \"$HOME/.config/containers/containers.conf.d/\"*; subuidless-crun --version",
        ])
        .env("HOME", place.path("home"))
        .env("XDG_RUNTIME_DIR", place.runtime_directory());
    let seen = run(&mut command).ok();
    for line in [
        "unchanged: /usr/local/lib/systemd/user/subuidless.socket",
        "unchanged: /usr/local/lib/systemd/user/subuidless.service",
        "crun = [\"/usr/local/bin/subuidless-crun\"]",
        "runc = [\"/usr/local/bin/subuidless-runc\"]",
    ] {
        assert!(seen.lines().any(|seen| seen == line), "{line}:\n{seen}");
    }
    assert!(seen.contains("crun version"), "{seen}");
    assert_eq!(told(&place, "wrote", &seen), [PODMAN, BUILDAH, SETTINGS]);
    assert!(tool("crun").is_file());
}
