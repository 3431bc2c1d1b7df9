//! The preloaded library (the crate `subuidless_fast`): its file, and the environment in which a
//! command of the host loads it. For containers see [`super::preload`].
//!
//! Each version of it has a directory of its own, in the runtime directory, which other users
//! cannot enter, or in a container's bundle.
//!
//! glibc's loader prints an error if it cannot load the library. The worker checks programs that
//! are executed later; the first one is checked here.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::statvfs::{FsFlags, statvfs};
use subuidless_fast::facts::LIBRARY_NAME;
use subuidless_fast::{LIBRARY, LIBRARY_HASH};

use crate::linux::elf;
use crate::linux::programs::candidates;
use crate::wire::fast::{self, FastPath, LOADED_AS};
use crate::wire::rundir;

/// The variable of ld.so(8).
pub(super) const VARIABLE: &str = "LD_PRELOAD";
/// 0 turns the fast path off: in this process's environment, in a command's or in a container's.
/// There, 1 turns it on again.
pub(super) const SWITCH: &str = "SUBUIDLESS_FAST";

/// Why there is no fast path.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Absence {
    #[error("this program was built without the library")]
    NotBuilt,
    #[error("the library cannot be put into the runtime directory: {0}")]
    Unplaced(String),
}

impl Absence {
    /// What to do about it.
    pub(crate) fn way_out(&self) -> &'static str {
        match self {
            Self::NotBuilt => {
                "it exists on x86-64 and aarch64, and needs a linker for shared libraries"
            }
            Self::Unplaced(_) => {
                "set XDG_RUNTIME_DIR to a directory of your own, of mode 0700, without spaces or \
                 colons in its path, on a file system without noexec"
            }
        }
    }
}

impl From<Absence> for FastPath {
    fn from(absence: Absence) -> Self {
        match absence {
            Absence::NotBuilt => Self::NotBuilt,
            Absence::Unplaced(_) => Self::NoPlace,
        }
    }
}

/// Makes sure that the library's file exists, and returns the path to load it by.
fn place() -> Result<PathBuf, Absence> {
    let room = rundir::room().map_err(|error| Absence::Unplaced(error.to_string()))?;
    let directory = path_in(&room)?;
    put(&directory)?;
    Ok(directory.join(LOADED_AS))
}

/// Makes sure that the library's directory exists in a bundle, and returns its path. Each container
/// has one of its own: one that has CAP_SYS_ADMIN can make its mount writable, and must not change
/// what others load.
pub(super) fn place_beside(bundle: &Path) -> Result<PathBuf, Absence> {
    let unplaced = |error| Absence::Unplaced(format!("{}: {error}", bundle.display()));
    let bundle = std::path::absolute(bundle).map_err(unplaced)?;
    Ok(bundle.join(place_in(&bundle)?))
}

/// The same, but returns the path relative to the bundle.
pub(super) fn place_in(bundle: &Path) -> Result<PathBuf, Absence> {
    if LIBRARY.is_empty() {
        return Err(Absence::NotBuilt);
    }
    let name = format!(".{}", name());
    put(&bundle.join(&name))?;
    Ok(PathBuf::from(name))
}

/// Removes libraries from a bundle: those of other versions, or all if it has no fast path.
pub(super) fn tidy(bundle: &Path, fast: FastPath) {
    let own = format!(".{}", name());
    let entries = fs::read_dir(bundle).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let is_used = fast.is_on() && name == *own;
        if name.as_bytes().starts_with(b".") && fast::is_directory(Path::new(&name)) && !is_used {
            // A directory that remains does no harm.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether [`place`] would succeed. Creates nothing.
pub(crate) fn look() -> Result<(), Absence> {
    let unplaced = |error: &dyn std::fmt::Display| Absence::Unplaced(error.to_string());
    let found = rundir::look().map_err(|error| unplaced(&error))?;
    path_in(&found.room())?;
    let directory = found.path.ancestors().find(|path| path.exists());
    refuse_noexec(directory.unwrap_or(Path::new("/"))).map_err(|error| unplaced(&error))
}

/// Whether the environment of this process turns the fast path off.
pub(crate) fn is_turned_off() -> bool {
    std::env::var_os(SWITCH).is_some_and(|value| value == "0")
}

fn path_in(room: &Path) -> Result<PathBuf, Absence> {
    if LIBRARY.is_empty() {
        return Err(Absence::NotBuilt);
    }
    let path = room.join(name());
    let has_meaning = |byte: &u8| matches!(byte, b':' | b' ' | b'$' | b'\t' | b'\n');
    match path.as_os_str().as_bytes().iter().any(has_meaning) {
        true => Err(Absence::Unplaced(format!(
            "{} has a character that means something in {VARIABLE}",
            path.display()
        ))),
        false => Ok(path),
    }
}

/// The name of the library's directory, with a hash of its bytes.
pub(super) fn name() -> String {
    format!("{LIBRARY_NAME}{LIBRARY_HASH}")
}

/// The library's file, to which [`LOADED_AS`] is a link.
const FILE: &str = "fast.so";

/// Fills the library's directory, as far as it is not there already.
fn put(directory: &Path) -> Result<(), Absence> {
    let done = put_directory(directory)
        .and_then(|()| put_file(&directory.join(FILE)))
        .and_then(|()| put_link(&directory.join(LOADED_AS)))
        .and_then(|()| refuse_noexec(directory));
    done.map_err(|error| Absence::Unplaced(format!("{}: {error}", directory.display())))
}

fn put_directory(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        // Users of a container other than its root may have other host ids.
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(0o755))?,
        Err(_) => {}
    }
    match fs::symlink_metadata(path)?.is_dir() {
        true => Ok(()),
        false => Err(io::ErrorKind::NotADirectory.into()),
    }
}

fn put_file(path: &Path) -> io::Result<()> {
    if !is_whole(path)? {
        let directory = path.parent().unwrap_or(Path::new("/"));
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(LIBRARY)?;
        file.as_file()
            .set_permissions(fs::Permissions::from_mode(0o644))?;
        // Atomic: no process loads an incomplete file.
        file.persist(path)?;
    }
    Ok(())
}

fn put_link(path: &Path) -> io::Result<()> {
    if fs::read_link(path).is_ok_and(|target| target == Path::new(FILE)) {
        return Ok(());
    }
    match symlink(FILE, path) {
        // Of two processes, one makes it.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            match fs::read_link(path)? == Path::new(FILE) {
                true => Ok(()),
                false => Err(error),
            }
        }
        made => made,
    }
}

fn refuse_noexec(path: &Path) -> io::Result<()> {
    match statvfs(path)?.flags().contains(FsFlags::ST_NOEXEC) {
        true => Err(io::Error::other("the file system is mounted noexec")),
        false => Ok(()),
    }
}

fn is_whole(path: &Path) -> io::Result<bool> {
    let mut file = match rundir::open_own(path, File::options().read(true)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file?,
    };
    let mut bytes = Vec::with_capacity(LIBRARY.len() + 1);
    file.read_to_end(&mut bytes)?;
    Ok(bytes == LIBRARY)
}

/// Adds the library to LD_PRELOAD of a command of the host, behind the command's own, if that is
/// possible. The command will be executed in `directory`.
pub(crate) fn add_to_command(command: &mut Command, directory: &Path) -> FastPath {
    if value(command, SWITCH).is_some_and(|value| value == "0") {
        return FastPath::TurnedOff;
    }
    let search_path = value(command, "PATH");
    let candidates = candidates(command.get_program().as_ref(), search_path.as_deref());
    let mut candidates = candidates.iter().map(|path| directory.join(path));
    let program = candidates.find(|candidate| candidate.is_file());
    let open = |path: &Path| File::open(path);
    if program.is_some_and(|program| is_native(&program, &open) == Some(false)) {
        return FastPath::OtherProgram;
    }
    let library = match place() {
        Ok(library) => library,
        Err(absence) => return absence.into(),
    };
    let mut list = value(command, VARIABLE).unwrap_or_default();
    if !list.is_empty() {
        list.push(":");
    }
    list.push(library);
    command.env(VARIABLE, list);
    FastPath::On
}

/// A variable in the environment of a command.
pub(crate) fn value(command: &Command, name: &str) -> Option<OsString> {
    let set = command.get_envs().find(|(known, _)| *known == name);
    set.map_or_else(
        || std::env::var_os(name),
        |(_, value)| value.map(OsStr::to_owned),
    )
}

/// Whether a program, or the interpreter of a script, is of this architecture. `None`: its file
/// cannot be read.
pub(super) fn is_native(program: &Path, open: &dyn Fn(&Path) -> io::Result<File>) -> Option<bool> {
    /// The limit of fs/exec.c.
    const MOST_INTERPRETERS: usize = 5;
    let mut program = program.to_owned();
    for _ in 0..=MOST_INTERPRETERS {
        let mut bytes = Vec::new();
        open(&program)
            .ok()?
            .take(256)
            .read_to_end(&mut bytes)
            .ok()?;
        match elf::interpreter(&bytes) {
            Some(interpreter) => program = OsStr::from_bytes(interpreter).into(),
            None => return Some(!elf::is_foreign(&bytes)),
        }
    }
    None
}
