//! [`Place`]: the directory of one test, and everything that it started.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, chown};
use tempfile::TempDir;

use super::program::SEARCH_PATH;
use super::run::until;
use super::user::User;

/// In the environment of every process that a test starts.
const MARK: &str = "SUBUIDLESS_TEST_PLACE";

const PARENT: &str = "/var/tmp/subuidless";

/// The directory of all places. Ext4 looks long at each inode that was freed a minute ago before it
/// passes it over, and a place has tens of thousands of them; in a directory marked so, each
/// subdirectory gets another part of the disk. podman wants short paths.
fn parent() -> &'static Path {
    static MADE: Once = Once::new();
    MADE.call_once(|| {
        fs::create_dir_all(PARENT).expect(PARENT);
        set_mode(Path::new(PARENT), 0o755);
        // Other file systems have no such mark, and no such trouble.
        let mut mark = Command::new("chattr");
        let _ = mark.args(["+T", PARENT]).stderr(Stdio::null()).status();
    });
    Path::new(PARENT)
}

/// A directory on a file system with user xattrs, which the unprivileged user may enter.
#[derive(Debug)]
pub(crate) struct Place {
    directory: TempDir,
    pub(crate) user: User,
}

impl Place {
    pub(crate) fn new() -> Self {
        let user = User::get();
        let directory = tempfile::Builder::new()
            .prefix("test-")
            .tempdir_in(parent())
            .expect("a directory for a test");
        set_mode(directory.path(), 0o755);
        let place = Self { directory, user };
        for (name, mode) in [("run", 0o700), ("home", 0o755), ("bundles", 0o755)] {
            let path = place.path(name);
            fs::create_dir(&path).expect("a new directory");
            set_mode(&path, mode);
            place.give_to_user(&path);
        }
        // Where the user can reach it: the checkout may be in somebody's home.
        let built = Path::new(env!("CARGO_BIN_EXE_subuidless"));
        let binary = place.binary();
        if fs::hard_link(built, &binary).is_err() {
            fs::copy(built, &binary).expect("copying the binary");
        }
        place
    }

    /// `name` in the place's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn binary(&self) -> PathBuf {
        self.path("subuidless")
    }

    /// The runtime front that stands before `runtime`.
    pub(crate) fn front(&self, runtime: &str) -> PathBuf {
        let path = self.path(&format!("subuidless-{runtime}"));
        match std::os::unix::fs::symlink("subuidless", &path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                panic!("{}: {error}", path.display())
            }
            _ => path,
        }
    }

    pub(crate) fn runtime_directory(&self) -> PathBuf {
        self.path("run")
    }

    pub(crate) fn give_to_user(&self, path: &Path) {
        chown(path, Some(self.user.uid), Some(self.user.gid)).expect("chown to the user");
    }

    /// A program to be run by the unprivileged user.
    pub(crate) fn as_user(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = self.as_root("setpriv");
        command
            .arg(format!("--reuid={}", self.user.uid))
            .arg(format!("--regid={}", self.user.gid))
            .args(["--init-groups", "--"])
            .arg(program)
            .env("HOME", self.path("home"))
            .env("XDG_RUNTIME_DIR", self.runtime_directory());
        command
    }

    /// A program to be run by root.
    pub(crate) fn as_root(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", SEARCH_PATH)
            .env("LC_ALL", "C")
            .env(MARK, self.directory.path())
            .current_dir(self.path("home"));
        command
    }

    /// `subuidless` with arguments, run by the unprivileged user.
    pub(crate) fn subuidless<S: AsRef<std::ffi::OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = self.as_user(self.binary());
        command.args(arguments);
        command
    }

    /// A name that no other place has.
    pub(crate) fn name(&self) -> String {
        let name = self.directory.path().file_name();
        name.expect("a place has a name")
            .to_string_lossy()
            .into_owned()
    }

    /// The variable that marks processes of this place, `NAME=VALUE`.
    pub(crate) fn mark(&self) -> String {
        format!("{MARK}={}", self.directory.path().display())
    }

    /// The processes of this place: their pids and command lines.
    pub(crate) fn processes(&self) -> Vec<(Pid, Vec<u8>)> {
        let mark = self.mark();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").expect("/proc").flatten() {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            // A process that ends meanwhile can no longer be read.
            let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
            if read("environ")
                .split(|byte| *byte == 0)
                .any(|variable| variable == mark.as_bytes())
            {
                found.push((Pid::from_raw(pid), read("cmdline")));
            }
        }
        found
    }

    /// The entries of `subuidless` in the runtime directory but for the library of the fast path,
    /// which stays.
    pub(crate) fn own_directory(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.runtime_directory().join("subuidless"));
        let paths = entries.into_iter().flatten().flatten().map(|it| it.path());
        paths
            .filter(|path| !path.to_string_lossy().contains("/subuidless-fast-"))
            .collect()
    }

    /// The workers that serve `container`.
    pub(crate) fn workers_of(&self, container: &str) -> Vec<Pid> {
        let name = format!("subuidless: {container}\0worker\0");
        self.processes()
            .into_iter()
            .filter(|(_, command)| command.starts_with(name.as_bytes()))
            .map(|(pid, _)| pid)
            .collect()
    }

    /// The supervisor of what `subuidless run` has started.
    #[track_caller]
    pub(crate) fn supervisor(&self) -> Pid {
        let found = self
            .processes()
            .into_iter()
            .find(|(_, command)| command.windows(11).any(|part| part == b"\0supervise\0"));
        found.expect("what `run` starts has a supervisor").0
    }

    /// All workers.
    pub(crate) fn workers(&self) -> Vec<Pid> {
        self.processes()
            .into_iter()
            .filter(|(_, command)| command.starts_with(b"subuidless: "))
            .map(|(pid, _)| pid)
            .collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let kill_all = || {
            let left = self.processes();
            for (pid, _) in &left {
                let _ = kill(*pid, Signal::SIGKILL);
            }
            left.is_empty().then_some(())
        };
        if std::thread::panicking() {
            // A second panic would hide the first.
            for _ in 0..20 {
                if kill_all().is_some() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
        } else {
            until("every process of this test has ended", kill_all);
        }
    }
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .unwrap_or_else(|error| panic!("{}: {error}", path.as_os_str().as_bytes().escape_ascii()));
}

/// Whether a worker has taken over what its daemon gave it.
pub(crate) fn has_listener(worker: Pid) -> bool {
    let fds = fs::read_dir(format!("/proc/{worker}/fd"))
        .into_iter()
        .flatten();
    fds.flatten()
        .filter_map(|fd| fs::read_link(fd.path()).ok())
        .any(|file| file.to_string_lossy().contains("seccomp"))
}
