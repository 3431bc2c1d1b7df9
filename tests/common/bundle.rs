//! [`Bundle`]: config.json and a root file system.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::Pid;
use serde_json::{Value, json};

use super::daemon::Daemon;
use super::place::Place;
use super::program::SEARCH_PATH;
use super::rootfs::{self, Owned};
use super::run::{Ran, run};
use super::runtime::{Running, Runtime};

/// What the tests' containers may do: what chown(2), mount(2) and chroot(2) ask for.
const CAPABILITIES: [&str; 15] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_ADMIN",
    "CAP_SYS_CHROOT",
    "CAP_AUDIT_WRITE",
];

#[derive(Debug)]
pub(crate) struct Bundle<'a> {
    pub(crate) place: &'a Place,
    pub(crate) runtime: Runtime,
    pub(crate) owned: Owned,
    /// Called by way of `subuidless-crun` and `subuidless-runc`.
    pub(crate) fronted: Cell<bool>,
    directory: PathBuf,
    config: Value,
    /// `subuidless bundle` adds the preloaded library before each run.
    is_fast: bool,
    runs: Cell<u32>,
}

impl<'a> Bundle<'a> {
    /// The user's, with busybox, for crun.
    pub(crate) fn new(place: &'a Place, daemon: &Daemon) -> Self {
        let mut bundle = Self::empty(place, Owned::ByUser);
        rootfs::small(place, &bundle.rootfs(), bundle.owned);
        bundle.weave(daemon);
        bundle
    }

    /// The same as [`Bundle::new`], for the runtime alone.
    pub(crate) fn bare(place: &'a Place) -> Self {
        let bundle = Self::empty(place, Owned::ByUser);
        rootfs::small(place, &bundle.rootfs(), bundle.owned);
        bundle
    }

    /// The same as [`Bundle::new`], but real: root's, in a user namespace with all ids mapped,
    /// without a filter.
    pub(crate) fn oracle(place: &'a Place) -> Self {
        let bundle = Self::empty(place, Owned::ByRoot);
        rootfs::small(place, &bundle.rootfs(), bundle.owned);
        bundle
    }

    /// The user's, with Debian.
    pub(crate) fn debian(place: &'a Place, daemon: &Daemon) -> Self {
        let mut bundle = Self::empty(place, Owned::ByUser);
        rootfs::debian(place, &bundle.rootfs(), bundle.owned);
        bundle.weave(daemon);
        bundle
    }

    /// The same as [`Bundle::debian`], but real.
    pub(crate) fn debian_oracle(place: &'a Place) -> Self {
        let bundle = Self::empty(place, Owned::ByRoot);
        rootfs::debian(place, &bundle.rootfs(), bundle.owned);
        bundle
    }

    /// The same as [`Bundle::debian`], but real and in no user namespace: devices, `trusted.*` and
    /// `security.*` take more than the root of a user namespace has.
    pub(crate) fn debian_real(place: &'a Place) -> Self {
        Self::debian_oracle(place).with_config(|config| {
            let linux = config["linux"].as_object_mut().expect("an object");
            linux.retain(|key, _| !matches!(key.as_str(), "uidMappings" | "gidMappings"));
            linux["namespaces"]
                .as_array_mut()
                .expect("a list of namespaces")
                .retain(|namespace| namespace["type"] != "user");
        })
    }

    /// No files in its root file system, and no filter.
    pub(crate) fn empty(place: &'a Place, owned: Owned) -> Self {
        let directory = (0..)
            .map(|n| place.path(&format!("bundles/b{n}")))
            .find(|path| !path.exists())
            .unwrap_or_else(|| unreachable!("some number is free"));
        fs::create_dir_all(directory.join("rootfs")).expect("a new bundle");
        if owned == Owned::ByUser {
            place.give_to_user(&directory);
            place.give_to_user(&directory.join("rootfs"));
        }
        Self {
            place,
            runtime: Runtime::Crun,
            owned,
            fronted: Cell::new(false),
            directory,
            config: config(place, owned),
            is_fast: false,
            runs: Cell::new(0),
        }
    }

    /// The user's, with busybox, without a filter and behind the runtime front.
    pub(crate) fn fronted(place: &'a Place, runtime: Runtime) -> Self {
        let mut bundle = Self::empty(place, Owned::ByUser);
        rootfs::small(place, &bundle.rootfs(), bundle.owned);
        bundle.fronted.set(true);
        bundle.runtime = runtime;
        bundle
    }

    /// For another runtime.
    pub(crate) fn under(mut self, runtime: Runtime, daemon: &Daemon) -> Self {
        self.runtime = runtime;
        self.weave(daemon);
        self
    }

    /// With `program` in the container's /.
    pub(crate) fn with_program(self, program: &Path) -> Self {
        rootfs::add_program(self.place, &self.rootfs(), program, self.owned);
        self
    }

    /// With the network of the host, where [`super::packages`] are served.
    pub(crate) fn with_host_network(self) -> Self {
        self.with_config(|config| {
            config["linux"]["namespaces"]
                .as_array_mut()
                .expect("a list of namespaces")
                .retain(|namespace| namespace["type"] != "network");
        })
    }

    /// With `change` made to config.json.
    pub(crate) fn with_config(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.config);
        self
    }

    /// With `source` of the host at `destination`.
    pub(crate) fn with_mount(self, source: &Path, destination: &str, options: &[&str]) -> Self {
        let mount = json!({
            "destination": destination,
            "type": "bind",
            "source": source,
            "options": options,
        });
        self.with_config(|config| {
            config["mounts"]
                .as_array_mut()
                .expect("a list of mounts")
                .push(mount);
        })
    }

    /// With what `subuidless profile` prints for this bundle's runtime.
    fn weave(&mut self, daemon: &Daemon) {
        let runtime = self.runtime.name();
        let mut command =
            self.place
                .subuidless(["profile", "--base", "allow", "--runtime", runtime]);
        command.arg("--listener-path").arg(&daemon.socket);
        let profile = serde_json::from_str(&run(&mut command).ok());
        self.config["linux"]["seccomp"] = profile.expect("a profile is JSON");
        self.is_fast = true;
    }

    /// Without the fast path.
    pub(crate) fn slow(mut self) -> Self {
        self.is_fast = false;
        self
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.directory.join("rootfs")
    }

    fn write(&self, arguments: &[&str]) {
        let mut config = self.config.clone();
        config["process"]["args"] = json!(arguments);
        let text = serde_json::to_string_pretty(&config).expect("JSON");
        fs::write(self.directory.join("config.json"), text).expect("config.json");
        if self.is_fast {
            let binary = self.place.binary();
            let mut command = match self.owned {
                Owned::ByRoot => self.place.as_root(binary),
                Owned::ByUser => self.place.as_user(binary),
            };
            command.args(["bundle", "--runtime", self.runtime.name()]);
            run(command.arg(&self.directory)).ok();
        }
    }

    fn next_id(&self) -> String {
        let bundle = self.directory.file_name().expect("a bundle has a name");
        self.runs.set(self.runs.get() + 1);
        format!(
            "{}-{}-{}",
            self.place.name(),
            bundle.display(),
            self.runs.get()
        )
    }

    /// Runs a container to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        self.write(arguments);
        run(&mut self.runtime.run(self, &self.next_id(), &[]))
    }

    /// What runs a container, and its id: for tests that talk with it through pipes.
    pub(crate) fn command(&self, arguments: &[&str]) -> (Command, String) {
        self.write(arguments);
        let id = self.next_id();
        (self.runtime.run(self, &id, &[]), id)
    }

    /// Runs a shell script to its end in a container of the user namespace of `process`; its
    /// output.
    #[track_caller]
    pub(crate) fn sh_beside(&self, process: Pid, script: &str) -> String {
        self.write(&["/bin/sh", "-euc", script]);
        run(&mut self.runtime.run_beside(self, &self.next_id(), process)).ok()
    }

    /// Runs a shell script to its end; its output, if it succeeded.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str) -> String {
        self.run(&["/bin/sh", "-euc", script]).ok()
    }

    /// Starts a container that runs until it is stopped.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running<'_> {
        self.start_as(self.next_id(), arguments)
    }

    /// The same with an id of the caller's choice.
    pub(crate) fn start_as(&self, id: String, arguments: &[&str]) -> Running<'_> {
        self.write(arguments);
        Running::start(self, id)
    }
}

fn config(place: &Place, owned: Owned) -> Value {
    let mut namespaces = vec![
        json!({"type": "pid"}),
        json!({"type": "network"}),
        json!({"type": "ipc"}),
        json!({"type": "uts"}),
        json!({"type": "mount"}),
    ];
    if owned == Owned::ByRoot {
        namespaces.push(json!({"type": "user"}));
    }
    let mut config = json!({
        "ociVersion": "1.0.0",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": [],
            "env": [
                format!("PATH={SEARCH_PATH}"),
                "HOME=/root",
                "LC_ALL=C.UTF-8",
                place.mark(),
            ],
            "cwd": "/",
            "capabilities": {
                "bounding": CAPABILITIES,
                "effective": CAPABILITIES,
                "permitted": CAPABILITIES,
            },
            "noNewPrivileges": false,
        },
        "root": {"path": "rootfs", "readonly": false},
        "hostname": "test",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {
                "destination": "/dev",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
            },
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
            },
            {
                "destination": "/dev/shm",
                "type": "tmpfs",
                "source": "shm",
                "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
            },
        ],
        "linux": {"namespaces": namespaces},
    });
    if owned == Owned::ByRoot {
        let all = json!([{"containerID": 0, "hostID": 0, "size": u32::MAX}]);
        config["linux"]["uidMappings"] = all.clone();
        config["linux"]["gidMappings"] = all;
    }
    config
}
