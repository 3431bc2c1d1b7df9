//! [`Manager`]: a systemd user manager of the place, on hosts with another init, too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::place::Place;
use super::run::{Ran, run, until};
use super::runtime::{IN_UNIFIED, has_cgroup2};

/// systemd wants a cgroup that it may write to, cgroup2 at its usual place, and to believe that
/// systemd has booted this host. All of that is in a mount namespace; the socket by which systemctl
/// finds it lies in the user's runtime directory.
const START: &str = "mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system
echo $$ > \"$CGROUP/cgroup.procs\"
exec \"$@\"";

#[derive(Debug)]
pub(crate) struct Manager<'a> {
    place: &'a Place,
    process: Child,
    cgroup: PathBuf,
}

impl<'a> Manager<'a> {
    pub(crate) fn start(place: &'a Place) -> Self {
        let top = match has_cgroup2() {
            true => "/sys/fs/cgroup",
            false => "/sys/fs/cgroup/unified",
        };
        let cgroup = Path::new(top).join(place.name());
        fs::create_dir(&cgroup).expect("a cgroup");
        for name in [
            "",
            "cgroup.procs",
            "cgroup.subtree_control",
            "cgroup.threads",
        ] {
            place.give_to_user(&cgroup.join(name));
        }
        let mut command = place.as_root("unshare");
        command.args(["-m", "--"]);
        if !has_cgroup2() {
            command.args(["sh", "-c", IN_UNIFIED, "--"]);
        }
        let user = place.as_user("/lib/systemd/systemd");
        command
            .args(["sh", "-euc", START, "--"])
            .arg(user.get_program())
            .args(user.get_args())
            .arg("--user")
            .env("CGROUP", Path::new("/sys/fs/cgroup").join(place.name()))
            .env("HOME", place.path("home"))
            .env("XDG_RUNTIME_DIR", place.runtime_directory())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = command.spawn().expect("a user manager");
        let manager = Self {
            place,
            process,
            cgroup,
        };
        until("the user manager has started", || {
            let state = manager.systemctl(&["is-active", "default.target"]);
            state.status.success().then_some(())
        });
        manager
    }

    pub(crate) fn systemctl(&self, arguments: &[&str]) -> Ran {
        let mut command: Command = self.place.as_user("systemctl");
        run(command.arg("--user").args(arguments))
    }
}

impl Drop for Manager<'_> {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.process.id().cast_signed());
        let _ = kill(pid, Signal::SIGKILL);
        let _ = self.process.wait();
        // Whatever it has started.
        let _ = fs::write(self.cgroup.join("cgroup.kill"), "1");
        for _ in 0..200 {
            if remove_cgroup(&self.cgroup).is_ok() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

fn remove_cgroup(directory: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove_cgroup(&entry.path())?;
        }
    }
    fs::remove_dir(directory)
}
