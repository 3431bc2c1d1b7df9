//! Where what belongs to a running container lies: `$XDG_RUNTIME_DIR/subuidless/NAME`, with its bundle and its runtime's state,
//! and beside it the socket of its supervisor, `NAME.sock`.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::procfs::Status;
use crate::profile::Runtime;
use crate::runtime;

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
            directory: all()?.join(name),
        })
    }

    /// Of the container `name`, which must be running.
    pub(crate) fn find(name: &str) -> Result<(Self, About), Error> {
        let place = Self::of(name)?;
        let about = place.about().filter(|_| place.is_in_use());
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

    /// Takes the name for a new container; what a dead one has left under it is removed. As long as the result is held, nobody
    /// else takes or removes it.
    pub(crate) fn claim(&self) -> Result<Flock<File>, Error> {
        /// For a container that has just ended, whose supervisor tidies up.
        const PATIENCE: Duration = Duration::from_secs(1);
        let failed = |source| Error::File {
            path: self.directory.clone(),
            source,
        };
        let start = Instant::now();
        loop {
            let lock = self.lock_name().map_err(failed)?;
            if !self.is_in_use() {
                self.remove();
                let made = DirBuilder::new().mode(0o700).create(&self.directory);
                return made.map(|()| lock).map_err(failed);
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
    pub(crate) fn lock_name(&self) -> io::Result<Flock<File>> {
        let path = self
            .directory
            .with_file_name(format!(".{}.lock", self.name));
        loop {
            let file = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)?;
            let lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
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
        let _ = fs::remove_file(
            self.directory
                .with_file_name(format!(".{}.lock", self.name)),
        );
        drop(lock);
    }

    fn remove(&self) {
        // What is left over is removed when the name is taken anew.
        let _ = fs::remove_file(self.socket());
        let _ = fs::remove_dir_all(&self.directory);
    }

    /// The supervisor's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.with_file_name(format!("{}.sock", self.name))
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

    pub(crate) fn write_about(&self, about: &About) -> Result<(), Error> {
        let path = self.directory.join("about.json");
        let text = serde_json::to_vec_pretty(about).unwrap_or_default();
        fs::write(&path, text).map_err(|source| Error::File { path, source })
    }

    pub(crate) fn about(&self) -> Option<About> {
        let text = fs::read(self.directory.join("about.json")).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// The container's first process, while it lives.
    pub(crate) fn init(&self, runtime: Runtime) -> Option<u32> {
        let pid = runtime::init_in(&self.state(), &self.name, runtime)?;
        // The number may be somebody else's by now: a container's first process is the first of its pid namespace.
        let process = File::open(format!("/proc/{pid}")).ok()?;
        let status = Status::in_directory(&process).ok()?;
        (status.own_tgid() == Some(1) && status.tgid() == Some(pid)).then_some(pid)
    }
}

/// All containers that run, by name.
pub(crate) fn list() -> Vec<(Place, About)> {
    let entries = all().and_then(|directory| {
        fs::read_dir(&directory).map_err(|source| Error::File {
            path: directory,
            source,
        })
    });
    let names = entries
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut found: Vec<_> = names
        .filter_map(|name| Place::of(&name).ok())
        .filter(Place::is_in_use)
        .filter_map(|place| Some((place.clone(), place.about()?)))
        .collect();
    found.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    found
}

/// The directory of all containers.
fn all() -> Result<PathBuf, Error> {
    let directory = runtime::directory()?.join("subuidless");
    match DirBuilder::new().mode(0o700).create(&directory) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => Err(Error::File {
            path: directory,
            source,
        }),
        _ => Ok(directory),
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
