//! The encoding of `user.rootlesscontainers` and of entries of the side store. Pure.
//!
//! The format is that of umoci and runROOTLESS: a protobuf message `Resource { uint32 uid = 1;
//! uint32 gid = 2; }` (github.com/rootless-containers/proto). A missing field is zero; 0xFFFFFFFF
//! means "not set: the real id is shown".

use nix::sys::stat::{FileStat, SFlag};
use prost::Message;
use subuidless_fast::owner::is_shown;

use crate::credentials::{EmulatedGid, EmulatedUid, Id};
use crate::store::Key;

#[derive(Clone, PartialEq, Eq, Message)]
struct Resource {
    #[prost(uint32, tag = "1")]
    uid: u32,
    #[prost(uint32, tag = "2")]
    gid: u32,
    // Fields from here on are defined by subuidless, and all but `hands_down_list` occur only in
    // the side store.
    /// S_IFCHR or S_IFBLK.
    #[prost(uint32, tag = "1001")]
    device_type: u32,
    #[prost(uint32, tag = "1002")]
    device_number: u32,
    /// New files of this directory get its stored default access control list.
    #[prost(bool, tag = "1003")]
    hands_down_list: bool,
    #[prost(message, repeated, tag = "1004")]
    attributes: Vec<StoredAttribute>,
    #[prost(bytes = "vec", repeated, tag = "1005")]
    elsewhere: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "1006")]
    keys: Vec<Vec<u8>>,
}

/// An emulated attribute of an inode that cannot carry `user.*`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct StoredAttribute {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) name: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) value: Vec<u8>,
}

const NOT_SET: u32 = u32::MAX;

/// The emulated owner of a file; for `None` the real id is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: Option<EmulatedUid>,
    pub(crate) gid: Option<EmulatedGid>,
    /// The device that the file stands for; the file is a placeholder (a socket).
    pub(crate) device: Option<Device>,
    /// The file is a directory with a default access control list that the kernel has only in part.
    pub(crate) hands_down_list: bool,
}

/// A character or block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Device {
    /// S_IFCHR or S_IFBLK.
    pub(crate) kind: SFlag,
    /// The device number, encoded as for mknod(2) and in stat(2).
    pub(crate) number: u32,
}

/// Bytes that are not a `Resource` message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a rootlesscontainers record: {0}")]
pub(crate) struct Unreadable(prost::DecodeError);

impl Owner {
    /// The owner with which a file with this `stat` shows `uid` and `gid`. An id that it shows
    /// anyway is not set, as umoci does it: root's files get no record.
    pub(crate) fn shown_as(uid: EmulatedUid, gid: EmulatedGid, stat: &FileStat) -> Self {
        Self::default().with_ids(Some(uid), Some(gid), stat)
    }

    /// This owner with other ids; `None` leaves one as it is.
    pub(crate) fn with_ids(
        self,
        uid: Option<EmulatedUid>,
        gid: Option<EmulatedGid>,
        stat: &FileStat,
    ) -> Self {
        Self {
            uid: uid.map_or(self.uid, |uid| {
                Some(uid).filter(|uid| !is_shown(uid.as_raw(), stat.st_uid))
            }),
            gid: gid.map_or(self.gid, |gid| {
                Some(gid).filter(|gid| !is_shown(gid.as_raw(), stat.st_gid))
            }),
            ..self
        }
    }

    /// Whether nothing is set, which equals having no record.
    pub(crate) fn is_unset(self) -> bool {
        self == Self::default()
    }

    pub(crate) fn encode(self) -> Vec<u8> {
        self.message().encode_to_vec()
    }

    fn message(self) -> Resource {
        Resource {
            uid: self.uid.map_or(NOT_SET, EmulatedUid::as_raw),
            gid: self.gid.map_or(NOT_SET, EmulatedGid::as_raw),
            device_type: self.device.map_or(0, |device| device.kind.bits()),
            device_number: self.device.map_or(0, |device| device.number),
            hands_down_list: self.hands_down_list,
            attributes: Vec::new(),
            elsewhere: Vec::new(),
            keys: Vec::new(),
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        Record::decode(bytes).map(|record| record.owner)
    }
}

/// The value of an inode's entries in the side store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) owner: Owner,
    pub(crate) attributes: Vec<StoredAttribute>,
    /// Keys of the inode's copy in an upper layer, under which the record is stored, too.
    pub(crate) elsewhere: Vec<Vec<u8>>,
    /// All keys under which the record is stored, so that all entries of an inode can be removed
    /// together.
    pub(crate) keys: Vec<Vec<u8>>,
}

impl Record {
    /// Returns no bytes if nothing is set, which equals having no record.
    pub(crate) fn encode(self) -> Vec<u8> {
        let is_empty = self.attributes.is_empty() && self.elsewhere.is_empty();
        if self.owner.is_unset() && is_empty {
            return Vec::new();
        }
        Resource {
            attributes: self.attributes,
            elsewhere: self.elsewhere,
            keys: self.keys,
            ..self.owner.message()
        }
        .encode_to_vec()
    }

    /// Returns the value and all keys to store it under: those of `key`, and `elsewhere`.
    pub(super) fn encode_for_store(mut self, key: &Key) -> (Vec<u8>, Vec<Vec<u8>>) {
        let own = key.to_enter().map(<[u8]>::to_vec);
        let keys: Vec<_> = own.chain(self.elsewhere.iter().cloned()).collect();
        self.keys.clone_from(&keys);
        (self.encode(), keys)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let resource = Resource::decode(bytes).map_err(Unreadable)?;
        let kind = SFlag::from_bits_truncate(resource.device_type);
        let is_device = matches!(kind, SFlag::S_IFCHR | SFlag::S_IFBLK);
        let owner = Owner {
            uid: EmulatedUid::new(resource.uid),
            gid: EmulatedGid::new(resource.gid),
            device: is_device.then_some(Device {
                kind,
                number: resource.device_number,
            }),
            hands_down_list: resource.hands_down_list,
        };
        Ok(Self {
            owner,
            attributes: resource.attributes,
            elsewhere: resource.elsewhere,
            keys: resource.keys,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoredEntry;

    fn owner(uid: u32, gid: u32) -> Owner {
        Owner {
            uid: EmulatedUid::new(uid),
            gid: EmulatedGid::new(gid),
            ..Owner::default()
        }
    }

    #[test]
    fn the_bytes_are_those_that_umoci_writes() {
        // `umoci unpack --rootless` of 0:42 (0 stored as "not set") and of 100000:200000.
        let unset_42 = [0x08, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x10, 0x2a];
        let large = [0x08, 0xa0, 0x8d, 0x06, 0x10, 0xc0, 0x9a, 0x0c];
        assert_eq!(owner(u32::MAX, 42).encode(), unset_42);
        assert_eq!(Owner::decode(&unset_42), Ok(owner(u32::MAX, 42)));
        assert_eq!(owner(100_000, 200_000).encode(), large);
        assert_eq!(Owner::decode(&large), Ok(owner(100_000, 200_000)));
    }

    #[test]
    fn a_missing_field_is_zero_and_unknown_fields_are_passed_over() {
        assert_eq!(Owner::decode(&[]), Ok(owner(0, 0)));
        assert_eq!(Owner::decode(&[0x10, 7]), Ok(owner(0, 7)));
        assert_eq!(Owner::decode(&[0x18, 1, 0x08, 5]), Ok(owner(5, 0)));
    }

    #[test]
    fn every_id_survives_the_round_trip() {
        for id in [0, 1, 127, 128, 65_535, 65_536, u32::MAX - 1, u32::MAX] {
            let bytes = owner(id, 3).encode();
            assert_eq!(Owner::decode(&bytes), Ok(owner(id, 3)));
            assert_eq!(Owner::decode(&owner(3, id).encode()), Ok(owner(3, id)));
        }
    }

    #[test]
    fn a_device_survives_the_round_trip_and_an_attribute_makes_none() {
        let device = Owner {
            device: Some(Device {
                kind: SFlag::S_IFBLK,
                number: 0xfff0_0103,
            }),
            ..owner(0, 6)
        };
        assert_eq!(Owner::decode(&device.encode()), Ok(device));
        assert!(!device.is_unset());
        // A file type that is not a device.
        let strange = [&owner(1, 2).encode()[..], &[0xc8, 0x3e, 0x80, 0x80, 0x01]].concat();
        assert_eq!(Owner::decode(&strange), Ok(owner(1, 2)));
    }

    #[test]
    fn attributes_stay_beside_their_owner() {
        let attribute = |name: &[u8]| StoredAttribute {
            name: name.to_vec(),
            value: vec![0, 0xff],
        };
        let record = Record {
            owner: owner(1, 2),
            attributes: vec![attribute(b"trusted.a"), attribute(b"security.b")],
            elsewhere: vec![vec![b'h', 0, 1]],
            keys: vec![vec![b'h', 2], vec![b'b', 3]],
        };
        let bytes = record.clone().encode();
        assert_eq!(Record::decode(&bytes), Ok(record));
        assert_eq!(Owner::decode(&bytes), Ok(owner(1, 2)));
        assert!(Record::default().encode().is_empty());
    }

    /// A container's programs may write any bytes into the attribute, or into the store's files.
    #[test]
    fn any_bytes_have_an_answer_that_stays_the_same() {
        let mut seed = 1u64;
        let mut below = |end: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from((seed >> 33) % end).unwrap()
        };
        let mut read = 0;
        for _ in 0..200_000 {
            let mut bytes = |most: u64| -> Vec<u8> {
                (0..below(most))
                    .map(|_| u8::try_from(below(256)).unwrap())
                    .collect()
            };
            let record = Record {
                owner: owner(u32::from(bytes(3).len() > 1), 70_000),
                attributes: vec![StoredAttribute {
                    name: bytes(20),
                    value: bytes(20),
                }],
                elsewhere: vec![bytes(30)],
                keys: vec![bytes(30), bytes(30)],
            };
            let mut spoilt = record.encode();
            for _ in 0..below(4) {
                let at = below(u64::try_from(spoilt.len()).unwrap().max(1));
                match below(4) {
                    0 => spoilt.truncate(at),
                    1 => spoilt.extend_from_within(at..),
                    _ if spoilt.is_empty() => {}
                    _ => spoilt[at] = u8::try_from(below(256)).unwrap(),
                }
            }
            let Ok(record) = Record::decode(&spoilt) else {
                continue;
            };
            read += 1;
            let again = record.clone().encode();
            if !again.is_empty() {
                assert_eq!(Record::decode(&again), Ok(record));
            }
            // What `owners gc` makes of it.
            let entry = StoredEntry::new((spoilt.clone(), spoilt));
            let _ = (entry.inode(), entry.number(), entry.of_same_inode());
        }
        assert!(read > 20_000, "{read}");
    }

    /// The preloaded library reads such records by itself.
    #[test]
    fn whatever_the_library_reads_it_reads_as_the_worker_does() {
        let mut seed = 7u64;
        let mut byte = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed.to_be_bytes()[0]
        };
        let mut read = 0;
        for _ in 0..400_000 {
            let mut bytes = owner(u32::from(byte()) << (byte() % 25), byte().into()).encode();
            for _ in 0..byte() % 3 {
                if bytes.is_empty() {
                    break;
                }
                let at = usize::from(byte()) % bytes.len();
                match byte() % 4 {
                    0 => bytes.truncate(at.max(1)),
                    1 => bytes.insert(at, byte()),
                    _ => bytes[at] = byte(),
                }
            }
            let Some(shown) = subuidless_fast::owner::Shown::decode(&bytes) else {
                continue;
            };
            read += 1;
            assert_eq!(
                Owner::decode(&bytes),
                Ok(owner(shown.uid, shown.gid)),
                "{bytes:x?}"
            );
        }
        assert!(read > 100_000, "{read}");
    }

    #[test]
    fn hostile_bytes_are_an_error_and_never_a_panic() {
        for bytes in [
            &[0x08][..],
            &[0x0a, 0xff],
            &[0xff; 64],
            &[
                0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            ],
        ] {
            assert!(Owner::decode(bytes).is_err(), "{bytes:?}");
        }
        let mut seed = 1u64;
        for _ in 0..100_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let bytes = seed.to_le_bytes();
            // Any answer is fine; what counts is that there is one.
            let _ = Owner::decode(&bytes[..(seed >> 61) as usize]);
        }
    }
}
