//! `subuidless trace`: prints a line for each call that is answered.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Daemon, OLDER, ask_failed, daemons, shown, slow};
use crate::error::{Context, Error};
use crate::linux::sys;
use crate::syscalls::TABLE;
use crate::wire::ask::{Filter, Tracing, What};

/// The lines of one daemon's containers.
#[derive(Debug)]
struct Source {
    path: PathBuf,
    /// `None` once the daemon has exited.
    connection: Option<UnixStream>,
    pipe: File,
    listeners: usize,
    /// The start of a line whose end was not read yet.
    rest: Vec<u8>,
}

/// Whether calls of this name are handled, and so can be traced.
pub(crate) fn is_traceable(syscall: &str) -> bool {
    TABLE.iter().any(|row| row.name == syscall)
}

/// Prints calls until all daemons and their containers have ended, or standard output is closed.
/// Calls `tell` with messages.
pub(crate) fn trace(
    socket: Option<&Path>,
    container: Option<&str>,
    filter: &Filter,
    tell: &mut dyn FnMut(&str),
) -> Result<(), Error> {
    let mut failures = Vec::new();
    let mut sources = Vec::new();
    for daemon in daemons(socket, &mut |error| tell(&error.to_string()))? {
        match Source::open(daemon, container, filter) {
            Ok(source) => sources.push(source),
            Err(error) => failures.push(error),
        }
    }
    if sources.is_empty()
        && let Some(error) = failures.pop()
    {
        return Err(error);
    }
    failures.iter().for_each(|error| tell(&error.to_string()));
    if let Some(container) = container
        && sources.iter().all(|source| source.listeners == 0)
    {
        let container = shown(container);
        tell(&format!(
            "there is no container {container}: waiting for it"
        ));
    }
    match show(sources, tell) {
        // `trace | head`
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.doing("showing calls"),
    }
}

impl Source {
    fn open(mut daemon: Daemon, container: Option<&str>, filter: &Filter) -> Result<Self, Error> {
        daemon.ask(What::Trace {
            container: container.map(str::to_owned),
            filter: filter.clone(),
        })?;
        let failed = |error| ask_failed(&daemon.path, slow(error));
        let mut answer = vec![0; 4096];
        let received = sys::receive(&daemon.connection, &mut answer, 1);
        let (length, mut files) = received.map_err(|errno| failed(errno.into()))?;
        if length == 0 {
            return Err(ask_failed(&daemon.path, OLDER));
        }
        let answer: Tracing = serde_json::from_slice(&answer[..length])
            .map_err(|error| ask_failed(&daemon.path, error))?;
        match (files.pop(), answer.refusal) {
            (Some(pipe), None) => Ok(Self {
                pipe: File::from(pipe),
                path: daemon.path,
                connection: Some(daemon.connection),
                listeners: answer.listeners,
                rest: Vec::new(),
            }),
            (_, refusal) => Err(ask_failed(
                &daemon.path,
                shown(&refusal.unwrap_or_else(|| "it sent no pipe".to_owned())),
            )),
        }
    }

    /// Reads once and prints the complete lines. Returns `false` at the end of the pipe.
    fn show(&mut self, output: &mut impl Write) -> io::Result<bool> {
        let mut chunk = [0; 64 * 1024];
        let length = match self.pipe.read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            result => result?,
        };
        self.rest.extend_from_slice(&chunk[..length]);
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else {
            return Ok(length > 0);
        };
        let lines: Vec<u8> = self.rest.drain(..=end).collect();
        // Workers escape them already; again here, because the output may be a terminal.
        for line in String::from_utf8_lossy(&lines).lines() {
            writeln!(output, "{}", shown(line))?;
        }
        output.flush()?;
        Ok(length > 0)
    }
}

/// Whether the pipe hangs up within 200 ms: then no worker outlives the daemon.
fn hangs_up_soon(pipe: &File) -> bool {
    const SOON: u8 = 200;
    let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::empty())];
    poll(&mut fds, SOON).is_ok_and(|hung_up| hung_up > 0)
}

fn show(mut sources: Vec<Source>, tell: &mut dyn FnMut(&str)) -> io::Result<()> {
    let mut output = io::BufWriter::new(io::stdout().lock());
    while !sources.is_empty() {
        // Standard output without a reader reports POLLERR.
        let stdout = PollFd::new(output.get_ref().as_fd(), PollFlags::empty());
        let mut fds = vec![stdout.clone()];
        for source in &sources {
            let connection = source.connection.as_ref();
            fds.push(PollFd::new(source.pipe.as_fd(), PollFlags::POLLIN));
            fds.push(connection.map_or(stdout.clone(), |connection| {
                PollFd::new(connection.as_fd(), PollFlags::empty())
            }));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let happened: Vec<bool> = fds.iter().map(|fd| fd.any() == Some(true)).collect();
        if happened[0] {
            return Ok(());
        }
        let mut kept = Vec::new();
        for (mut source, happened) in sources.into_iter().zip(happened[1..].chunks_exact(2)) {
            if happened[1] && source.connection.take().is_some() && !hangs_up_soon(&source.pipe) {
                tell(&format!(
                    "{}: the daemon has exited: containers started from now on are not shown",
                    source.path.display()
                ));
            }
            if !happened[0] || source.show(&mut output)? {
                kept.push(source);
            }
        }
        sources = kept;
    }
    Ok(())
}
