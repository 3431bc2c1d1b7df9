//! The runtime front, `subuidless-crun`: the program that podman and others call instead of crun or
//! runc.
//!
//! If the runtime will start a process in a container, the front finds or starts a daemon, adds the
//! seccomp rules to the JSON that the runtime will read, and announces the process's user to the
//! daemon. Then it executes the runtime in the same process, with the same arguments. All other
//! subcommands are passed on unchanged, and so is everything below `subuidless run`, which is
//! emulated already.

mod arguments;
pub(crate) mod bundle;
mod complaint;
mod daemon;
mod find;
pub(crate) mod library;
mod outer;
mod preload;
mod state;
mod user;

pub(crate) use daemon::announce;
pub(crate) use find::kind;
pub(crate) use outer::{emulates, emulates_namespaces};
pub(crate) use state::FirstProcess;

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{FcntlArg, fcntl};
use serde_json::{Map, Value};

use crate::error::{Context, Error};
use crate::linux::limits::{self, Loss};
use crate::linux::memfd;
use crate::linux::sys;
use crate::linux::userns::IdMaps;
use crate::syscalls::Scope;
use crate::syscalls::profile::{self, Runtime};
use crate::wire::fast::FastPath;
use crate::wire::handover::{Announcement, NextUser};
use crate::wire::permissions::Permissions;
use arguments::{CommandLine, Task};
use state::State;

/// The environment variable with the pid of a front that executes a runtime. A runtime that finds
/// its own pid there is the front again.
const BECOMES_RUNTIME: &str = "SUBUIDLESS_BECOMES_RUNTIME";

/// The arguments of the front.
#[derive(Debug)]
pub(crate) struct Options {
    /// The program's name as called, which selects the runtime.
    pub(crate) name: OsString,
    /// The runtime, if it was given.
    pub(crate) runtime: Option<PathBuf>,
    /// The daemon's socket, if it was given.
    pub(crate) socket: Option<PathBuf>,
    /// The runtime's arguments.
    pub(crate) arguments: Vec<OsString>,
    /// Without the preloaded library, whatever the environments say.
    pub(crate) no_fast: bool,
    /// Which permissions are checked, whatever config.json says.
    pub(crate) permissions: Option<Permissions>,
}

/// What the caller has chosen for a new container.
struct Choices {
    socket: Option<PathBuf>,
    no_fast: bool,
    permissions: Option<Permissions>,
}

/// Whether a program of this name is the runtime front.
pub(crate) fn is_front(name: &OsStr) -> bool {
    matches!(
        name.as_encoded_bytes(),
        b"subuidless-crun" | b"subuidless-runc" | b"crun" | b"runc"
    )
}

/// Executes the runtime. Returns only on failure; the error is in the runtime's log, too.
pub(crate) fn run(options: Options) -> Error {
    let line = CommandLine::parse(options.arguments);
    let log = line.global("log").map(PathBuf::from);
    let as_json = line.global("log-format") == Some(OsStr::new("json"));
    let choices = Choices {
        socket: options.socket,
        no_fast: options.no_fast,
        permissions: options.permissions,
    };
    let prepared = prepare(line, &options.name, options.runtime, choices);
    let error = match prepared {
        Ok((runtime, arguments)) => {
            let source = Command::new(&runtime)
                .args(arguments)
                .env(BECOMES_RUNTIME, std::process::id().to_string())
                .exec();
            Error::at(runtime, source)
        }
        Err(error) => error,
    };
    if let Some(log) = log {
        complaint::write(&log, as_json, &error);
    }
    error
}

/// The path of the runtime, and its arguments.
fn prepare(
    line: CommandLine,
    name: &OsStr,
    runtime: Option<PathBuf>,
    choices: Choices,
) -> Result<(PathBuf, Vec<OsString>), Error> {
    let runtime = match runtime {
        Some(runtime) => find::named(&runtime)?,
        None => find::find(find::names(name))?,
    };
    // This process was the front already: the runtime found was a copy of this program, or a script
    // that calls it.
    if std::env::var(BECOMES_RUNTIME).is_ok_and(|pid| pid == std::process::id().to_string()) {
        return Err(Error::RuntimeIsFront {
            name: name.to_owned(),
        });
    }
    let kind = find::kind(&runtime);
    let arguments = match (line.task, line.id().map(OsStr::to_owned)) {
        // Without an id, the runtime reports the error.
        (Task::Other, _) | (_, None) => line.words().to_vec(),
        _ if outer::emulates()? => line.words().to_vec(),
        (Task::Create, Some(id)) => create(line, &id, kind, choices)?,
        (Task::Exec, Some(id)) => exec(line, &id, kind)?,
    };
    Ok((runtime, arguments))
}

/// `create` and `run`: adds the rules to config.json and announces the user.
fn create(
    line: CommandLine,
    id: &OsStr,
    kind: Runtime,
    choices: Choices,
) -> Result<Vec<OsString>, Error> {
    let bundle = PathBuf::from(line.own("bundle").unwrap_or(OsStr::new(".")));
    let path = match line.own("config") {
        // Relative to the working directory, not to the bundle.
        Some(path) if path != "config.json" => PathBuf::from(path),
        _ => bundle.join("config.json"),
    };
    let mut config = bundle::read_object(&path).map_err(hint)?;
    let mapped = user::maps_of_config(&config);
    if mapped.are_all() && nix::unistd::Uid::effective().is_root() {
        // A container of real root: the kernel knows all ids.
        return Ok(line.words().to_vec());
    }
    limits::require(&[Loss::All, Loss::Ids], &mut |_| {})?;
    drop_lock_limit(&mut config);
    let next = user::take_and_note(&mut config, &mapped);
    let rootfs = bundle.join(bundle::rootfs(&config));
    let process = config.get_mut("process").and_then(Value::as_object_mut);
    if let Some(process) = process {
        user::add_home(process, &rootfs, &next, kind);
    }
    let mut announcement = announcement(id, next);
    announcement.service.permissions = bundle::permissions(&path, &config, choices.permissions)?;
    announcement.service.fast = match choices.no_fast {
        true => {
            preload::remove_from(&mut config);
            FastPath::TurnedOff
        }
        false => preload::add_to(&mut config, &rootfs, || library::place_beside(&bundle)),
    };
    let scope = Scope {
        is_fast: announcement.service.fast.is_on(),
        permissions: announcement.service.permissions,
    };
    let socket = daemon::announce(choices.socket, &announcement)?;
    let options = bundle::ProfileOptions {
        base: None,
        runtime: kind,
        listener_path: Some(utf8(&socket)?),
        is_denied: deny_unnamed(scope.is_fast),
        scope,
    };
    bundle::weave_into(&mut config, &path, options)?;
    hand_over(line, kind, path, &config)
}

/// Removes RLIMIT_LOCKS, which has no effect in the kernel: a low hard limit would leave no room
/// for cookies (see `crate::identity`).
fn drop_lock_limit(config: &mut Map<String, Value>) {
    let limits = config
        .get_mut("process")
        .and_then(|process| process.get_mut("rlimits")?.as_array_mut());
    if let Some(limits) = limits {
        limits.retain(|limit| limit["type"] != "RLIMIT_LOCKS");
    }
}

/// Denies the runtime, and so the container, the calls whose names libseccomp does not know: no
/// profile can name them. seccomp(2) requires CAP_SYS_ADMIN or no_new_privs. Returns `false`
/// without them, as in a process whose runtime has yet to create the user namespace.
fn deny_unnamed(is_fast: bool) -> bool {
    profile::denial(is_fast).is_none_or(|filter| sys::seccomp_restrict(&filter).is_ok())
}

/// Passes the changed config.json to the runtime. Returns the runtime's arguments.
fn hand_over(
    mut line: CommandLine,
    kind: Runtime,
    path: PathBuf,
    config: &Map<String, Value>,
) -> Result<Vec<OsString>, Error> {
    if kind == Runtime::Runc {
        // runc reads only the one in the bundle. If it is a symbolic link, its target is replaced.
        let path = std::fs::canonicalize(&path).unwrap_or(path);
        bundle::replace(&path, config)?;
        return Ok(line.words().to_vec());
    }
    let file = passed_on(config)?;
    Ok(match line.own("config") {
        Some(_) => {
            line.set("config", &file);
            line.words().to_vec()
        }
        None => line.into_words("", &["--config".into(), file]),
    })
}

/// Adds the way out to the error of a missing config.json.
fn hint(error: Error) -> Error {
    match error {
        Error::File { path, source } if source.kind() == ErrorKind::NotFound => Error::File {
            path,
            source: std::io::Error::new(
                ErrorKind::NotFound,
                "not found: a bundle is a directory with a config.json; name it with --bundle",
            ),
        },
        error => error,
    }
}

fn announcement(id: &OsStr, next: NextUser) -> Announcement {
    Announcement::new(id.to_string_lossy().into_owned(), next)
}

/// The announcement of an `exec`, and the socket of the container's daemon.
fn announcement_to(state: State, id: &OsStr, next: NextUser) -> (PathBuf, Announcement) {
    let mut announcement = announcement(id, next);
    announcement.bundle = state.bundle;
    if state.library.is_some() {
        announcement.service.fast = FastPath::On;
    }
    (state.listener, announcement)
}

/// `exec`: announces the user of the new process.
fn exec(line: CommandLine, id: &OsStr, kind: Runtime) -> Result<Vec<OsString>, Error> {
    let Some(state) = State::find(id, line.global("root"), kind) else {
        return Ok(line.words().to_vec());
    };
    deny_unnamed(state.library.is_some());
    let mapped =
        IdMaps::of(format_args!("/proc/{}", state.pid())).unwrap_or_else(|_| user::own_maps());
    match line.own("process").map(PathBuf::from) {
        Some(path) => exec_file(line, id, kind, state, &mapped, &path),
        None => exec_words(line, id, state, &mapped),
    }
}

/// `exec --process FILE`.
fn exec_file(
    mut line: CommandLine,
    id: &OsStr,
    kind: Runtime,
    state: State,
    mapped: &IdMaps,
    path: &Path,
) -> Result<Vec<OsString>, Error> {
    let mut process = bundle::read_object(path)?;
    let next = user::take(&mut process, mapped);
    let is_changed = next != NextUser::AsIs || state.library.is_some();
    let rootfs = PathBuf::from(format!("/proc/{}/root", state.pid()));
    if let Some(library) = &state.library {
        preload::add_to_process(&mut process, &rootfs, library);
    }
    if next != NextUser::AsIs {
        user::add_home(&mut process, &rootfs, &next, kind);
    }
    if is_changed {
        line.set("process", &passed_on(&process)?);
    }
    let (socket, announcement) = announcement_to(state, id, next);
    daemon::announce(Some(socket), &announcement)?;
    Ok(line.words().to_vec())
}

/// `exec` with the program on the command line.
fn exec_words(
    mut line: CommandLine,
    id: &OsStr,
    state: State,
    mapped: &IdMaps,
) -> Result<Vec<OsString>, Error> {
    let gids = line.all("additional-gids");
    let gids = gids
        .filter_map(|gid| gid.to_str()?.parse().ok())
        .collect::<Vec<u32>>();
    let next = match line.own("user").map(OsStr::to_owned) {
        None => state.user.clone().map_or(NextUser::AsIs, NextUser::User),
        Some(option) => match user::of_option(&option, gids, mapped) {
            Some((next, instead)) => {
                line.set("user", OsStr::new(&instead));
                next
            }
            // The runtime reports the error.
            None => return Ok(line.words().to_vec()),
        },
    };
    let is_as_is = next == NextUser::AsIs;
    let (socket, announcement) = announcement_to(state, id, next);
    daemon::announce(Some(socket), &announcement)?;
    Ok(match is_as_is {
        true => line.words().to_vec(),
        false => line.into_words("additional-gids", &[]),
    })
}

/// The runtime that was given, or the one that is installed, and its kind.
pub(crate) fn find_runtime(asked: Option<&Path>) -> Result<(PathBuf, Runtime), Error> {
    let path = match asked {
        Some(runtime) => find::named(runtime)?,
        None => find::find(find::names(OsStr::new("crun")))?,
    };
    let kind = find::kind(&path);
    Ok((path, kind))
}

fn utf8(path: &Path) -> Result<&str, Error> {
    path.to_str().ok_or_else(|| {
        Error::at(
            path,
            std::io::Error::other("the path of the daemon's socket must be UTF-8, for JSON"),
        )
    })
}

/// A path, through a file descriptor of this process, of a memfd with `json`: only the runtime can
/// read it, and the user's file is not changed.
pub(crate) fn passed_on(json: &Map<String, Value>) -> Result<OsString, Error> {
    /// Above the file descriptors that `--preserve-fds` and LISTEN_FDS pass on to the container.
    const ABOVE_THOSE_OF_OTHERS: i32 = 512;
    const WHAT: &str = "passing the changed JSON on to the runtime";
    let bytes = serde_json::to_vec(json).doing(WHAT)?;
    let memfd = memfd::with_contents(c"subuidless-json", &bytes).doing(WHAT)?;
    let number = [ABOVE_THOSE_OF_OTHERS, 64, 3]
        .into_iter()
        .find_map(|least| fcntl(&memfd, FcntlArg::F_DUPFD(least)).ok())
        .ok_or_else(|| Error::doing(WHAT, nix::errno::Errno::EMFILE))?;
    Ok(format!("/proc/self/fd/{number}").into())
}
