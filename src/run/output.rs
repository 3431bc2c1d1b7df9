//! The output of containers that are started with `--detach`, for `subuidless logs`.
//!
//! They write to a fifo in the directory of the container's place, from which the supervisor moves
//! all to a file, and `logs` does, too: whoever does holds a lock on the file. Containers have both
//! ends of the fifo, so that none gets SIGPIPE if the supervisor is killed. When the container has
//! ended, the file moves to a directory for those that have ended, with the container's name.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, Flock, FlockArg, fallocate, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::{Whence, dup2_stderr, dup2_stdin, dup2_stdout, lseek, mkfifo};

use crate::error::{Context, Error};
use crate::wire::rundir::{self, LOGS};

/// So many bytes are kept at least, and twice as many at most.
const KEPT: u64 = 1 << 20;
/// The outputs of so many containers that have ended are kept.
const MOST: usize = 16;

fn fifo_of(directory: &Path) -> PathBuf {
    directory.join("fifo")
}

pub(super) fn file_of(directory: &Path) -> PathBuf {
    directory.join("output")
}

pub(super) fn file_of_ended(name: &str) -> Result<PathBuf, Error> {
    Ok(rundir::room_for(LOGS)?.join(name))
}

/// Creates the files for the output of a container that will be detached.
pub(super) fn create(directory: &Path) -> Result<(), Error> {
    let (fifo, file) = (fifo_of(directory), file_of(directory));
    mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR).at(&fifo)?;
    // The container's other users may open /dev/stdout. No other user gets into the directory.
    fs::set_permissions(&fifo, Permissions::from_mode(0o666)).at(&fifo)?;
    rundir::write_own(&file, b"").at(&file)
}

/// Lets this process, which becomes the runtime, write there, and read nothing.
pub(super) fn divert(directory: &Path) -> Result<(), Error> {
    const WHAT: &str = "keeping the output of the container";
    let path = fifo_of(directory);
    let fifo = File::options()
        .read(true)
        .write(true)
        .open(&path)
        .at(&path)?;
    // If it stays smaller, the container waits for its reader more often.
    let _ = fcntl(&fifo, FcntlArg::F_SETPIPE_SZ(1 << 20));
    let null = File::open("/dev/null").at("/dev/null")?;
    dup2_stdin(&null).doing(WHAT)?;
    dup2_stdout(&fifo).doing(WHAT)?;
    dup2_stderr(&fifo).doing(WHAT)
}

/// Says on standard error what a runtime has said that has failed.
pub(super) fn show_failure(directory: &Path) {
    let _ = collect(directory);
    let file = file_of(directory);
    // Standard error may be closed.
    let _ = File::open(&file).and_then(|mut file| io::copy(&mut file, &mut io::stderr()));
    // It is not kept for `logs`.
    let _ = fs::remove_file(&file);
}

/// Starts a thread that collects the output, if there is any.
pub(super) fn watch(directory: &Path) {
    let Ok(mut collector) = Collector::of(directory) else {
        return;
    };
    let thread = std::thread::Builder::new().name("output".to_owned());
    // Without the thread, `logs` collects the output.
    let _ = thread.spawn(move || {
        loop {
            let mut fds = [PollFd::new(collector.fifo.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(_) => return,
            }
            if !matches!(collector.collect(), Ok(true)) {
                return;
            }
        }
    });
}

/// Moves what is in the fifo to the file.
pub(super) fn collect(directory: &Path) -> io::Result<bool> {
    Collector::of(directory)?.collect()
}

/// Moves output to the file.
struct Collector {
    fifo: File,
    file: PathBuf,
}

impl Collector {
    fn of(directory: &Path) -> io::Result<Self> {
        let mut options = File::options();
        options.read(true).custom_flags(libc::O_NONBLOCK);
        Ok(Self {
            fifo: options.open(fifo_of(directory))?,
            file: file_of(directory),
        })
    }

    /// Returns whether more can come.
    fn collect(&mut self) -> io::Result<bool> {
        let file = rundir::open_own(&self.file, File::options().append(true))?;
        let mut file = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
        let mut bytes = [0; 1 << 16];
        loop {
            match self.fifo.read(&mut bytes) {
                Ok(0) => return Ok(false),
                Ok(length) => add(&mut file, &bytes[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Appends to the output. Where there is no space, what was there before is given up, and if that
/// does not suffice, `bytes` are: the container is not to stop for that.
fn add(file: &mut File, bytes: &[u8]) {
    if let Err(error) = file.write_all(bytes) {
        let note = format!("subuidless: output is missing here: {error}\n");
        let _ = file
            .set_len(0)
            .and_then(|()| file.write_all(note.as_bytes()))
            .and_then(|()| file.write_all(bytes));
    }
    let _ = trim(file);
}

/// Gives up the space of old output.
fn trim(file: &File) -> io::Result<()> {
    const PAGE: u64 = 4096;
    let length = file.metadata()?.len();
    let start = start_of(file);
    if length - start < 2 * KEPT {
        return Ok(());
    }
    let end = (length - KEPT) / PAGE * PAGE;
    let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    match fallocate(file, hole, 0, end.cast_signed()) {
        Ok(()) => Ok(()),
        // A file system without holes.
        Err(_) => file.set_len(0),
    }
}

/// The first byte that was not given up.
fn start_of(file: &File) -> u64 {
    // Nothing is there, or this file system has no holes.
    let start = lseek(file, 0, Whence::SeekData).unwrap_or(0);
    start.max(0).cast_unsigned()
}

/// Keeps the output of a container that has ended, in the place of an earlier one's of its name.
pub(super) fn keep(directory: &Path, name: &str) {
    let _ = collect(directory);
    if let Ok(kept) = file_of_ended(name)
        && fs::rename(file_of(directory), &kept).is_ok()
        && let Some(all) = kept.parent()
    {
        remove_oldest(all);
    }
}

fn remove_oldest(directory: &Path) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut kept: Vec<(SystemTime, PathBuf)> = entries
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    kept.sort();
    let surplus = kept.len().saturating_sub(MOST);
    for (_, path) in kept.iter().take(surplus) {
        let _ = fs::remove_file(path);
    }
}

/// Forgets the output of an earlier container of this name.
pub(super) fn forget(name: &str) {
    if let Ok(kept) = file_of_ended(name) {
        let _ = fs::remove_file(kept);
    }
}

/// Moves to the first whole line behind what was given up.
pub(super) fn skip_given_up(file: &mut File) -> io::Result<()> {
    let start = start_of(file);
    let mut at = file.seek(SeekFrom::Start(start))?;
    if start > 0 {
        let mut bytes = [0; 1 << 12];
        let length = file.read(&mut bytes)?;
        let line = bytes[..length].iter().position(|byte| *byte == b'\n');
        at += line.map_or(0, |line| line as u64 + 1);
        file.seek(SeekFrom::Start(at))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn old_output_takes_no_space_and_the_rest_begins_with_a_line() {
        let place = tempfile::NamedTempFile::new().unwrap();
        let opened = File::options().read(true).append(true).open(place.path());
        let mut file = opened.unwrap();
        let lines: Vec<String> = (0..1_000_000).map(|n| format!("line {n}\n")).collect();
        for some in lines.chunks(1000) {
            add(&mut file, some.concat().as_bytes());
        }
        let space = file.metadata().unwrap().blocks() * 512;
        assert!(space <= 3 * KEPT, "{space}");
        skip_given_up(&mut file).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert!(text.len() as u64 + 4096 > KEPT);
        assert!(text.starts_with("line ") && text.ends_with("line 999999\n"));
    }
}
