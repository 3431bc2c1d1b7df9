//! One call: receive, find the row, handle, reply.

use std::time::Instant;

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use tracing::{Level, debug, enabled, error, warn};

use super::PAUSE;
use super::link::Link;
use super::trace::{Traced, Tracers};
use crate::linux::seccomp::{ListenerFd, Notification, ReceiveError, Reply};
use crate::syscalls::{Dispatch, Dispatched, Purpose, check_lookups, fast};
use crate::target::{Call, Container, ThreadState};
use crate::wire::board::Board;
use crate::wire::tally::Outcome;

/// A call that has killed more workers than this is not tried again.
const MAX_ATTEMPTS: u64 = 8;

/// The state that all service threads share.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) listener: ListenerFd,
    pub(super) board: Board,
    pub(super) container: Container,
    pub(super) tracers: Tracers,
    dispatch: &'static Dispatch,
}

impl Server {
    pub(super) fn new(
        dispatch: &'static Dispatch,
        listener: ListenerFd,
        board: Board,
        container: Container,
        tracers: Tracers,
    ) -> Self {
        if board.views_differ() {
            container.expect_other_views();
        }
        Self {
            listener,
            board,
            container,
            tracers,
            dispatch,
        }
    }

    /// Whether an earlier worker left the call in `slot` unanswered. Clears the slot if not.
    pub(super) fn is_in_flight(&self, slot: usize) -> bool {
        let id = Notification::read(self.board.slot(slot)).id;
        let waits = id != 0 && self.listener.is_waiting(id);
        if !waits {
            // The earlier worker answered it and was killed before or while it cleared the slot.
            // RECV wants zeroes only (EINVAL).
            self.board.finish(slot);
        }
        waits
    }

    /// Adds the tracers that the daemon has sent.
    pub(super) fn take_orders(&self, link: &Link) {
        for (filter, pipe) in link.orders() {
            self.tracers.add(filter, pipe);
        }
        self.publish();
    }

    fn publish(&self) {
        self.container.publish();
        if let Some(facts) = &self.container.facts {
            facts.set_traced(self.tracers.is_watched());
        }
    }

    /// Blocks until a call is in `slot`.
    pub(super) fn receive(&self, slot: usize) -> Result<Notification, ReceiveError> {
        self.listener.receive(self.board.slot(slot))
    }

    /// Answers the call in `slot`.
    pub(super) fn serve(&self, slot: usize, call: &Notification, thread: &mut ThreadState) {
        let taken = Taken::new(slot, call, self.dispatch.find(call));
        let traced = self.begin_trace(&taken, thread);
        let reply = match taken.found {
            Some(found) => self.handle_despite_shortage(&taken, found, thread),
            None => {
                if !self.dispatch.knows(call.arch) {
                    // Its numbers mean nothing here: it may be a chroot(2).
                    self.container.expect_other_views();
                }
                // CONTINUE: a call of another architecture, or one that only the user's own profile
                // notifies.
                Ok(Reply::Continue)
            }
        };
        self.tell(&taken, traced, thread, reply);
        self.reply(&taken, reply);
    }

    /// Answers a call of a target whose container has not been joined. `emulates`: the target may
    /// be a runtime that will become a process of the container.
    pub(super) fn serve_unjoined(
        &self,
        slot: usize,
        call: &Notification,
        thread: &mut ThreadState,
        emulates: bool,
    ) {
        let taken = Taken::new(slot, call, self.dispatch.find(call));
        let traced = self.begin_trace(&taken, thread);
        let reply = match taken.found.map(|found| (found, found.row.purpose)) {
            // A runtime on its way into the container takes the ids of the container's user.
            Some((found, Purpose::EmulateEarly | Purpose::EmulateIds)) if emulates => {
                self.handle(&taken, found, thread)
            }
            Some((found, Purpose::Observe)) => {
                // The handler must see it now: the call does not come again. The reply is to
                // continue, whatever the handler says.
                let _ = self.handle(&taken, found, thread);
                Ok(Reply::Continue)
            }
            // CONTINUE: nothing to emulate, or not yet.
            _ => Ok(Reply::Continue),
        };
        self.tell(&taken, traced, thread, reply);
        self.reply(&taken, reply);
    }

    /// Answers a call that a dead worker left. A call that has killed several workers gets EIO.
    pub(super) fn serve_again(&self, slot: usize, thread: &mut ThreadState) {
        if !self.is_in_flight(slot) {
            return;
        }
        let call = Notification::read(self.board.slot(slot));
        if self.board.attempt(slot) > MAX_ATTEMPTS {
            error!(
                ?call,
                "this call has killed several workers: it fails with EIO; please report it"
            );
            let taken = Taken::new(slot, &call, self.dispatch.find(&call));
            self.reply(&taken, Err(Errno::EIO));
        } else {
            self.serve(slot, &call, thread);
        }
    }

    fn call<'a>(
        &'a self,
        taken: &Taken<'a>,
        found: Dispatched,
        thread: &'a mut ThreadState,
    ) -> Call<'a> {
        Call {
            notification: taken.call,
            abi: found.abi,
            listener: &self.listener,
            container: &self.container,
            journal: self.board.journal(taken.slot),
            thread,
            received: taken.received,
        }
    }

    /// Handles the call, and tries again while it fails because this process, unlike the target,
    /// has no file descriptors left. [`Call::patiently`] does so for lookups, which can be repeated
    /// alone; this covers all other calls that need a descriptor.
    fn handle_despite_shortage(
        &self,
        taken: &Taken,
        found: Dispatched,
        thread: &mut ThreadState,
    ) -> Result<Reply, Errno> {
        loop {
            let reply = self.handle(taken, found, thread);
            let is_ours = matches!(reply, Err(Errno::EMFILE | Errno::ENFILE)) && !has_descriptors();
            if !is_ours || !self.listener.is_waiting(taken.call.id) {
                return reply;
            }
            warn!(
                syscall = found.row.name,
                "no file descriptors are left: the call waits for one"
            );
            std::thread::sleep(PAUSE);
        }
    }

    fn handle(
        &self,
        taken: &Taken,
        found: Dispatched,
        thread: &mut ThreadState,
    ) -> Result<Reply, Errno> {
        let Container {
            expected, owners, ..
        } = &self.container;
        expected.own(owners, taken.call.pid);
        let mut call = self.call(taken, found, thread);
        let shared = match found.row.purpose {
            Purpose::EmulateIds => Ok(()),
            // Before joining there is no root directory to share.
            _ if !self.container.is_joined() => Ok(()),
            Purpose::Emulate | Purpose::EmulateEarly => call.share_view(),
            // An observed call goes to the kernel, even if the target's root cannot be found.
            Purpose::Observe => call.share_view().or(Ok(())),
        };
        shared?;
        let of_library = found.row.fast.and_then(|_| fast::answer(&call));
        let reply = of_library.unwrap_or_else(|| {
            if self.container.is_joined() {
                check_lookups(&call, found.row.lookups)?;
            }
            (found.row.handle)(&mut call)
        });
        call.leave_view();
        match &owners.notes {
            Some(notes) => notes.write().and(reply),
            None => reply,
        }
    }

    /// Describes the call for tracers, before a handler changes the target's memory. Returns `None`
    /// if no tracer wants it.
    fn begin_trace(&self, taken: &Taken, thread: &mut ThreadState) -> Option<Traced> {
        if !self.tracers.is_watched() {
            return None;
        }
        let found = taken.found?;
        self.tracers
            .describe(&self.call(taken, found, thread), found)
    }

    /// Writes the call's line for tracers. To be called before the reply, which may let the last
    /// target exit, and with it this process.
    fn tell(
        &self,
        taken: &Taken,
        traced: Option<Traced>,
        thread: &mut ThreadState,
        reply: Result<Reply, Errno>,
    ) {
        let (Some(mut traced), Some(found)) = (traced, taken.found) else {
            return;
        };
        if matches!(reply, Ok(Reply::Value(_))) {
            Tracers::describe_results(&mut traced, &self.call(taken, found, thread), found);
        }
        self.tracers.tell(&traced, taken.call, found, reply);
    }

    fn reply(&self, taken: &Taken, reply: Result<Reply, Errno>) {
        let Taken {
            slot, call, found, ..
        } = *taken;
        if self.container.views_differ() {
            // Before the reply lets the target call chroot(2): this worker may be killed
            // afterwards, and its successor must know.
            self.board.set_views_differ();
        }
        if self.container.user_steps() != self.board.user_steps() {
            self.board.set_user_steps(self.container.user_steps());
        }
        self.publish();
        let outcome = match reply {
            Ok(Reply::Continue) => Outcome::Continued,
            Ok(Reply::Value(_) | Reply::Sent(_)) => Outcome::Answered,
            Err(_) => Outcome::Failed,
        };
        let row = found.map(|found| found.index);
        self.board.count(row, outcome, taken.received.elapsed());
        if enabled!(Level::DEBUG) {
            // Before the reply, for the reason given at `tell`.
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
            Err(Errno::ENOENT) => debug!(pid = call.pid, "the target has exited meanwhile"),
            Err(errno) => error!(?call, %errno, "cannot reply"),
        }
        self.board.finish(slot);
    }
}

/// Whether this process can open another file.
fn has_descriptors() -> bool {
    EventFd::from_flags(EfdFlags::EFD_CLOEXEC).is_ok()
}

/// A call that is being served.
#[derive(Debug)]
struct Taken<'a> {
    slot: usize,
    call: &'a Notification,
    found: Option<Dispatched>,
    received: Instant,
}

impl<'a> Taken<'a> {
    fn new(slot: usize, call: &'a Notification, found: Option<Dispatched>) -> Self {
        Self {
            slot,
            call,
            found,
            received: Instant::now(),
        }
    }
}
