//! [`Daemon`]: the built binary, run by the unprivileged user.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::place::Place;
use super::run::{end, until};

#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    pub(crate) socket: PathBuf,
    log: PathBuf,
}

impl Daemon {
    /// Listens at the default path of the place.
    pub(crate) fn start(place: &Place) -> Self {
        Self::start_with(place, &[])
    }

    pub(crate) fn start_with(place: &Place, arguments: &[&str]) -> Self {
        let socket = place.runtime_directory().join("subuidless.sock");
        let mut command = place.subuidless(["serve"]);
        command.args(arguments).arg(&socket);
        Self::spawn(place, command, socket)
    }

    /// Starts `command`, which is to listen on `socket`, and waits until it does.
    pub(crate) fn spawn(place: &Place, mut command: Command, socket: PathBuf) -> Self {
        let log = (0..)
            .map(|n| place.path(&format!("daemon-{n}.log")))
            .find(|path| !path.exists())
            .unwrap_or_else(|| unreachable!("some number is free"));
        command.stdout(Stdio::null());
        command.stderr(File::create(&log).expect("the daemon's log"));
        let child = command.spawn().expect("starting the daemon");
        let mut daemon = Self { child, socket, log };
        until("the daemon listens", || {
            let ended = daemon.child.try_wait().expect("waiting for the daemon");
            assert!(ended.is_none(), "the daemon ended: {}", daemon.log());
            daemon.log().contains("listening").then_some(())
        });
        daemon
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Everything logged so far.
    pub(crate) fn log(&self) -> String {
        read_lossy(&self.log)
    }

    /// The log's lines that contain all of `parts`.
    pub(crate) fn lines(&self, parts: &[&str]) -> Vec<String> {
        self.log()
            .lines()
            .filter(|line| parts.iter().all(|part| line.contains(part)))
            .map(str::to_owned)
            .collect()
    }

    /// Waits for a line that contains all of `parts`.
    #[track_caller]
    pub(crate) fn wait_for(&self, parts: &[&str]) -> String {
        until(
            &format!("a log line with {parts:?} in\n{}", self.log()),
            || self.lines(parts).pop(),
        )
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("signalling the daemon");
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        until("the daemon ends", || {
            self.child.try_wait().expect("waiting for the daemon")
        })
    }

    /// Ends it in order; running containers go on.
    pub(crate) fn terminate(mut self) {
        self.signal(Signal::SIGTERM);
        let status = self.wait();
        assert!(status.success(), "{status}: {}", self.log());
    }

    /// The descriptors that it has open, those to its guard among them.
    pub(crate) fn open_fds(&self) -> Vec<PathBuf> {
        let children = format!("/proc/{0}/task/{0}/children", self.pid());
        let is_guard = |pid: &str| {
            let command = read_lossy(Path::new(&format!("/proc/{pid}/cmdline")));
            command.starts_with("subuidless guard of ")
        };
        until("the daemon has a guard", || {
            let children = fs::read_to_string(&children).unwrap_or_default();
            children.split_whitespace().any(is_guard).then_some(())
        });
        // It may be in the midst of starting it.
        let mut before = self.open_now();
        until("nothing is opened or closed any more", || {
            std::thread::sleep(std::time::Duration::from_millis(20));
            let now = self.open_now();
            (std::mem::replace(&mut before, now.clone()) == now).then_some(now)
        })
    }

    fn open_now(&self) -> Vec<PathBuf> {
        let directory = format!("/proc/{}/fd", self.pid());
        let mut fds: Vec<PathBuf> = fs::read_dir(directory)
            .expect("the daemon's fds")
            .flatten()
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .collect();
        fds.sort();
        fds
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        end(&mut self.child);
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
        }
    }
}

fn read_lossy(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// The number behind `name` in a line of the log.
#[track_caller]
pub(crate) fn number_after(line: &str, name: &str) -> usize {
    let (_, rest) = line.split_once(name).unwrap_or_else(|| panic!("{line}"));
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next();
    digits.unwrap_or_default().parse().expect("a number")
}

/// The guard of a daemon.
#[track_caller]
pub(crate) fn guard_of(place: &Place, daemon: Pid) -> Pid {
    let name = format!("subuidless guard of {daemon}\0");
    until("the daemon has a guard", || {
        let mut processes = place.processes().into_iter();
        processes.find_map(|(pid, command)| command.starts_with(name.as_bytes()).then_some(pid))
    })
}
