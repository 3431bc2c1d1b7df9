//! One system call in a child process that keeps nothing of this process but one file and the root
//! directory.
//!
//! A process can always follow its own magic links in procfs (kernel/ptrace.c,
//! __ptrace_may_access). So this process must not resolve a path that may lead to them. A child
//! may: its links lead to another working directory, and to none of this process's other files.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use libc::{c_int, c_uint};
use nix::errno::Errno;

/// The environment of a child's call.
#[derive(Debug)]
pub(crate) struct Child<'a> {
    /// The only file that the child keeps.
    pub(crate) file: BorrowedFd<'a>,
    /// The user namespace to enter, if it is not this process's.
    pub(crate) user_namespace: Option<BorrowedFd<'a>>,
    /// The child's working directory.
    pub(crate) directory: BorrowedFd<'a>,
    /// The child's effective capabilities, as far as they are permitted.
    pub(crate) effective: u64,
}

impl Child<'_> {
    /// Lets the child open `link` in the directory [`file`](Self::file), with O_PATH.
    pub(crate) fn open(&self, link: &CStr) -> Result<OwnedFd, Errno> {
        let opened = self.run(|| {
            // SAFETY: the string ends in NUL.
            let fd = unsafe { libc::openat(self.file.as_raw_fd(), link.as_ptr(), libc::O_PATH) };
            Errno::result(fd).map(Some)
        });
        // The child opened a file, but the message arrived without it: unix(7) drops file
        // descriptors beyond the receiver's RLIMIT_NOFILE.
        opened?.ok_or(Errno::ENFILE)
    }

    /// Lets the child bind the socket [`file`](Self::file) to an encoded address.
    pub(crate) fn bind(&self, address: &[u8]) -> Result<(), Errno> {
        self.run(|| super::bind(self.file, address).map(|()| None))
            .map(drop)
    }

    /// fsopen(2) by the child, whose pid namespace a new procfs shows.
    pub(crate) fn fsopen(&self, file_system: &CStr) -> Result<OwnedFd, Errno> {
        let opened = self.run(|| {
            let context = super::fsopen(file_system)?;
            Ok(Some(context.into_raw_fd()))
        });
        opened?.ok_or(Errno::ENFILE)
    }

    /// Runs `work` in the child, and returns its errno or the file that it returned, if any. `work`
    /// runs after a fork(2) of a multithreaded process, so it must be async-signal-safe
    /// (signal-safety(7)): above all it must not allocate.
    fn run(
        &self,
        work: impl FnOnce() -> Result<Option<RawFd>, Errno>,
    ) -> Result<Option<OwnedFd>, Errno> {
        let pair = UnixStream::pair();
        let (ours, theirs) = pair.map_err(crate::linux::errno_of)?;
        // SAFETY: the child calls only async-signal-safe functions and never returns from here.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let result = self.prepare(theirs.as_raw_fd()).and_then(|()| work());
            send_result(theirs.as_raw_fd(), result);
            // SAFETY: _exit runs no destructor or exit handler of the parent.
            unsafe { libc::_exit(0) };
        }
        // EAGAIN, ENOMEM: open(2) has neither; ENFILE is its errno for a system at its limit.
        let pid = Errno::result(pid).map_err(|_| Errno::ENFILE)?;
        drop(theirs);
        let answer = receive_result(&ours);
        let waited = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None);
        debug_assert!(waited.is_ok(), "{waited:?}");
        answer
    }

    /// Called in the child, before its work. Async-signal-safe.
    fn prepare(&self, channel: RawFd) -> Result<(), Errno> {
        nix::unistd::fchdir(self.directory)?;
        if let Some(namespace) = self.user_namespace {
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWUSER)?;
        }
        // All files but two. Afterwards the values that own the closed ones must not be used.
        let file = self.file.as_raw_fd();
        let (low, high) = (file.min(channel), file.max(channel));
        close_range(0, low - 1)?;
        close_range(low + 1, high - 1)?;
        close_range(high + 1, c_int::MAX)?;
        let permitted = super::capabilities(0)?.permitted;
        super::set_capabilities(self.effective & permitted, permitted)
    }
}

/// Closes the file descriptors from `first` to `last`; none if `first` is greater.
fn close_range(first: c_int, last: c_int) -> Result<(), Errno> {
    if first > last {
        return Ok(());
    }
    let (first, last) = (first.cast_unsigned(), last.cast_unsigned());
    let none: c_uint = 0;
    // SAFETY: touches no memory. The child uses neither these file descriptors nor the values that
    // own them any more.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, last, none) }).map(drop)
}

/// The size of a file descriptor in a control message.
const FD_SIZE: c_uint = 4;

/// A buffer for a control message with one file descriptor, aligned for its header.
#[repr(C, align(8))]
struct Control([u8; 64]);

/// Sends an errno, or 0 and a file. Async-signal-safe: called in the child.
fn send_result(channel: RawFd, result: Result<Option<RawFd>, Errno>) {
    let (mut errno, file) = match result {
        Ok(file) => (0, file),
        Err(errno) => (errno as c_int, None),
    };
    let mut part = libc::iovec {
        iov_base: (&raw mut errno).cast(),
        iov_len: size_of::<c_int>(),
    };
    let mut control = Control([0; 64]);
    // SAFETY: all-zero bytes are a valid `msghdr`.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if let Some(file) = file {
        message.msg_control = (&raw mut control).cast();
        // SAFETY: only computes a size.
        message.msg_controllen = unsafe { libc::CMSG_SPACE(FD_SIZE) } as _;
        // SAFETY: reads only the fields of `message`, whose control buffer is set above.
        let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
        // SAFETY: only computes a size.
        let length = unsafe { libc::CMSG_LEN(FD_SIZE) };
        let filled = libc::cmsghdr {
            cmsg_len: length as _,
            cmsg_level: libc::SOL_SOCKET,
            cmsg_type: libc::SCM_RIGHTS,
        };
        // SAFETY: `header` points into `control`, which is large enough and aligned for it.
        unsafe { header.write(filled) };
        // SAFETY: only computes an address.
        let data = unsafe { libc::CMSG_DATA(header) };
        // SAFETY: `control` has room for one file descriptor after the header.
        unsafe { data.cast::<RawFd>().write_unaligned(file) };
    }
    // SAFETY: `errno`, `part` and `control`, to which the message points, live until the end of
    // this function. A failure cannot be reported: the parent notices the missing message.
    unsafe { libc::sendmsg(channel, &raw const message, libc::MSG_NOSIGNAL) };
}

/// Receives what [`send_result`] sent. ENFILE if nothing arrived: the child was killed, or the user
/// has too many file descriptors in flight (unix(7), ETOOMANYREFS).
fn receive_result(channel: &UnixStream) -> Result<Option<OwnedFd>, Errno> {
    let mut bytes = [0; size_of::<c_int>()];
    let (length, mut files) = super::receive(channel, &mut bytes, 1)?;
    if length != bytes.len() {
        return Err(Errno::ENFILE);
    }
    match c_int::from_ne_bytes(bytes) {
        0 => Ok(files.pop()),
        errno => Err(Errno::from_raw(errno)),
    }
}
