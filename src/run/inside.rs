//! `subuidless exec`, `ps` and `kill`, for containers started by `run`.

use std::convert::Infallible;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::Serialize;

use super::container::runtime_arguments;
use super::environment::variables;
use super::isolated;
use super::namespace;
use super::options::{ExecOptions, is_interactive};
use super::output;
use super::place::{self, About, Place};
use super::program;
use super::spec::Changes;
use super::user::{Login, Names};
use crate::error::{Context, Error};
use crate::front::bundle;
use crate::front::{self, FirstProcess};
use crate::syscalls::profile::Runtime;
use crate::wire::config;
use crate::wire::rundir;

/// Becomes the runtime. Returns only on failure.
pub(crate) fn exec(options: &ExecOptions) -> Result<Infallible, Error> {
    let (place, about) = Place::find(&options.name)?;
    let About {
        runtime: Some(runtime),
        rootfs,
        ..
    } = about
    else {
        let first = first_process(&place)?;
        return isolated::exec(options, &place, about.plain.unwrap_or_default(), &first);
    };
    let kind = front::kind(&runtime);
    let init = first_process(&place)?;
    let find = |user: &String| Login::find(user, &Names::Rootfs(&rootfs));
    let user = options.user.as_ref().map(find).transpose()?;
    let mut process = bundle::read_object(&place.directory.join("process.json"))?;
    if user.is_some() {
        // It was that of the container's user.
        config::list(&mut process, "env").retain(|variable| {
            !variable
                .as_str()
                .is_some_and(|text| text.starts_with("HOME="))
        });
    }
    let changes = Changes {
        command: config::words(&options.command)?,
        user: user.map(|login| login.to_process_user()),
        environment: variables(&options.env_file, &options.env)?,
        directory: options.cwd.clone(),
        terminal: is_interactive(),
        ..Changes::default()
    };
    changes.apply_to_process(&mut process)?;
    namespace::join(&init)?;
    let root = program::Root::new(format!("/proc/{}/root", init.pid).into());
    program::require(&root, &process)?;
    if kind == Runtime::Crun {
        namespace::unify_cgroups()?;
    }
    let mut arguments = runtime_arguments(&place, kind);
    arguments.extend(["exec".into(), "--process".into()]);
    arguments.push(front::passed_on(&process)?);
    arguments.push(place.name.clone().into());
    Err(front::run(front::Options {
        name: "subuidless".into(),
        runtime: Some(runtime),
        socket: Some(place.socket()),
        arguments,
        no_fast: false,
        permissions: None,
    }))
}

fn first_process(place: &Place) -> Result<FirstProcess, Error> {
    place.first_process().ok_or_else(|| Error::NoFirstProcess {
        name: place.name.clone(),
    })
}

/// A running container.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// Its first process; `None` while it is being created.
    pub(crate) pid: Option<u32>,
    #[serde(flatten)]
    pub(crate) about: About,
}

/// All running containers.
pub(crate) fn list() -> Result<Vec<Row>, Error> {
    let rows = place::list()?
        .into_iter()
        .map(|(place, about)| Row {
            pid: place.first_process().map(|first| first.pid),
            name: place.name,
            about,
        })
        .collect();
    Ok(rows)
}

/// Sends a signal to the first process of a container. The kernel drops signals for which it has no
/// handler, except SIGKILL and SIGSTOP.
pub(crate) fn signal(name: &str, signal: Signal) -> Result<(), Error> {
    let (place, _) = Place::find(name)?;
    let first = first_process(&place)?;
    first
        .signal(signal)
        .doing("sending a signal to the container")
}

/// Writes the output of a container to `to`, and with `follow` what comes until it ends.
pub(crate) fn logs(name: &str, follow: bool, to: &mut impl Write) -> Result<(), Error> {
    const PAUSE: Duration = Duration::from_millis(100);
    const WRITING: &str = "writing to standard output";
    let running = Place::find(name);
    let (path, place) = match &running {
        Ok((place, about)) if about.foreground || about.runtime.is_none() => {
            return Err(Error::NoOutput {
                name: place.name.clone(),
            });
        }
        Ok((place, _)) => (output::file_of(&place.directory), Some(place)),
        Err(_) => (output::file_of_ended(&Place::of(name)?.name)?, None),
    };
    // What the supervisor has not taken, or does not, because it was killed.
    let collect = || place.map(|place| output::collect(&place.directory));
    let open = |path: &Path| rundir::open_own(path, File::options().read(true));
    // It may end at this moment.
    let opened = open(&path).or_else(|error| match output::file_of_ended(name) {
        Ok(kept) => open(&kept),
        Err(_) => Err(error),
    });
    let mut file = match opened {
        Err(_) if running.is_err() => return running.map(drop),
        opened => opened.at(&path)?,
    };
    collect();
    output::skip_given_up(&mut file).at(&path)?;
    let mut bytes = [0; 1 << 16];
    loop {
        // Looked at before, so that nothing comes after the last read.
        let goes_on = follow && place.is_some() && path.exists();
        loop {
            match file.read(&mut bytes).at(&path)? {
                0 => break,
                length => to.write_all(&bytes[..length]).doing(WRITING)?,
            }
        }
        to.flush().doing(WRITING)?;
        if !goes_on {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
        collect();
    }
}
