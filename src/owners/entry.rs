//! [`Entry`]: type, mode, owner and attributes of one file. Pure.

use nix::sys::stat::{FileStat, SFlag};

use crate::credentials::Id;
use crate::owner::{Device, NamedValue, Owner};

/// The type of a file, as a container sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    Character,
    Block,
}

/// The S_IFMT bits, the words of our JSON and of mtree(5), and the name in messages.
const KINDS: [(Kind, SFlag, &str, &str, &str); 7] = [
    (Kind::File, SFlag::S_IFREG, "file", "file", "a regular file"),
    (
        Kind::Directory,
        SFlag::S_IFDIR,
        "directory",
        "dir",
        "a directory",
    ),
    (
        Kind::Symlink,
        SFlag::S_IFLNK,
        "symlink",
        "link",
        "a symbolic link",
    ),
    (Kind::Fifo, SFlag::S_IFIFO, "fifo", "fifo", "a fifo"),
    (
        Kind::Socket,
        SFlag::S_IFSOCK,
        "socket",
        "socket",
        "a socket",
    ),
    (
        Kind::Character,
        SFlag::S_IFCHR,
        "char",
        "char",
        "a character device",
    ),
    (
        Kind::Block,
        SFlag::S_IFBLK,
        "block",
        "block",
        "a block device",
    ),
];

impl Kind {
    /// The type in the S_IFMT bits of `mode`.
    pub(crate) fn of(mode: u32) -> Option<Self> {
        let bits = mode & SFlag::S_IFMT.bits();
        KINDS
            .iter()
            .find_map(|(kind, flag, ..)| (flag.bits() == bits).then_some(*kind))
    }

    fn row(self) -> &'static (Self, SFlag, &'static str, &'static str, &'static str) {
        let found = KINDS.iter().find(|(kind, ..)| *kind == self);
        found.unwrap_or(&KINDS[0])
    }

    pub(crate) fn flag(self) -> SFlag {
        self.row().1
    }

    pub(crate) fn word(self) -> &'static str {
        self.row().2
    }

    pub(crate) fn from_word(word: &str) -> Option<Self> {
        KINDS
            .iter()
            .find_map(|(kind, _, known, ..)| (*known == word).then_some(*kind))
    }

    pub(super) fn mtree(self) -> &'static str {
        self.row().3
    }

    pub(super) fn from_mtree(word: &str) -> Option<Self> {
        KINDS
            .iter()
            .find_map(|(kind, .., known, _)| (*known == word).then_some(*kind))
    }

    /// The name in messages, with its article.
    pub(super) fn sentence(self) -> &'static str {
        self.row().4
    }

    pub(crate) fn is_device(self) -> bool {
        matches!(self, Self::Character | Self::Block)
    }
}

/// The description of a file. When it is applied, fields that are `None` are left unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Relative to the top of the tree; `.` is the top itself.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Option<Kind>,
    /// Without the S_IFMT bits.
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    /// The device number, encoded as in stat(2).
    pub(crate) device: Option<u32>,
    /// Extended attributes to set; others are left unchanged.
    pub(crate) attributes: Vec<NamedValue>,
}

impl Entry {
    /// A file with this `stat` and stored owner, without its attributes.
    pub(super) fn new(path: &[u8], stat: &FileStat, owner: Owner) -> Self {
        let mut entry = Self {
            path: path.to_vec(),
            kind: Kind::of(stat.st_mode),
            mode: Some(stat.st_mode & 0o7777),
            uid: Some(owner.uid.map_or(stat.st_uid, Id::as_raw)),
            gid: Some(owner.gid.map_or(stat.st_gid, Id::as_raw)),
            device: None,
            attributes: Vec::new(),
        };
        match owner.device {
            Some(Device { kind, number }) => {
                entry.kind = Kind::of(kind.bits());
                entry.device = Some(number);
            }
            None if entry.kind.is_some_and(Kind::is_device) => {
                entry.device = u32::try_from(stat.st_rdev).ok();
            }
            None => {}
        }
        entry
    }

    /// Owned by 0:0 with nothing special: an export may omit it.
    pub(crate) fn is_plain(&self) -> bool {
        (self.uid, self.gid) == (Some(0), Some(0))
            && self.attributes.is_empty()
            && !self.kind.is_some_and(Kind::is_device)
    }
}

/// Encodes a device number: 12 bits of major and 20 of minor number (linux/kdev_t.h).
pub(crate) fn device_number(major: u64, minor: u64) -> Result<u32, String> {
    let number = match (u32::try_from(major), u32::try_from(minor)) {
        (Ok(major @ ..0x1000), Ok(minor @ ..0x10_0000)) => libc::makedev(major, minor),
        _ => u64::MAX,
    };
    u32::try_from(number)
        .map_err(|_| format!("{major},{minor} is not a device number: the largest is 4095,1048575"))
}

pub(crate) fn major_minor(number: u32) -> (u32, u32) {
    (libc::major(number.into()), libc::minor(number.into()))
}

/// Parses an id; −1 is not one.
pub(crate) fn parse_id(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(u32::MAX) | Err(_) => Err(format!("{text:?} is not an id (0 to 4294967294)")),
        Ok(id) => Ok(id),
    }
}

/// Parses an octal mode, with or without the S_IFMT bits.
pub(super) fn parse_mode(text: &str) -> Result<u32, String> {
    let is_octal = text.bytes().all(|byte| byte.is_ascii_digit());
    match u32::from_str_radix(text, 8) {
        Ok(mode @ 0..=0o177_777) if is_octal => Ok(mode),
        _ => Err(format!("{text:?} is not a mode: octal digits, as in 4755")),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A reproducible stream of pseudo-random numbers.
    pub(in crate::owners) struct Seeded(pub(in crate::owners) u64);

    impl Seeded {
        pub(in crate::owners) fn below(&mut self, end: u64) -> u64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (self.0 >> 24) % end
        }

        fn bytes(&mut self, most: u64) -> Vec<u8> {
            let length = 1 + self.below(most);
            (0..length)
                .map(|_| u8::try_from(self.below(255)).unwrap() + 1)
                .collect()
        }

        /// A random entry of those that a file can have.
        pub(in crate::owners) fn entry(&mut self) -> Entry {
            let name = |bytes: Vec<u8>| -> Vec<u8> {
                let replaced = bytes
                    .iter()
                    .map(|byte| if *byte == b'/' { b'_' } else { *byte });
                b"x".iter().copied().chain(replaced).collect()
            };
            let parts: Vec<_> = (0..=self.below(3)).map(|_| name(self.bytes(12))).collect();
            let kind = KINDS[usize::try_from(self.below(7)).unwrap()].0;
            let id = |number: u64| u32::try_from(number % u64::from(u32::MAX)).unwrap();
            let device = kind.is_device().then(|| {
                let major = 1 + self.below(4095);
                device_number(major, self.below(1 << 20)).unwrap()
            });
            let mut attributes: Vec<NamedValue> = (0..self.below(3))
                .map(|_| {
                    (
                        [b"trusted.", self.bytes(9).as_slice()].concat(),
                        self.bytes(40),
                    )
                })
                .collect();
            attributes.sort();
            attributes.dedup_by(|a, b| a.0 == b.0);
            Entry {
                path: parts.join(&b'/'),
                kind: Some(kind),
                mode: Some(u32::try_from(self.below(0o10000)).unwrap()),
                uid: Some(id(self.below(1 << 33))),
                gid: Some(id(self.below(1 << 33))),
                device,
                attributes,
            }
        }
    }

    #[test]
    fn device_numbers_are_those_of_stat() {
        assert_eq!(device_number(1, 3), Ok(0x103));
        assert_eq!(device_number(259, 1_048_575), Ok(0xfff1_03ff));
        assert_eq!(major_minor(0xfff1_03ff), (259, 1_048_575));
        for (major, minor) in [(4096, 0), (0, 1 << 20), (u64::MAX, 1)] {
            assert!(device_number(major, minor).is_err());
        }
    }

    #[test]
    fn ids_and_modes_are_read_to_their_last_digit() {
        assert_eq!(parse_id("4294967294"), Ok(4_294_967_294));
        assert_eq!(parse_mode("104755"), Ok(0o104_755));
        for wrong in ["", "-1", "4294967295", "4294967296", "0x1", "root", "1 "] {
            assert!(parse_id(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "8", "+7", "-1", "777777", "u+s"] {
            assert!(parse_mode(wrong).is_err(), "{wrong}");
        }
    }
}
