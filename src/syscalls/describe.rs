//! Describes calls in the notation of strace(1), for `subuidless trace`.
//!
//! All strings from a target's memory are quoted and escaped, because they go to a terminal. Called
//! only while someone traces.

use std::mem::offset_of;

use nix::errno::Errno;
use nix::fcntl::readlink;
use std::os::unix::ffi::OsStrExt;

use super::table::Argument::{self, *};
use super::table::Row;
use crate::credentials::Id as _;
use crate::linux::procfs;
use crate::linux::seccomp::Reply;
use crate::target::{Abi, Call};

/// The arguments of a call, before it is handled.
pub(crate) fn describe(call: &Call, row: &Row) -> Vec<String> {
    row.arguments
        .iter()
        .enumerate()
        .map(|(index, kind)| argument(call, index, *kind))
        .collect()
}

/// Replaces those `arguments` of an answered call that point to what it has written.
pub(crate) fn describe_results(call: &Call, row: &Row, arguments: &mut [String]) {
    for (index, (kind, text)) in row.arguments.iter().zip(arguments).enumerate() {
        if let Some(written) = result(call, row, index, *kind) {
            *text = written;
        }
    }
}

/// The text behind the equals sign.
pub(crate) fn describe_reply(reply: Result<Reply, Errno>) -> String {
    match reply {
        Ok(Reply::Continue) => "? (left to the kernel)".to_owned(),
        Ok(Reply::Value(value)) => value.to_string(),
        Ok(Reply::Sent(fd)) => fd.to_string(),
        Err(errno) => format!("-1 {errno:?} ({})", errno.desc()),
    }
}

fn argument(call: &Call, index: usize, kind: Argument) -> String {
    let int = call.int(index);
    match kind {
        Path => match (call.register(index), call.path(index)) {
            (0, _) => "NULL".to_owned(),
            (_, Ok(path)) => quoted(path.as_c_str().to_bytes()),
            (address, Err(_)) => format!("{address:#x}"),
        },
        Dirfd if int == libc::AT_FDCWD => "AT_FDCWD".to_owned(),
        Dirfd | Fd => descriptor(call, int),
        Id => call
            .uid(index)
            .map_or_else(|| "-1".to_owned(), |id| id.as_raw().to_string()),
        Int => int.to_string(),
        Size => call.register(index).to_string(),
        Hex => format!("{:#x}", call.register(index)),
        Ptr | Stat | Statx | IdOut => pointer(call.register(index)),
        Groups => groups(call, index).unwrap_or_else(|| pointer(call.register(index))),
        Mode => format!("0{:o}", call.unsigned(index)),
        Device => {
            let device = u64::from(call.unsigned(index));
            format!(
                "makedev({:#x}, {:#x})",
                libc::major(device),
                libc::minor(device)
            )
        }
        OpenFlags => {
            let access = ["O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE"];
            let rest = bits(int & !libc::O_ACCMODE, &OPEN_FLAGS);
            let access = access[usize::try_from(int & libc::O_ACCMODE).unwrap_or(3)];
            if rest == "0" {
                access.to_owned()
            } else {
                format!("{access}|{rest}")
            }
        }
        AtFlags => bits(int, &AT_FLAGS),
        AccessMode if int == 0 => "F_OK".to_owned(),
        AccessMode => bits(int, &[(4, "R_OK"), (2, "W_OK"), (1, "X_OK")]),
        CloneFlags => bits(int, &CLONE_FLAGS),
        XattrFlags => bits(int, &[(1, "XATTR_CREATE"), (2, "XATTR_REPLACE")]),
        Resource => match call.unsigned(index) {
            libc::RLIMIT_LOCKS => "RLIMIT_LOCKS".to_owned(),
            other => other.to_string(),
        },
        Prctl => PRCTL
            .iter()
            .find(|(option, _)| *option == int)
            .map_or_else(|| int.to_string(), |(_, name)| (*name).to_owned()),
    }
}

fn pointer(address: u64) -> String {
    match address {
        0 => "NULL".to_owned(),
        address => format!("{address:#x}"),
    }
}

fn groups(call: &Call, index: usize) -> Option<String> {
    const MAX: usize = 32;
    let wanted = usize::try_from(call.int(index - 1)).ok()?;
    let mut bytes = vec![0; wanted.min(MAX) * call.id_size()];
    call.read(index, &mut bytes).ok()?;
    let mut ids: Vec<String> = bytes
        .chunks_exact(call.id_size())
        .map(|id| {
            let mut word = [0; 4];
            word[..id.len()].copy_from_slice(id);
            u32::from_le_bytes(word).to_string()
        })
        .collect();
    if wanted > MAX {
        ids.push("...".to_owned());
    }
    Some(format!("[{}]", ids.join(", ")))
}

fn descriptor(call: &Call, fd: i32) -> String {
    let name = procfs::target_fd(call.pid(), fd);
    let target = readlink(&name).ok().filter(|_| fd >= 0);
    match target {
        Some(target) => format!("{fd}<{}>", escaped(target.as_bytes())),
        None => fd.to_string(),
    }
}

fn result(call: &Call, row: &Row, index: usize, kind: Argument) -> Option<String> {
    let owner = |name: &str, uid, gid| {
        let (uid, gid) = (word(call, index, uid)?, word(call, index, gid)?);
        Some(format!("{{{name}_uid={uid}, {name}_gid={gid}, ...}}"))
    };
    match kind {
        Stat => match call.abi {
            Abi::Native => owner(
                "st",
                offset_of!(libc::stat, st_uid),
                offset_of!(libc::stat, st_gid),
            ),
            // Offsets as in `super::compat`. The old structure has two adjacent ids of
            // 16 bits.
            _ if row.name.ends_with("64") => owner("st", 24, 28),
            _ => {
                let both = word(call, index, 12)?;
                let (uid, gid) = (both & 0xffff, both >> 16);
                Some(format!("{{st_uid={uid}, st_gid={gid}, ...}}"))
            }
        },
        Statx => owner(
            "stx",
            offset_of!(libc::statx, stx_uid),
            offset_of!(libc::statx, stx_gid),
        ),
        IdOut => {
            let mut bytes = [0; 4];
            call.read(index, &mut bytes[..call.id_size()]).ok()?;
            Some(format!("[{}]", u32::from_le_bytes(bytes)))
        }
        _ => None,
    }
}

/// Reads four bytes at an offset from where an argument points.
fn word(call: &Call, index: usize, offset: usize) -> Option<u32> {
    let mut bytes = [0; 64];
    let read = bytes.get_mut(..offset + 4)?;
    call.read(index, read).ok()?;
    Some(u32::from_ne_bytes(*read.last_chunk()?))
}

/// A quoted string. Like strace(1), it shows only the first bytes of a long one.
fn quoted(bytes: &[u8]) -> String {
    const MAX: usize = 512;
    match bytes.get(..MAX) {
        Some(start) if start.len() < bytes.len() => format!("\"{}\"...", escaped(start)),
        _ => format!("\"{}\"", escaped(bytes)),
    }
}

/// The bytes as printable ASCII: all others are escaped, and so are quotation marks and
/// backslashes.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| {
            let plain = (*byte == b'\'').then_some(b'\'');
            let escaped = plain.is_none().then(|| std::ascii::escape_default(*byte));
            plain.into_iter().chain(escaped.into_iter().flatten())
        })
        .map(char::from)
        .collect()
}

/// The names of the flags that are set; the remaining bits as a number.
fn bits(value: i32, names: &[(i32, &str)]) -> String {
    let mut rest = value;
    let mut set = Vec::new();
    for (bits, name) in names {
        if rest & bits == *bits {
            set.push((*name).to_owned());
            rest &= !bits;
        }
    }
    if rest != 0 || set.is_empty() {
        set.push(if rest == 0 {
            "0".to_owned()
        } else {
            format!("{rest:#x}")
        });
    }
    set.join("|")
}

/// Flags that consist of several bits come first.
const OPEN_FLAGS: [(i32, &str); 12] = [
    (libc::O_TMPFILE, "O_TMPFILE"),
    (libc::O_SYNC, "O_SYNC"),
    (libc::O_CREAT, "O_CREAT"),
    (libc::O_EXCL, "O_EXCL"),
    (libc::O_NOCTTY, "O_NOCTTY"),
    (libc::O_TRUNC, "O_TRUNC"),
    (libc::O_APPEND, "O_APPEND"),
    (libc::O_NONBLOCK, "O_NONBLOCK"),
    (libc::O_DIRECTORY, "O_DIRECTORY"),
    (libc::O_NOFOLLOW, "O_NOFOLLOW"),
    (libc::O_CLOEXEC, "O_CLOEXEC"),
    (libc::O_PATH, "O_PATH"),
];

const AT_FLAGS: [(i32, &str); 6] = [
    (libc::AT_SYMLINK_NOFOLLOW, "AT_SYMLINK_NOFOLLOW"),
    (libc::AT_EACCESS, "AT_EACCESS"),
    (libc::AT_SYMLINK_FOLLOW, "AT_SYMLINK_FOLLOW"),
    (libc::AT_NO_AUTOMOUNT, "AT_NO_AUTOMOUNT"),
    (libc::AT_EMPTY_PATH, "AT_EMPTY_PATH"),
    (libc::AT_STATX_DONT_SYNC, "AT_STATX_DONT_SYNC"),
];

const CLONE_FLAGS: [(i32, &str); 7] = [
    (libc::CLONE_NEWNS, "CLONE_NEWNS"),
    (libc::CLONE_NEWUSER, "CLONE_NEWUSER"),
    (libc::CLONE_NEWPID, "CLONE_NEWPID"),
    (libc::CLONE_NEWNET, "CLONE_NEWNET"),
    (libc::CLONE_NEWIPC, "CLONE_NEWIPC"),
    (libc::CLONE_NEWUTS, "CLONE_NEWUTS"),
    (libc::CLONE_NEWCGROUP, "CLONE_NEWCGROUP"),
];

const PRCTL: [(i32, &str); 6] = [
    (libc::PR_SET_KEEPCAPS, "PR_SET_KEEPCAPS"),
    (libc::PR_SET_NAME, "PR_SET_NAME"),
    (libc::PR_CAPBSET_DROP, "PR_CAPBSET_DROP"),
    (libc::PR_SET_SECUREBITS, "PR_SET_SECUREBITS"),
    (libc::PR_SET_TIMERSLACK, "PR_SET_TIMERSLACK"),
    (libc::PR_CAP_AMBIENT, "PR_CAP_AMBIENT"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_printable_ascii_is_shown() {
        let all: Vec<u8> = (0..=255).collect();
        let text = quoted(&all);
        assert!(text.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
        assert_eq!(quoted(b"it's \"a\"\n\x1b[2J"), r#""it's \"a\"\n\x1b[2J""#);
        let long = quoted(&[b'\x1b'; 5000]);
        assert!(long.ends_with("\"...") && long.len() < 2100);
    }

    #[test]
    fn flags_are_named_and_the_rest_is_a_number() {
        assert_eq!(bits(0, &AT_FLAGS), "0");
        assert_eq!(bits(0x1100, &AT_FLAGS), "AT_SYMLINK_NOFOLLOW|AT_EMPTY_PATH");
        assert_eq!(
            bits(0x4000_0100, &AT_FLAGS),
            "AT_SYMLINK_NOFOLLOW|0x40000000"
        );
        assert_eq!(
            bits(libc::O_CREAT | libc::O_TMPFILE, &OPEN_FLAGS),
            "O_TMPFILE|O_CREAT"
        );
    }

    #[test]
    fn replies_look_as_in_strace() {
        assert_eq!(describe_reply(Ok(Reply::Value(-7))), "-7");
        assert_eq!(describe_reply(Ok(Reply::Sent(3))), "3");
        assert_eq!(
            describe_reply(Err(Errno::EPERM)),
            "-1 EPERM (Operation not permitted)"
        );
    }
}
