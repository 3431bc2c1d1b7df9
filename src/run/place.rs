//! Where what belongs to a running container lies, each in a directory for its kind (see
//! `crate::wire::rundir`), where it bears the container's name: a directory with its bundle and its
//! runtime's state, the socket of its supervisor, and a lock.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error};
use crate::front::{self, FirstProcess};
use crate::wire::rundir::{self, CONTAINERS, LOCKS, SOCKETS};

/// What is written down about a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    pub(crate) runtime: PathBuf,
    pub(crate) command: Vec<String>,
    /// Where its root file system lies.
    pub(crate) rootfs: PathBuf,
    /// Seconds since 1970.
    pub(crate) started: u64,
    /// In the foreground: it ends with the process that was called.
    pub(crate) foreground: bool,
}

/// One container's directory.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) directory: PathBuf,
}

impl Place {
    /// Of a container with this name, whether there is one or not.
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

    /// What bears the name in the directory of another kind.
    fn beside(&self, kind: &str) -> PathBuf {
        let containers = self.directory.parent();
        let room = containers.and_then(Path::parent).unwrap_or(Path::new("/"));
        room.join(kind).join(&self.name)
    }

    /// Of the container `name`, which must be running.
    pub(crate) fn find(name: &str) -> Result<(Self, About), Error> {
        let place = Self::of(name)?;
        let about = place.about().filter(|_| place.is_taken());
        let unknown = || Error::NoContainer {
            name: name.to_owned(),
            known: list()
                .into_iter()
                .map(|(place, _)| place.name)
                .collect::<Vec<_>>()
                .join(", "),
        };
        about.map(|about| (place, about)).ok_or_else(unknown)
    }

    /// Takes the name for a new container; what a dead one has left under it is removed. As long as
    /// the result is held, nobody else takes or removes it.
    pub(crate) fn claim(&self) -> Result<Flock<File>, Error> {
        /// For a container that has just ended, whose supervisor tidies up.
        const PATIENCE: Duration = Duration::from_secs(1);
        let start = Instant::now();
        loop {
            let lock = self.lock_name()?;
            if !self.is_taken() {
                rundir::room_for(SOCKETS)?;
                self.remove();
                let made = DirBuilder::new().mode(0o700).create(&self.directory);
                return made.map(|()| lock).at(&self.directory);
            }
            drop(lock);
            if start.elapsed() > PATIENCE {
                return Err(Error::ContainerExists {
                    name: self.name.clone(),
                });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// To be held by who makes or removes what bears the name.
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
            // Whoever had it before may have removed the file.
            let own = lock.metadata()?;
            match fs::symlink_metadata(&path) {
                Ok(found) if (found.dev(), found.ino()) == (own.dev(), own.ino()) => {
                    return Ok(lock);
                }
                _ => {}
            }
        }
    }

    /// Removes what bears the name, and the file that is locked for that, which is `lock`'s.
    pub(crate) fn remove_all(&self, lock: Flock<File>) {
        self.remove();
        let _ = fs::remove_file(self.beside(LOCKS));
        drop(lock);
    }

    fn remove(&self) {
        // What is left over is removed when the name is taken anew.
        let _ = fs::remove_file(self.socket());
        let _ = fs::remove_dir_all(&self.directory);
    }

    /// The supervisor's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.beside(SOCKETS)
    }

    /// Where the runtime keeps its state.
    pub(crate) fn state(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// Held by the supervisor as long as it lives, and by who starts it until then.
    pub(crate) fn lock(&self) -> io::Result<Flock<File>> {
        let directory = File::open(&self.directory)?;
        // Who looks whether it is in use holds it for a moment.
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

    /// Whether anything of the container lives: without its supervisor, it may still run.
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

    /// The container's first process, while it lives.
    pub(crate) fn first_process(&self) -> Option<FirstProcess> {
        let kind = front::kind(&self.about()?.runtime);
        FirstProcess::find(&self.state(), &self.name, kind)
    }
}

/// All containers that run, by name.
pub(crate) fn list() -> Vec<(Place, About)> {
    let names = rundir::room_for(CONTAINERS).map(|directory| names_in(&directory));
    let names = names.into_iter().flatten();
    let mut found: Vec<_> = names
        .filter_map(|name| Place::of(&name).ok())
        .filter(Place::is_taken)
        .filter_map(|place| Some((place.clone(), place.about()?)))
        .collect();
    found.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    found
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect()
}

/// Removes what is left of containers that nobody could tidy up after: those whose supervisor was
/// killed.
pub(crate) fn tidy_up() {
    let mut names: Vec<String> = [CONTAINERS, SOCKETS, LOCKS]
        .into_iter()
        .filter_map(|kind| rundir::room_for(kind).ok())
        .flat_map(|directory| names_in(&directory))
        .collect();
    names.sort();
    names.dedup();
    for place in names.iter().filter_map(|name| Place::of(name).ok()) {
        // Who holds the name is making or removing the container at this moment.
        if let Ok(name) = place.lock_name_as(FlockArg::LockExclusiveNonblock)
            && !place.is_taken()
        {
            place.remove_all(name);
        }
    }
}

/// A name that no container has.
pub(crate) fn free_name() -> String {
    format!("run-{}", std::process::id())
}

/// The container whose supervisor works in `directory`.
pub(crate) fn at(directory: &Path) -> Option<Place> {
    Some(Place {
        name: directory.file_name()?.to_str()?.to_owned(),
        directory: directory.to_owned(),
    })
}
