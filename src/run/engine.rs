//! podman and buildah, and all that they start, with one supervisor.
//!
//! Both work as root of a user namespace with one mapped id: podman in one that its pause process
//! keeps, buildah in a new one each time. This process enters it before it loads the filter. So the
//! filter needs no no_new_privs, with which set-user-ID programs would gain nothing, and a variable
//! tells the engine that it is there already.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, setns};
use nix::sys::stat::fstat;
use nix::unistd::{getegid, geteuid};

use super::options::Log;
use super::supervisor::Supervisor;
use super::{command, namespace};
use crate::error::{Context, Error};
use crate::linux::{sys, userns};
use crate::syscalls::{Scope, profile};
use crate::wire::mode::SupervisorOf;
use crate::wire::permissions::Permissions;
use crate::wire::rundir;

const ISOLATION: &str = "BUILDAH_ISOLATION";

/// podman or buildah, with its arguments and settings.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) kind: Kind,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    /// Variables for it.
    pub(crate) settings: Vec<(&'static str, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Podman,
    Buildah,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Podman => "podman",
            Self::Buildah => "buildah",
        }
    }
}

impl Engine {
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        command.envs(self.settings.iter().cloned());
        command
    }

    /// Becomes the engine. Returns only on failure.
    pub(crate) fn run(&self) -> Result<Infallible, Error> {
        let mut command = self.command();
        command
            .env("_CONTAINERS_USERNS_CONFIGURED", "done")
            .env("_CONTAINERS_ROOTLESS_UID", geteuid().to_string())
            .env("_CONTAINERS_ROOTLESS_GID", getegid().to_string());
        if self.kind == Kind::Buildah && std::env::var_os(ISOLATION).is_none() {
            // Set by buildah when it enters a namespace.
            command.env(ISOLATION, "rootless");
        }
        // Before the supervisor starts: it would outlive a failure.
        let namespaces = match self.kind {
            Kind::Podman => Some(self.namespaces_of_podman()?),
            Kind::Buildah => None,
        };
        let permissions = Permissions::default();
        let filter = profile::program(Scope {
            is_fast: false,
            permissions,
        });
        let of = SupervisorOf::Engine { permissions };
        let supervisor = Supervisor::start(None, of, &Log::default())?;
        match namespaces {
            Some(namespaces) => namespaces.enter()?,
            None => userns::enter_with_mounts()?,
        }
        // podman's pause process keeps the mount for those that follow.
        namespace::unify_cgroups()?;
        supervisor.send_listener(command::load(&filter)?)?;
        Err(command::executed(command))
    }

    /// Those of the pause process, which podman starts if there is none.
    fn namespaces_of_podman(&self) -> Result<Namespaces, Error> {
        if let Some(found) = Namespaces::of_pause_process() {
            return Ok(found);
        }
        let mut command = Command::new(&self.program);
        command
            .args(["unshare", "true"])
            .envs(self.settings.iter().cloned());
        let output = command.stdin(Stdio::null()).output().at(&self.program)?;
        let said = String::from_utf8_lossy(&output.stderr);
        Namespaces::of_pause_process().ok_or_else(|| match userns::refusal() {
            Some(refusal) => refusal.into(),
            None => Error::NoPause {
                said: said.trim().to_owned(),
            },
        })
    }
}

/// A user and a mount namespace.
#[derive(Debug)]
struct Namespaces {
    user: File,
    mounts: File,
}

impl Namespaces {
    fn of_pause_process() -> Option<Self> {
        rundir::pause_files().find_map(|file| {
            let pid: u32 = fs::read_to_string(file).ok()?.trim().parse().ok()?;
            Self::of(pid).ok().flatten()
        })
    }

    /// Returns `None` unless the user namespace is one directly below this process's own: the pid
    /// may be another process's by now.
    fn of(pid: u32) -> io::Result<Option<Self>> {
        let open = |kind: &str| File::open(format!("/proc/{pid}/ns/{kind}"));
        let (user, mounts) = (open("user")?, open("mnt")?);
        let own = fs::metadata("/proc/self/ns/user")?;
        let parent = match sys::parent_namespace(user.as_fd()) {
            Ok(parent) => fstat(&parent)?,
            // EPERM: it has no parent that this process may see.
            Err(_) => return Ok(None),
        };
        let is_below = (parent.st_dev, parent.st_ino) == (own.dev(), own.ino());
        Ok(is_below.then_some(Self { user, mounts }))
    }

    fn enter(&self) -> Result<(), Error> {
        const WHAT: &str = "entering podman's user and mount namespaces";
        let directory = std::env::current_dir().doing("finding the working directory")?;
        setns(&self.user, CloneFlags::CLONE_NEWUSER).doing(WHAT)?;
        setns(&self.mounts, CloneFlags::CLONE_NEWNS).doing(WHAT)?;
        std::env::set_current_dir(&directory).at(&directory)
    }
}
