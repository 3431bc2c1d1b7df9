//! Scripts that run as real root of the machine and under subuidless: what they print and what they
//! leave is the same, and stays so when everything but the files has been started again.

use std::fs;
use std::path::{Path, PathBuf};

use super::assert_same_lines;
use super::bundle::Bundle;
use super::daemon::Daemon;
use super::packages::Packages;
use super::pair::Pair;
use super::place::Place;
use super::rootfs::debian_owners;

/// Functions for scripts: `list`, `try`, `make_tree`, `make_socket`.
const COMMON: &str = include_str!("real.sh");

fn words(script: &str) -> [String; 3] {
    ["/bin/bash", "-euc", &format!("{COMMON}{script}")].map(str::to_owned)
}

pub(crate) fn bash(bundle: &Bundle, script: &str) -> Vec<u8> {
    let words = words(script);
    bundle.run(&words.each_ref().map(String::as_str)).bytes()
}

/// Runs `script` in /work of two Debians; what it prints and what it leaves there is the same, and
/// stays so.
#[track_caller]
pub(crate) fn compare(script: &str) -> String {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let pair = Pair::real(&place, &daemon);
    compare_in(&pair, daemon, "/work", script)
}

/// In directories that the script leaves something in.
#[track_caller]
pub(crate) fn compare_in(pair: &Pair, daemon: Daemon, directories: &str, script: &str) -> String {
    let (printed, daemon) = compare_until_boot(pair, daemon, directories, script);
    let list = format!("list {directories}");
    let daemon = reboot(pair.ours.place, daemon);
    assert_same_lines(&bash(&pair.oracle, &list), &bash(&pair.ours, &list));
    daemon.terminate();
    printed
}

/// The same where a boot ends everything.
#[track_caller]
pub(crate) fn compare_until_boot(
    Pair { oracle, ours }: &Pair,
    daemon: Daemon,
    directories: &str,
    script: &str,
) -> (String, Daemon) {
    let script = format!("mkdir -p /work; cd /work\n{script}");
    let list = format!("list {directories}");
    let printed = bash(oracle, &script);
    let listed = bash(oracle, &list);
    let container = ours.start(&["/bin/sleep", "1000000"]);
    let inside = |script: &str| {
        let words = words(script);
        container
            .exec(&words.each_ref().map(String::as_str))
            .bytes()
    };
    assert_same_lines(&printed, &inside(&script));
    assert_same_lines(&listed, &inside(&list));
    // The same container, another daemon.
    daemon.terminate();
    let daemon = Daemon::start(ours.place);
    assert_same_lines(&listed, &inside(&list));
    container.stop();
    // Another container.
    assert_same_lines(&listed, &bash(ours, &list));
    (String::from_utf8_lossy(&printed).into_owned(), daemon)
}

/// The same in Debians with packages installed.
#[track_caller]
pub(crate) fn compare_with(
    names: &str,
    files: &[(&str, &str)],
    directories: &str,
    script: impl Fn(&Packages) -> String,
) -> String {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let packages = Packages::serve();
    let mut pair = Pair::real(&place, &daemon).with(|bundle| packages.reached_by(bundle));
    for (name, destination) in files {
        let file = copy(&place, name);
        pair = pair.with(|bundle| bundle.with_mount(&file, destination, &["bind", "ro"]));
    }
    let install = format!("{}{}", debian_owners(), packages.install(names));
    bash(&pair.oracle, &install);
    bash(&pair.ours, &install);
    compare_in(&pair, daemon, directories, &script(&packages))
}

/// As after a boot of the machine: another daemon, and what was in memory only is gone.
pub(crate) fn reboot(place: &Place, daemon: Daemon) -> Daemon {
    daemon.terminate();
    let recent = place.runtime_directory().join("subuidless-recent");
    fs::remove_dir_all(recent).expect("the recent part of the side store");
    Daemon::start(place)
}

/// A copy of a file below `tests`, where the container's user gets to.
fn copy(place: &Place, file: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let copy = place.path(file.rsplit('/').next().unwrap_or(file));
    fs::copy(tests.join(file), &copy).expect("copying a file of tests");
    copy
}
