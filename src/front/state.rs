//! Reads the state files that a runtime keeps of a running container.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use serde_json::{Map, Value};

use super::user::ANNOTATION;
use crate::front::bundle;
use crate::linux::procfs::{Stat, Status};
use crate::linux::sys;
use crate::syscalls::profile::Runtime;
use crate::wire::fast;
use crate::wire::handover::ProcessUser;
use crate::wire::rundir;

#[derive(Debug)]
pub(super) struct State {
    /// The container's first process.
    first: Noted,
    /// The bundle, which distinguishes containers with the same id in different state directories.
    pub(super) bundle: Option<String>,
    /// The socket to which the runtime sends the listener of each process.
    pub(super) listener: PathBuf,
    /// The user requested for the first process, if the front has given the runtime another one.
    pub(super) user: Option<ProcessUser>,
    /// Where the preloaded library is in it.
    pub(super) library: Option<String>,
}

impl State {
    /// Finds a running container. Returns `None` if the runtime does not know it, or if its profile
    /// has no listener: then the front did not start it.
    pub(super) fn find(id: &OsStr, root: Option<&OsStr>, kind: Runtime) -> Option<Self> {
        let name = match kind {
            Runtime::Crun => "crun",
            Runtime::Runc => "runc",
        };
        let id = id.to_str()?;
        let found = match root {
            Some(root) => Self::read(Path::new(root), id, kind),
            None => rundir::states_of(name)
                .iter()
                .find_map(|root| Self::read(root, id, kind)),
        };
        found.filter(|state| state.first.hold().is_some())
    }

    /// The pid of the first process.
    pub(super) fn pid(&self) -> u32 {
        self.first.pid
    }

    fn read(root: &Path, id: &str, kind: Runtime) -> Option<Self> {
        let (file, keys): (_, &[&str]) = match kind {
            Runtime::Crun => ("config.json", &["linux", "seccomp", "listenerPath"]),
            Runtime::Runc => ("state.json", &["config", "seccomp", "listener_path"]),
        };
        let state = Value::Object(object(root, id, file)?);
        let path = keys.iter().try_fold(&state, |value, key| value.get(key))?;
        let listener = path.as_str().filter(|path| !path.is_empty())?;
        Some(Self {
            first: Noted::read(root, id, kind)?,
            bundle: noted_bundle(root, id, kind, &state),
            listener: PathBuf::from(listener),
            user: noted_user(&state, kind),
            library: fast::noted(match kind {
                Runtime::Crun => state.get("mounts"),
                Runtime::Runc => state.get("config").and_then(|config| config.get("mounts")),
            }),
        })
    }
}

fn noted_user(state: &Value, kind: Runtime) -> Option<ProcessUser> {
    let text = match kind {
        Runtime::Crun => state.get("annotations")?.get(ANNOTATION)?.as_str()?,
        Runtime::Runc => label(state, ANNOTATION)?,
    };
    serde_json::from_str(text).ok()
}

fn noted_bundle(root: &Path, id: &str, kind: Runtime, state: &Value) -> Option<String> {
    match kind {
        Runtime::Crun => {
            let status = object(root, id, "status")?;
            status.get("bundle")?.as_str().map(str::to_owned)
        }
        Runtime::Runc => label(state, "bundle").map(str::to_owned),
    }
}

/// The value of one of runc's labels, which have the form KEY=VALUE.
fn label<'a>(state: &'a Value, key: &str) -> Option<&'a str> {
    let labels = state.get("config")?.get("labels")?.as_array()?;
    labels
        .iter()
        .find_map(|label| label.as_str()?.strip_prefix(key)?.strip_prefix('='))
}

/// A container's first process, as recorded by the runtime.
#[derive(Debug)]
struct Noted {
    pid: u32,
    /// `None` before crun 0.15.
    start_time: Option<u64>,
}

impl Noted {
    fn read(root: &Path, id: &str, kind: Runtime) -> Option<Self> {
        let (file, pid, start_time) = match kind {
            Runtime::Crun => ("status", "pid", "process-start-time"),
            Runtime::Runc => ("state.json", "init_process_pid", "init_process_start"),
        };
        let object = object(root, id, file)?;
        Some(Self {
            pid: u32::try_from(object.get(pid)?.as_u64()?).ok()?,
            start_time: object.get(start_time).and_then(Value::as_u64),
        })
    }

    /// Opens a pidfd of the process. Returns `None` if it has exited, even if its pid was reused.
    fn hold(&self) -> Option<FirstProcess> {
        let pidfd = sys::process_pidfd(self.pid).ok()?;
        let is_it = match self.start_time {
            Some(noted) => {
                let stat = Stat::of(format_args!("/proc/{}", self.pid)).ok()?;
                stat.start_time() == Some(noted)
            }
            // Without a start time: it must be pid 1 of its pid namespace.
            None => {
                let process = File::open(format!("/proc/{}", self.pid)).ok()?;
                let status = Status::in_directory(&process).ok()?;
                status.own_tgid() == Some(1) && status.tgid() == Some(self.pid)
            }
        };
        let first = FirstProcess {
            pid: self.pid,
            pidfd,
        };
        // /proc/PID was that of the pidfd's process if that process still lives.
        (is_it && !sys::has_ended(first.pidfd.as_fd())).then_some(first)
    }
}

/// The first process of a container, held by a pidfd so that it cannot be confused with another.
#[derive(Debug)]
pub(crate) struct FirstProcess {
    pub(crate) pid: u32,
    pidfd: OwnedFd,
}

impl FirstProcess {
    /// The first process of the container `id`, if it lives. The state of the runtime is in `root`.
    pub(crate) fn find(root: &Path, id: &str, kind: Runtime) -> Option<Self> {
        Noted::read(root, id, kind)?.hold()
    }

    /// The process with this pid and start time (proc_pid_stat(5)), if it lives.
    pub(crate) fn noted(pid: u32, start_time: u64) -> Option<Self> {
        let start_time = Some(start_time);
        Noted { pid, start_time }.hold()
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Errno> {
        sys::pidfd_send_signal(self.pidfd.as_fd(), signal)
    }
}

impl AsFd for FirstProcess {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

fn object(root: &Path, id: &str, file: &str) -> Option<Map<String, Value>> {
    bundle::read_object(&root.join(id).join(file)).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    use serde_json::json;

    fn found(kind: Runtime, files: &[(&str, Value)]) -> Option<(u32, PathBuf, Option<u32>)> {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("c1");
        std::fs::create_dir(&directory).unwrap();
        for (name, value) in files {
            std::fs::write(directory.join(name), value.to_string()).unwrap();
        }
        State::read(root.path(), "c1", kind).map(|state| {
            (
                state.first.pid,
                state.listener,
                state.user.map(|user| user.uid),
            )
        })
    }

    #[test]
    fn the_files_of_crun_and_runc_name_the_first_process_and_the_socket() {
        let user = json!({"uid": 9, "gid": 0, "additionalGids": [7]}).to_string();
        let note = json!({ANNOTATION: user});
        let config = |seccomp| json!({"linux": {"seccomp": seccomp}, "annotations": note});
        let status = ("status", json!({"pid": 7}));
        let ours = ("config.json", config(json!({"listenerPath": "/s"})));
        assert_eq!(
            found(Runtime::Crun, &[status.clone(), ours.clone()]),
            Some((7, "/s".into(), Some(9)))
        );
        let plain = ("config.json", config(json!({})));
        assert_eq!(found(Runtime::Crun, &[status, plain]), None);
        assert_eq!(found(Runtime::Crun, &[ours]), None);
        let state = |path| {
            let seccomp = json!({"listener_path": path});
            let labels = ["bundle=/b".to_owned(), format!("{ANNOTATION}={user}")];
            let state =
                json!({"init_process_pid": 8, "config": {"seccomp": seccomp, "labels": labels}});
            found(Runtime::Runc, &[("state.json", state)])
        };
        assert_eq!(state("/s"), Some((8, "/s".into(), Some(9))));
        assert_eq!(state(""), None);
        assert_eq!(found(Runtime::Runc, &[]), None);
    }

    #[test]
    fn a_number_that_is_somebody_elses_by_now_is_no_first_process() {
        let pid = std::process::id();
        let own = Stat::of("/proc/self").unwrap().start_time().unwrap();
        for (kind, file, names) in [
            (Runtime::Crun, "status", ["pid", "process-start-time"]),
            (
                Runtime::Runc,
                "state.json",
                ["init_process_pid", "init_process_start"],
            ),
        ] {
            let found = |start_time: u64| {
                let root = tempfile::tempdir().unwrap();
                fs::create_dir(root.path().join("c1")).unwrap();
                let state = json!({names[0]: pid, names[1]: start_time});
                fs::write(root.path().join("c1").join(file), state.to_string()).unwrap();
                FirstProcess::find(root.path(), "c1", kind).map(|first| first.pid)
            };
            assert_eq!(found(own), Some(pid));
            assert_eq!(found(own + 1), None);
        }
    }
}
