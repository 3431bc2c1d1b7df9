//! The runtime directory: has the sockets, locks and logs of one user's processes, the files of
//! running containers, and the recent part of the side store. Only this module reads
//! XDG_RUNTIME_DIR.
//!
//! The invariant: only this user can create, rename or replace a name in it. So a listener that is
//! sent to a socket there reaches a process of this user. The runtime directory is the first of
//! these that satisfies the invariant: `$XDG_RUNTIME_DIR`, `/run/user/UID`, `/tmp/subuidless-UID`.
//! The last one is created if it is missing.

use std::env;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, Uid, access};

use crate::error::Error;
use crate::linux::userns::IdMaps;

/// The default control socket.
const CONTROL_SOCKET: &str = "subuidless.sock";
/// The directory for everything else.
const ROOM: &str = "subuidless";
const VARIABLE: &str = "XDG_RUNTIME_DIR";

/// Has the socket of the supervisor of each running container, with the container's name.
pub(crate) const SOCKETS: &str = "sock";
/// Has a directory for each running container, with its bundle and its runtime's state.
pub(crate) const CONTAINERS: &str = "run";
/// Has a directory for each user namespace that supervisors of `run --keep-id` serve.
pub(crate) const NAMESPACES: &str = "namespaces";
/// Has the output of containers of `run --detach` that have ended.
pub(crate) const LOGS: &str = "logs";
/// Has a lock file for each container, locked while the other two are created or removed.
pub(crate) const LOCKS: &str = "lock";

/// The runtime directory, and the reasons why the candidates before it are not used.
#[derive(Debug)]
pub(crate) struct RuntimeDirectory {
    pub(crate) path: PathBuf,
    pub(crate) passed_over: Vec<String>,
    /// It is in /tmp, which may be on a disk, and not that of a login session.
    is_makeshift: bool,
}

/// Finds the runtime directory, or creates the one in /tmp.
pub(crate) fn find() -> Result<RuntimeDirectory, Error> {
    search(&|path| own(path).map(drop))
}

/// As [`find`], but creates nothing: the one in /tmp may not exist yet.
pub(crate) fn look() -> Result<RuntimeDirectory, Error> {
    search(&|path| match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = path.parent().unwrap_or(path);
            Ok(access(parent, AccessFlags::W_OK | AccessFlags::X_OK)?)
        }
        _ => own(path).map(drop),
    })
}

fn search(take_makeshift: &dyn Fn(&Path) -> io::Result<()>) -> Result<RuntimeDirectory, Error> {
    let mut passed_over = Vec::new();
    match env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
        None => passed_over.push(format!("{VARIABLE} is not set")),
        Some(value) => {
            let path = PathBuf::from(value);
            match examine(&path) {
                Ok(()) => return Ok(RuntimeDirectory::new(path, passed_over, false)),
                Err(error) => {
                    passed_over.push(format!("{VARIABLE} is {}: {error}", path.display()));
                }
            }
        }
    }
    let login = PathBuf::from(format!("/run/user/{}", host_uid()));
    match examine(&login) {
        Ok(()) => return Ok(RuntimeDirectory::new(login, passed_over, false)),
        Err(error) => passed_over.push(format!("{}: {error}", login.display())),
    }
    let makeshift = PathBuf::from(format!("/tmp/subuidless-{}", host_uid()));
    match take_makeshift(&makeshift).and_then(|()| refuse_replaceable(&makeshift)) {
        Ok(()) => Ok(RuntimeDirectory::new(makeshift, passed_over, true)),
        Err(error) => {
            passed_over.push(format!("{}: {error}", makeshift.display()));
            Err(Error::NoRuntimeDirectory {
                reasons: passed_over.join("; "),
            })
        }
    }
}

impl RuntimeDirectory {
    fn new(path: PathBuf, passed_over: Vec<String>, is_makeshift: bool) -> Self {
        Self {
            path,
            passed_over,
            is_makeshift,
        }
    }

    pub(crate) fn control_socket(&self) -> PathBuf {
        self.path.join(CONTROL_SOCKET)
    }

    pub(crate) fn room(&self) -> PathBuf {
        self.path.join(ROOM)
    }
}

/// The path of the default control socket.
pub(crate) fn control_socket() -> Result<PathBuf, Error> {
    Ok(find()?.control_socket())
}

/// The directory in the runtime directory for everything but the control socket, created if it is
/// missing.
pub(crate) fn room() -> Result<PathBuf, Error> {
    made(find()?.room())
}

/// The directory `name` in [`room`], created if it is missing. Container names, which users choose,
/// are in such directories, so that they cannot collide with our names.
pub(crate) fn room_for(name: &str) -> Result<PathBuf, Error> {
    made(room()?.join(name))
}

fn made(directory: PathBuf) -> Result<PathBuf, Error> {
    match own(&directory) {
        Ok(_) => Ok(directory),
        Err(source) => Err(Error::at(directory, source)),
    }
}

/// The possible directories for recent parts of side stores, in order of preference. All of them
/// are in memory and gone after a reboot, as a store without fsync must be.
pub(crate) fn recent_stores() -> impl Iterator<Item = PathBuf> {
    let runtime = find().ok().filter(|found| !found.is_makeshift);
    let shared = || PathBuf::from(format!("/dev/shm/subuidless-recent-{}", host_uid()));
    runtime
        .map(|found| found.path.join("subuidless-recent"))
        .into_iter()
        .chain(std::iter::once_with(shared))
}

/// The directories in which crun and runc keep their state by default, in their order. Those of
/// other users are left out; the runtimes would accept them.
pub(crate) fn states_of(runtime: &str) -> Vec<PathBuf> {
    let login = env::var_os(VARIABLE).map(PathBuf::from);
    let mut found: Vec<PathBuf> = login.into_iter().chain([PathBuf::from("/run")]).collect();
    for directory in &mut found {
        directory.push(runtime);
    }
    found.retain(|directory| examine(directory).is_ok());
    found
}

/// The files in which podman may keep the pid of its pause process, in the order in which it looks
/// for a directory.
pub(crate) fn pause_files() -> impl Iterator<Item = PathBuf> {
    let given = env::var_os(VARIABLE).map(PathBuf::from);
    let others = [
        format!("/run/user/{}", host_uid()),
        format!("/tmp/podman-run-{}", host_uid()),
    ];
    let all = given.into_iter().chain(others.map(PathBuf::from));
    all.filter(|directory| examine(directory).is_ok())
        .map(|directory| directory.join("libpod/tmp/pause.pid"))
}

/// Opens a directory of mode 0700 of this user, created if it is missing. Fails for anything else:
/// in /tmp and /dev/shm, another user may have created it first. A directory of this user that
/// others can only read, left by an earlier version or another umask, is changed to 0700: they
/// cannot have put anything there.
pub(crate) fn own(directory: &Path) -> io::Result<OwnedFd> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // The checks are made on a file descriptor: the name could be replaced meanwhile.
    let file = open_directory(directory, libc::O_NOFOLLOW)?;
    let found = file.metadata()?;
    let is_ours = found.uid() == Uid::effective().as_raw() && found.mode() & 0o022 == 0;
    if is_ours && found.mode() & 0o077 != 0 {
        let this = format!("/proc/self/fd/{}", file.as_raw_fd());
        fs::set_permissions(this, fs::Permissions::from_mode(0o700))?;
    } else if !is_ours {
        return Err(io::Error::other(format!(
            "exists, but is not a directory of mode 0700 of this user ({})",
            described(&found)
        )));
    }
    Ok(file.into())
}

/// Opens a file of ours, created if `options` say so. Fails for anything but a regular file of this
/// user with one link: the directory may be mounted in a container, where a link could lead us to
/// a file of the host, and a fifo could block us.
pub(crate) fn open_own(path: &Path, options: &mut fs::OpenOptions) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = options.mode(0o600).custom_flags(flags).open(path)?;
    refuse_strange(&file.metadata()?).map(|()| file)
}

/// The checks of [`open_own`], for a file that a library opens by its name. A missing file is fine.
pub(crate) fn examine_own(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) => refuse_strange(&found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn refuse_strange(found: &fs::Metadata) -> io::Result<()> {
    let is_ours = found.uid() == Uid::effective().as_raw();
    match found.is_file() && found.nlink() <= 1 && is_ours {
        true => Ok(()),
        false => Err(io::Error::other(
            "it is not a regular file of this user with one link: something else was put there; \
             remove it",
        )),
    }
}

/// Reads a file of ours.
pub(crate) fn read_own(path: &Path) -> io::Result<String> {
    /// The bytes that are read; none of our files is larger.
    const LARGEST: u64 = 1 << 20;
    let file = open_own(path, File::options().read(true))?;
    io::read_to_string(file.take(LARGEST))
}

/// Replaces the content of a file of ours.
pub(crate) fn write_own(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = open_own(path, File::options().write(true).create(true))?;
    // Not O_TRUNC: that would truncate the file before it is checked.
    file.set_len(0)?;
    file.write_all(text)
}

fn open_directory(directory: &Path, flags: libc::c_int) -> io::Result<File> {
    let opened = File::options()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY | flags)
        .open(directory);
    opened.map_err(|error| match error.raw_os_error() {
        Some(libc::ENOTDIR | libc::ELOOP) => io::Error::other("it is not a directory"),
        _ => error,
    })
}

fn described(found: &fs::Metadata) -> String {
    format!("owner {}, mode {:o}", found.uid(), found.mode() & 0o7777)
}

/// Checks whether a directory that we did not create can be the runtime directory.
fn examine(directory: &Path) -> io::Result<()> {
    if !directory.is_absolute() {
        return Err(io::Error::other("it is not an absolute path"));
    }
    let found = open_directory(directory, 0)?.metadata()?;
    if found.uid() != Uid::effective().as_raw() || found.mode() & 0o022 != 0 {
        return Err(io::Error::other(format!(
            "it is not writable by this user alone ({})",
            described(&found)
        )));
    }
    access(directory, AccessFlags::W_OK | AccessFlags::X_OK)?;
    refuse_replaceable(directory)
}

/// Fails if another user could replace `path`, by changing a directory on the way to it. Checks the
/// directories of the path as given, and those behind its symbolic links.
pub(crate) fn refuse_replaceable(path: &Path) -> io::Result<()> {
    let path = std::path::absolute(path)?;
    let parent = path.parent().unwrap_or(&path);
    let behind = fs::canonicalize(parent).unwrap_or_else(|_| parent.to_owned());
    let is_confined = !IdMaps::of("/proc/self").is_ok_and(|maps| maps.are_all());
    for directory in parent.ancestors().chain(behind.ancestors()) {
        let found = match fs::symlink_metadata(directory) {
            Ok(found) => found,
            // Missing: only the permissions of the directory above matter.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if let Some(reason) = who_could(&found, is_confined) {
            return Err(io::Error::other(format!(
                "others could replace it, since {} {reason} ({})",
                directory.display(),
                described(&found)
            )));
        }
    }
    Ok(())
}

/// The reason why another user could replace files in a directory. In a user namespace with few
/// ids, root of the host shows as nobody.
fn who_could(found: &fs::Metadata, is_confined: bool) -> Option<&'static str> {
    const NOBODY: u32 = 65534;
    let is_ours = found.uid() == Uid::effective().as_raw();
    let is_roots = found.uid() == 0 || (is_confined && found.uid() == NOBODY);
    if !is_ours && !is_roots {
        return Some("belongs to another user");
    }
    if found.is_symlink() || found.mode() & 0o1000 != 0 {
        return None;
    }
    // Many distributions give each user a group of its own.
    let is_own_group = is_ours && found.gid() == nix::unistd::Gid::effective().as_raw();
    let writers = if is_own_group { 0o002 } else { 0o022 };
    (found.mode() & writers != 0).then_some("can be written to by others")
}

/// The user's uid outside of this user namespace, in which it is 0.
pub(crate) fn host_uid() -> u32 {
    let uid = Uid::effective().as_raw();
    let maps = IdMaps::of("/proc/self").ok();
    maps.and_then(|maps| maps.uids.outside(uid)).unwrap_or(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_ours_that_others_could_read_becomes_ours_alone() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("room");
        let mode = || fs::metadata(&path).unwrap().mode() & 0o7777;
        own(&path).unwrap();
        assert_eq!(mode(), 0o700);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        own(&path).unwrap();
        assert_eq!(mode(), 0o700);
        // Others may have put something there.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o775)).unwrap();
        assert!(own(&path).is_err());
        assert_eq!(mode(), 0o775);
    }
}
