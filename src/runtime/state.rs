//! What a runtime has noted down of a container that runs.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::user::ANNOTATION;
use crate::bundle;
use crate::handover::ProcessUser;
use crate::profile::Runtime;

#[derive(Debug)]
pub(super) struct State {
    /// Its first process.
    pub(super) pid: u32,
    /// Where it was made; runtimes may keep several containers of one name, in different places.
    pub(super) bundle: Option<String>,
    /// Where the listener of each of its processes goes.
    pub(super) listener: PathBuf,
    /// Whom that was to be, where the runtime has been told otherwise.
    pub(super) user: Option<ProcessUser>,
}

impl State {
    /// `None` for a container that the runtime does not know, and for one whose processes notify nobody: it was not started by
    /// the front.
    pub(super) fn find(id: &OsStr, root: Option<&OsStr>, kind: Runtime) -> Option<Self> {
        let name = match kind {
            Runtime::Crun => "crun",
            Runtime::Runc => "runc",
        };
        let id = id.to_str()?;
        if let Some(root) = root {
            return Self::read(Path::new(root), id, kind);
        }
        let of_user =
            env::var_os("XDG_RUNTIME_DIR").map(|directory| Path::new(&directory).join(name));
        of_user
            .and_then(|root| Self::read(&root, id, kind))
            .or_else(|| Self::read(&Path::new("/run").join(name), id, kind))
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
            pid: init_in(root, id, kind)?,
            bundle: noted_bundle(root, id, kind, &state),
            listener: PathBuf::from(listener),
            user: noted_user(&state, kind),
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

/// One of runc's, which are of the form KEY=VALUE.
fn label<'a>(state: &'a Value, key: &str) -> Option<&'a str> {
    let labels = state.get("config")?.get("labels")?.as_array()?;
    labels
        .iter()
        .find_map(|label| label.as_str()?.strip_prefix(key)?.strip_prefix('='))
}

/// The first process of the container `id` of a runtime whose state is below `root`.
pub(crate) fn init_in(root: &Path, id: &str, kind: Runtime) -> Option<u32> {
    let (file, key) = match kind {
        Runtime::Crun => ("status", "pid"),
        Runtime::Runc => ("state.json", "init_process_pid"),
    };
    u32::try_from(object(root, id, file)?.get(key)?.as_u64()?).ok()
}

fn object(root: &Path, id: &str, file: &str) -> Option<Map<String, Value>> {
    bundle::read_object(&root.join(id).join(file)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    use serde_json::json;

    fn found(kind: Runtime, files: &[(&str, Value)]) -> Option<(u32, PathBuf, Option<u32>)> {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("c1");
        std::fs::create_dir(&directory).unwrap();
        for (name, value) in files {
            std::fs::write(directory.join(name), value.to_string()).unwrap();
        }
        State::find(OsStr::new("c1"), Some(root.path().as_os_str()), kind)
            .map(|state| (state.pid, state.listener, state.user.map(|user| user.uid)))
    }

    #[test]
    fn the_files_of_crun_and_runc_name_the_first_process_and_the_socket() {
        let user = json!({"uid": 9, "gid": 0, "additionalGids": [7]}).to_string();
        let config = |seccomp: Value| json!({"linux": {"seccomp": seccomp}, "annotations": {ANNOTATION: user}});
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
}
