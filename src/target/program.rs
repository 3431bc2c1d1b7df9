//! How executing a file changes credentials: set-user-ID and set-group-ID bits, file capabilities.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat};
use nix::sys::statvfs::{FsFlags, fstatvfs};

use super::{Call, Dirfd, Location, PROCFS, Refusal, Walked};
use crate::credentials::{Access, FileCapabilities, Program, Subject};
use crate::linux;
use crate::linux::elf;
use crate::linux::name::Name;
use crate::linux::procfs;
use crate::linux::sys;
use crate::owner::{Version, file_type};

/// The kernel follows this many interpreters (fs/exec.c, exec_binprm).
const MAX_INTERPRETERS: usize = 5;
/// BINPRM_BUF_SIZE: the kernel reads this many bytes to recognize a file's format.
const FIRST_BYTES: usize = 256;

/// A file that a target executes.
#[derive(Debug)]
pub(crate) struct Executable {
    /// The file, or the interpreter of a script.
    pub(crate) file: OwnedFd,
    /// Whether it is for another architecture.
    pub(crate) is_foreign: bool,
    is_script: bool,
}

impl Call<'_> {
    /// Whether `location` names a program that [`Call::remember_plain`] has noted, and that has not
    /// changed since. Takes one system call.
    pub(crate) fn is_known_plain(&self, location: &Location) -> bool {
        let follow = match location.follow {
            true => AtFlags::empty(),
            false => AtFlags::AT_SYMLINK_NOFOLLOW,
        };
        self.name(location).is_some_and(|reached| {
            fstatat(PROCFS, reached.as_c_str(), follow).is_ok_and(|stat| {
                let known = self.thread.plain_programs.get(Version::of(&stat));
                known.is_some()
            })
        })
    }

    /// Notes that a file is plain: everyone may execute it, it is no script, it is for this
    /// architecture, and executing it changes no credentials. `stat` must be older than all that
    /// was found of the file.
    pub(crate) fn remember_plain(
        &mut self,
        stat: &libc::stat,
        executable: &Executable,
        program: &Program,
    ) {
        let is_plain = stat.st_mode & 0o111 == 0o111
            && !executable.is_script
            && !executable.is_foreign
            && *program == Program::default();
        // There, set-ID bits and capabilities do not count, but the file may be on another mount,
        // too.
        let counts = || {
            fstatvfs(&executable.file)
                .is_ok_and(|mount| !mount.flags().contains(FsFlags::ST_NOSUID))
        };
        if is_plain && counts() {
            let file_system = || linux::file_system(&executable.file);
            let version = Version::of(stat);
            self.thread.plain_programs.insert(version, (), file_system);
        }
    }

    /// The program that runs when `file` is executed: `file` or, for a script, its interpreter
    /// (execve(2)), which `subject`, if it is given, must be allowed to execute.
    pub(crate) fn to_be_run(
        &self,
        file: OwnedFd,
        subject: Option<&Subject>,
    ) -> Result<Executable, Refusal> {
        let mut file = file;
        for depth in 0..MAX_INTERPRETERS {
            let first_bytes = first_bytes(file.as_fd()).map_err(Refusal::ByKernel)?;
            match elf::interpreter(&first_bytes).map(|path| Name::new(path.to_vec())) {
                Some(path) => {
                    let location = Location::new(Dirfd::Cwd, path.as_c_str(), AtFlags::empty());
                    file = self.interpreter(&location, subject)?;
                }
                None => {
                    return Ok(Executable {
                        file,
                        is_foreign: elf::is_foreign(&first_bytes),
                        is_script: depth > 0,
                    });
                }
            }
        }
        Err(Refusal::ByKernel(Errno::ELOOP))
    }

    fn interpreter(
        &self,
        location: &Location,
        subject: Option<&Subject>,
    ) -> Result<OwnedFd, Refusal> {
        let find = || {
            let Some(subject) = subject else {
                return self.resolve(location).map(Some);
            };
            let Walked::To(file) = self.search(subject, location)? else {
                return Ok(None);
            };
            let may = self.may(subject, Access::EXECUTE, file.as_fd(), &fstat(&file)?)?;
            Ok(may.then_some(file))
        };
        let found = find().map_err(Refusal::ByKernel)?;
        found.ok_or(Refusal::Denied)
    }

    /// What executing the target's present program has changed.
    pub(super) fn program_executed(&self) -> Result<Program, Errno> {
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let exe = procfs::target(self.pid(), "exe");
        let file = openat(PROCFS, &exe, flags, Mode::empty())?;
        self.program_itself(file.as_fd())
    }

    /// What executing `file` changes.
    pub(crate) fn program_itself(&self, file: BorrowedFd) -> Result<Program, Errno> {
        let mut program = Program::default();
        let stat = fstat(file)?;
        if file_type(stat.st_mode) != SFlag::S_IFREG {
            return Ok(program);
        }
        let set_uid = stat.st_mode & libc::S_ISUID != 0;
        // fs/exec.c, bprm_fill_uid: S_ISGID without S_IXGRP once meant mandatory locking.
        let set_gid = stat.st_mode & libc::S_ISGID != 0 && stat.st_mode & libc::S_IXGRP != 0;
        let mut bytes = [0; 64];
        let name = procfs::own_fd(file);
        let capabilities = sys::getxattr(name.as_c_str(), c"security.capability", &mut bytes, true);
        program.capabilities = capabilities
            .ok()
            .and_then(|length| FileCapabilities::decode(&bytes[..length]));
        if !set_uid && !set_gid && program.capabilities.is_none() {
            return Ok(program);
        }
        // fs/exec.c, bprm_fill_uid: the kernel ignores the bits of files whose owner is not mapped,
        // too.
        if fstatvfs(file)?.flags().contains(FsFlags::ST_NOSUID)
            || !self.container.is_mapped(stat.st_uid)
        {
            return Ok(Program::default());
        }
        let shown = self.file_mode(file)?;
        program.set_uid = set_uid.then_some(shown.uid);
        program.set_gid = set_gid.then_some(shown.gid);
        Ok(program)
    }
}

/// The first bytes of what may be executed; none where that cannot be seen.
fn first_bytes(file: BorrowedFd) -> Result<Vec<u8>, Errno> {
    let name = procfs::own_fd(file);
    // Opening a fifo would block, and no other type than a regular file can be executed.
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    if file_type(fstat(file)?.st_mode) != SFlag::S_IFREG {
        return Ok(Vec::new());
    }
    let opened = match openat(PROCFS, &name, flags, Mode::empty()) {
        // A file of another host user with execute permission only: an interpreter could not read
        // such a script either.
        Err(Errno::EACCES) => return Ok(Vec::new()),
        result => result?,
    };
    let mut bytes = vec![0; FIRST_BYTES];
    let length = nix::sys::uio::pread(&opened, &mut bytes, 0)?;
    bytes.truncate(length);
    Ok(bytes)
}
