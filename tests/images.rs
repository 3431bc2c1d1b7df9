//! Images: what umoci, skopeo, podman and buildah make of them for a user with one mapped id, entry by entry as real root has it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use common::{Place, Podman, Ran, assert_same_lines, run, set_mode, small_image};

const LIB: &str = include_str!("images/lib.sh");

/// Makes the layout `img` with the tag `odd`: busybox, and whatever an image can hold.
fn odd_image(place: &Place) -> PathBuf {
    small_image(place);
    let directory = place.path("made");
    fs::create_dir(&directory).unwrap();
    let make = format!(
        "umoci init --layout img; umoci new --image img:odd; umoci unpack --image img:odd b
        cd b/rootfs; tar -xf {}; {}\ncd ../..; umoci repack --image img:odd b",
        place.path("home/small.tar").display(),
        include_str!("images/odd.sh")
    );
    let mut bash = place.as_root("bash");
    run(bash.args(["-euc", &make]).current_dir(&directory)).ok();
    directory.join("img")
}

/// A directory with a name in small letters: podman makes an image's name of the path that it pulls it from, and wants those.
fn directory(place: &Place, name: &str) -> TempDir {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let parent = place.path("");
    let directory = tempfile::Builder::new()
        .prefix(&format!("{name}-{}-{number}", std::process::id()))
        .rand_bytes(0)
        .tempdir_in(parent.parent().unwrap())
        .unwrap();
    set_mode(directory.path(), 0o755);
    directory
}

/// Who works with images, and where.
#[derive(Debug)]
struct Side<'a> {
    podman: Podman<'a>,
    directory: TempDir,
    variables: String,
}

impl<'a> Side<'a> {
    fn of_root(place: &'a Place, image: &Path) -> Self {
        let directory = directory(place, "oracle");
        let storage = format!(
            "--root {} --runroot {} --storage-driver overlay",
            place.path("podman").display(),
            place.path("podrun").display()
        );
        let variables = format!(
            "RUN= KEEP= PODMAN=\"$*\"; BUILDAH='buildah {storage}'
            CONTAINER=\"$PODMAN run $OPTIONS --network=none --cap-add=mknod\""
        );
        Self::new(place, Podman::of_root(place), directory, image, variables)
    }

    /// Everything below `run`; `container` is the command for containers.
    fn of_user(place: &'a Place, image: &Path, container: &str) -> Self {
        let directory = directory(place, "ours");
        let variables = format!(
            "S={}; RUN=\"$S run --\" KEEP=\"$S run --keep-id --\" PODMAN=podman BUILDAH=buildah
            CONTAINER=\"{container} run $OPTIONS --network=none --cap-add=mknod\"",
            place.binary().display()
        );
        let side = Self::new(place, Podman::plain(place), directory, image, variables);
        let user = format!("{}:{}", place.user.uid, place.user.gid);
        let mut chown = place.as_root("chown");
        run(chown.args(["-R", &user]).arg(side.directory.path())).ok();
        side
    }

    fn new(
        place: &'a Place,
        podman: Podman<'a>,
        directory: TempDir,
        image: &Path,
        variables: String,
    ) -> Self {
        run(place
            .as_root("cp")
            .arg("-a")
            .args([image, directory.path()]))
        .ok();
        let change = directory.path().join("change.sh");
        fs::write(&change, include_str!("images/change.sh")).unwrap();
        Self {
            podman,
            directory,
            variables,
        }
    }

    fn sh(&self, script: &str) -> Ran {
        let path = self.directory.path().join("script");
        let text = format!("set -o pipefail\n{LIB}\n{}\n{script}", self.variables);
        fs::write(&path, text).unwrap();
        set_mode(&path, 0o644);
        let directory = self.directory.path().display();
        self.podman
            .sh(&format!("cd {directory}; exec bash -eu script \"$@\""))
    }
}

/// The same script by root and by the user.
fn compare(oracle: &Side, ours: &Side, script: &str) -> Vec<u8> {
    let expected = oracle.sh(script).bytes();
    let seen = ours.sh(script).bytes();
    assert_same_lines(&expected, &seen);
    expected
}

/// Ends the daemons that the front has started: conmon hands on nothing of the environment that marks processes of this place, but
/// their sockets lie in it.
struct Daemons<'a>(&'a Place);

impl Drop for Daemons<'_> {
    fn drop(&mut self) {
        let directory = self.0.path("").to_string_lossy().into_owned();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let is_ours = String::from_utf8_lossy(&command).contains(&directory);
            let pid = entry.file_name().to_str().and_then(|it| it.parse().ok());
            if let Some(pid) = pid.filter(|_| is_ours) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}

fn contains(haystack: &[u8], needle: &str) {
    let found = haystack
        .windows(needle.len())
        .any(|part| part == needle.as_bytes());
    assert!(found, "{needle:?} in {}", haystack.escape_ascii());
}

#[test]
fn umoci_and_skopeo_carry_everything_round() {
    let place = Place::new();
    let image = odd_image(&place);
    let oracle = Side::of_root(&place, &image);
    let ours = Side::of_user(&place, &image, "podman");
    let seen = compare(&oracle, &ours, include_str!("images/umoci.sh"));
    contains(&seen, "4294967294/4294967294 ");
    contains(&seen, "crw-r--r-- 9/9 5,7 odd/new-device\n");
}

#[test]
fn podman_carries_everything_in_and_out() {
    let place = Place::new();
    let _one_at_a_time = common::lock();
    let image = odd_image(&place);
    let oracle = Side::of_root(&place, &image);
    let ours = Side::of_user(&place, &image, "podman");
    let seen = compare(&oracle, &ours, include_str!("images/carry.sh"));
    contains(&seen, "brw-r--r-- 100000/6 7,1 odd/block\n");
}

fn containers(container: &str) {
    let place = Place::new();
    let _one_at_a_time = common::lock();
    let _daemons = Daemons(&place);
    let image = odd_image(&place);
    let oracle = Side::of_root(&place, &image);
    let container = container.replace("FRONT", place.front("crun").to_str().unwrap());
    let ours = Side::of_user(&place, &image, &container);
    let seen = compare(&oracle, &ours, include_str!("images/commit.sh"));
    contains(&seen, "crw-r--r-- 80/81 5,9 odd/new-device\n");
    contains(&seen, "\ndangling symbolic link 72:73 ");
}

#[test]
fn a_container_with_a_receiver_of_its_own_becomes_an_image() {
    containers("podman --runtime FRONT");
}

#[test]
fn a_container_below_run_becomes_an_image() {
    containers("$KEEP podman");
}

#[test]
fn a_container_below_run_and_behind_the_front_becomes_an_image() {
    containers("$KEEP podman --runtime FRONT");
}

#[test]
fn podman_and_buildah_build_below_run() {
    let place = Place::new();
    let _one_at_a_time = common::lock();
    let image = odd_image(&place);
    let oracle = Side::of_root(&place, &image);
    let ours = Side::of_user(&place, &image, "podman");
    let seen = compare(&oracle, &ours, include_str!("images/build.sh"));
    contains(&seen, "100000/200000 ");
}
