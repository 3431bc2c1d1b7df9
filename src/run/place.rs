//! The files of a running container: a directory with its bundle and the runtime's state, the
//! supervisor's socket, and a lock file. Each is named after the container and lies in the
//! directory for its kind (see `crate::wire::rundir`).

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::boot;
use super::output;
use super::points;
use crate::error::{Context, Error};
use crate::front::{self, FirstProcess};
use crate::linux::procfs::Stat;
use crate::wire::handover::{ProcessUser, Service};
use crate::wire::rundir::{self, CONTAINERS, LOCKS, SOCKETS};

/// Facts about a container, kept in about.json.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    /// crun or runc; `None`: a command of the host, see `plain`.
    pub(crate) runtime: Option<PathBuf>,
    pub(crate) command: Vec<String>,
    /// Path of the root file system.
    pub(crate) rootfs: PathBuf,
    /// Seconds since 1970-01-01 UTC.
    pub(crate) started: u64,
    /// Mount points, below the root file system, that are there for this container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) points: Vec<PathBuf>,
    /// Its control group, if it has one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) control_group: Option<PathBuf>,
    /// Whether the container is killed when the process that started it exits.
    pub(crate) foreground: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) plain: Option<Plain>,
}

/// How `exec` runs another command beside one of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plain {
    pub(crate) service: Service,
    /// The user of the command; `None`: root.
    pub(crate) user: Option<ProcessUser>,
}

/// The pid and the start time of the first process, of a command of the host.
const FIRST: &str = "first.json";

/// The mark of a container in which a program was executed.
const BEGUN: &str = "begun";

/// Where the first process of a command of the host is noted. It is opened before the command's
/// mount namespace hides it, or makes it read-only.
#[derive(Debug)]
pub(crate) struct First(File);

impl First {
    /// Notes this process, which /proc/self/stat was of.
    pub(crate) fn note(mut self, stat: &Stat) -> Result<(), Error> {
        let text = json!([stat.pid(), stat.start_time()]).to_string();
        self.0
            .write_all(text.as_bytes())
            .doing("noting the command's process")
    }
}

/// A container's name and directory.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) directory: PathBuf,
}

impl Place {
    /// The place of a container with this name, whether or not it exists.
    pub(crate) fn of(name: &str) -> Result<Self, Error> {
        let known = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.chars().all(known) {
            return Err(Error::ContainerName {
                name: name.to_owned(),
            });
        }
        Ok(Self {
            name: name.to_owned(),
            directory: rundir::room_for(CONTAINERS)?.join(name),
        })
    }

    /// The file of this name in the directory of another kind.
    fn beside(&self, kind: &str) -> PathBuf {
        let containers = self.directory.parent();
        let room = containers.and_then(Path::parent).unwrap_or(Path::new("/"));
        room.join(kind).join(&self.name)
    }

    /// The place of the container `name`, which must be running.
    pub(crate) fn find(name: &str) -> Result<(Self, About), Error> {
        let place = Self::of(name)?;
        let about = place.about().filter(|_| place.is_taken());
        let unknown = || Error::NoContainer {
            name: name.to_owned(),
            known: list()
                .into_iter()
                .flatten()
                .map(|(place, _)| place.name)
                .collect::<Vec<_>>()
                .join(", "),
        };
        about.map(|about| (place, about)).ok_or_else(unknown)
    }

    /// Takes the name for a new container and removes what a dead one left under it. While the lock
    /// is held, no other process takes or removes the name.
    pub(crate) fn claim(&self) -> Result<Flock<File>, Error> {
        /// A container that has just ended is being removed by its supervisor.
        const PATIENCE: Duration = Duration::from_secs(1);
        let start = Instant::now();
        loop {
            let lock = self.lock_name()?;
            if !self.is_taken() {
                rundir::room_for(SOCKETS)?;
                self.remove();
                output::forget(&self.name);
                let made = DirBuilder::new().mode(0o700).create(&self.directory);
                return made.map(|()| lock).at(&self.directory);
            }
            drop(lock);
            if start.elapsed() > PATIENCE {
                let name = self.name.clone();
                return Err(match self.first_process() {
                    Some(_) => Error::ContainerExists { name },
                    None => Error::NoFirstProcess { name },
                });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Locks the name; needed to create or remove files of this name.
    pub(crate) fn lock_name(&self) -> Result<Flock<File>, Error> {
        rundir::room_for(LOCKS)?;
        self.lock_name_as(FlockArg::LockExclusive)
            .at(self.beside(LOCKS))
    }

    fn lock_name_as(&self, how: FlockArg) -> io::Result<Flock<File>> {
        let path = self.beside(LOCKS);
        loop {
            let file = rundir::open_own(&path, File::options().create(true).write(true))?;
            let lock = Flock::lock(file, how).map_err(|(_, errno)| errno)?;
            // The previous holder may have removed the file.
            let own = lock.metadata()?;
            match fs::symlink_metadata(&path) {
                Ok(found) if (found.dev(), found.ino()) == (own.dev(), own.ino()) => {
                    return Ok(lock);
                }
                _ => {}
            }
        }
    }

    /// Removes all files of this name, the lock file of `lock` last.
    pub(crate) fn remove_all(&self, lock: Flock<File>) {
        self.remove();
        let _ = fs::remove_file(self.beside(LOCKS));
        drop(lock);
    }

    fn remove(&self) {
        output::keep(&self.directory, &self.name);
        let about = self.about();
        self.remove_points(about.as_ref());
        if let Some(group) = about.and_then(|about| about.control_group) {
            boot::remove(&group);
        }
        // Leftovers are removed when the name is taken again.
        let _ = fs::remove_file(self.socket());
        let _ = fs::remove_dir_all(&self.directory);
    }

    /// Removes the mount points of a container that has ended.
    pub(super) fn remove_points(&self, about: Option<&About>) {
        if let Some(about) = about.filter(|about| !about.points.is_empty()) {
            points::remove(&about.rootfs, &about.points, &self.borrowed(&about.rootfs));
        }
    }

    /// The mount points that are there for other containers of a root file system.
    pub(crate) fn borrowed(&self, rootfs: &Path) -> Vec<PathBuf> {
        // It fails without the directory in which this container's is.
        let others = list().unwrap_or_default().into_iter();
        others
            .filter(|(place, about)| place.name != self.name && about.rootfs == rootfs)
            .flat_map(|(_, about)| about.points)
            .collect()
    }

    /// The supervisor's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.beside(SOCKETS)
    }

    /// The runtime's state directory (its --root).
    pub(crate) fn state(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// Marks the container as in use. The supervisor holds it while it lives, and the process that
    /// starts the supervisor until then.
    pub(crate) fn lock(&self) -> io::Result<Flock<File>> {
        let directory = File::open(&self.directory)?;
        // Shared, not exclusive: `is_in_use` takes the lock briefly.
        Flock::lock(directory, FlockArg::LockShared).map_err(|(_, errno)| errno.into())
    }

    fn is_in_use(&self) -> bool {
        let Ok(directory) = File::open(&self.directory) else {
            return false;
        };
        matches!(
            Flock::lock(directory, FlockArg::LockExclusiveNonblock),
            Err((_, Errno::EWOULDBLOCK))
        )
    }

    /// Whether the supervisor or the container itself is alive.
    fn is_taken(&self) -> bool {
        self.is_in_use() || self.first_process().is_some()
    }

    pub(crate) fn write_about(&self, about: &About) -> Result<(), Error> {
        let path = self.directory.join("about.json");
        let text = serde_json::to_vec_pretty(about).unwrap_or_default();
        rundir::write_own(&path, &text).map_err(|source| Error::at(path, source))
    }

    pub(crate) fn about(&self) -> Option<About> {
        let text = rundir::read_own(&self.directory.join("about.json")).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// The container's first process, if it is alive.
    pub(crate) fn first_process(&self) -> Option<FirstProcess> {
        match self.about()?.runtime {
            Some(runtime) => FirstProcess::find(&self.state(), &self.name, front::kind(&runtime)),
            None => {
                let text = rundir::read_own(&self.directory.join(FIRST)).ok()?;
                let [pid, start_time] = serde_json::from_str(&text).ok()?;
                FirstProcess::noted(u32::try_from(pid).ok()?, start_time)
            }
        }
    }

    /// Notes that a program is about to be executed in the container.
    pub(crate) fn note_begin(&self) {
        // Without it, `run` says 125 in place of an exit code of the container.
        let _ = rundir::write_own(&self.directory.join(BEGUN), b"");
    }

    /// The exit code of `run`, whose runtime had the exit code `code`: 125 if that is no program's.
    pub(crate) fn code_of(&self, code: i32) -> i32 {
        match code {
            // Of the container, or of this program.
            0 | 125..=127 => code,
            _ if self.directory.join(BEGUN).exists() => code,
            // Somebody has removed the runtime directory of a container that ran.
            _ if self.about().is_none() => code,
            _ => 125,
        }
    }

    /// The file for the first process of a command of the host, see [`First`].
    pub(crate) fn first(&self) -> Result<First, Error> {
        let path = self.directory.join(FIRST);
        let file = rundir::open_own(&path, File::options().create(true).write(true));
        file.map(First).at(&path)
    }
}

/// All running containers, sorted by name.
pub(crate) fn list() -> Result<Vec<(Place, About)>, Error> {
    let mut found: Vec<_> = names_in(&rundir::room_for(CONTAINERS)?)
        .into_iter()
        .filter_map(|name| Place::of(&name).ok())
        .filter(Place::is_taken)
        .filter_map(|place| Some((place.clone(), place.about()?)))
        .collect();
    found.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    Ok(found)
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect()
}

/// Removes the files of dead containers whose supervisor was killed.
pub(crate) fn tidy_up() {
    let mut names: Vec<String> = [CONTAINERS, SOCKETS, LOCKS]
        .into_iter()
        .filter_map(|kind| rundir::room_for(kind).ok())
        .flat_map(|directory| names_in(&directory))
        .collect();
    names.sort();
    names.dedup();
    for place in names.iter().filter_map(|name| Place::of(name).ok()) {
        // A name that is locked is being created or removed at this moment.
        if let Ok(name) = place.lock_name_as(FlockArg::LockExclusiveNonblock)
            && !place.is_taken()
        {
            place.remove_all(name);
        }
    }
}

/// Seconds since 1970-01-01 UTC.
pub(crate) fn seconds_now() -> u64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since_1970.map_or(0, |time| time.as_secs())
}

/// The default name.
pub(crate) fn free_name() -> String {
    format!("run-{}", std::process::id())
}

/// The place whose directory is `directory`.
pub(crate) fn at(directory: &Path) -> Option<Place> {
    Some(Place {
        name: directory.file_name()?.to_str()?.to_owned(),
        directory: directory.to_owned(),
    })
}
