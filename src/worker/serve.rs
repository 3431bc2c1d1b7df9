//! One call: receive, find the row, handle, reply.

use std::time::Instant;

use nix::errno::Errno;
use tracing::{Level, debug, enabled, error};

use crate::board::{Board, Outcome};
use crate::seccomp::{ListenerFd, Notification, ReceiveError, Reply};
use crate::syscalls::{Dispatch, Found, Purpose};
use crate::target::{Call, Container, ThreadState};

/// A call that has killed this many workers is not tried again.
const MAX_ATTEMPTS: u64 = 2;

/// What all service threads share.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) listener: ListenerFd,
    pub(super) board: Board,
    pub(super) container: Container,
    dispatch: Dispatch,
}

impl Server {
    pub(super) fn new(listener: ListenerFd, board: Board, container: Container) -> Self {
        if board.views_differ() {
            container.expect_other_views();
        }
        Self {
            listener,
            board,
            container,
            dispatch: Dispatch::new(),
        }
    }

    /// Whether a worker before this one left the call in `slot` unanswered.
    pub(super) fn is_in_flight(&self, slot: usize) -> bool {
        let id = Notification::read(self.board.slot(slot)).id;
        let waits = id != 0 && self.listener.is_waiting(id);
        if !waits {
            // Answered already, or killed half-way through clearing it: RECV takes nothing but zeroes (EINVAL).
            self.board.finish(slot);
        }
        waits
    }

    /// Blocks until a call is in `slot`.
    pub(super) fn receive(&self, slot: usize) -> Result<Notification, ReceiveError> {
        self.listener.receive(self.board.slot(slot))
    }

    /// Answers the call in `slot`.
    pub(super) fn serve(&self, slot: usize, call: &Notification, thread: &mut ThreadState) {
        let found = self.dispatch.find(call);
        let reply = match found {
            Some(found) => self.handle(found, slot, call, thread),
            None => {
                if !self.dispatch.knows(call.arch) {
                    // It may have been a chroot(2).
                    self.container.expect_other_views();
                }
                // CONTINUE: another architecture's call, or one that a foreign profile sends us.
                Ok(Reply::Continue)
            }
        };
        self.reply(slot, call, found, reply);
    }

    /// Answers a call of a target whose container has not been joined; `emulates`: it may turn out to be one.
    pub(super) fn serve_unjoined(
        &self,
        slot: usize,
        call: &Notification,
        thread: &mut ThreadState,
        emulates: bool,
    ) {
        let found = self.dispatch.find(call);
        let reply = match found.map(|found| (found, found.row.purpose)) {
            // A runtime on its way into the container takes the ids of the container's user.
            Some((found, Purpose::EmulateEarly | Purpose::EmulateIds)) if emulates => {
                self.handle(found, slot, call, thread)
            }
            Some((found, Purpose::Watch)) => {
                // Noticed now, or missed for good. Its answer is to continue, as for all others.
                let _ = self.handle(found, slot, call, thread);
                Ok(Reply::Continue)
            }
            // CONTINUE: nothing to emulate, or not yet.
            _ => Ok(Reply::Continue),
        };
        self.reply(slot, call, found, reply);
    }

    /// Answers a call that a dead worker left; one that has killed several is given up.
    pub(super) fn serve_again(&self, slot: usize, thread: &mut ThreadState) {
        if !self.is_in_flight(slot) {
            return;
        }
        let call = Notification::read(self.board.slot(slot));
        if self.board.attempt(slot) > MAX_ATTEMPTS {
            error!(
                ?call,
                "this call has ended several workers: it gets EIO, please report it"
            );
            self.reply(slot, &call, self.dispatch.find(&call), Err(Errno::EIO));
        } else {
            self.serve(slot, &call, thread);
        }
    }

    fn handle(
        &self,
        Found { row, abi, .. }: Found,
        slot: usize,
        notification: &Notification,
        thread: &mut ThreadState,
    ) -> Result<Reply, Errno> {
        let mut call = Call {
            notification,
            abi,
            listener: &self.listener,
            container: &self.container,
            journal: self.board.journal(slot),
            thread,
            received: Instant::now(),
        };
        let shared = match row.purpose {
            Purpose::EmulateIds => Ok(()),
            // No root has been joined yet.
            _ if !self.container.is_joined() => Ok(()),
            Purpose::Emulate | Purpose::EmulateEarly => call.share_view(),
            // What is only watched goes on to the kernel, whatever goes wrong here.
            Purpose::Watch => call.share_view().or(Ok(())),
        };
        shared?;
        let reply = (row.handle)(&mut call);
        call.leave_view();
        reply
    }

    fn reply(
        &self,
        slot: usize,
        call: &Notification,
        found: Option<Found>,
        reply: Result<Reply, Errno>,
    ) {
        if self.container.views_differ() {
            // Before the call that makes them differ goes on: a successor must know.
            self.board.set_views_differ();
        }
        if self.container.user_steps() != self.board.user_steps() {
            self.board.set_user_steps(self.container.user_steps());
        }
        let outcome = match reply {
            Ok(Reply::Continue) => Outcome::Continued,
            Ok(Reply::Value(_) | Reply::Sent) => Outcome::Answered,
            Err(_) => Outcome::Failed,
        };
        self.board.count(found.map(|found| found.index), outcome);
        if enabled!(Level::DEBUG) {
            // Before the reply: it may be the one that ends the last target, and with it this process.
            let syscall = found.map_or("?", |found| found.row.name);
            debug!(
                syscall,
                pid = call.pid,
                notification_id = call.id,
                ?reply,
                "replying"
            );
        }
        match self.listener.reply(call.id, reply) {
            Ok(()) => {}
            Err(Errno::ENOENT) => debug!(pid = call.pid, "the target has ended meanwhile"),
            Err(errno) => error!(?call, %errno, "cannot reply"),
        }
        self.board.finish(slot);
    }
}
