//! The internal processes of this program, which no user starts: their tasks ([`Mode`]), how they
//! are started, and how they report that they are ready.
//!
//! A mode is a command line: its name, and arguments in fixed positions. An empty argument stands
//! for an option that is not given. (A worker that parsed options would need a tenth more memory.)

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::fast::FastPath;
use super::handover::{Origin, Service};
use super::others::Others;
use super::permissions::Permissions;
use super::published::Published;
use super::word::Word;
use crate::error::Error;
use crate::linux::sys;
use crate::log::Settings;

/// The task of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Serve the listener that is sent on standard input.
    Worker(Setup),
    /// Hold the containers that the daemon sends on standard input.
    Guard(Setup),
    /// Listen for runtimes, as `subuidless serve` does.
    Daemon(Daemon),
    /// Serve a command or a container of `run`.
    Supervise(SupervisorSetup),
    /// Run the program that connects a network namespace, while that is used.
    NetworkKeeper {
        program: PathBuf,
        creator: u32,
        ports: Vec<Published>,
    },
    /// The runtime's hook: tell the keeper that listens on `socket` about the container.
    NetworkHook { socket: PathBuf },
    /// Read a database of the side store from beginning to end, within `seconds`.
    ReadStore {
        part: Part,
        seconds: u32,
        directory: PathBuf,
    },
    /// Move recent entries of the side store to disk.
    SettleStore { recent: PathBuf, lasting: PathBuf },
    /// Try what a target does, for `check`.
    CheckTarget,
    /// Try what a worker does, for `check`.
    CheckSupervisor,
    /// Be a command of `run`, for `check`.
    CheckCommand,
}

/// The setup of a worker, or of the workers that a guard starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setup {
    pub(crate) log: Settings,
    /// The directory of the recent side store; `None`: owners of special inodes are not kept.
    pub(crate) recent: Option<PathBuf>,
    /// The directory of the lasting side store; `None`: they are kept until the next boot.
    pub(crate) lasting: Option<PathBuf>,
    /// The daemon's socket, on which the next daemon will listen, too.
    pub(crate) socket: Option<PathBuf>,
}

/// A daemon in the background.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Daemon {
    pub(crate) log: Settings,
    pub(crate) socket: PathBuf,
    pub(crate) store: Option<PathBuf>,
    /// Exit after this many seconds without a container.
    pub(crate) idle: Option<u64>,
    /// Exit with the first container, and the `exec`s in it.
    pub(crate) for_one: bool,
}

/// The options of a supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SupervisorSetup {
    pub(crate) log: Settings,
    pub(crate) store: Option<PathBuf>,
    /// The pid of the caller, which becomes the command or creates the container.
    pub(crate) creator: u32,
    /// Whether the caller's standard error may be used until it exits.
    pub(crate) borrows_stderr: bool,
    pub(crate) of: SupervisorOf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SupervisorOf {
    /// The command that sends its listener on standard input.
    Command { service: Service },
    /// The user namespaces that this command creates (`--keep-id`).
    Namespaces { permissions: Permissions },
    /// podman or buildah, in a user namespace that other commands may enter, too.
    Engine { permissions: Permissions },
    /// The container with this directory.
    Container { directory: PathBuf },
}

/// One of the two databases of the side store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Recent,
    Lasting,
}

const WORKER: &str = "worker";
const GUARD: &str = "guard";
const DAEMON: &str = "daemon";
const SUPERVISE: &str = "supervise";
const NETWORK_KEEPER: &str = "network-keeper";
const NETWORK_HOOK: &str = "network-hook";
const READ_STORE: &str = "read-store";
const SETTLE_STORE: &str = "settle-store";
const CHECK_TARGET: &str = "check-target";
const CHECK_SUPERVISOR: &str = "check-supervisor";
const CHECK_COMMAND: &str = "check-command";

const YES: &str = "yes";
const RECENT: &str = "recent";
const LASTING: &str = "lasting";
const NAMESPACES: &str = "namespaces";
const ENGINE: &str = "engine";
const CONTAINER: &str = "container";

impl Mode {
    /// The command line, without `argv[0]`.
    pub(crate) fn to_words(&self) -> Vec<OsString> {
        let mut words = Words::default();
        match self {
            Self::Worker(setup) => words.text(WORKER).setup(setup),
            Self::Guard(setup) => words.text(GUARD).setup(setup),
            Self::Daemon(daemon) => words
                .text(DAEMON)
                .log(daemon.log)
                .path(&daemon.socket)
                .path_or_none(daemon.store.as_ref())
                .number_or_none(daemon.idle)
                .text(if daemon.for_one { YES } else { "" }),
            Self::Supervise(setup) => {
                let words = words
                    .text(SUPERVISE)
                    .log(setup.log)
                    .path_or_none(setup.store.as_ref())
                    .number_or_none(Some(setup.creator))
                    .text(if setup.borrows_stderr { YES } else { "" });
                match &setup.of {
                    SupervisorOf::Command { service } => words
                        .text(service.fast.word())
                        .text(service.permissions.word())
                        .text(service.others.word())
                        .text(if service.notes { YES } else { "" }),
                    SupervisorOf::Namespaces { permissions } => {
                        words.text(NAMESPACES).text(permissions.word())
                    }
                    SupervisorOf::Engine { permissions } => {
                        words.text(ENGINE).text(permissions.word())
                    }
                    SupervisorOf::Container { directory } => words.text(CONTAINER).path(directory),
                }
            }
            Self::NetworkKeeper {
                program,
                creator,
                ports,
            } => {
                let words = words.text(NETWORK_KEEPER).path(program);
                let words = words.number_or_none(Some(*creator));
                ports
                    .iter()
                    .fold(words, |words, port| words.text(port.to_string()))
            }
            Self::NetworkHook { socket } => words.text(NETWORK_HOOK).path(socket),
            Self::ReadStore {
                part,
                seconds,
                directory,
            } => words
                .text(READ_STORE)
                .text(match part {
                    Part::Recent => RECENT,
                    Part::Lasting => LASTING,
                })
                .number_or_none(Some(*seconds))
                .path(directory),
            Self::SettleStore { recent, lasting } => {
                words.text(SETTLE_STORE).path(recent).path(lasting)
            }
            Self::CheckTarget => words.text(CHECK_TARGET),
            Self::CheckSupervisor => words.text(CHECK_SUPERVISOR),
            Self::CheckCommand => words.text(CHECK_COMMAND),
        };
        words.0
    }

    /// Parses a command line. Returns `None` for that of a user.
    pub(crate) fn from_words(words: &[OsString]) -> Option<Self> {
        let (name, rest) = words.split_first()?;
        Some(match (name.to_str()?, rest) {
            (WORKER, rest) => Self::Worker(setup(rest)?),
            (GUARD, rest) => Self::Guard(setup(rest)?),
            (DAEMON, [level, format, socket, store, idle, for_one]) => Self::Daemon(Daemon {
                log: Settings::parse(level, format)?,
                socket: socket.into(),
                store: path(store),
                idle: number(idle)?,
                for_one: for_one == YES,
            }),
            (SUPERVISE, [level, format, store, creator, borrows_stderr, of @ ..]) => {
                Self::Supervise(SupervisorSetup {
                    log: Settings::parse(level, format)?,
                    store: path(store),
                    creator: number(creator)??,
                    borrows_stderr: borrows_stderr == YES,
                    of: match of {
                        [word, directory] if word == CONTAINER => SupervisorOf::Container {
                            directory: directory.into(),
                        },
                        [word, level] if word == NAMESPACES => SupervisorOf::Namespaces {
                            permissions: Permissions::from_word(level.to_str()?)?,
                        },
                        [word, level] if word == ENGINE => SupervisorOf::Engine {
                            permissions: Permissions::from_word(level.to_str()?)?,
                        },
                        [word, level, others, notes] => SupervisorOf::Command {
                            service: Service {
                                fast: FastPath::from_word(word.to_str()?)?,
                                permissions: Permissions::from_word(level.to_str()?)?,
                                origin: Origin::Host,
                                others: Others::from_word(others.to_str()?)?,
                                notes: notes == YES,
                            },
                        },
                        _ => return None,
                    },
                })
            }
            (NETWORK_KEEPER, [program, creator, ports @ ..]) => Self::NetworkKeeper {
                program: program.into(),
                creator: number(creator)??,
                ports: ports
                    .iter()
                    .map(|port| port.to_str()?.parse().ok())
                    .collect::<Option<_>>()?,
            },
            (NETWORK_HOOK, [socket]) => Self::NetworkHook {
                socket: socket.into(),
            },
            (READ_STORE, [part, seconds, directory]) => Self::ReadStore {
                part: match part.to_str()? {
                    RECENT => Part::Recent,
                    LASTING => Part::Lasting,
                    _ => return None,
                },
                seconds: number(seconds)??,
                directory: directory.into(),
            },
            (SETTLE_STORE, [recent, lasting]) => Self::SettleStore {
                recent: recent.into(),
                lasting: lasting.into(),
            },
            (CHECK_TARGET, []) => Self::CheckTarget,
            (CHECK_SUPERVISOR, []) => Self::CheckSupervisor,
            (CHECK_COMMAND, []) => Self::CheckCommand,
            _ => return None,
        })
    }

    /// The command that starts a process in this mode. ps(1) shows `title` and the arguments.
    pub(crate) fn command(&self, title: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0(title)
            .args(self.to_words())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    /// Starts an orphan (see [`sys::start_orphan`]), without the variables `without` in its
    /// environment. Returns the other end of its standard input.
    pub(crate) fn start_orphan(
        &self,
        title: impl AsRef<OsStr>,
        stderr: Stdio,
        without: &[&str],
    ) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = self.command(title);
        command.stdin(OwnedFd::from(theirs)).stderr(stderr);
        for name in without {
            command.env_remove(name);
        }
        sys::start_orphan(&mut command)?;
        Ok(ours)
    }
}

/// A builder of command lines.
#[derive(Default)]
struct Words(Vec<OsString>);

impl Words {
    fn text(&mut self, text: impl AsRef<OsStr>) -> &mut Self {
        self.0.push(text.as_ref().to_owned());
        self
    }

    fn path(&mut self, path: &PathBuf) -> &mut Self {
        self.text(path)
    }

    fn path_or_none(&mut self, path: Option<&PathBuf>) -> &mut Self {
        self.text(path.map_or(OsStr::new(""), |path| path.as_os_str()))
    }

    fn number_or_none(&mut self, number: Option<impl ToString>) -> &mut Self {
        self.text(number.map_or_else(String::new, |number| number.to_string()))
    }

    fn log(&mut self, log: Settings) -> &mut Self {
        let [level, format] = log.to_words();
        self.text(level).text(format)
    }

    fn setup(&mut self, setup: &Setup) -> &mut Self {
        self.log(setup.log)
            .path_or_none(setup.recent.as_ref())
            .path_or_none(setup.lasting.as_ref())
            .path_or_none(setup.socket.as_ref())
    }
}

fn setup(words: &[OsString]) -> Option<Setup> {
    let [level, format, recent, lasting, socket] = words else {
        return None;
    };
    Some(Setup {
        log: Settings::parse(level, format)?,
        recent: path(recent),
        lasting: path(lasting),
        socket: path(socket),
    })
}

fn path(word: &OsStr) -> Option<PathBuf> {
    (!word.is_empty()).then(|| word.into())
}

/// Parses an optional number. Returns `Some(None)` for an empty word, and `None` for other words
/// that are not numbers.
fn number<T: std::str::FromStr>(word: &OsStr) -> Option<Option<T>> {
    match word.to_str()? {
        "" => Some(None),
        text => text.parse().ok().map(Some),
    }
}

/// The message of a process, on its standard input, that it is ready.
const READY: &str = "ready\n";

/// Its message that it serves a container, and that another process would go on if it died.
const SHARED: &str = "shared\n";

/// The time limit for a process to become ready. Before it listens, a daemon lets another process
/// read the side store, which may take two minutes from a busy disk.
const PATIENCE: Duration = Duration::from_secs(150);

/// Waits until the process at the other end is ready. Fails with the reason that it reports.
pub(crate) fn wait_until_ready(process: &mut UnixStream) -> io::Result<()> {
    process.set_read_timeout(Some(PATIENCE))?;
    let mut said = String::new();
    while said != READY {
        let mut bytes = [0; 256];
        match process.read(&mut bytes) {
            Ok(0) if said.is_empty() => return Err(io::Error::other("it exited at once")),
            Ok(0) => return Err(io::Error::other(said)),
            Ok(length) => said += &String::from_utf8_lossy(&bytes[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let seconds = PATIENCE.as_secs();
                let reason = format!("it is not ready after {seconds} seconds");
                return Err(io::Error::other(reason));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether the process at the other end, of which something can be read, has shared its container.
/// Otherwise it has ended before.
pub(crate) fn has_shared(mut process: &UnixStream) -> bool {
    let mut said = [0; SHARED.len()];
    process.read_exact(&mut said).is_ok() && said == SHARED.as_bytes()
}

/// Tells the process that started this one that it is ready.
pub(crate) fn say_ready() {
    let _ = say(READY);
}

/// Tells the process that started this one that another one would serve the container, too.
pub(crate) fn say_shared() {
    say_and_shut_down(SHARED);
}

/// Tells the process that started this one why it will not be ready.
pub(crate) fn say_not_ready(reason: &Error) {
    say_and_shut_down(&reason.to_string());
}

fn say_and_shut_down(words: &str) {
    if let Ok(socket) = say(words) {
        let _ = socket.shutdown(std::net::Shutdown::Both);
    }
}

/// Writes `words` to standard input, a socket, and returns that.
fn say(words: &str) -> io::Result<UnixStream> {
    let mut socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // Fails if the process that started this one has given up.
    let _ = socket.write_all(words.as_bytes());
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each mode; of those with options, one with all and one with none.
    fn modes() -> Vec<Mode> {
        let log = Settings::default();
        let some = |path: &str| Some(PathBuf::from(path));
        let setup = Setup {
            log,
            recent: some("/run/user/1000/subuidless"),
            lasting: some("/home/a b"),
            socket: some("/run/user/1000/subuidless.sock"),
        };
        let none = Setup {
            log,
            recent: None,
            lasting: None,
            socket: None,
        };
        let supervise = |of, borrows_stderr| {
            Mode::Supervise(SupervisorSetup {
                log,
                store: some("/store"),
                creator: 5,
                borrows_stderr,
                of,
            })
        };
        let permissions = Permissions::Owner;
        let service = Service {
            fast: FastPath::On,
            permissions,
            origin: Origin::Host,
            others: Others::Root,
            notes: true,
        };
        let container = SupervisorOf::Container {
            directory: "/c".into(),
        };
        vec![
            Mode::Worker(setup.clone()),
            Mode::Guard(none),
            Mode::Daemon(Daemon {
                log,
                socket: "/s".into(),
                store: None,
                idle: Some(60),
                for_one: true,
            }),
            supervise(SupervisorOf::Command { service }, false),
            supervise(SupervisorOf::Namespaces { permissions }, true),
            supervise(container, true),
            Mode::NetworkKeeper {
                program: "/usr/bin/pasta".into(),
                creator: 9,
                ports: vec!["8080:80".parse().unwrap(), "[::1]:5:5/udp".parse().unwrap()],
            },
            Mode::NetworkHook {
                socket: "/n.sock".into(),
            },
            Mode::ReadStore {
                part: Part::Lasting,
                seconds: 20,
                directory: "/store".into(),
            },
            Mode::SettleStore {
                recent: "/r".into(),
                lasting: "/l".into(),
            },
            Mode::CheckTarget,
            Mode::CheckSupervisor,
            Mode::CheckCommand,
        ]
    }

    #[test]
    fn a_mode_is_read_from_the_words_that_it_writes_and_from_no_others() {
        for mode in modes() {
            let words = mode.to_words();
            assert_eq!(Mode::from_words(&words), Some(mode));
            let more = [words.as_slice(), &["x".into(), "y".into(), "z".into()]].concat();
            assert_eq!(Mode::from_words(&more), None);
        }
        for users in [&["serve"][..], &["worker"], &["run", "--", "true"], &[]] {
            let words: Vec<OsString> = users.iter().map(OsString::from).collect();
            assert_eq!(Mode::from_words(&words), None);
        }
    }

    #[test]
    fn whoever_starts_a_process_hears_that_it_is_ready_or_why_not() {
        for (said, expected) in [
            ("ready\n", Ok(())),
            ("", Err("it exited at once".to_owned())),
            ("no room", Err("no room".to_owned())),
        ] {
            let (mut ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.write_all(said.as_bytes()).unwrap();
            drop(theirs);
            let heard = wait_until_ready(&mut ours).map_err(|error| error.to_string());
            assert_eq!(heard, expected);
        }
    }
}
