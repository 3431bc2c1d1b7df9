//! [`Error`]: a fault of this program or its environment, never sent to a target. Each message
//! names the thing, the reason and the way out.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use nix::errno::Errno;

/// Whether `errno` means that this process or the machine lacks a resource at the moment. That says
/// nothing about a target's call and may pass, so callers wait and try again.
pub(crate) fn is_shortage(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::EAGAIN | Errno::ENOBUFS
    )
}

/// What can go wrong outside the emulation itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Error {
    #[error(
        "no directory for sockets and locks ({reasons}): set XDG_RUNTIME_DIR to one of your own, \
         as in `export XDG_RUNTIME_DIR=$(mktemp -d)`"
    )]
    NoRuntimeDirectory { reasons: String },

    #[error("this is Linux {release}, but 5.14 or newer is needed: boot a newer kernel")]
    KernelTooOld { release: String },

    #[error("{path}: {source}; choose a socket in a directory of your own")]
    SocketPlace { path: PathBuf, source: io::Error },

    #[error(
        "{path}: {length} bytes, but the path of a Unix socket has at most 107: choose a shorter \
         one"
    )]
    SocketPathTooLong { path: PathBuf, length: usize },

    #[error("{path}: a daemon is already listening there: stop it, or choose another socket path")]
    AlreadyRunning { path: PathBuf },

    #[error("{path}: exists and is not a socket: remove it, or choose another socket path")]
    NotASocket { path: PathBuf },

    #[error("{path}: cannot listen: {}", reason(.source))]
    Listen { path: PathBuf, source: io::Error },

    #[error(
        "socket activation: systemd passed {count} file descriptors, but the unit must have \
         exactly one ListenStream="
    )]
    ActivationCount { count: usize },

    #[error("socket activation: {}", reason(.source))]
    Activation { source: io::Error },

    #[error(
        "neither {} nor {} is on PATH: install one of them, or name it with --runtime",
        .names[0],
        .names[1]
    )]
    NoRuntime { names: [&'static str; 2] },

    #[error("{name} was not started with --detach: its output went to who started it")]
    NoOutput { name: String },

    #[error("dockerd is not on PATH: install it, as by `apt-get install docker.io` on Debian")]
    NoDocker,

    #[error(
        "podman has started no pause process, which keeps its user namespace: `podman unshare \
         true` says why{}{said}", if .said.is_empty() { "" } else { ": " }
    )]
    NoPause { said: String },

    #[error("{name} is not on PATH: install it, as by `apt-get install {name}` on Debian")]
    NoEngine { name: &'static str },

    #[error(
        "{} calls subuidless again and again instead of {name}: name the real {name} in it, or \
         remove it from PATH", .program.display()
    )]
    EngineCallsBack {
        name: &'static str,
        program: PathBuf,
    },

    #[error(
        "the runtime behind subuidless is subuidless itself, as {}: name the real one with \
         --runtime", .name.display()
    )]
    RuntimeIsFront { name: OsString },

    #[error(
        "{path}: cannot announce the container to the daemon that listens there: {}",
        reason(.source)
    )]
    Announce { path: PathBuf, source: io::Error },

    #[error(
        "{path}: no daemon listens there, and none can be started: {reason}; start one yourself, \
         as in `subuidless serve`"
    )]
    NoDaemon { path: PathBuf, reason: String },

    #[error("{reason} (the daemon's log is {log})")]
    Background { reason: String, log: PathBuf },

    #[error("{path}: {}", reason(.source))]
    File { path: PathBuf, source: io::Error },

    #[error("{path}: not a JSON object that this program understands: {reason}")]
    Json { path: PathBuf, reason: String },

    #[error("{what}: {}", reason(.source))]
    Io {
        what: &'static str,
        source: io::Error,
    },

    #[error(
        "{reasons}: raise the limit where it was lowered, as by ulimit(1), limits.conf(5), or \
         LimitNOFILE= (or similar) in a systemd unit"
    )]
    Limits { reasons: String },

    #[error("no command given: name one, as in `subuidless run -- tar xpf layer.tar`")]
    NoCommand,

    #[error("{program}: {}", reason(.source))]
    Execute { program: PathBuf, source: io::Error },

    #[error("cannot create a user namespace: {reason} ({change})")]
    NoUserNamespace { reason: String, change: String },

    #[error(
        "something (fakeroot, pseudo, proot) makes this process believe that its uid is {told}: \
         start subuidless outside of it, or `subuidless fakeroot` in its place"
    )]
    FalseIds { told: u32 },

    #[error(
        "this process already runs under a seccomp listener, as within `subuidless run` or a \
         container of its kind, and the kernel takes only one: run the command as it is, its \
         owners and ids are emulated already"
    )]
    SecondListener,

    #[error(
        "this process runs under the seccomp listener of another program, and the kernel takes \
         only one: start podman, or whatever calls this, outside of that program"
    )]
    ForeignListener,

    #[error(
        "the supervisor of this command has exited: run it again with --log-file FILE to see why"
    )]
    NoSupervisor,

    #[error(
        "{name:?} is not a user in {place}: give a name from its passwd(5), or numbers as in \
         --user 999:999"
    )]
    UnknownUser { name: String, place: String },

    #[error("{name:?} is not a group in {place}: give a name from its group(5), or a number")]
    UnknownGroup { name: String, place: String },

    #[error(
        "{name:?} is not a valid container name: 1 to 64 letters, digits, `_`, `.` and `-`, not \
         starting with a dot"
    )]
    ContainerName { name: String },

    #[error(
        "a container named {name} is already running: choose another --name, or end it with \
         `subuidless kill {name}`"
    )]
    ContainerExists { name: String },

    #[error(
        "{name} has no first process: it is being created, or has ended and left processes that go \
         on, which `subuidless status` lists"
    )]
    NoFirstProcess { name: String },

    #[error(
        "no container named {name} is running (running: {known}): `subuidless ps` lists them",
        known = if .known.is_empty() { "none" } else { .known })]
    NoContainer { name: String, known: String },

    #[error(
        "systemd as the first process needs a control group that it may change ({reason}): start \
         it in one of your own, with `systemd-run --user --scope -p Delegate=yes subuidless run \
         ...`"
    )]
    NoControlGroup { reason: String },

    #[error("{path}: {reason}")]
    Rootfs { path: PathBuf, reason: &'static str },

    #[error(
        "--net needs the program {program}, which is not installed: on Debian, `apt-get install \
         {}`; or use --net host or --net none", package(.program))]
    NoNetworkProgram { program: &'static str },

    #[error("{program}: the network cannot be set up: {}", reason(.source))]
    Network { program: PathBuf, source: io::Error },

    #[error(
        "looking up {name:?}: {}; numbers need no name service, as in --user 999:999",
        reason(.source)
    )]
    NameService { name: String, source: io::Error },

    #[error(
        "no daemon listens on {place}{others}: start one with `subuidless serve`, or name its \
         socket with --socket"
    )]
    NobodyListens { place: String, others: &'static str },

    #[error(
        "{failures} of these checks failed: what needs them does not work on this host until they \
         pass"
    )]
    Unfit { failures: usize },

    #[error("this host cannot do that until these checks pass, and programs are there: {missing}")]
    UnfitFor { missing: String },

    #[error("{path}: asking the daemon: {reason}")]
    Ask { path: PathBuf, reason: String },

    #[error(
        "there is no side store, for the reason above: owners of symlinks, fifos, sockets and \
         devices are not known; name another directory with --store"
    )]
    NoSideStore,

    #[error(
        "the side store was damaged while it was in use ({status}), as reported above: run this \
         again"
    )]
    StoreDamaged { status: ExitStatus },

    #[error(
        "override-stat is kept in attributes of the files themselves, so there is no file to read \
         or write: leave out {option}"
    )]
    NoFileForAttributes { option: &'static str },

    #[error("line 1: {reason}")]
    NotAnExport { reason: String },

    #[error(
        "tar archives are not written: `subuidless run -- tar c DIR` writes one with these \
         owners, and so does bsdtar from --format mtree: `bsdtar -cf FILE @OWNERS.mtree`"
    )]
    NoTarExport,

    #[error("HOME is not set to an absolute path: set it to the directory to install into")]
    NoHome,

    #[error(
        "{path}: cannot be written into settings, whose lines are UTF-8 without newlines: move \
         the program elsewhere"
    )]
    PathInSettings { path: PathBuf },

    #[error("`systemctl --user {command}`: {reason}; the rest is done")]
    Systemctl { command: String, reason: String },

    #[error("{count} of these files were left alone, as reported above; the rest is done")]
    LeftAlone { count: usize },

    #[error(
        "{path}: line {number} is not one that `fakeroot -s` saves: {reason}; give -i the right \
         file"
    )]
    NotSaved {
        path: PathBuf,
        number: usize,
        reason: String,
    },

    #[error("{count} of the files could not be processed, as reported above; the rest is done")]
    Incomplete { count: u64 },

    #[error(
        "this kernel's seccomp notification has {size} bytes instead of 80, which subuidless does \
         not know: please report the kernel version"
    )]
    NotificationSize { size: u16 },
}

/// What an error says, without Rust's "(os error 2)".
pub(crate) fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        // Of what this program does, fork(2) and the like fail so, and say nothing else.
        Some(libc::EAGAIN) => "Resource temporarily unavailable (usually: this user's processes \
                               and threads have reached `ulimit -u`, or those of the cgroup its \
                               pids.max, systemd's TasksMax=)"
            .to_owned(),
        Some(errno) => Errno::from_raw(errno).desc().to_owned(),
        None => error.to_string(),
    }
}

impl Error {
    pub(crate) fn doing(what: &'static str, source: impl Into<io::Error>) -> Self {
        Self::Io {
            what,
            source: source.into(),
        }
    }

    pub(crate) fn at(path: impl AsRef<Path>, source: impl Into<io::Error>) -> Self {
        Self::File {
            path: path.as_ref().to_owned(),
            source: source.into(),
        }
    }
}

/// Turns the kernel's error into one of ours.
pub(crate) trait Context<T> {
    /// Names what was being done: "writing the owners".
    fn doing(self, what: &'static str) -> Result<T, Error>;

    /// Names the file.
    fn at(self, path: impl AsRef<Path>) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn doing(self, what: &'static str) -> Result<T, Error> {
        self.map_err(|source| Error::doing(what, source))
    }

    fn at(self, path: impl AsRef<Path>) -> Result<T, Error> {
        self.map_err(|source| Error::at(path, source))
    }
}

/// Debian's name for what a program is in.
fn package(program: &str) -> &str {
    match program {
        "pasta" => "passt",
        program => program,
    }
}
