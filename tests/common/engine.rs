//! [`Engine`]: dockerd or containerd with everything that it keeps below the place, as the user
//! with one mapped id or as root, and shell scripts that use it.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::command::with_tun;
use super::place::Place;
use super::program::tool;
use super::run::{Ran, end, run, until};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Docker,
    Containerd,
}

/// A mount namespace and a network of its own for a daemon of root.
const ROOTS: &str = "mount --make-rprivate /; mount -t tmpfs none /run; ip link set lo up
    mkdir /run/bin; ln -s /usr/sbin/docker-proxy /run/bin/rootlesskit-docker-proxy
    export PATH=\"/run/bin:$PATH\"; exec \"$@\"";

/// A host with a default route, and an address that is not that of its interface.
const HOST: &str = "ip link set lo up
    ip link add out type veth peer name peer; ip link set out up; ip link set peer up
    ip addr add 10.9.0.1/24 dev out; ip route add default via 10.9.0.254
    ip addr add 10.8.0.1/32 dev lo
    setpriv --pdeathsig KILL busybox httpd -f -p 10.8.0.1:80 -h . &
    exec \"$@\"";

#[derive(Debug)]
pub(crate) struct Engine<'a> {
    place: &'a Place,
    kind: Kind,
    is_root: bool,
    daemon: Child,
}

impl<'a> Engine<'a> {
    /// Below subuidless.
    pub(crate) fn of_user(place: &'a Place, kind: Kind) -> Self {
        let mut command = place.subuidless::<&str>([]);
        match kind {
            Kind::Docker => command.args(["dockerd", "--net", "none"]),
            Kind::Containerd => {
                let run = "run --name containerd --net none --copy-up /run -- containerd -c";
                command
                    .args(run.split(' '))
                    .arg(settings(place, "home", "run"))
            }
        };
        Self::start(place, kind, false, command)
    }

    /// dockerd with a network of pasta, on a host where `http://10.8.0.1/` shows the home directory.
    pub(crate) fn through_pasta(place: &'a Place) -> Self {
        let mut docker = place.subuidless(["dockerd", "--net", "pasta"]);
        let docker = with_tun(place, true, docker.env("HOME", place.path("home")));
        let mut host = place.as_root("unshare");
        host.args(["-n", "--", "sh", "-euc", HOST, "--"]);
        host.arg(docker.get_program()).args(docker.get_args());
        for (name, value) in docker.get_envs() {
            host.env(name, value.unwrap_or_default());
        }
        Self::start(place, Kind::Docker, false, host)
    }

    /// For real, without a filter. dockerd is started with `--rootless`, so that it leaves control
    /// groups alone, as the other one does.
    pub(crate) fn of_root(place: &'a Place, kind: Kind) -> Self {
        for name in ["root", "root/run", "root/home"] {
            fs::create_dir(place.path(name)).expect("a directory of root");
        }
        let mut command = place.as_root("unshare");
        command.args(["-m", "-n", "--", "sh", "-euc", ROOTS, "--"]);
        match kind {
            Kind::Docker => command.args(["dockerd", "--rootless", "-s", "overlay2"]),
            Kind::Containerd => {
                let settings = settings(place, "root/home", "root/run");
                command.args(["containerd", "-c"]).arg(settings)
            }
        };
        command.env("ROOTLESSKIT_STATE_DIR", "/run/rootlesskit");
        at_roots(place, &mut command);
        Self::start(place, kind, true, command)
    }

    fn start(place: &'a Place, kind: Kind, is_root: bool, mut command: Command) -> Self {
        let log = place.path(if is_root { "roots.log" } else { "users.log" });
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::create(&log).expect("a log"));
        let daemon = command.spawn().expect("a daemon");
        let mut engine = Self {
            place,
            kind,
            is_root,
            daemon,
        };
        until("the daemon answers", || {
            let ended = engine.daemon.try_wait().expect("the daemon's status");
            let said = || fs::read_to_string(&log).unwrap_or_default();
            assert!(ended.is_none(), "{ended:?}: {}", said());
            let answer = engine.sh("engine version >/dev/null 2>&1");
            answer.status.success().then_some(())
        });
        engine
    }

    /// A script in the home directory, where `engine` is the client, `$INSIDE` runs a command in
    /// the daemon's namespaces, and `$MARK` is a variable for what outlives its parent.
    pub(crate) fn sh(&self, script: &str) -> Ran {
        let inside = match self.is_root {
            true => format!("nsenter -m -n -t {} --", self.daemon.id()),
            false => format!("{} exec {} --", self.place.binary().display(), self.name()),
        };
        let mut command = match self.is_root {
            true => self.place.as_root(tool("sh")),
            false => self.place.as_user(tool("sh")),
        };
        let mut directory = self.place.runtime_directory();
        if self.is_root {
            at_roots(self.place, &mut command);
            directory = self.place.path("root/run");
        }
        let client = match self.kind {
            // Debian's.
            Kind::Docker => "/usr/bin/docker".to_owned(),
            // It mounts file systems itself.
            Kind::Containerd => format!(
                "{inside} ctr -a {}/containerd/containerd.sock",
                directory.display()
            ),
        };
        let script = format!("engine() {{ {client} \"$@\"; }}\n{script}");
        command.args(["-euc", &script]);
        let socket = format!("unix://{}/docker.sock", directory.display());
        command.env("DOCKER_HOST", socket).env("INSIDE", inside);
        run(command.env("MARK", self.place.mark()))
    }

    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Docker => "docker",
            Kind::Containerd => "containerd",
        }
    }

    /// Ends the daemon in good order.
    pub(crate) fn stop(mut self) {
        let pid = i32::try_from(self.daemon.id()).expect("a pid");
        kill(Pid::from_raw(pid), Signal::SIGTERM).expect("the daemon runs");
        until("the daemon ends", || {
            self.daemon.try_wait().expect("the daemon's status")
        });
    }
}

impl Drop for Engine<'_> {
    fn drop(&mut self) {
        end(&mut self.daemon);
    }
}

/// Makes containerd's configuration.
fn settings(place: &Place, home: &str, run: &str) -> PathBuf {
    let path = place.path(home).join("containerd.toml");
    let text = format!(
        "version = 2\nroot = {:?}\nstate = {:?}\n[grpc]\naddress = {:?}\n\
         [plugins.\"io.containerd.internal.v1.opt\"]\npath = {:?}\n",
        place.path(home).join("containerd"),
        place.path(run).join("containerd"),
        place.path(run).join("containerd/containerd.sock"),
        place.path(home).join("opt"),
    );
    fs::write(&path, text).expect("containerd's configuration");
    path
}

fn at_roots(place: &Place, command: &mut Command) {
    let home = place.path("root/home");
    command
        .current_dir(&home)
        .env("HOME", &home)
        .env("XDG_RUNTIME_DIR", place.path("root/run"));
}
