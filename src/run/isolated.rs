//! `subuidless run` with namespaces, or a name, but without a container.
//!
//! As for a container there is a place, and a supervisor that listens on a socket in it, so that
//! `ps`, `kill` and `exec` find the command. Otherwise this is as without namespaces (see
//! [`super::command`]): this process becomes the command, or with `--pid` waits for it.

use std::convert::{self, Infallible};
use std::path::PathBuf;

use super::command::HostCommand;
use super::container::start_keeper;
use super::family::{self, Half, Reaper};
use super::mounts;
use super::namespace;
use super::network::{Connection, Network};
use super::options::{ExecOptions, Options};
use super::place::{self, About, First, Place, Plain, free_name, seconds_now};
use super::supervisor::{self, BEGINS, JOINS, Supervisor};
use super::user::{Login, Names};
use crate::error::{Context, Error};
use crate::front::FirstProcess;
use crate::linux::procfs::Stat;

/// Becomes the command, or the process that waits for it. Returns only on failure.
pub(super) fn run(options: &Options) -> Result<Infallible, Error> {
    let command = HostCommand::new(options)?;
    let isolation = &options.isolation;
    let place = Place::of(&isolation.name.clone().unwrap_or_else(free_name))?;
    place::tidy_up();
    let claimed = place.claim()?;
    let outside = match Outside::start(options, &place, &command) {
        Ok(outside) => outside,
        Err(error) => {
            place.remove_all(claimed);
            return Err(error);
        }
    };
    drop(claimed);
    // From here on, the supervisor removes the files once this process has ended.
    let directory = std::env::current_dir();
    namespace::enter(isolation)?;
    if let Some(keeper) = outside.keeper {
        keeper.join([std::process::id(), outside.supervisor.pid()?])?;
    }
    mounts::make(isolation, &place)?;
    if let Ok(directory) = directory {
        // Its path may lead into a new mount. If it leads nowhere now, the directory stays.
        let _ = std::env::set_current_dir(directory);
    }
    if !isolation.pid {
        outside.first.note(&own_stat()?)?;
        return command.begin(outside.supervisor);
    }
    let reaper = Reaper::start()?;
    match family::split()? {
        Half::Waits(command) => {
            drop(outside.supervisor);
            command.wait(Some(reaper), convert::identity)
        }
        Half::Command => {
            // The host's procfs, in which this process has the pid that others know.
            let stat = own_stat()?;
            mounts::make_procfs()?;
            outside.first.note(&stat)?;
            command.begin(outside.supervisor)
        }
    }
}

fn own_stat() -> Result<Stat, Error> {
    const SELF: &str = "/proc/self";
    Stat::of(SELF).at(SELF)
}

/// What is outside of the namespaces that this process is about to enter.
struct Outside {
    supervisor: Supervisor,
    keeper: Option<Connection>,
    first: First,
}

impl Outside {
    fn start(options: &Options, place: &Place, command: &HostCommand) -> Result<Self, Error> {
        place.write_about(&About {
            runtime: None,
            command: options
                .command()
                .iter()
                .map(|word| word.to_string_lossy().into_owned())
                .collect(),
            rootfs: PathBuf::from("/"),
            points: Vec::new(),
            started: seconds_now(),
            control_group: None,
            // What the command leaves behind may go on, as without namespaces.
            foreground: false,
            plain: Some(Plain {
                service: command.service,
                user: command.login.as_ref().map(Login::to_process_user),
            }),
        })?;
        // Held until the supervisor has taken it, too.
        let _lock = place.lock().at(&place.directory)?;
        supervisor::start_for(place, options.store.as_deref(), &options.log)?;
        start_keeper(&options.isolation, place)?;
        let program = options.isolation.net.and_then(Network::program);
        Ok(Self {
            supervisor: Supervisor::at(place, command.service, BEGINS)?,
            keeper: program
                .map(|program| Connection::to_keeper(program, &place.directory))
                .transpose()?,
            first: place.first()?,
        })
    }
}

/// `exec`: becomes a command beside the process `first`, or waits for it. Returns only on failure.
pub(super) fn exec(
    options: &ExecOptions,
    place: &Place,
    plain: Plain,
    first: &FirstProcess,
) -> Result<Infallible, Error> {
    let login = match &options.user {
        Some(user) => Some(Login::find(user, &Names::Host)?),
        None => plain.user.map(Login::of),
    };
    let mut command = HostCommand::beside(options, login, plain.service)?;
    if command.directory.is_none() {
        // setns(2) moves this process to the root directory.
        command.directory = std::env::current_dir().ok();
    }
    let supervisor = Supervisor::at(place, plain.service, JOINS)?;
    match namespace::join_all(first)? {
        false => command.begin(supervisor),
        true => match family::split()? {
            Half::Command => command.begin(supervisor),
            Half::Waits(command) => {
                drop(supervisor);
                command.wait(None, convert::identity)
            }
        },
    }
}
