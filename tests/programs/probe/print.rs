//! Arguments, results and the fields of a file as text. Nothing may be printed that differs between
//! two runs that behave alike: inode, device and process numbers, times, the path of the working
//! directory, the number of a new fd.

use crate::sys::{Answer, Arg, Place};

pub(crate) const AT_FLAGS: &[(u32, &str)] = &[
    (0x100, "AT_SYMLINK_NOFOLLOW"),
    (0x200, "AT_REMOVEDIR"),
    (0x400, "AT_SYMLINK_FOLLOW"),
    (0x800, "AT_NO_AUTOMOUNT"),
    (0x1000, "AT_EMPTY_PATH"),
    (0x2000, "AT_STATX_FORCE_SYNC"),
    (0x4000, "AT_STATX_DONT_SYNC"),
    (0x10000, "AT_EXECVE_CHECK"),
];

/// O_LARGEFILE, which is 0 in libc (asm/fcntl.h).
const LARGE_FILE: u32 = match cfg!(target_arch = "aarch64") {
    true => 0o400_000,
    false => 0o100_000,
};

pub(crate) const OPEN_FLAGS: &[(u32, &str)] = &[
    (0o1, "O_WRONLY"),
    (0o2, "O_RDWR"),
    (0o100, "O_CREAT"),
    (0o200, "O_EXCL"),
    (0o1000, "O_TRUNC"),
    (0o2000, "O_APPEND"),
    (0o4000, "O_NONBLOCK"),
    (LARGE_FILE, "O_LARGEFILE"),
    (libc::O_DIRECTORY.cast_unsigned(), "O_DIRECTORY"),
    (libc::O_NOFOLLOW.cast_unsigned(), "O_NOFOLLOW"),
    (0o2_000_000, "O_CLOEXEC"),
    (0o10_000_000, "O_PATH"),
    (0o20_000_000, "__O_TMPFILE"),
];

pub(crate) const RENAME_FLAGS: &[(u32, &str)] = &[(1, "RENAME_NOREPLACE"), (2, "RENAME_EXCHANGE")];

const STATX_MASK: &[(u32, &str)] = &[
    (0x1, "TYPE"),
    (0x2, "MODE"),
    (0x4, "NLINK"),
    (0x8, "UID"),
    (0x10, "GID"),
    (0x20, "ATIME"),
    (0x40, "MTIME"),
    (0x80, "CTIME"),
    (0x100, "INO"),
    (0x200, "SIZE"),
    (0x400, "BLOCKS"),
    (0x800, "BTIME"),
];

pub(crate) const INOTIFY_EVENTS: &[(u32, &str)] = &[
    (0x1, "IN_ACCESS"),
    (0x2, "IN_MODIFY"),
    (0x4, "IN_ATTRIB"),
    (0x8, "IN_CLOSE_WRITE"),
    (0x10, "IN_CLOSE_NOWRITE"),
    (0x20, "IN_OPEN"),
    (0x40, "IN_MOVED_FROM"),
    (0x80, "IN_MOVED_TO"),
    (0x100, "IN_CREATE"),
    (0x200, "IN_DELETE"),
    (0x400, "IN_DELETE_SELF"),
    (0x800, "IN_MOVE_SELF"),
    (0x4000_0000, "IN_ISDIR"),
];

const ERRNO: &[(i32, &str)] = &[
    (libc::EPERM, "EPERM"),
    (libc::ENOENT, "ENOENT"),
    (libc::EINTR, "EINTR"),
    (libc::EIO, "EIO"),
    (libc::ENXIO, "ENXIO"),
    (libc::EBADF, "EBADF"),
    (libc::EAGAIN, "EAGAIN"),
    (libc::ENOMEM, "ENOMEM"),
    (libc::EACCES, "EACCES"),
    (libc::EFAULT, "EFAULT"),
    (libc::EBUSY, "EBUSY"),
    (libc::EEXIST, "EEXIST"),
    (libc::EXDEV, "EXDEV"),
    (libc::ENODEV, "ENODEV"),
    (libc::ENOTDIR, "ENOTDIR"),
    (libc::EISDIR, "EISDIR"),
    (libc::EINVAL, "EINVAL"),
    (libc::EMFILE, "EMFILE"),
    (libc::ENOTTY, "ENOTTY"),
    (libc::ETXTBSY, "ETXTBSY"),
    (libc::EFBIG, "EFBIG"),
    (libc::ENOSPC, "ENOSPC"),
    (libc::ESPIPE, "ESPIPE"),
    (libc::EROFS, "EROFS"),
    (libc::EMLINK, "EMLINK"),
    (libc::EPIPE, "EPIPE"),
    (libc::ERANGE, "ERANGE"),
    (libc::ENAMETOOLONG, "ENAMETOOLONG"),
    (libc::ENOSYS, "ENOSYS"),
    (libc::ENOTEMPTY, "ENOTEMPTY"),
    (libc::ELOOP, "ELOOP"),
    (libc::ENODATA, "ENODATA"),
    (libc::EOVERFLOW, "EOVERFLOW"),
    (libc::EOPNOTSUPP, "EOPNOTSUPP"),
    (libc::EADDRINUSE, "EADDRINUSE"),
    (libc::ESTALE, "ESTALE"),
    (libc::EDQUOT, "EDQUOT"),
    (libc::ESRCH, "ESRCH"),
    (libc::E2BIG, "E2BIG"),
    (libc::ENOEXEC, "ENOEXEC"),
    (libc::ENOTSOCK, "ENOTSOCK"),
    (libc::ENOPROTOOPT, "ENOPROTOOPT"),
    (libc::ENOTCONN, "ENOTCONN"),
    (libc::ECONNREFUSED, "ECONNREFUSED"),
    (libc::EDESTADDRREQ, "EDESTADDRREQ"),
    (libc::EAFNOSUPPORT, "EAFNOSUPPORT"),
];

pub(crate) fn errno(number: i32) -> String {
    let known = ERRNO.iter().find(|(known, _)| *known == number);
    known.map_or_else(|| format!("errno {number}"), |(_, name)| (*name).to_owned())
}

/// `value` as names joined by `|`, with what has no name in hex.
pub(crate) fn bits(value: u32, names: &[(u32, &str)]) -> String {
    let named = names.iter().filter(|(bit, _)| value & bit != 0);
    let unnamed = names.iter().fold(value, |rest, (bit, _)| rest & !bit);
    let mut parts: Vec<String> = named.map(|(_, name)| (*name).to_owned()).collect();
    if unnamed != 0 || parts.is_empty() {
        parts.push(if unnamed == 0 {
            "0".to_owned()
        } else {
            format!("{unnamed:#x}")
        });
    }
    parts.join("|")
}

pub(crate) fn id(number: u32) -> String {
    match number {
        u32::MAX => "-1".to_owned(),
        number => number.to_string(),
    }
}

/// A list of ids, with its middle left out if it is long.
pub(crate) fn ids(list: &[u32]) -> String {
    let shown = |part: &[u32]| part.iter().copied().map(id).collect::<Vec<_>>().join(", ");
    match list {
        [first @ .., last] if list.len() > 40 => {
            format!("[{}, ... {last}]({})", shown(&first[..4]), list.len())
        }
        list => format!("[{}]", shown(list)),
    }
}

fn escape(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| std::ascii::escape_default(*byte))
        .map(char::from)
        .collect()
}

/// Writes the arguments of one probe: it knows what to leave out.
#[derive(Clone)]
pub(crate) struct Printer {
    pub(crate) directory: Vec<u8>,
}

impl Printer {
    /// A path with `$DIR` for the working directory, `$PID` and `$TID` for the caller's ids, and
    /// its middle left out if it is long.
    pub(crate) fn path(&self, path: &[u8]) -> String {
        let pid = format!("/proc/{}/", crate::sys::process_id());
        let tid = format!("/task/{}/", crate::sys::thread_id());
        let shown = replace(path, &self.directory, b"$DIR");
        let shown = replace(&shown, pid.as_bytes(), b"/proc/$PID/");
        let shown = replace(&shown, tid.as_bytes(), b"/task/$TID/");
        if shown.len() <= 120 {
            return format!("\"{}\"", escape(&shown));
        }
        // A path made to have an exact length is told by that length, any other one by what is
        // printed of it.
        let length = if path.len() >= 4000 {
            path.len()
        } else {
            shown.len()
        };
        format!(
            "\"{}...{}\"({length})",
            escape(&shown[..16]),
            escape(&shown[shown.len() - 16..])
        )
    }

    pub(crate) fn arg(&self, arg: &Arg) -> String {
        match arg {
            Arg::Fd(libc::AT_FDCWD) => "AT_FDCWD".to_owned(),
            Arg::Fd(fd) => fd.to_string(),
            Arg::HiddenFd(_) => "fd".to_owned(),
            Arg::Id(number) => id(*number),
            Arg::Octal(mode) => format!("{mode:#o}"),
            Arg::Number(number) => number.to_string(),
            Arg::Word(word) => format!("{word:#x}"),
            Arg::Bits(value, names) => bits(*value, names),
            Arg::Mask(mask) => bits(*mask, STATX_MASK),
            Arg::Path(path, place @ (Place::Heap | Place::PageEnd | Place::Cut)) => {
                format!("{}{}", self.path(path), memory(*place))
            }
            Arg::Text(text) | Arg::Input(text) => format!("\"{}\"", escape(text)),
            Arg::Output(length, place) => format!("[{length}]{}", memory(*place)),
            Arg::Named(_, name) => (*name).to_owned(),
            Arg::Ids(list, place) => format!("{}{}", ids(list), memory(*place)),
            Arg::Words(words, place) => {
                let words: Vec<String> = words.iter().map(|word| format!("{word:#x}")).collect();
                format!("[{}]{}", words.join(", "), memory(*place))
            }
            Arg::Strings(list) => {
                let list: Vec<String> = list.iter().map(|text| self.path(text)).collect();
                format!("[{}]", list.join(", "))
            }
            Arg::Stat(Place::Heap) | Arg::Statx(Place::Heap) => "buf".to_owned(),
            Arg::Path(_, place) | Arg::Stat(place) | Arg::Statx(place) => {
                format!("buf{}", memory(*place))
            }
        }
    }
}

fn memory(place: Place) -> &'static str {
    match place {
        Place::Heap => "",
        Place::PageEnd => "@page-end",
        Place::Cut => "@cut",
        Place::ReadOnly => "@read-only",
        Place::Unmapped => "@unmapped",
        Place::Null => "@NULL",
        Place::One => "@1",
        Place::Kernel => "@kernel",
        Place::NonCanonical => "@non-canonical",
    }
}

fn replace(haystack: &[u8], needle: &[u8], with: &[u8]) -> Vec<u8> {
    match haystack
        .windows(needle.len())
        .position(|window| window == needle)
    {
        Some(at) => [&haystack[..at], with, &haystack[at + needle.len()..]].concat(),
        None => haystack.to_vec(),
    }
}

fn kind(mode: u32) -> char {
    match mode & libc::S_IFMT {
        libc::S_IFREG => 'f',
        libc::S_IFDIR => 'd',
        libc::S_IFLNK => 'l',
        libc::S_IFIFO => 'p',
        libc::S_IFSOCK => 's',
        libc::S_IFCHR => 'c',
        libc::S_IFBLK => 'b',
        0 => '-',
        _ => '?',
    }
}

/// Type, mode, owner, links, device and, where the file system does not choose it, size.
pub(crate) fn stat(stat: &libc::stat) -> String {
    let mode = stat.st_mode;
    let mut fields = format!(
        "{}{:04o} {}:{}",
        kind(mode),
        mode & 0o7777,
        stat.st_uid,
        stat.st_gid
    );
    fields += &format!(" links={}", stat.st_nlink);
    if matches!(kind(mode), 'f' | 'l') {
        fields += &format!(" size={}", stat.st_size);
    }
    if matches!(kind(mode), 'c' | 'b') {
        fields += &format!(" rdev={:#x}", stat.st_rdev);
    }
    fields
}

/// As [`stat`], but only what `mask` asks for: the kernel may fill in other fields or not, as it
/// likes.
pub(crate) fn statx(statx: &libc::statx, mask: u32) -> String {
    let mode = u32::from(statx.stx_mode);
    let mut fields = vec![
        format!("mask={:#x}", statx.stx_mask),
        format!(
            "attributes={:#x}/{:#x}",
            statx.stx_attributes, statx.stx_attributes_mask
        ),
    ];
    // The kernel fills in more than was asked for, and says so. Times are of those that were asked
    // for: they differ.
    const TIMES: u32 =
        libc::STATX_ATIME | libc::STATX_MTIME | libc::STATX_CTIME | libc::STATX_BTIME;
    let shown = mask | statx.stx_mask & !TIMES;
    let mut ask = |bit: u32, text: String| {
        if shown & bit == bit {
            fields.push(text);
        }
    };
    ask(
        libc::STATX_TYPE | libc::STATX_MODE,
        format!("{}{:04o}", kind(mode), mode & 0o7777),
    );
    ask(libc::STATX_UID, format!("uid={}", statx.stx_uid));
    ask(libc::STATX_GID, format!("gid={}", statx.stx_gid));
    ask(libc::STATX_NLINK, format!("links={}", statx.stx_nlink));
    if matches!(kind(mode), 'f' | 'l') {
        ask(libc::STATX_SIZE, format!("size={}", statx.stx_size));
    }
    ask(
        libc::STATX_BTIME,
        format!(
            "btime={}",
            if statx.stx_btime.tv_sec == 0 {
                "none"
            } else {
                "some"
            }
        ),
    );
    // sockfs leaves the times of its inodes as it found the memory.
    if kind(mode) != 's' {
        ask(
            libc::STATX_CTIME,
            format!(
                "ctime={}",
                if statx.stx_ctime.tv_sec == 0 {
                    "none"
                } else {
                    "some"
                }
            ),
        );
    }
    fields.join(" ")
}

/// The result of a call, with the fields that it delivered.
pub(crate) fn answer(answer: &Answer, args: &[Arg]) -> String {
    let value = match answer.result {
        Err(number) => return errno(number),
        Ok(value) => value,
    };
    let mask = args.iter().find_map(|arg| match arg {
        Arg::Mask(mask) => Some(*mask),
        _ => None,
    });
    let wrote = |wanted: fn(&Place) -> bool| {
        args.iter()
            .any(|arg| matches!(arg, Arg::Stat(place) | Arg::Statx(place) if wanted(place)))
    };
    if wrote(|place| !matches!(place, Place::Heap | Place::PageEnd)) {
        return format!("{value}, in a buffer that cannot be written");
    }
    match mask {
        Some(mask) => format!("{value} {}", statx(&answer.statx(), mask)),
        None if wrote(|_| true) => format!("{value} {}", stat(&answer.stat())),
        None => value.to_string(),
    }
}
