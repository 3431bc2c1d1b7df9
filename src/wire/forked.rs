//! Internal processes that are forks of this one: they start without an execve(2) of this program,
//! which takes about as long as everything else that they do until they are ready.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::sync::OnceLock;

use super::mode::Mode;
use crate::linux::sys::{self, Standard};
use crate::linux::title;

/// Does the task of a process, and exits.
type Entry = fn(Mode) -> Infallible;

static ENTRY: OnceLock<Entry> = OnceLock::new();

/// Lets this process fork others, which begin with `entry`.
pub(crate) fn allow(entry: Entry) {
    // Set once, in main().
    let _ = ENTRY.set(entry);
}

impl Mode {
    /// Starts an orphan, see [`sys::fork_orphan`]. ps(1) shows `title` and the arguments. Returns
    /// the other end of its standard input. This process must have one thread.
    pub(crate) fn fork_orphan(self, title: &str, stderr: Option<File>) -> io::Result<UnixStream> {
        let Some(entry) = ENTRY.get() else {
            let stderr = stderr.map_or_else(Stdio::inherit, Stdio::from);
            return self.start_orphan(title, stderr, &[]);
        };
        let (ours, theirs) = UnixStream::pair()?;
        let null = File::options().write(true).open("/dev/null")?;
        let standard = Standard {
            input: theirs.as_fd(),
            output: Some(null.as_fd()),
            error: stderr.as_ref().map(AsFd::as_fd),
        };
        sys::fork_orphan(standard, || self.begin(title, *entry))?;
        Ok(ours)
    }

    /// Starts a child, and returns its pid and the other end of its standard input. Fails if this
    /// process may not fork, see [`allow`]. This process must have one thread.
    pub(crate) fn fork(self, title: &str) -> io::Result<(u32, UnixStream)> {
        let entry = ENTRY.get().ok_or(io::ErrorKind::Unsupported)?;
        let (ours, theirs) = UnixStream::pair()?;
        let standard = Standard {
            input: theirs.as_fd(),
            output: None,
            error: None,
        };
        let pid = sys::fork(standard, || self.begin(title, *entry))?;
        Ok((pid, ours))
    }

    fn begin(self, title: &str, entry: Entry) -> Infallible {
        let words = self.to_words();
        title::set(
            [title.as_ref()]
                .into_iter()
                .chain(words.iter().map(AsRef::as_ref)),
        );
        entry(self)
    }
}
