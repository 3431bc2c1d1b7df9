//! The owner in `user.rootlesscontainers`: the message `Resource { uint32 uid = 1; uint32 gid = 2;
//! }` of github.com/rootless-containers/proto, as far as stat(2) shows it.

/// The attribute's name.
pub const ATTRIBUTE: &core::ffi::CStr = c"user.rootlesscontainers";

/// The major numbers of the devices that are terminals of a devpts: UNIX98_PTY_SLAVE_MAJOR and the
/// seven after it (linux/major.h).
pub const TERMINALS: core::ops::RangeInclusive<u64> = 136..=143;

/// The field "not set: show the real id".
pub const NOT_SET: u32 = u32::MAX;

/// Two keys, and two numbers of 32 bits.
pub const LONGEST: usize = 2 * (1 + 5);

/// The keys of the fields.
const UID: u8 = 1 << 3;
const GID: u8 = 2 << 3;

/// What a file shows, each as it stands in the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    pub uid: u32,
    pub gid: u32,
}

impl Shown {
    /// Decodes a record that consists of nothing but the two ids, each at most once; `None` for any
    /// other, which is the worker's to read.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut shown = Self { uid: 0, gid: 0 };
        let mut rest = bytes;
        let mut last = 0;
        while let Some((&key, behind)) = rest.split_first() {
            let (value, behind) = varint(behind)?;
            match key {
                UID if last < UID => shown.uid = value,
                GID if last < GID => shown.gid = value,
                _ => return None,
            }
            last = key;
            rest = behind;
        }
        Some(shown)
    }

    /// The record with which a file shows `uid` and `gid`. An id that [`is_shown`] anyway is not
    /// set, as umoci does it.
    #[must_use]
    pub fn instead_of(real: [u32; 2], [uid, gid]: [u32; 2]) -> Self {
        let set = |id, real| if is_shown(id, real) { NOT_SET } else { id };
        Self {
            uid: set(uid, real[0]),
            gid: set(gid, real[1]),
        }
    }

    /// The record of a file that has none.
    pub const NOTHING: Self = Self {
        uid: NOT_SET,
        gid: NOT_SET,
    };

    /// Both ids in one word; [`Shown::from_word`] is its inverse.
    #[must_use]
    pub fn to_word(self) -> u64 {
        u64::from(self.uid) << 32 | u64::from(self.gid)
    }

    #[must_use]
    pub fn from_word(word: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = word.to_le_bytes();
        Self {
            uid: u32::from_le_bytes([e, f, g, h]),
            gid: u32::from_le_bytes([a, b, c, d]),
        }
    }

    /// Whether nothing is set, which equals having no record.
    #[must_use]
    pub fn is_nothing(self) -> bool {
        self == Self::NOTHING
    }

    /// Gives the record's bytes, at most [`LONGEST`], one after the other to `put`, and returns
    /// their number. An id that is 0 is left out.
    pub fn encode(self, mut put: impl FnMut(usize, u8)) -> usize {
        let mut length = 0;
        let mut push = |byte| {
            put(length, byte);
            length += 1;
        };
        for (key, id) in [(UID, self.uid), (GID, self.gid)] {
            let mut rest = id;
            if id != 0 {
                push(key);
            }
            while rest > 0 {
                let [bits, ..] = (rest & 0x7f).to_le_bytes();
                rest >>= 7;
                push(if rest > 0 { bits | 0x80 } else { bits });
            }
        }
        length
    }

    /// What is shown where an id that is not set is root's.
    #[must_use]
    pub fn or_root(self) -> Self {
        Self {
            uid: Self::instead(self.uid, 0),
            gid: Self::instead(self.gid, 0),
        }
    }

    /// The id that is shown in the place of `real`.
    #[must_use]
    pub fn instead(id: u32, real: u32) -> u32 {
        if id == NOT_SET { real } else { id }
    }
}

/// What the kernel shows for an id that the user namespace does not map
/// (/proc/sys/kernel/overflowuid).
const OVERFLOW: u32 = 65534;

/// Whether a file with the `real` id shows `id` without a record. A file of another host user may
/// show root instead.
#[must_use]
pub fn is_shown(id: u32, real: u32) -> bool {
    id == real && real != OVERFLOW
}

/// A number of up to 32 bits, and what is behind it.
fn varint(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let mut value = 0u32;
    let mut rest = bytes;
    let mut shift = 0;
    loop {
        let (&byte, behind) = rest.split_first()?;
        let bits = u32::from(byte & 0x7f);
        // Of the fifth byte four bits are left.
        if shift > 28 || (shift == 28 && byte > 0xf) {
            return None;
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Some((value, behind));
        }
        shift += 7;
        rest = behind;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        for id in [0, 1, 42, 127, 128, 70_000, NOT_SET - 1, NOT_SET] {
            for shown in [Shown { uid: id, gid: 7 }, Shown { uid: 7, gid: id }] {
                let mut bytes = [0; LONGEST];
                let length = shown.encode(|index, byte| bytes[index] = byte);
                assert_eq!(Shown::decode(&bytes[..length]), Some(shown));
            }
        }
    }

    #[test]
    fn records_of_two_ids_are_read_and_all_others_left() {
        let shown = |uid, gid| Some(Shown { uid, gid });
        let unset_42 = [0x08, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x10, 0x2a];
        assert_eq!(Shown::decode(&unset_42), shown(NOT_SET, 42));
        assert_eq!(Shown::decode(&[]), shown(0, 0));
        assert_eq!(Shown::decode(&[0x10, 7]), shown(0, 7));
        for strange in [
            &[0x08][..],
            &[0x08, 0xff, 0xff, 0xff, 0xff, 0x10],
            &[0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00],
            &[0x10, 7, 0x08, 5],
            &[0x08, 5, 0x08, 6],
            &[0x08, 1, 0x10, 2, 0xd8, 0x3e, 1],
            &[0x88, 0x00, 5],
        ] {
            assert_eq!(Shown::decode(strange), None, "{strange:x?}");
        }
    }
}
