//! podman and buildah behind the runtime front, with nothing else set up.

mod common;

use std::fs;

use common::{
    Place, Podman, Started, assert_same_lines, compile, oracle_twice, small_image,
    with_each_runtime,
};

/// `subuidless podman`, in place of a runtime's name.
const SERVED: &str = "";

/// The same podman commands by root and by the user, behind the front of a runtime or served.
fn podman(runtime: &str, script: &str) -> String {
    let place = Place::new();
    let _one_at_a_time = common::lock();
    let started = Started(&place);
    small_image(&place);
    compile(&place, &["musl-gcc", "-static"], "suid", "users/secure.c");
    let oracle = Podman::of_root(&place).sh(script).ok();
    fs::remove_dir_all(place.path("home/context")).unwrap_or_default();
    let ours = match oracle_twice() {
        true => Podman::of_root(&place),
        false if runtime == SERVED => Podman::served(&place),
        false => Podman::fronted(&place, runtime),
    };
    let ours = ours.sh(script);
    assert_same_lines(oracle.as_bytes(), &ours.bytes());
    let logs = started.logs();
    assert!(!logs.contains("ERROR"), "{logs}");
    oracle
}

const USERS: &str = include_str!("podman/users.sh");
const LIFE: &str = include_str!("podman/life.sh");

fn users(runtime: &str) {
    let seen = podman(runtime, USERS);
    assert!(seen.contains("\nNoNewPrivs:\t1\n"), "{seen}");
    assert!(seen.contains("\n998 character special file\n"), "{seen}");
    assert!(seen.contains("\nto the terminal\n"), "{seen}");
    assert!(
        seen.contains("\nuid=998(web) gid=997(web) groups=50(extra)"),
        "{seen}"
    );
}

#[test]
fn podman_and_crun_start_processes_as_every_user_with_and_without_a_terminal() {
    users("crun");
}

#[test]
fn podman_and_runc_start_processes_as_every_user_with_and_without_a_terminal() {
    users("runc");
}

#[test]
fn podman_below_us_starts_processes_as_every_user_with_and_without_a_terminal() {
    users(SERVED);
}

fn life(runtime: &str) {
    let seen = podman(runtime, LIFE);
    assert!(
        seen.contains("42:43 /var-a\n998:997 /tmp/of-web\n"),
        "{seen}"
    );
    assert!(seen.contains("-- healthcheck\nhealthy\n"), "{seen}");
}

#[test]
fn podman_builds_checks_and_restarts_containers_with_crun() {
    life("crun");
}

#[test]
fn podman_builds_checks_and_restarts_containers_with_runc() {
    life("runc");
}

#[test]
fn podman_below_us_keeps_owners_in_images_volumes_and_copies_as_podman_of_root() {
    let seen = podman(SERVED, include_str!("podman/owners.sh"));
    for line in [
        "100000:200000 644 /data/sub/g",
        "998:997 644 /data/by-web",
        "it: uid 998 euid 0:",
        "signals",
    ] {
        assert!(seen.lines().any(|seen| seen == line), "{line}:\n{seen}");
    }
}

#[test]
fn the_terminal_of_an_exec_is_its_users() {
    with_each_runtime(|_, podman, runtime| {
        let seen = podman.sh(
            r#""$@" import small.tar small >/dev/null
            "$@" run -d --network=none $OPTIONS --name c1 --user web localhost/small sleep 1000000 >/dev/null
            for user in 7 web 0 5:6 0; do
                said "$@" exec -t --user $user c1 sh -c 'stat -c %u $(tty); echo >$(tty) && echo written'
            done | tr -d '\r' | grep .
            "$@" rm -f -t 0 c1 >/dev/null"#,
        );
        let each = ["7", "998", "0", "5", "0"].map(|user| format!("{user}\nwritten\n"));
        assert_eq!(seen.ok(), each.concat(), "{runtime}");
    });
}

#[test]
fn the_containers_of_a_pod_have_users_of_their_own() {
    with_each_runtime(|_, podman, runtime| {
        // podman knows no --cgroups=disabled for the first container of a pod, which crun makes all
        // the same.
        let seen = podman.sh(r#"mkdir context; echo 'FROM localhost/small
                CMD ["sleep", "1000000"]' >context/Dockerfile
            "$@" import small.tar small >/dev/null
            "$@" build --quiet --network=none -t sleeps context >/dev/null 2>&1
            "$@" pod create --name p1 --network none --infra-image localhost/sleeps >/dev/null
            "$@" run -d --pod p1 $OPTIONS --name c1 --user 5:6 localhost/sleeps >/dev/null
            "$@" run -d --pod p1 $OPTIONS --name c2 localhost/sleeps >/dev/null
            for container in c1 c2; do
                "$@" exec $container sh -c 'id -u; touch /tmp/f; stat -c %u:%g /tmp/f'
                "$@" exec --user 7 $container id -u
            done
            "$@" pod restart -t 0 p1 >/dev/null 2>&1 || "$@" pod restart p1 >/dev/null
            "$@" exec c1 stat -c %u:%g /tmp/f
            "$@" pod rm -f -t 0 p1 >/dev/null"#);
        assert_eq!(seen.ok(), "5\n5:6\n7\n0\n0:0\n7\n5:6\n", "{runtime}");
    });
}

#[test]
fn podman_top_shows_the_processes_of_a_container() {
    let place = Place::new();
    let _one_at_a_time = common::lock();
    let _started = Started(&place);
    small_image(&place);
    let seen = Podman::fronted(&place, "runc").sh(r#""$@" import small.tar small >/dev/null
        "$@" run -d --network=none --name c1 --user web localhost/small sleep 1000000 >/dev/null
        "$@" top c1 pid args; "$@" rm -f -t 0 c1 >/dev/null"#);
    let seen = seen.ok();
    let words: Vec<&str> = seen.split_ascii_whitespace().collect();
    assert_eq!(words, ["PID", "COMMAND", "1", "sleep", "1000000"]);
}

#[test]
fn buildah_builds_as_every_user() {
    with_each_runtime(|place, podman, runtime| {
        // A namespace of buildah's own, in which it does not look for podman's mounts.
        let script = r#"
            mkdir context; echo 'FROM localhost/small
                RUN touch /a && chown 42:43 /a
                USER 999:5
                RUN echo "$(id -u):$(id -g) $(stat -c %u:%g /a)" >/tmp/seen && stat -c %u:%g /tmp/seen && cat /tmp/seen' >context/Dockerfile
            "$@" import small.tar small >/dev/null
            buildah unshare sh -euc 'test -e /sys/fs/cgroup/cgroup.controllers || mount --bind /sys/fs/cgroup/unified /sys/fs/cgroup
                buildah bud --runtime "$0" --network=none --tag built context' "$FRONT""#;
        let script = script.replace("$FRONT", place.front(runtime).to_str().expect("UTF-8"));
        let seen = podman.sh(&script).ok();
        assert!(seen.contains("\n999:5\n999:5 42:43\n"), "{seen}");
    });
}

#[test]
fn a_container_may_be_created_long_before_it_is_started() {
    with_each_runtime(|_, podman, runtime| {
        // Longer than a peer may take for its message.
        let seen = podman.sh(
            r#""$@" import small.tar small >/dev/null
            "$@" create --name c1 --log-driver=k8s-file --network=none $OPTIONS --user 999 --security-opt=no-new-privileges localhost/small id -u >/dev/null
            "$@" init c1 >/dev/null; sleep 11; "$@" start -a c1 >/dev/null; "$@" logs c1
            "$@" rm c1 >/dev/null"#,
        );
        assert_eq!(seen.ok(), "999\n", "{runtime}");
    });
}

#[test]
fn the_monitor_of_the_first_container_ends_with_it() {
    with_each_runtime(|_, podman, runtime| {
        let seen = podman.sh(
            r#""$@" import small.tar small >/dev/null
            for name in c1 c2; do
                "$@" run -d --network=none $OPTIONS --name $name localhost/small sleep 1000000 >/dev/null
            done
            monitor=$("$@" inspect --format '{{.State.ConmonPid}}' c1)
            test -d /proc/$monitor
            "$@" rm -f -t 0 c1 >/dev/null
            # Its parent may be nobody who waits.
            while grep -q '^State:.[^Z]' /proc/$monitor/status 2>/dev/null; do sleep 0.1; done
            "$@" exec --user 7 c2 sh -c 'touch /tmp/f; stat -c %u:%g /tmp/f'
            "$@" rm -f -t 0 c2 >/dev/null"#,
        );
        assert_eq!(seen.ok(), "7:0\n", "{runtime}");
    });
}
