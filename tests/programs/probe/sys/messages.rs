//! Messages with control data, by the functions of the C library: only the preloaded library sees
//! what is in them.

use std::mem::MaybeUninit;

use libc::{c_int, c_void};

use super::errno;

/// Room for the control data of a message.
const ROOM: usize = 256;

/// Credentials in a message: pid, uid, gid.
pub(crate) type Credentials = [u32; 3];

/// How the functions are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Times {
    One,
    /// sendmmsg(2), recvmmsg(2).
    Many,
}

/// The buffers of a message of one byte.
struct Buffers {
    byte: [u8; 1],
    part: libc::iovec,
    control: [u64; ROOM / 8],
}

impl Buffers {
    fn new() -> Box<Self> {
        let part = libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 1,
        };
        let mut buffers = Box::new(Self {
            byte: *b"x",
            part,
            control: [0; ROOM / 8],
        });
        buffers.part.iov_base = buffers.byte.as_mut_ptr().cast();
        buffers
    }

    fn message(&mut self, control_length: usize) -> libc::msghdr {
        // SAFETY: all-zero bytes are a valid `msghdr`.
        let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
        message.msg_iov = &raw mut self.part;
        message.msg_iovlen = 1;
        message.msg_control = self.control.as_mut_ptr().cast::<c_void>();
        message.msg_controllen = control_length as _;
        message
    }
}

/// The words of a control message of `length` bytes with these credentials.
fn control_words(credentials: Credentials, length: u64) -> [u64; 4] {
    let [pid, uid, gid] = credentials.map(u64::from);
    [length, 2 << 32 | 1, uid << 32 | pid, gid]
}

/// Sends a byte with credentials, behind a descriptor if there is one. `length`: of the control
/// message, 28 if it is right.
pub(crate) fn send(
    socket: i32,
    times: Times,
    credentials: Credentials,
    descriptor: Option<i32>,
    length: u64,
) -> Result<i64, i32> {
    let mut buffers = Buffers::new();
    let mut words = Vec::new();
    if let Some(descriptor) = descriptor {
        words.extend([20, 1 << 32 | 1, u64::from(descriptor.unsigned_abs())]);
    }
    words.extend(control_words(credentials, length));
    buffers.control[..words.len()].copy_from_slice(&words);
    let message = buffers.message(words.len() * 8);
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let sent = match times {
        // SAFETY: the message points to buffers that live for the time of the call.
        Times::One => unsafe { libc::sendmsg(socket, &raw const message, flags) as i64 },
        Times::Many => {
            let mut messages = [message, message].map(|msg_hdr| libc::mmsghdr {
                msg_hdr,
                msg_len: 0,
            });
            let first = messages.as_mut_ptr();
            // SAFETY: as above.
            i64::from(unsafe { libc::sendmmsg(socket, first, 2, flags as _) })
        }
    };
    if sent < 0 { Err(errno()) } else { Ok(sent) }
}

/// The credentials of each message that has arrived.
pub(crate) fn receive(socket: i32, times: Times) -> Result<Vec<Option<Credentials>>, i32> {
    let mut buffers = [Buffers::new(), Buffers::new()];
    let mut messages = buffers.each_mut().map(|buffers| libc::mmsghdr {
        msg_hdr: buffers.message(ROOM),
        msg_len: 0,
    });
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    let received = match times {
        Times::One => {
            let message = &raw mut messages[0].msg_hdr;
            // SAFETY: the message points to buffers that live for the time of the call.
            c_int::from(unsafe { libc::recvmsg(socket, message, flags) } >= 0) * 2 - 1
        }
        Times::Many => {
            let (first, null) = (messages.as_mut_ptr(), std::ptr::null_mut());
            // SAFETY: as above.
            unsafe { libc::recvmmsg(socket, first, 2, flags as _, null) }
        }
    };
    let Ok(received) = usize::try_from(received) else {
        return Err(errno());
    };
    let arrived = messages.iter().take(received);
    Ok(arrived.map(|message| found(&message.msg_hdr)).collect())
}

/// The credentials in a message that has arrived; closes descriptors.
fn found(message: &libc::msghdr) -> Option<Credentials> {
    let mut found = None;
    // SAFETY: the kernel has filled in the control data.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !next.is_null() {
        // SAFETY: it points to a header in the control data.
        let header = unsafe { next.read_unaligned() };
        // SAFETY: only computes an address.
        let data = unsafe { libc::CMSG_DATA(next) };
        match header.cmsg_type {
            libc::SCM_CREDENTIALS => {
                // SAFETY: of this type, there are three words.
                found = Some(unsafe { data.cast::<Credentials>().read_unaligned() });
            }
            libc::SCM_RIGHTS => {
                // SAFETY: of this type, there is at least one descriptor; the tests send one.
                let descriptor = unsafe { data.cast::<c_int>().read_unaligned() };
                // SAFETY: it is this function's.
                unsafe { libc::close(descriptor) };
            }
            _ => {}
        }
        // SAFETY: as for the first one.
        next = unsafe { libc::CMSG_NXTHDR(message, next) };
    }
    found
}

/// What the functions say of addresses that are none.
pub(crate) fn send_from_nowhere(socket: i32) -> [Result<i64, i32>; 3] {
    let result = |value: isize| {
        if value < 0 {
            Err(errno())
        } else {
            Ok(value as i64)
        }
    };
    let mut buffers = Buffers::new();
    let mut message = buffers.message(32);
    message.msg_control = std::ptr::without_provenance_mut(0x1000);
    [0, 0x1000, 1 << 47].map(|address: usize| {
        let bad: *const libc::msghdr = std::ptr::without_provenance(address);
        let message = if address == 0x1000 {
            &raw const message
        } else {
            bad
        };
        // SAFETY: the kernel refuses the addresses.
        result(unsafe { libc::sendmsg(socket, message, libc::MSG_DONTWAIT) })
    })
}
