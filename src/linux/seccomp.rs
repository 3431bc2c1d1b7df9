//! The kernel boundary of seccomp_unotify(2): [`ListenerFd`], [`Notification`], [`Reply`].
//!
//! Nothing here knows what a syscall means. A notification is received straight into shared memory
//! (see [`crate::wire::board`]), so that a supervisor's death leaves no call unknown.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::linux::sys::{self, NOTIFICATION_WORDS};

/// The room that the kernel writes one `struct seccomp_notif` into.
pub(crate) type Slot = [AtomicU64; NOTIFICATION_WORDS];

/// A seccomp listener: the fd on which a filter's notifications arrive.
#[derive(Debug)]
pub(crate) struct ListenerFd {
    fd: OwnedFd,
    /// Where somebody else receives them, and passes on those that are for us: a packet each.
    feed: Option<OwnedFd>,
}

/// Why nothing could be received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReceiveError {
    /// The target was killed between the wake-up and the read, or a signal came: try again.
    Again,
    /// The last target has ended (Linux 6.11; before, only POLLHUP tells).
    NoTargets,
    Failed(Errno),
}

impl ListenerFd {
    /// Takes `fd` if it is a seccomp listener, otherwise gives the reason.
    pub(crate) fn new(fd: OwnedFd) -> Result<Self, Errno> {
        // 0 is an id that no notification has had for 2^64 calls: a listener says ENOENT, other
        // files ENOTTY or EINVAL.
        match sys::notification_id_valid(fd.as_fd(), 0) {
            Ok(()) | Err(Errno::ENOENT) => Ok(Self { fd, feed: None }),
            Err(errno) => Err(errno),
        }
    }

    /// From now on notifications come from `feed`; they are replied to as before.
    pub(crate) fn receive_from(&mut self, feed: OwnedFd) {
        self.feed = Some(feed);
    }

    /// Whether notifications come from somebody else, and none any more once he has ended.
    pub(crate) fn is_fed(&self) -> bool {
        self.feed.is_some()
    }

    /// What becomes readable when a notification is waiting for us.
    pub(crate) fn queue(&self) -> BorrowedFd<'_> {
        self.feed.as_ref().unwrap_or(&self.fd).as_fd()
    }

    /// Wakes the target on the supervisor's own core (Linux 6.6): a tenth of the latency. Older
    /// kernels say EINVAL.
    pub(crate) fn enable_sync_wake_up(&self) -> bool {
        const SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP: u64 = 1;
        // Without it everything works as well, only slower.
        sys::notification_set_flags(self.fd.as_fd(), SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP).is_ok()
    }

    /// Blocks until a notification is in `slot`, which must be [empty](clear).
    pub(crate) fn receive(&self, slot: &Slot) -> Result<Notification, ReceiveError> {
        let received = match &self.feed {
            None => sys::notification_receive(self.fd.as_fd(), slot),
            Some(feed) => match sys::read_words(feed.as_fd(), slot) {
                Ok(0) => return Err(ReceiveError::NoTargets),
                result => result.map(drop),
            },
        };
        match received {
            Ok(()) => Ok(Notification::read(slot)),
            Err(Errno::ENOENT | Errno::EINTR) => Err(ReceiveError::Again),
            Err(Errno::ENOTCONN) => Err(ReceiveError::NoTargets),
            Err(errno) => Err(ReceiveError::Failed(errno)),
        }
    }

    /// Replies. A target that has been killed meanwhile (ENOENT) needs no answer any more.
    pub(crate) fn reply(&self, id: u64, reply: Result<Reply, Errno>) -> Result<(), Errno> {
        let mut response = libc::seccomp_notif_resp {
            id,
            val: 0,
            error: 0,
            flags: 0,
        };
        match reply {
            Ok(Reply::Continue) => response.flags = CONTINUE,
            Ok(Reply::Value(value)) => response.val = value,
            Ok(Reply::Sent(_)) => return Ok(()),
            Err(errno) => response.error = -(errno as i32),
        }
        sys::notification_send(self.fd.as_fd(), &response)
    }

    /// Replies with a new file descriptor of the target's, for `file`. EMFILE when the target may
    /// have no more: then it still waits for a reply.
    pub(crate) fn reply_with_file(
        &self,
        id: u64,
        file: BorrowedFd,
        close_on_exec: bool,
    ) -> Result<Reply, Errno> {
        sys::notification_send_file(self.fd.as_fd(), id, file, close_on_exec).map(Reply::Sent)
    }

    /// Whether the notification still waits for its reply, so that its pid cannot have been
    /// recycled.
    pub(crate) fn is_waiting(&self, id: u64) -> bool {
        sys::notification_id_valid(self.fd.as_fd(), id).is_ok()
    }

    /// Whether any process still runs under the listener's filter.
    pub(crate) fn has_targets(&self) -> bool {
        let mut fds = [PollFd::new(self.as_fd(), PollFlags::empty())];
        match poll(&mut fds, PollTimeout::ZERO) {
            Ok(_) => !fds[0]
                .revents()
                .is_some_and(|events| events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR)),
            Err(_) => true,
        }
    }

    /// Whether a call is waiting that nobody has received.
    pub(crate) fn has_pending(&self) -> bool {
        self.events_within(Duration::ZERO)
            .contains(PollFlags::POLLIN)
    }

    /// Waits for so long until there is such a call, or no target any more: what there is.
    pub(crate) fn events_within(&self, patience: Duration) -> PollFlags {
        let mut fds = [PollFd::new(self.queue(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(_) => fds[0].revents().unwrap_or(PollFlags::empty()),
            Err(_) => PollFlags::empty(),
        }
    }
}

impl AsFd for ListenerFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// SECCOMP_USER_NOTIF_FLAG_CONTINUE
const CONTINUE: u32 = 1;

/// One call of a target, as it was when it trapped: registers, which cannot change under our eyes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Notification {
    pub(crate) id: u64,
    /// The thread's id in our pid namespace; 0 when it has none there.
    pub(crate) pid: u32,
    pub(crate) syscall: i32,
    /// AUDIT_ARCH_*
    pub(crate) arch: u32,
    pub(crate) args: [u64; 6],
}

impl Notification {
    /// Decodes `struct seccomp_notif`.
    pub(crate) fn read(slot: &Slot) -> Self {
        let word = |index: usize| slot[index].load(Ordering::Relaxed);
        // Two 32-bit members share a word: `pid` and `flags`, `nr` and `arch`.
        let halves = |index: usize| {
            let [a, b, c, d, e, f, g, h] = word(index).to_ne_bytes();
            (
                u32::from_ne_bytes([a, b, c, d]),
                u32::from_ne_bytes([e, f, g, h]),
            )
        };
        let (pid, _flags) = halves(1);
        let (syscall, arch) = halves(2);
        Self {
            id: word(0),
            pid,
            syscall: syscall.cast_signed(),
            arch,
            // Word 3 is the instruction pointer.
            args: std::array::from_fn(|index| word(4 + index)),
        }
    }
}

/// Makes `slot` ready for the next receive: no call in flight.
pub(crate) fn clear(slot: &Slot) {
    for word in slot {
        word.store(0, Ordering::Relaxed);
    }
}

/// What a target gets that does not get an errno.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The kernel runs the call as it is.
    Continue,
    /// The call's return value.
    Value(i64),
    /// It has its answer, this new file descriptor: [`ListenerFd::reply_with_file`].
    Sent(u32),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notification_is_read_from_the_words_that_the_kernel_writes() {
        let words: [u64; NOTIFICATION_WORDS] = [
            7,
            0x0000_0000_0000_04d2,
            0xc000_003e_0000_005c,
            0xdead,
            1,
            2,
            3,
            4,
            5,
            u64::MAX,
        ];
        let slot: Slot = words.map(AtomicU64::new);
        if cfg!(target_endian = "little") {
            assert_eq!(
                Notification::read(&slot),
                Notification {
                    id: 7,
                    pid: 1234,
                    syscall: 92,
                    arch: 0xc000_003e,
                    args: [1, 2, 3, 4, 5, u64::MAX],
                }
            );
        }
        clear(&slot);
        assert_eq!(Notification::read(&slot).id, 0);
    }

    #[test]
    fn a_file_that_is_no_listener_is_refused() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(matches!(
            ListenerFd::new(file.into()),
            Err(Errno::ENOTTY | Errno::EINVAL)
        ));
    }
}
