//! The clients of `subuidless trace`.
//!
//! Lines do not pass through the daemon: it creates a pipe, sends the read end to the client and
//! the write end to the workers of the requested containers, including later ones, until the
//! connection ends.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;
use sendfd::SendWithFd;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tracing::{debug, info, warn};

use super::supervised::Supervised;
use crate::wire::ask::{Filter, Tracing};
use crate::wire::message::Message;

/// The maximum number of tracers. Each costs a file descriptor in every worker that it traces.
const MAX: usize = 16;
/// The largest pipe of an unprivileged user (pipe(7)), in bytes: room for some ten thousand calls.
const PIPE_SIZE: i32 = 1 << 20;

/// All tracers.
#[derive(Debug, Default)]
pub(super) struct Tracers(RefCell<Vec<Rc<Tracer>>>);

/// One client.
#[derive(Debug)]
struct Tracer {
    /// The id of the only container to trace; `None` for all.
    container: Option<String>,
    /// The encoded message to workers.
    orders: Vec<u8>,
    /// The write end.
    pipe: OwnedFd,
}

impl Tracer {
    fn wants(&self, container: &Supervised) -> bool {
        let id = &container.handover.id;
        self.container.as_ref().is_none_or(|wanted| wanted == id)
    }

    /// Sends the pipe to the container's worker.
    fn watch(&self, container: &Supervised) {
        match container.tell_worker(&self.orders, &self.pipe) {
            Ok(()) => {}
            Err(error) => debug!(container = %container.handover.id, %error, "cannot be traced"),
        }
    }
}

impl Tracers {
    /// Must be called when `container` has a new worker.
    pub(super) fn watch(&self, container: &Supervised) {
        let tracers = self.0.borrow();
        for tracer in tracers.iter().filter(|tracer| tracer.wants(container)) {
            tracer.watch(container);
        }
    }

    /// Traces those of `containers` that the client has requested, and later ones, until the
    /// connection ends.
    pub(super) async fn serve(
        &self,
        mut connection: UnixStream,
        containers: Vec<Rc<Supervised>>,
        container: Option<String>,
        filter: Filter,
    ) {
        if self.0.borrow().len() >= MAX {
            drop(containers);
            let refusal = Some(format!("{MAX} others trace already"));
            let answer = Tracing {
                refusal,
                ..Tracing::default()
            };
            if let Err(error) = say(&connection, &answer, &[]).await {
                debug!(%error, "the client that wanted to trace has exited");
            }
            return;
        }
        let (read, write) = match pipe() {
            Ok(pipe) => pipe,
            Err(error) => {
                warn!(%error, "cannot create a pipe for a tracer");
                return;
            }
        };
        let tracer = Rc::new(Tracer {
            container,
            orders: Message::Trace(filter).encode(),
            pipe: write,
        });
        let watched: Vec<_> = containers
            .iter()
            .filter(|container| tracer.wants(container))
            .collect();
        let answer = Tracing {
            listeners: watched.len(),
            refusal: None,
        };
        self.0.borrow_mut().push(Rc::clone(&tracer));
        for container in watched {
            tracer.watch(container);
        }
        drop(containers);
        info!(container = ?tracer.container, "traced");
        let said = say(&connection, &answer, &[read]).await;
        if said.is_ok() {
            while matches!(connection.read(&mut [0; 64]).await, Ok(1..)) {}
        }
        self.0
            .borrow_mut()
            .retain(|other| !Rc::ptr_eq(other, &tracer));
        info!(container = ?tracer.container, "not traced any more");
    }
}

/// Both ends are non-blocking: O_NONBLOCK belongs to the open file description, so it travels with
/// the file descriptor.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    // If this fails, more lines of a burst are lost.
    let _ = fcntl(&write, FcntlArg::F_SETPIPE_SZ(PIPE_SIZE));
    Ok((read, write))
}

/// Sends one short message, for which the buffer of a new connection suffices.
async fn say(connection: &UnixStream, answer: &Tracing, fds: &[OwnedFd]) -> io::Result<()> {
    let text = serde_json::to_vec(answer)?;
    let fds: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    connection.writable().await?;
    connection.send_with_fd(&text, &fds).map(drop)
}
