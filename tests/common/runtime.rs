//! The OCI runtimes, as a user with one mapped id starts them, and as root does for the oracle.

use std::fs;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use nix::unistd::Pid;

use super::bundle::Bundle;
use super::place::Place;
use super::program::tool;
use super::rootfs::Owned;
use super::run::{Ran, run, until};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runtime {
    Crun,
    Runc,
}

/// crun and podman want a cgroup2 file system at /sys/fs/cgroup; on a hybrid host it lies below,
/// and a mount namespace helps.
pub(super) const IN_UNIFIED: &str =
    "mount --bind /sys/fs/cgroup/unified /sys/fs/cgroup && exec \"$@\"";

impl Runtime {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Crun => "crun",
            Self::Runc => "runc",
        }
    }

    /// The command `run`, to be waited for.
    pub(crate) fn run(self, bundle: &Bundle, id: &str, options: &[&str]) -> Command {
        let place = bundle.place;
        let mut command = match bundle.owned {
            Owned::ByUser => {
                let mut command = place.as_user("unshare");
                command.args(["-r", "-m", "--"]);
                command
            }
            Owned::ByRoot => {
                let mut command = place.as_root("unshare");
                command.args(["-m", "--"]);
                command
            }
        };
        self.append(&mut command, bundle);
        command
            .arg("run")
            .args(options)
            .arg("-b")
            .arg(bundle.directory())
            .arg(id);
        command
    }

    /// The command `run` in the user namespace of `process`.
    pub(super) fn run_beside(self, bundle: &Bundle, id: &str, process: Pid) -> Command {
        let mut command = in_namespace_of(bundle.place, process);
        self.append(&mut command, bundle);
        command.args(["run", "-b"]).arg(bundle.directory()).arg(id);
        command
    }

    /// The command `exec`.
    fn exec(self, bundle: &Bundle, id: &str, init: Pid, arguments: &[&str]) -> Command {
        let mut command = match bundle.owned {
            Owned::ByUser => in_namespace_of(bundle.place, init),
            Owned::ByRoot => {
                let mut command = bundle.place.as_root("unshare");
                command.args(["-m", "--"]);
                command
            }
        };
        self.append(&mut command, bundle);
        command.args(["exec", id]).args(arguments);
        command
    }

    fn append(self, command: &mut Command, bundle: &Bundle) {
        let crun = self == Self::Crun;
        if crun && !has_cgroup2() {
            command.args(["sh", "-c", IN_UNIFIED, "--"]);
        }
        let program = match bundle.fronted.get() {
            true => bundle.place.front(self.name()),
            false => tool(self.name()),
        };
        command
            .arg(program)
            .arg("--root")
            .arg(state(bundle.place, self, bundle.owned));
        if crun {
            command.arg("--cgroup-manager=disabled");
        }
    }
}

/// What goes before a command of the user's in the user namespace of `process`.
fn in_namespace_of(place: &Place, process: Pid) -> Command {
    let mut command = place.as_user("nsenter");
    command.args(["-U", "--preserve-credentials", "-t", &process.to_string()]);
    command.args(["unshare", "-m", "--"]);
    command
}

fn state(place: &Place, runtime: Runtime, owned: Owned) -> std::path::PathBuf {
    match owned {
        Owned::ByUser => place.runtime_directory().join(runtime.name()),
        Owned::ByRoot => place.path(&format!("root-{}", runtime.name())),
    }
}

pub(super) fn has_cgroup2() -> bool {
    statfs("/sys/fs/cgroup").is_ok_and(|found| found.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

/// A container that runs.
#[derive(Debug)]
pub(crate) struct Running<'a> {
    bundle: &'a Bundle<'a>,
    pub(crate) id: String,
    pub(crate) init: Pid,
}

impl<'a> Running<'a> {
    pub(super) fn start(bundle: &'a Bundle<'a>, id: String) -> Self {
        let pid_file = bundle.place.path(&format!("home/{id}.pid"));
        let pid_file = pid_file.to_str().expect("a path of ours is UTF-8");
        let options = ["--detach", "--pid-file", pid_file];
        run(&mut bundle.runtime.run(bundle, &id, &options)).ok();
        let init = fs::read_to_string(pid_file).expect("the runtime's pid file");
        Self {
            bundle,
            id,
            init: Pid::from_raw(init.trim().parse().expect("a pid")),
        }
    }

    /// Runs another process in the container.
    pub(crate) fn exec(&self, arguments: &[&str]) -> Ran {
        run(&mut self.exec_command(arguments))
    }

    pub(crate) fn exec_command(&self, arguments: &[&str]) -> Command {
        self.bundle
            .runtime
            .exec(self.bundle, &self.id, self.init, arguments)
    }

    /// Runs a shell script in the container; its output, if it succeeded.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str) -> String {
        self.exec(&["/bin/sh", "-euc", script]).ok()
    }

    pub(crate) fn is_running(&self) -> bool {
        let state = fs::read_to_string(format!("/proc/{}/stat", self.init)).unwrap_or_default();
        // A zombie has ended.
        !state.is_empty() && !state.contains(") Z ")
    }

    /// Kills its init, and with it everything in it.
    pub(crate) fn stop(self) {
        kill(self.init, Signal::SIGKILL).expect("killing the container's init");
        until("the container has ended", || {
            (!self.is_running()).then_some(())
        });
    }
}
