//! What this program is for, tried: a command and a container of `run`, with what they need in a
//! directory that is removed afterwards.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::statvfs::statvfs;
use tempfile::TempDir;

use super::Check;
use super::proof::output;
use crate::linux::{procfs, sys};
use crate::wire::mode::Mode;
use crate::wire::rundir;

const COMMAND: &str = "run";
/// The name of the check of [`container`].
pub(super) const CONTAINER: &str = "run --rootfs";

/// The time limit. Normally it takes less than a tenth of a second.
const PATIENCE: Duration = Duration::from_secs(30);

/// Tries a command.
pub(super) fn command() -> Check {
    let place = match place() {
        Ok(place) => place,
        Err(error) => {
            let reason = format!("not tried: no room in the runtime directory: {error}");
            let change = "set XDG_RUNTIME_DIR to a directory of your own with some room";
            return Check::warn(COMMAND, reason, change);
        }
    };
    let words = [OsString::from("--"), "/proc/self/exe".into()];
    match run(place.path(), words.into()) {
        Ok(()) => Check::ok(
            COMMAND,
            "a command changed the owner of a file, and its ids",
        ),
        Err(reason) => Check::fail(
            COMMAND,
            reason,
            "`subuidless run` says the same of a command that changes owners and ids; where that \
             names no way out, a filter or a security module forbids a system call: run this \
             outside of containers and sandboxes",
        ),
    }
}

/// Tries a container that consists of the host's programs. `None`: there is no place for it.
pub(super) fn container() -> Option<Check> {
    let place = place().ok()?;
    let words = container_of_host(place.path()).ok()?;
    Some(match run(place.path(), words) {
        Ok(()) => Check::ok(
            CONTAINER,
            "so did one in a container of the host's programs",
        ),
        Err(reason) => Check::warn(
            CONTAINER,
            reason,
            "`subuidless run --rootfs` says the same of every container",
        ),
    })
}

/// A directory in the runtime directory: its path is to be as long as those of real containers are.
fn place() -> io::Result<TempDir> {
    const PREFIX: &str = ".check";
    /// More than a side store and a root file system take.
    const ROOM: (u64, u64) = (1 << 20, 100);
    /// What is older was left by a check that was killed.
    const OLD: Duration = Duration::from_secs(600);
    let runtime = rundir::look().map_err(io::Error::other)?.path;
    for entry in fs::read_dir(&runtime)?.flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let age = entry.metadata().and_then(|found| found.modified());
        let age = age.ok().and_then(|then| then.elapsed().ok());
        if is_ours && age.is_some_and(|age| age > OLD) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let mut name = tempfile::Builder::new();
    let place = name.prefix(PREFIX).rand_bytes(3).tempdir_in(&runtime)?;
    let disk = statvfs(place.path())?;
    let bytes = disk.blocks_available() * disk.fragment_size();
    // Some file systems do not count them.
    let has_files = disk.files() == 0 || disk.files_available() > ROOM.1;
    match bytes > ROOM.0 && has_files {
        true => Ok(place),
        false => Err(Errno::ENOSPC.into()),
    }
}

/// Makes a root file system in `place`. Returns the words of a command line behind `run`.
fn container_of_host(place: &Path) -> io::Result<Vec<OsString>> {
    const PROGRAM: &str = "/subuidless";
    /// Where the loader and the libraries of a program are.
    const LIBRARIES: [&str; 5] = ["/usr", "/lib", "/lib64", "/nix", "/gnu"];
    let root = place.join("rootfs");
    fs::create_dir_all(root.join("tmp"))?;
    // The name is as short as that of the directory is long.
    let mut words: Vec<OsString> = vec!["--name".into(), "c".into()];
    words.extend(["--rootfs".into(), root.clone().into()]);
    let mut bind = |from: &Path, to: &str| {
        let mut bind = from.as_os_str().to_owned();
        bind.push(":");
        bind.push(to);
        bind.push(":ro");
        words.extend(["--bind".into(), bind]);
    };
    // It may have been replaced since it was started.
    bind(&std::env::current_exe()?.canonicalize()?, PROGRAM);
    for name in LIBRARIES {
        let host = Path::new(name);
        match fs::read_link(host) {
            Ok(target) => symlink(target, root.join(&name[1..]))?,
            Err(_) if host.is_dir() => bind(host, name),
            Err(_) => {}
        }
    }
    words.extend(["--".into(), PROGRAM.into()]);
    Ok(words)
}

/// Waits for the child processes that were not there `before`, as long as a trial may take.
fn wait_for_new(before: &[u32]) {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        let mut now = procfs::children().unwrap_or_default();
        now.retain(|pid| !before.contains(pid));
        if now.is_empty() {
            return;
        }
        for pid in now {
            let _ = sys::try_wait(pid);
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Runs this program as [`Mode::CheckCommand`] with `words` in between. Returns what went wrong.
fn run(place: &Path, words: Vec<OsString>) -> Result<(), String> {
    let file = |error: io::Error| format!("{}: {error}", place.display());
    let said = place.join("said");
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("subuidless")
        .arg("run")
        .args(words)
        .args(Mode::CheckCommand.to_words())
        .stdin(Stdio::null())
        .stderr(File::create(&said).map_err(file)?);
    for name in ["XDG_RUNTIME_DIR", "XDG_STATE_HOME", "TMPDIR"] {
        command.env(name, place);
    }
    // What serves the command ends after it, and has files in `place` until then.
    let before = procfs::children().unwrap_or_default();
    let _ = set_child_subreaper(true);
    let ended = output(&mut command, PATIENCE);
    wait_for_new(&before);
    let _ = set_child_subreaper(false);
    match ended {
        Ok((status, _)) if status.success() => Ok(()),
        ended => {
            let said = fs::read_to_string(&said).map_err(file)?;
            Err(match (said.trim(), ended) {
                ("", Ok((status, _))) => status.to_string(),
                ("", Err(error)) => error.to_string(),
                (said, _) => essence(said),
            })
        }
    }
}

/// The first and the last line, which may be one: a log repeats itself. Without what begins them.
fn essence(said: &str) -> String {
    let words = |line: &str| {
        let is_time = |word: &str| word.starts_with(|c: char| c.is_ascii_digit());
        let log = line.split_once(' ').filter(|(time, _)| is_time(time));
        let words = log.map_or(line, |(_, rest)| rest).trim();
        words
            .strip_prefix("subuidless: ")
            .unwrap_or(words)
            .to_owned()
    };
    let mut lines = said.lines().map(words);
    let (first, last) = (lines.next().unwrap_or_default(), lines.next_back());
    match last {
        Some(last) if last != first => format!("{first}; {last}"),
        _ => first,
    }
}
