//! Images: what umoci, skopeo, podman and buildah make of them for a user with one mapped id, entry
//! by entry as real root has it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use common::{Place, Podman, Ran, SAID, assert_same_lines, run, set_mode, small_image, until};

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

/// A directory with a name in small letters: podman makes an image's name of the path that it pulls
/// it from, and wants those.
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
            "S={}; RUN=\"$S run --\" KEEP=$S PODMAN=podman BUILDAH=buildah
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
        let text = format!(
            "set -o pipefail\n{SAID}\n{LIB}\n{}\n{script}",
            self.variables
        );
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

/// Ends the daemons that the front has started: conmon hands on nothing of the environment that
/// marks processes of this place, but their sockets lie in it.
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
    let image = odd_image(&place);
    let oracle = Side::of_root(&place, &image);
    let ours = Side::of_user(&place, &image, "podman");
    let seen = compare(&oracle, &ours, include_str!("images/carry.sh"));
    contains(&seen, "brw-r--r-- 100000/6 7,1 odd/block\n");
}

fn containers(container: &str) {
    let place = Place::new();
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
    let image = odd_image(&place);
    let oracle = Side::of_root(&place, &image);
    let ours = Side::of_user(&place, &image, "podman");
    let seen = compare(&oracle, &ours, include_str!("images/build.sh"));
    contains(&seen, "100000/200000 ");
}

/// What stands in ```sh blocks.
fn commands(page: &str) -> String {
    let blocks = page.split("```sh\n").skip(1);
    let blocks = blocks.map(|block| block.split("```").next().unwrap());
    blocks.collect()
}

#[test]
fn the_commands_of_the_page_work() {
    let place = Place::new();
    let _daemons = Daemons(&place);
    let image = odd_image(&place);
    place.front("crun");
    let ours = Side::of_user(&place, &image, "podman");
    let page = commands(include_str!("../docs/images.md"));
    assert!(page.lines().count() > 15, "{page}");
    let seen = ours
        .sh(&format!(
            "set -x; PATH={}:$PATH
            mkdir context
            printf 'FROM localhost/odd\nCOPY --chown=7:8 Dockerfile /d\nRUN chown 9:10 /etc/group\n' >context/Dockerfile
            {page}
            layers one latest; layers other latest
            podman push --quiet localhost/two oci:two:latest; layers two latest",
            place.path("").display()
        ))
        .ok();
    for line in [
        "-rw-r--r-- 5/6 51 etc/passwd\n",
        "drwxr-xr-x 100000/200000 0 etc/\n",
    ] {
        assert!(seen.contains(line), "{line:?} in {seen}");
    }
    assert_eq!(seen.matches(" 5/6 51 etc/passwd\n").count(), 2, "{seen}");
}

/// A process that waits below `run` for a file of this name, and tells by another one that it does.
const WAIT: &str = "touch ready-$name; while ! test -e go; do sleep 0.01; done";

#[test]
fn a_killed_worker_of_one_namespace_is_replaced_and_identities_stay() {
    let place = Place::new();
    let script = format!(
        "wait_for_it() {{ {WAIT}; }}
        export -f wait_for_it
        for name in 1 2; do
            name=$name unshare -r setpriv --reuid 5$name --regid 6 --clear-groups --inh-caps=-all bash -euc '
                wait_for_it; id -u; mkdir d$name; stat -c %u:%g d$name' >out$name &
        done; wait"
    );
    // They are not who it belongs to.
    set_mode(&place.path("home"), 0o777);
    let mut command = place.subuidless(["run", "--keep-id", "--", "bash", "-euc", &script]);
    let mut child = command.spawn().unwrap();
    let home = place.path("home");
    until("both wait", || {
        let both = ["ready-1", "ready-2"].map(|name| home.join(name).exists());
        (both == [true, true]).then_some(())
    });
    let workers = place.workers();
    assert_eq!(workers.len(), 2);
    for worker in &workers {
        kill(*worker, Signal::SIGKILL).unwrap();
    }
    fs::write(home.join("go"), "").unwrap();
    assert!(child.wait().unwrap().success());
    for n in [1, 2] {
        let out = fs::read_to_string(home.join(format!("out{n}"))).unwrap();
        assert_eq!(out, format!("5{n}\n5{n}:6\n"));
    }
    until("nothing is left", || {
        place.processes().is_empty().then_some(())
    });
}

#[test]
fn containers_side_by_side_and_a_pause_process_that_stays() {
    let place = Place::new();
    small_image(&place);
    let podman = Podman::plain(&place);
    // The pause process is to have the filter.
    podman.sh("\"$@\" system migrate").ok();
    let script = r#"podman import --quiet small.tar localhost/small >/dev/null
        podman unshare sh -c 'test -e /sys/fs/cgroup/cgroup.controllers || mount --bind /sys/fs/cgroup/unified /sys/fs/cgroup'
        for n in 3 4; do
            said podman run --rm --network=none $OPTIONS --user $n:$n localhost/small sh -euc '
                i=0; while [ $i -lt 50 ]; do touch /tmp/f$i; stat -c %u:%g /tmp/f$i; i=$((i+1)); done | sort | uniq -c; id -u' &
        done; wait"#;
    let below = |script: &str| {
        let script = format!("{SAID}\n{script}");
        place.subuidless(["run", "--keep-id", "--", "sh", "-euc", &script])
    };
    let seen = run(below(script).env("OPTIONS", "--cgroups=disabled")).ok();
    let mut words: Vec<&str> = seen.split_ascii_whitespace().collect();
    words.sort_unstable();
    assert_eq!(words, ["3", "3:3", "4", "4:4", "50", "50"]);
    // It is served, and podman goes on with it, with the filter and without.
    assert!(!place.workers().is_empty());
    let again = "said podman run --rm --network=none --cgroups=disabled localhost/small \
        stat -c %u:%g /bin";
    assert_eq!(podman.sh(again).ok(), "0:0\n");
    assert_eq!(run(&mut below(again)).ok(), "0:0\n");
    podman.sh("\"$@\" system migrate").ok();
    until("nothing is left", || {
        place.processes().is_empty().then_some(())
    });
}
