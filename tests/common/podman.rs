//! [`Podman`]: podman with a storage of its own below the place, as the user with one mapped id or as root.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::bundle::Bundle;
use super::daemon::Daemon;
use super::place::{Place, set_mode};
use super::program::tool;
use super::run::{Ran, run};
use super::runtime::{IN_UNIFIED, has_cgroup2};
use super::started::Started;
use super::user::lock;

/// A function of shells: what a container of podman's has said.
pub(crate) const SAID: &str = include_str!("said.sh");

/// Shell scripts in which `podman` is `"$@"`, with `$OPTIONS` for `run`, `$MARK` for `--env` and
/// [`SAID`].
#[derive(Debug)]
pub(crate) struct Podman<'a> {
    place: &'a Place,
    /// What runs the shell.
    shell: fn(&'a Place) -> Command,
    podman: Vec<String>,
    options: String,
}

impl<'a> Podman<'a> {
    /// With the profile of subuidless.
    pub(crate) fn of_user(place: &'a Place, daemon: &Daemon, runtime: &str) -> Self {
        settings(place);
        let mut profile = place.subuidless(["profile", "--format", "podman", "--base", "default"]);
        profile.args(["--runtime", runtime, "--listener-path"]);
        let profile = run(profile.arg(&daemon.socket)).ok();
        let path = place.path(&format!("home/{runtime}.json"));
        fs::write(&path, profile).expect("the profile");
        set_mode(&path, 0o644);
        let mut options = format!("--security-opt seccomp={}", path.display());
        if runtime == "crun" {
            options += " --cgroups=disabled";
        }
        let podman = Self {
            place,
            shell: |place| place.as_user("sh"),
            podman: words([&tool("podman"), Path::new("--runtime"), &tool(runtime)]),
            options,
        };
        podman.prepare();
        podman
    }

    /// Behind the runtime front, which is told nothing: neither a profile nor a socket.
    pub(crate) fn fronted(place: &'a Place, runtime: &str) -> Self {
        settings(place);
        let front = place.front(runtime);
        // podman asks by the runtime's name what it can do.
        let engine = format!(
            "[engine]\nruntime_supports_nocgroup = [{0:?}]\nruntime_supports_json = [{0:?}]\n",
            format!("subuidless-{runtime}")
        );
        let path = place.path("home/.config/containers/containers.conf");
        fs::write(path, engine).expect("podman's settings");
        let podman = Self {
            place,
            shell: |place| place.as_user("sh"),
            podman: words([&tool("podman"), Path::new("--runtime"), &front]),
            options: match runtime {
                "crun" => "--cgroups=disabled".to_owned(),
                _ => String::new(),
            },
        };
        podman.prepare();
        podman
    }

    /// As `subuidless install --user --podman` leaves it: nothing is said on podman's command line.
    pub(crate) fn installed(place: &'a Place) -> Self {
        settings(place);
        run(&mut place.subuidless(["install", "--user", "--podman"])).ok();
        Self::without_options(place)
    }

    /// `subuidless podman`, of a user who has set up nothing, on hybrid hosts, too.
    pub(crate) fn served(place: &'a Place) -> Self {
        Self {
            place,
            shell: |place| place.as_user("sh"),
            podman: words([place.binary().as_path(), Path::new("podman")]),
            options: "--cgroups=disabled".to_owned(),
        }
    }

    /// As it is, without a profile and a front.
    pub(crate) fn plain(place: &'a Place) -> Self {
        settings(place);
        let settings = place.path("home/.config/containers");
        fs::write(
            settings.join("storage.conf"),
            "[storage]\ndriver = \"overlay\"\n",
        )
        .expect("podman's settings");
        // By its name podman knows what a runtime can do.
        let names = "[\"crun\", \"subuidless-crun\"]";
        let engine = format!(
            "[engine]\nruntime_supports_nocgroup = {names}\nruntime_supports_json = {names}\n"
        );
        fs::write(settings.join("containers.conf"), engine).expect("podman's settings");
        Self::without_options(place)
    }

    /// What podman does by its settings.
    fn without_options(place: &'a Place) -> Self {
        let podman = Self {
            place,
            shell: |place| place.as_user("sh"),
            podman: words([tool("podman").as_path()]),
            options: "--cgroups=disabled".to_owned(),
        };
        podman.prepare();
        podman
    }

    /// On a hybrid host podman's own mount namespace keeps this.
    fn prepare(&self) {
        if !has_cgroup2() {
            self.sh("\"$@\" unshare mount --bind /sys/fs/cgroup/unified /sys/fs/cgroup")
                .ok();
        }
    }

    /// For real, without a filter.
    pub(crate) fn of_root(place: &'a Place) -> Self {
        let (root, state) = (place.path("podman"), place.path("podrun"));
        let words = words([
            &tool("podman"),
            Path::new("--runtime"),
            &tool("crun"),
            Path::new("--cgroup-manager=cgroupfs"),
            Path::new("--storage-driver=overlay"),
            Path::new("--root"),
            &root,
            Path::new("--runroot"),
            &state,
        ]);
        Self {
            place,
            shell: |place| {
                let mut command = place.as_root("unshare");
                command.args(["-m", "--"]);
                if !has_cgroup2() {
                    command.args(["sh", "-c", IN_UNIFIED, "--"]);
                }
                command.arg("sh");
                command
            },
            podman: words,
            // Not every root may raise limits.
            options: "--security-opt seccomp=unconfined --cgroups=disabled --ulimit nofile=1024:1024 --ulimit nproc=4096:4096".to_owned(),
        }
    }

    pub(crate) fn sh(&self, script: &str) -> Ran {
        let mut command = (self.shell)(self.place);
        let script = format!("{SAID}\n{script}");
        command.args(["-euc", &script, "podman"]).args(&self.podman);
        command
            .env("OPTIONS", &self.options)
            .env("MARK", self.place.mark());
        run(&mut command)
    }
}

fn settings(place: &Place) {
    let settings = place.path("home/.config/containers");
    fs::create_dir_all(&settings).expect("podman's settings");
    let storage = "[storage]\ndriver = \"overlay\"\n[storage.options.overlay]\nignore_chown_errors = \"true\"\n";
    fs::write(settings.join("storage.conf"), storage).expect("podman's settings");
    for path in ["home/.config", "home/.config/containers"] {
        place.give_to_user(&place.path(path));
    }
}

fn words<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Vec<String> {
    paths
        .into_iter()
        .map(|path| path.to_str().expect("a path of ours is UTF-8").to_owned())
        .collect()
}

/// Runs `test` with podman behind the front of each runtime, alone on the machine, with small.tar.
pub(crate) fn with_each_runtime(test: impl Fn(&Place, &Podman, &str)) {
    for runtime in ["crun", "runc"] {
        let place = Place::new();
        let _one_at_a_time = lock();
        let _started = Started(&place);
        small_image(&place);
        test(&place, &Podman::fronted(&place, runtime), runtime);
    }
}

/// Makes small.tar, where the user is at home: a root file system of busybox, with some users.
pub(crate) fn small_image(place: &Place) {
    let bundle = Bundle::oracle(place);
    let rootfs = bundle.rootfs();
    fs::write(
        rootfs.join("etc/passwd"),
        "root:x:0:0::/root:/bin/sh\nweb:x:998:997::/:/bin/sh\n",
    )
    .expect("/etc/passwd");
    fs::write(
        rootfs.join("etc/group"),
        "root:x:0:\nweb:x:997:\nextra:x:50:web\n",
    )
    .expect("/etc/group");
    set_mode(&rootfs.join("tmp"), 0o1777);
    let tar = place.path("home/small.tar");
    run(Command::new(tool("tar"))
        .arg("-C")
        .arg(&rootfs)
        .arg("-cf")
        .arg(&tar)
        .arg("."))
    .ok();
}
