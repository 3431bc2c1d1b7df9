//! One call made by a process of its own, which has nothing of this one's but its root directory.
//!
//! The kernel never closes a process's links in procfs to itself (kernel/ptrace.c,
//! __ptrace_may_access). Where a path may lead to them, this process must not walk it; a child
//! without files of this one's, and in another working directory, may.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use libc::{c_int, c_uint};
use nix::errno::Errno;

/// What the child does before it makes its call.
#[derive(Debug)]
pub(crate) struct Child<'a> {
    /// The only file that it keeps.
    pub(crate) file: BorrowedFd<'a>,
    /// The user namespace that it enters, if that is another one.
    pub(crate) user_namespace: Option<BorrowedFd<'a>>,
    /// Its working directory.
    pub(crate) directory: BorrowedFd<'a>,
    /// Its effective capabilities.
    pub(crate) effective: u64,
}

impl Child<'_> {
    /// Has the child open `link` of the directory that its file is, with O_PATH.
    pub(crate) fn open(&self, link: &CStr) -> Result<OwnedFd, Errno> {
        let opened = self.run(|| {
            // SAFETY: the string ends in NUL.
            let fd = unsafe { libc::openat(self.file.as_raw_fd(), link.as_ptr(), libc::O_PATH) };
            Errno::result(fd).map(Some)
        });
        // It had a file, which found no room here.
        opened?.ok_or(Errno::ENFILE)
    }

    /// Has the child bind the socket that its file is to an address as it is.
    pub(crate) fn bind(&self, address: &[u8]) -> Result<(), Errno> {
        self.run(|| super::bind(self.file, address).map(|()| None))
            .map(drop)
    }

    /// The result is a file of the child's that is handed over, if it has one. `work` runs after
    /// fork(2) in a process of many threads: it may only do what is async-signal-safe
    /// (signal-safety(7)), above all not allocate.
    fn run(
        &self,
        work: impl FnOnce() -> Result<Option<RawFd>, Errno>,
    ) -> Result<Option<OwnedFd>, Errno> {
        let pair = UnixStream::pair();
        let (ours, theirs) = pair.map_err(crate::linux::errno_of)?;
        // SAFETY: what the child does is async-signal-safe, and it never comes back.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let result = self.prepare(theirs.as_raw_fd()).and_then(|()| work());
            send_result(theirs.as_raw_fd(), result);
            // SAFETY: ends at once, without anything of the parent's being run.
            unsafe { libc::_exit(0) };
        }
        // EAGAIN or ENOMEM: for a child there is as little room as for a descriptor where ENFILE is
        // said.
        let pid = Errno::result(pid).map_err(|_| Errno::ENFILE)?;
        drop(theirs);
        let answer = receive_result(&ours);
        let waited = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None);
        debug_assert!(waited.is_ok(), "{waited:?}");
        answer
    }

    /// In the child.
    fn prepare(&self, channel: RawFd) -> Result<(), Errno> {
        nix::unistd::fchdir(self.directory)?;
        if let Some(namespace) = self.user_namespace {
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWUSER)?;
        }
        let file = self.file.as_raw_fd();
        let (low, high) = (file.min(channel), file.max(channel));
        close_range(0, low - 1)?;
        close_range(low + 1, high - 1)?;
        close_range(high + 1, c_int::MAX)?;
        let permitted = super::capabilities(0)?.permitted;
        super::set_capabilities(self.effective & permitted, permitted)
    }
}

fn close_range(first: c_int, last: c_int) -> Result<(), Errno> {
    if first > last {
        return Ok(());
    }
    let (first, last) = (first.cast_unsigned(), last.cast_unsigned());
    let none: c_uint = 0;
    // SAFETY: in a child that uses none of these files any more, nor anything that owns them.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, last, none) }).map(drop)
}

/// Of a file descriptor.
const FD_SIZE: c_uint = 4;

/// Room for one file descriptor, aligned as a control message.
#[repr(C, align(8))]
struct Control([u8; 64]);

/// An errno or 0, and a file.
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
        // SAFETY: the control buffer is large enough for a header.
        let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
        // SAFETY: only computes a size.
        let length = unsafe { libc::CMSG_LEN(FD_SIZE) };
        let filled = libc::cmsghdr {
            cmsg_len: length as _,
            cmsg_level: libc::SOL_SOCKET,
            cmsg_type: libc::SCM_RIGHTS,
        };
        // SAFETY: the header lies in the control buffer, which is aligned for it.
        unsafe { header.write(filled) };
        // SAFETY: only computes an address.
        let data = unsafe { libc::CMSG_DATA(header) };
        // SAFETY: the control buffer has room for one descriptor behind the header.
        unsafe { data.cast::<RawFd>().write_unaligned(file) };
    }
    // SAFETY: the message points to what lives to the end of this function. Nobody else could be
    // told of a failure.
    unsafe { libc::sendmsg(channel, &raw const message, libc::MSG_NOSIGNAL) };
}

/// ENFILE where the child could not answer: it was ended by somebody else, or too many files are on
/// their way (unix(7)).
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
