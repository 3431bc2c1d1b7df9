//! Docker and containerd by the unprivileged user do what they do by root.

mod common;

use std::fs;
use std::path::Path;

use common::engine::{Engine, Kind};
use common::{Place, assert_same_lines, oracle_twice, set_mode, small_image, until};

/// A script by the engine of root and by that of the user prints the same, and the user's engine
/// leaves no process behind.
#[track_caller]
fn compare(place: &Place, kind: Kind, script: &str, files: &[&str]) -> String {
    let roots = Engine::of_root(place, kind);
    for name in files {
        let copy = place.path("root/home").join(name);
        fs::copy(place.path("home").join(name), copy).expect("a copy for root");
    }
    let oracle = roots.sh(script).ok();
    roots.stop();
    if oracle_twice() {
        return oracle;
    }
    let users = Engine::of_user(place, kind);
    let printed = users.sh(script).bytes();
    assert_same_lines(oracle.as_bytes(), &printed);
    users.stop();
    until("nothing of the engine is left", || {
        place.processes().is_empty().then_some(())
    });
    oracle
}

fn add(place: &Place, name: &str) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/engines");
    fs::copy(from.join(name), place.path("home").join(name)).expect("a file of the test");
}

#[test]
fn docker_builds_runs_copies_and_saves_with_the_owners_of_root() {
    let place = Place::new();
    small_image(&place);
    add(&place, "Dockerfile");
    let script = include_str!("engines/docker.sh");
    let seen = compare(&place, Kind::Docker, script, &["small.tar", "Dockerfile"]);
    for line in [
        "-rwsr-xr-x 33/44 5 data/seed",
        "the same by BuildKit",
        "healthy",
        "crw--w---- 998 5",
    ] {
        assert!(seen.contains(&format!("\n{line}\n")), "{line}: {seen}");
    }
}

#[test]
fn containers_of_docker_connect_through_pasta() {
    let place = Place::new();
    small_image(&place);
    // An answer that comes later than its connection.
    let slow = place.path("home/cgi-bin/slow");
    fs::create_dir(slow.parent().unwrap()).unwrap();
    fs::write(
        &slow,
        "#!/bin/sh\necho; sleep 0.5; echo one; sleep 0.5; echo two\n",
    )
    .unwrap();
    set_mode(&slow, 0o755);
    let engine = Engine::through_pasta(&place);
    let script = "engine import - small <small.tar >/dev/null
        engine run --rm small timeout 30 wget -qO- http://10.8.0.1/cgi-bin/slow";
    assert_eq!(engine.sh(script).ok(), "one\ntwo\n");
    engine.stop();
}

#[test]
fn containerd_imports_and_runs_with_the_owners_of_root() {
    let place = Place::new();
    small_image(&place);
    let script = include_str!("engines/containerd.sh");
    let seen = compare(&place, Kind::Containerd, script, &["small.tar"]);
    assert!(seen.contains("\n70000:80000 /srv/secret\n"), "{seen}");
}
