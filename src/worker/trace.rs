//! The lines of `subuidless trace`.
//!
//! A tracer cannot delay a target. A line is written to its pipe atomically and without blocking;
//! if the pipe is full, the line is dropped, and the next line that fits is preceded by the number
//! of missing ones. Without tracers, a call costs one relaxed load.

use std::fmt::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tracing::debug;

use crate::linux::procfs;
use crate::linux::seccomp::{Notification, Reply};
use crate::syscalls::{Dispatched, describe, describe_reply, describe_results, escaped};
use crate::target::Call;
use crate::wire::ask::Filter;

/// Up to this many bytes are written to a non-blocking pipe entirely or not at all (pipe(7)).
const PIPE_BUF: usize = 4096;
/// The most characters of a container's name that a line shows.
const MAX_NAME: usize = 64;

/// All tracers of the container.
#[derive(Debug)]
pub(super) struct Tracers {
    /// The container's name, shortened and escaped.
    name: String,
    /// Whether `list` has any: saves each call from taking the mutex.
    some: AtomicBool,
    list: Mutex<Vec<Arc<Tracer>>>,
}

/// The pipe of one `subuidless trace`.
#[derive(Debug)]
pub(super) struct Tracer {
    pipe: OwnedFd,
    filter: Filter,
    /// The number of lines dropped since the last one written.
    lost: AtomicU64,
}

/// The description of a call that a tracer wants.
#[derive(Debug)]
pub(super) struct Traced {
    arguments: Vec<String>,
    command: String,
}

impl Tracers {
    pub(super) fn new(container: &str) -> Self {
        let name: String = container.chars().take(MAX_NAME).collect();
        Self {
            name: escaped(name.as_bytes()),
            some: AtomicBool::new(false),
            list: Mutex::default(),
        }
    }

    fn list(&self) -> MutexGuard<'_, Vec<Arc<Tracer>>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a tracer. A blocking pipe is refused: O_NONBLOCK belongs to the open file description,
    /// so its creator decides, and a full one would block targets.
    pub(super) fn add(&self, filter: Filter, pipe: OwnedFd) {
        let waits = fcntl(&pipe, FcntlArg::F_GETFL)
            .is_ok_and(|flags| flags & OFlag::O_NONBLOCK.bits() == 0);
        if waits {
            debug!("refusing a blocking pipe for trace lines");
            return;
        }
        let mut list = self.list();
        list.push(Arc::new(Tracer {
            pipe,
            filter,
            lost: AtomicU64::new(0),
        }));
        self.some.store(true, Ordering::Relaxed);
    }

    /// The present tracers, to be polled for a hang-up.
    pub(super) fn all(&self) -> Vec<Arc<Tracer>> {
        match self.some.load(Ordering::Relaxed) {
            true => self.list().clone(),
            false => Vec::new(),
        }
    }

    pub(super) fn remove(&self, tracer: &Arc<Tracer>) {
        let mut list = self.list();
        list.retain(|other| !Arc::ptr_eq(other, tracer));
        self.some.store(!list.is_empty(), Ordering::Relaxed);
    }

    /// Whether there is a tracer. Cheap: called for every call.
    pub(super) fn is_watched(&self) -> bool {
        self.some.load(Ordering::Relaxed)
    }

    /// Describes a call before it is handled. Returns `None` if no tracer wants it.
    pub(super) fn describe(&self, call: &Call, found: Dispatched) -> Option<Traced> {
        let name = found.row.name;
        if !self.list().iter().any(|tracer| tracer.wants(name)) {
            return None;
        }
        let command = procfs::read(&procfs::target(call.pid(), "comm")).unwrap_or_default();
        let traced = Traced {
            arguments: describe(call, found.row),
            command: escaped(command.trim_end_matches('\n').as_bytes()),
        };
        // If the target has exited, the pid may have been recycled, and the memory read was another
        // process's.
        call.ensure_waiting().is_ok().then_some(traced)
    }

    /// Adds what the call's handler has written to the target's memory.
    pub(super) fn describe_results(traced: &mut Traced, call: &Call, found: Dispatched) {
        describe_results(call, found.row, &mut traced.arguments);
    }

    /// Writes the line of a call and its reply.
    pub(super) fn tell(
        &self,
        traced: &Traced,
        call: &Notification,
        found: Dispatched,
        reply: Result<Reply, Errno>,
    ) {
        let line = format!(
            "[{}] {} {} {}({}) = {}",
            self.name,
            call.pid,
            traced.command,
            found.row.name,
            traced.arguments.join(", "),
            describe_reply(reply)
        );
        let continued = reply == Ok(Reply::Continue);
        let tracers = self.list().clone();
        for tracer in tracers {
            if tracer.wants(found.row.name) && (tracer.filter.continued || !continued) {
                self.write(&tracer, &line);
            }
        }
    }

    fn write(&self, tracer: &Arc<Tracer>, line: &str) {
        let lost = tracer.lost.swap(0, Ordering::Relaxed);
        let mut text = String::new();
        if lost > 0 {
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "[{}] {lost} calls are missing here: they came faster than they were read",
                self.name
            );
        }
        // The line is ASCII, so every index is a character boundary.
        text.push_str(&line[..line.len().min(PIPE_BUF - text.len() - 1)]);
        text.push('\n');
        match nix::unistd::write(tracer.pipe.as_fd(), text.as_bytes()) {
            Ok(_) => {}
            Err(Errno::EAGAIN) => {
                tracer.lost.fetch_add(lost + 1, Ordering::Relaxed);
            }
            // EPIPE: the reader has exited.
            Err(_) => self.remove(tracer),
        }
    }
}

impl Tracer {
    fn wants(&self, name: &str) -> bool {
        self.filter.calls.is_empty() || self.filter.calls.iter().any(|wanted| wanted == name)
    }
}

impl AsFd for Tracer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::pipe2;
    use std::io::{BufRead, BufReader};

    fn watched(flags: OFlag) -> (Tracers, OwnedFd) {
        let tracers = Tracers::new("c\x1b1");
        let (read, write) = pipe2(flags | OFlag::O_CLOEXEC).unwrap();
        tracers.add(Filter::default(), write);
        (tracers, read)
    }

    #[test]
    fn a_reader_that_is_slow_misses_lines_and_is_told_how_many() {
        let (tracers, read) = watched(OFlag::O_NONBLOCK);
        let [tracer] = tracers.all().try_into().unwrap();
        let line = "x".repeat(999);
        for _ in 0..200 {
            tracers.write(&tracer, &line);
        }
        let lost = tracer.lost.load(Ordering::Relaxed);
        // A pipe takes 64 KiB unless told otherwise.
        assert!((100..200).contains(&lost), "{lost}");
        let mut reader = BufReader::new(std::fs::File::from(read));
        let mut seen = String::new();
        for _ in 0..200 - lost {
            seen.clear();
            reader.read_line(&mut seen).unwrap();
            assert_eq!(seen.trim_end(), line);
        }
        tracers.write(&tracer, "next");
        let lines: Vec<String> = reader.lines().map_while(Result::ok).take(2).collect();
        assert!(lines[0].contains(&format!(" {lost} calls are missing")));
        assert!(lines[0].starts_with("[c\\x1b1] "));
        assert_eq!(lines[1], "next");
    }

    #[test]
    fn a_reader_that_is_gone_is_forgotten() {
        let (tracers, read) = watched(OFlag::O_NONBLOCK);
        assert!(tracers.is_watched());
        drop(read);
        let [tracer] = tracers.all().try_into().unwrap();
        tracers.write(&tracer, "x");
        assert!(!tracers.is_watched() && tracers.all().is_empty());
    }

    #[test]
    fn a_pipe_that_would_make_targets_wait_is_not_taken() {
        let (tracers, _read) = watched(OFlag::empty());
        assert!(!tracers.is_watched());
    }

    #[test]
    fn a_line_is_never_longer_than_what_a_pipe_takes_at_once() {
        let (tracers, read) = watched(OFlag::O_NONBLOCK);
        let [tracer] = tracers.all().try_into().unwrap();
        tracer.lost.store(u64::MAX, Ordering::Relaxed);
        tracers.write(&tracer, &"y".repeat(100_000));
        let mut bytes = [0; 2 * PIPE_BUF];
        assert_eq!(nix::unistd::read(&read, &mut bytes).unwrap(), PIPE_BUF);
        assert_eq!(bytes[PIPE_BUF - 1], b'\n');
    }
}
