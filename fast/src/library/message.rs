//! sendmsg(2), recvmsg(2), sendmmsg(2), recvmmsg(2): the ids in SCM_CREDENTIALS (unix(7)).
//!
//! To the kernel all processes of the container have the same ids. So a message is sent with the
//! kernel's ids, if the sender may send those that it claims; and one that arrives shows the ids
//! that the worker knows of the process that has sent it. Messages without control data are libc's.

use core::ffi::{c_int, c_uint, c_void};
use core::mem::{MaybeUninit, offset_of};

use super::next;
use super::raw::{call, number, to_kernel, to_worker};
use super::{EFAULT, EINTR, EINVAL, ENOBUFS, EPERM, Raw, errno, page, set_errno, who};
use crate::facts::{CHANGED, MAPPED, SENDER};

/// `struct msghdr`, as glibc and musl have it: the upper half of a length is padding in one of
/// them.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Message {
    name: *mut c_void,
    name_length: u32,
    parts: *mut c_void,
    part_count: [u32; 2],
    control: *mut u8,
    control_length: u32,
    control_padding: u32,
    flags: c_int,
}

/// `struct mmsghdr`
#[repr(C)]
pub struct Numbered {
    message: Message,
    length: c_uint,
}

const _: () = assert!(size_of::<Message>() == 56 && size_of::<Numbered>() == 64);

/// `struct cmsghdr` and `struct ucred` behind it.
const HEADER: usize = 16;
const CREDENTIALS: usize = HEADER + 12;
const PID: usize = HEADER;
const UID: usize = HEADER + 4;
const GID: usize = HEADER + 8;

/// More than the kernel takes in one message: the credentials and 253 descriptors (SCM_MAX_FD).
const ROOM: usize = 1280;

fn word(control: &[u8], at: usize) -> u32 {
    let bytes = control.get(at..).and_then(|rest| rest.first_chunk());
    bytes.map_or(0, |word| u32::from_ne_bytes(*word))
}

fn set_word(control: &mut [u8], at: usize, value: u32) {
    let word = control
        .get_mut(at..)
        .and_then(|rest| rest.first_chunk_mut());
    if let Some(word) = word {
        *word = value.to_ne_bytes();
    }
}

/// Where the credentials in the control data are. The kernel takes no second ones.
fn find(control: &[u8]) -> Option<usize> {
    const SOL_SOCKET: u32 = 1;
    const SCM_CREDENTIALS: u32 = 2;
    let mut at = 0;
    while at + HEADER <= control.len() {
        let length = word(control, at) as usize;
        if length < HEADER || length > control.len() - at {
            return None;
        }
        let kind = (word(control, at + 8), word(control, at + 12));
        if kind == (SOL_SOCKET, SCM_CREDENTIALS) && length == CREDENTIALS {
            return Some(at);
        }
        at += length.next_multiple_of(8);
    }
    None
}

/// Where the control data of a message are, which can be read, and their length.
fn control_of(message: *const Message) -> (*mut u8, usize) {
    let control = message.wrapping_byte_add(offset_of!(Message, control));
    let length = message.wrapping_byte_add(offset_of!(Message, control_length));
    // SAFETY: the message can be read.
    let control = unsafe { control.cast::<*mut u8>().read_unaligned() };
    // SAFETY: as above.
    (control, unsafe { length.cast::<u32>().read_unaligned() }
        as usize)
}

/// Whether the kernel can read this memory: programs may pass any address, for which it says
/// EFAULT. rt_sigprocmask(2) reads a mask before it finds out that the operation is none.
fn is_readable(start: usize, length: usize) -> bool {
    const PAGE: usize = 4096;
    const NEAR: usize = 16 * PAGE;
    const NO_OPERATION: usize = usize::MAX;
    let here = MaybeUninit::<u64>::uninit();
    let distance = start.wrapping_sub(here.as_ptr().expose_provenance());
    if distance < NEAR && length < NEAR {
        // On the stack, in front of this function's frame.
        return true;
    }
    let Some(end) = start.checked_add(length) else {
        return false;
    };
    let mut at = start;
    while at < end {
        let word = [NO_OPERATION, at, 0, size_of::<u64>(), 0, 0];
        if call(number::RT_SIGPROCMASK, word) == EFAULT {
            return false;
        }
        at = match at + size_of::<u64>() {
            next if next >= end => end,
            // The last word, or the next page.
            _ => (end - size_of::<u64>()).min((at / PAGE + 1) * PAGE),
        };
    }
    true
}

/// A message that a program sends, with credentials at a place of its control data.
struct Claim<'a> {
    message: *const Message,
    control: &'a [u8],
    at: usize,
    facts: u64,
}

impl Claim<'_> {
    /// `None`: there are no credentials, or this process is none whose messages are looked at.
    fn of<'a>(message: *const Message) -> Option<Claim<'a>> {
        let address = message.expose_provenance();
        if address == 0 || !is_readable(address, size_of::<Message>()) {
            return None;
        }
        let (control, length) = control_of(message);
        if length < CREDENTIALS || control.is_null() {
            return None;
        }
        Self::in_control(message, control, length)
    }

    #[cold]
    fn in_control<'a>(
        message: *const Message,
        control: *const u8,
        length: usize,
    ) -> Option<Claim<'a>> {
        let facts = page::facts(number::GETUID)?;
        if !is_readable(control.expose_provenance(), length) {
            return None;
        }
        // SAFETY: it can be read; a program that changes it meanwhile gets what it asks for.
        let control = unsafe { core::slice::from_raw_parts(control, length) };
        let at = find(control)?;
        Some(Claim {
            message,
            control,
            at,
            facts,
        })
    }

    /// Sends the message with the kernel's ids, if the claim is allowed.
    #[inline(never)]
    fn send(&self, fd: c_int, flags: c_int) -> isize {
        let checked = {
            let of = |offset| word(self.control, self.at + offset);
            check(self.facts, of(PID), of(UID), of(GID))
        };
        let own = |number| low(to_kernel(number, [0; 5]));
        let uid = match checked {
            Ok(()) => own(number::GETUID),
            // The kernel finds other faults first, and sockets of other kinds take no ids.
            Err(_) => u32::MAX,
        };
        let ids = [uid, own(number::GETGID)];
        if self.control.len() > ROOM {
            return failed(ENOBUFS);
        }
        let mut room = MaybeUninit::<[u8; ROOM]>::uninit();
        let place = room.as_mut_ptr().cast::<u8>();
        for (index, byte) in self.control.iter().enumerate() {
            let in_ids = index.wrapping_sub(self.at + UID);
            let byte = match ids.get(in_ids / 4) {
                Some(id) => (id >> (in_ids % 4 * 8) & 0xff) as u8,
                None => *byte,
            };
            // A plain copy would be a call of the C library's memcpy.
            // SAFETY: it is not longer than the room.
            unsafe { place.wrapping_add(index).write_volatile(byte) };
        }
        // SAFETY: it could be read.
        let mut message = unsafe { self.message.read_unaligned() };
        message.control = place;
        let sent = next::sendmsg(fd, &raw const message, flags);
        match checked {
            Err(error) if sent < 0 && errno() == EINVAL => failed(error),
            _ => sent,
        }
    }
}

/// The lower half: an id.
fn low(raw: Raw) -> u32 {
    let [a, b, c, d, ..] = raw.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// Whether this process may send these credentials: net/core/scm.c, scm_check_creds.
fn check(facts: u64, pid: u32, uid: u32, gid: u32) -> Result<(), Raw> {
    const SETGID: u32 = 1 << 6;
    const SETUID: u32 = 1 << 7;
    const SYS_ADMIN: u32 = 1 << 21;
    if uid == u32::MAX || gid == u32::MAX {
        return Err(EINVAL);
    }
    let is_own = |number, id| {
        let mut ids = [0u32; 3];
        let [real, effective, saved] = [0, 1, 2].map(|at| {
            let place = ids.as_mut_ptr().wrapping_add(at);
            place.expose_provenance()
        });
        let places = [real, effective, saved, 0, 0];
        let asked = match who::is_first(facts) {
            true => to_kernel(number, places),
            false => to_worker(number, places),
        };
        asked == 0 && ids.contains(&id)
    };
    let mut wanted = 0;
    if pid != low(call(number::GETPID, [0; 6])) {
        wanted |= SYS_ADMIN;
    }
    if !is_own(number::GETRESUID, uid) {
        wanted |= SETUID;
    }
    if !is_own(number::GETRESGID, gid) {
        wanted |= SETGID;
    }
    match wanted == 0 || who::has_emulated(wanted) {
        true => Ok(()),
        false => Err(EPERM),
    }
}

/// Replaces the ids in control data that has arrived.
fn show_senders_ids(control: &mut [u8]) {
    let Some(at) = find(control) else {
        return;
    };
    let Some(facts) = page::facts(number::GETUID) else {
        return;
    };
    let (pid, uid) = (word(control, at + PID), word(control, at + UID));
    let is_of_container = match page::word(MAPPED) {
        0 => true,
        mapped => mapped == u64::from(uid) + 1,
    };
    if facts & CHANGED == 0 || pid == 0 || !is_of_container {
        return;
    }
    #[expect(clippy::cast_possible_truncation, reason = "registers have 64 bits")]
    const MARK: usize = SENDER as usize;
    let mut words = [pid, 0, 0, 0];
    let place = words.as_mut_ptr().expose_provenance();
    let asked = loop {
        match call(number::GETRESUID, [place, 0, 0, 0, 0, MARK]) {
            EINTR => {}
            answer => break answer,
        }
    };
    let [_, uid, gid, is_known] = words;
    if asked == 0 && is_known == 1 {
        set_word(control, at + UID, uid);
        set_word(control, at + GID, gid);
    }
}

/// A message that the kernel has just filled in.
struct Arrived(*mut Message);

impl Arrived {
    fn show(&self) {
        let (control, length) = control_of(self.0);
        if length < CREDENTIALS || control.is_null() {
            return;
        }
        // SAFETY: the kernel has written so many bytes there.
        show_senders_ids(unsafe { core::slice::from_raw_parts_mut(control, length) });
    }
}

fn failed(error: Raw) -> isize {
    set_errno(-error);
    -1
}

#[cfg_attr(fast_library, unsafe(no_mangle))]
pub extern "C" fn sendmsg(fd: c_int, message: *const Message, flags: c_int) -> isize {
    match Claim::of(message) {
        None => next::sendmsg(fd, message, flags),
        Some(claim) => claim.send(fd, flags),
    }
}

#[cfg_attr(fast_library, unsafe(no_mangle))]
pub extern "C" fn sendmmsg(
    fd: c_int,
    messages: *mut Numbered,
    count: c_uint,
    flags: c_int,
) -> c_int {
    let length = size_of::<Numbered>() * count as usize;
    let address = messages.expose_provenance();
    // net/socket.c, __sys_sendmmsg: UIO_MAXIOV.
    let claims = count <= 1024 && address != 0 && is_readable(address, length) && {
        let mut all = 0..count as usize;
        all.any(|index| Claim::of(messages.wrapping_add(index).cast()).is_some())
    };
    if !claims {
        return next::sendmmsg(fd, messages, count, flags);
    }
    for index in 0..count {
        let message = messages.wrapping_add(index as usize);
        let Ok(sent) = c_uint::try_from(sendmsg(fd, message.cast(), flags)) else {
            return match index {
                0 => -1,
                sent => sent.cast_signed(),
            };
        };
        let place = message.wrapping_byte_add(offset_of!(Numbered, length));
        // SAFETY: the program's memory, which the kernel would write to as well.
        unsafe { place.cast::<c_uint>().write_unaligned(sent) };
    }
    count.cast_signed()
}

#[cfg_attr(fast_library, unsafe(no_mangle))]
pub extern "C" fn recvmsg(fd: c_int, message: *mut Message, flags: c_int) -> isize {
    let received = next::recvmsg(fd, message, flags);
    if received >= 0 {
        Arrived(message).show();
    }
    received
}

#[cfg_attr(fast_library, unsafe(no_mangle))]
pub extern "C" fn recvmmsg(
    fd: c_int,
    messages: *mut Numbered,
    count: c_uint,
    flags: c_int,
    limit: *mut c_void,
) -> c_int {
    let received = next::recvmmsg(fd, messages, count, flags, limit);
    for index in 0..usize::try_from(received).unwrap_or(0) {
        Arrived(messages.wrapping_add(index).cast()).show();
    }
    received
}
