//! seccomp_unotify(2): [`ListenerFd`], [`Notification`], [`Reply`].
//!
//! Nothing here knows what a syscall means. A notification is received directly into shared memory
//! (see [`crate::wire::board`]), so that no call is lost when a worker dies.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::linux::sys::{self, NOTIFICATION_WORDS};

/// The memory into which the kernel writes one `struct seccomp_notif`.
pub(crate) type Slot = [AtomicU64; NOTIFICATION_WORDS];

/// A seccomp listener: the fd on which a filter's notifications arrive.
#[derive(Debug)]
pub(crate) struct ListenerFd {
    fd: OwnedFd,
    /// A socket on which another process, which receives from the listener, passes notifications
    /// on: one packet for each.
    feed: Option<OwnedFd>,
}

/// The reason why no notification was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReceiveError {
    /// The target was killed between the wake-up and the read (ENOENT), or a signal arrived: try
    /// again.
    Again,
    /// The last target has exited (Linux 6.11; before, only POLLHUP tells).
    NoTargets,
    Failed(Errno),
}

impl ListenerFd {
    /// Takes `fd` if it is a seccomp listener. ENOTTY or EINVAL otherwise.
    pub(crate) fn new(fd: OwnedFd) -> Result<Self, Errno> {
        // Ids count up from a random 64-bit number. Whether or not there is a notification 0
        // (ENOENT), the answer is a listener's; other files fail with ENOTTY or EINVAL.
        match sys::notification_id_valid(fd.as_fd(), 0) {
            Ok(()) | Err(Errno::ENOENT) => Ok(Self { fd, feed: None }),
            Err(errno) => Err(errno),
        }
    }

    /// From now on notifications are received from `feed`. Replies go to the listener as before.
    pub(crate) fn receive_from(&mut self, feed: OwnedFd) {
        self.feed = Some(feed);
    }

    /// Whether notifications come from another process; none come once that process has exited.
    pub(crate) fn is_fed(&self) -> bool {
        self.feed.is_some()
    }

    /// The file descriptor that becomes readable when a notification is waiting.
    pub(crate) fn queue(&self) -> BorrowedFd<'_> {
        self.feed.as_ref().unwrap_or(&self.fd).as_fd()
    }

    /// Lets a reply wake the target on this process's CPU (Linux 6.6), and the other way round: a
    /// tenth of the latency. Returns `false` on older kernels (EINVAL), where only the speed
    /// differs.
    pub(crate) fn enable_sync_wake_up(&self) -> bool {
        const SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP: u64 = 1;
        sys::notification_set_flags(self.fd.as_fd(), SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP).is_ok()
    }

    /// Blocks until a notification has been received into `slot`, which must be [empty](clear).
    pub(crate) fn receive(&self, slot: &Slot) -> Result<Notification, ReceiveError> {
        let received = match &self.feed {
            None => sys::notification_receive(self.fd.as_fd(), slot),
            Some(feed) => match sys::read_words(feed.as_fd(), slot) {
                // The other process has exited.
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

    /// Replies to the notification `id`. ENOENT if the target has been killed meanwhile.
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

    /// Installs `file` in the target and replies with the new file descriptor. EMFILE if the target
    /// may not have another one; then it still waits for a reply.
    pub(crate) fn reply_with_file(
        &self,
        id: u64,
        file: BorrowedFd,
        close_on_exec: bool,
    ) -> Result<Reply, Errno> {
        sys::notification_send_file(self.fd.as_fd(), id, file, close_on_exec).map(Reply::Sent)
    }

    /// Whether the notification still waits for its reply. If so, its pid has not been recycled.
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

    /// Whether a notification is waiting to be received.
    pub(crate) fn has_pending(&self) -> bool {
        self.events_within(Duration::ZERO)
            .contains(PollFlags::POLLIN)
    }

    /// Waits until a notification can be received or the last target has exited, for at most
    /// `patience`. Returns the events of poll(2); none after a timeout or a failure.
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

/// One call of a target. These are copies of its registers: unlike its memory, they cannot change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Notification {
    pub(crate) id: u64,
    /// The thread's id in this process's pid namespace; 0 if it has none there.
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

/// Empties `slot`: no call is in flight, and the kernel accepts it for RECV.
pub(crate) fn clear(slot: &Slot) {
    for word in slot {
        word.store(0, Ordering::Relaxed);
    }
}

/// A reply that is not an errno.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The kernel runs the call as it is.
    Continue,
    /// The call's return value.
    Value(i64),
    /// Already replied with this new file descriptor: [`ListenerFd::reply_with_file`].
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
