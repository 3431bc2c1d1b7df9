//! What the pages take for granted: some files by the names that they use, podman on a host like
//! this, and a shell.

use std::fs;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};

use crate::common::{Place, Podman, run, set_mode, small_image, small_rootfs, tool, until};

/// How much a page needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    Files,
    /// An OCI image, and no network but the host's.
    Image,
    /// podman with an image by the name of busybox.
    Podman,
    /// A batch job's surroundings: no login session, and a home without attributes, which keeps no
    /// side store.
    Job,
}

/// A home as on NFS, for root in a mount namespace: ramfs has no attributes, and what must not be
/// on NFS cannot be written. No /run/user, and a /dev/shm without what others have left there.
const JOB: &str = "mount -t ramfs ramfs /mnt
    cp -a \"$HOME/.\" /mnt
    mkdir -p /mnt/.local/state/subuidless
    mount --move /mnt \"$HOME\"
    mount -t tmpfs -o ro tmpfs \"$HOME/.local/state\"
    mount -t tmpfs -o mode=755 tmpfs /run
    mount -t tmpfs -o mode=1777 tmpfs /dev/shm
    unset XDG_RUNTIME_DIR
    cd \"$HOME\"";

/// ~/rootfs, ~/layer.tar and what [`Needs`] says, where the user is at home.
pub(crate) fn inputs(place: &Place, needs: Needs) {
    for name in ["home/.local", "home/.local/bin", "home/.config", "tmp"] {
        let path = place.path(name);
        fs::create_dir(&path).unwrap();
        place.give_to_user(&path);
    }
    let rootfs = small_rootfs(place);
    // Links as well, as for somebody who has unpacked it.
    let owner = format!("{}:{}", place.user.uid, place.user.gid);
    run(place.as_root("chown").args(["-hR", &owner]).arg(rootfs)).ok();
    layer(place);
    if matches!(needs, Needs::Image | Needs::Podman) {
        small_image(place);
        image(place);
    }
    if needs == Needs::Podman {
        let podman = Podman::fronted(place, "crun");
        settings(place);
        podman
            .sh("\"$@\" import small.tar localhost/busybox >/dev/null")
            .ok();
    }
}

/// An archive with owners of all sorts.
fn layer(place: &Place) {
    let directory = place.path("layer");
    let path = directory.display();
    let script = format!(
        "mkdir -p {path}/srv/www {path}/var/lib/db; cd {path}; echo hello >srv/www/index.html
        echo data >var/lib/db/table
        ln -s index.html srv/www/link; chown -R -h 33:33 srv/www; chown -R 100000:200000 var/lib/db
        chmod 700 var/lib/db
        tar cf ../home/layer.tar ."
    );
    run(place.as_root("sh").args(["-euc", &script])).ok();
    set_mode(&place.path("home/layer.tar"), 0o644);
}

/// ~/img, an OCI image with the archive as its upper layer.
fn image(place: &Place) {
    let script = "umoci init --layout img; umoci new --image img:latest
        umoci raw add-layer --image img:latest small.tar
        umoci raw add-layer --image img:latest layer.tar";
    run(place.as_user("sh").args(["-euc", script])).ok();
}

/// What podman is told here and need not be told elsewhere: that there is neither a cgroup2 file
/// system nor a tun device.
fn settings(place: &Place) {
    let path = place.path("home/.config/containers/containers.conf");
    let engine = fs::read_to_string(&path).unwrap();
    let engine = engine.replace("nocgroup = [", "nocgroup = [\"crun\", ");
    let text = format!("[containers]\ncgroups = \"disabled\"\nnetns = \"host\"\n{engine}");
    fs::write(&path, text).unwrap();
}

/// bash, in the user's home, with the built binary on PATH, and with a cgroup2 file system as most
/// hosts have it.
pub(crate) fn shell(place: &Place, needs: Needs) -> Command {
    place.front("crun");
    let inner = place.as_user(tool("bash"));
    let mut shell = place.as_root("unshare");
    let script = "eval \"$NO_TUN\" || mount --bind /dev/null /dev/net/tun
        [ \"$(stat -f -c %T /sys/fs/cgroup)\" = cgroup2fs ] || mount --bind /sys/fs/cgroup/unified /sys/fs/cgroup
        eval \"$SURROUNDINGS\"
        exec \"$@\"";
    shell.args(["-m", "--", "sh", "-euc", script, "--"]);
    let surroundings = if needs == Needs::Job { JOB } else { "" };
    shell.env("SURROUNDINGS", surroundings);
    // Some hosts have such a device, and what programs do then is not the same everywhere.
    let has_no_tun = match needs {
        Needs::Image => "[ ! -e /dev/net/tun ]",
        _ => "true",
    };
    shell.env("NO_TUN", has_no_tun);
    shell.arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        shell.env(name, value.unwrap());
    }
    let directories = ["home/.local/bin", ""].map(|name| place.path(name));
    let path = directories.map(|path| path.display().to_string()).join(":");
    shell.env("TMPDIR", place.path("tmp"));
    // ch-run wants it.
    let user = User::from_uid(place.user.uid).unwrap().unwrap();
    shell.env("USER", user.name);
    shell.env("PATH", path + ":/usr/bin:/bin:/usr/sbin:/sbin");
    shell
}

/// Ends what podman and the front have started for a place: conmon hands on nothing of the
/// environment, but all of them have been given a path in it.
#[derive(Debug)]
pub(crate) struct Ended<'a>(pub(crate) &'a Place);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let directory = self.0.path("").to_string_lossy().into_owned();
        let kill_all = || {
            let mut left = false;
            for entry in fs::read_dir("/proc").unwrap().flatten() {
                let pid = entry
                    .file_name()
                    .to_str()
                    .and_then(|name| name.parse().ok());
                let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                if let Some(pid) =
                    pid.filter(|_| String::from_utf8_lossy(&command).contains(&directory))
                {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                    left = true;
                }
            }
            (!left).then_some(())
        };
        if std::thread::panicking() {
            let _ = kill_all();
        } else {
            until("what podman has started ends", kill_all);
        }
    }
}
