//! [`Started`]: what podman and the runtime front have started for a place.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::place::Place;

/// Ends what podman and the front have started for a place: conmon hands on nothing of the
/// environment, but all of them have been given a path in it.
#[derive(Debug)]
pub(crate) struct Started<'a>(pub(crate) &'a Place);

impl Started<'_> {
    /// The daemons, in the order of their pids.
    pub(crate) fn daemons(&self) -> Vec<(Pid, Vec<String>)> {
        let mut found = self.all();
        found.retain(|(_, words)| {
            words
                .get(1)
                .is_some_and(|word| word == "serve" || word == "daemon")
        });
        found.sort();
        // What a daemon is about to start is a copy of it for a moment.
        let all: Vec<Pid> = found.iter().map(|(pid, _)| *pid).collect();
        found.retain(|(pid, _)| parent(*pid).is_none_or(|parent| !all.contains(&parent)));
        found
    }

    fn all(&self) -> Vec<(Pid, Vec<String>)> {
        let directory = self.0.path("").to_string_lossy().into_owned();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")
            .expect("a file of the place, or a process")
            .flatten()
        {
            let pid = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).into_owned();
            if let Some(pid) = pid.filter(|_| command.contains(&directory)) {
                let words = command.split('\0').map(str::to_owned).collect();
                found.push((Pid::from_raw(pid), words));
            }
        }
        found
    }

    /// What lies where daemons listen, and in the directory for those of user namespaces.
    fn files(&self) -> Vec<PathBuf> {
        let usual = self.0.runtime_directory();
        let directories = [usual.join("subuidless"), usual];
        let entries = directories.map(|directory| fs::read_dir(directory).into_iter().flatten());
        entries
            .into_iter()
            .flatten()
            .map(|entry| entry.expect("a file of the place, or a process").path())
            .collect()
    }

    pub(crate) fn sockets(&self) -> Vec<PathBuf> {
        let mut files = self.files();
        files.retain(|path| {
            fs::symlink_metadata(path)
                .expect("a file of the place, or a process")
                .file_type()
                .is_socket()
        });
        files
    }

    pub(crate) fn logs(&self) -> String {
        let files = self.files().into_iter();
        files
            .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
            .map(|path| fs::read_to_string(path).expect("a file of the place, or a process"))
            .collect()
    }
}

impl Drop for Started<'_> {
    fn drop(&mut self) {
        for _ in 0..200 {
            let left = self.all();
            if left.is_empty() {
                break;
            }
            for (pid, _) in left {
                let _ = kill(pid, Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn parent(pid: Pid) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let parent = stat.rsplit(')').next()?.split_whitespace().nth(1)?;
    parent.parse().ok().map(Pid::from_raw)
}
