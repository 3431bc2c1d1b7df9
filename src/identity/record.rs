//! The encoding of [`Credentials`] in 64-bit words. Pure.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::credentials::{Capabilities, Credentials, EmulatedGid, EmulatedUid, Id, Ids};

/// Words before the groups: four of ids, one of flags, four of capabilities. Then two groups per
/// word.
const HEADER: usize = 9;
const FLAGS: usize = 4;
const SETS: usize = 5;
/// Bit 63 of the flags: the record has capability sets of its own. Below it are 31 bits for the
/// number of groups, and 32 bits of securebits.
const OWN_SETS: u64 = 1 << 63;

pub(super) fn encode(credentials: &Credentials) -> Vec<u64> {
    let sets = credentials.capabilities.unwrap_or_default();
    let own = if credentials.capabilities.is_some() {
        OWN_SETS
    } else {
        0
    };
    let count = credentials.groups.len() as u64;
    let mut words = Vec::with_capacity(HEADER + credentials.groups.len().div_ceil(2));
    words.extend(encode_ids(credentials.uid));
    words.extend(encode_ids(credentials.gid));
    words.push(own | count << 32 | u64::from(credentials.securebits));
    words.extend([
        sets.permitted,
        sets.effective,
        sets.inheritable,
        sets.ambient,
    ]);
    words.extend(credentials.groups.chunks(2).map(|pair| {
        let second = pair.get(1).map_or(0, |gid| gid.as_raw());
        two(pair[0].as_raw(), second)
    }));
    words
}

pub(super) fn decode(words: &[AtomicU64]) -> Option<Credentials> {
    let (uid, gid) = decode_ids(words)?;
    let flags = word(words, FLAGS)?;
    let count = usize::try_from((flags & !OWN_SETS) >> 32).ok()?;
    let groups = (0..count).map(|n| {
        let (first, second) = halves(word(words, HEADER + n / 2)?);
        EmulatedGid::new(if n % 2 == 0 { first } else { second })
    });
    let set = |n: usize| word(words, SETS + n);
    let sets = Capabilities {
        permitted: set(0)?,
        effective: set(1)?,
        inheritable: set(2)?,
        ambient: set(3)?,
    };
    Some(Credentials {
        uid,
        gid,
        groups: groups.collect::<Option<_>>()?,
        securebits: halves(flags).0,
        capabilities: (flags & OWN_SETS != 0).then_some(sets),
    })
}

pub(super) fn decode_ids(words: &[AtomicU64]) -> Option<(Ids<EmulatedUid>, Ids<EmulatedGid>)> {
    Some((decode_four(words)?, decode_four(words.get(2..)?)?))
}

fn encode_ids<T: Id>(ids: Ids<T>) -> [u64; 2] {
    [
        two(ids.real.as_raw(), ids.effective.as_raw()),
        two(ids.saved.as_raw(), ids.fs.as_raw()),
    ]
}

fn decode_four<T: Id>(words: &[AtomicU64]) -> Option<Ids<T>> {
    let (real, effective) = halves(word(words, 0)?);
    let (saved, fs) = halves(word(words, 1)?);
    Some(Ids {
        real: T::new(real)?,
        effective: T::new(effective)?,
        saved: T::new(saved)?,
        fs: T::new(fs)?,
    })
}

fn word(words: &[AtomicU64], index: usize) -> Option<u64> {
    words.get(index).map(|word| word.load(Ordering::Relaxed))
}

fn two(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

fn halves(word: u64) -> (u32, u32) {
    ((word & 0xffff_ffff) as u32, (word >> 32) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_survive_the_round_trip() {
        let id = |raw| EmulatedUid::new(raw).unwrap();
        let gid = |raw| EmulatedGid::new(raw).unwrap();
        for groups in [0, 1, 2, 3, 65_536] {
            for capabilities in [
                None,
                Some(Capabilities {
                    permitted: u64::MAX,
                    effective: 1,
                    inheritable: 1 << 40,
                    ambient: 0,
                }),
            ] {
                let credentials = Credentials {
                    uid: Ids {
                        real: id(0),
                        effective: id(4_294_967_294),
                        saved: id(65_536),
                        fs: id(1),
                    },
                    gid: Ids {
                        real: gid(7),
                        ..Ids::all(gid(8))
                    },
                    groups: (0..groups).map(gid).collect(),
                    securebits: 0xff,
                    capabilities,
                };
                let words: Vec<_> = encode(&credentials)
                    .into_iter()
                    .map(AtomicU64::new)
                    .collect();
                assert_eq!(decode(&words), Some(credentials));
            }
        }
    }

    #[test]
    fn half_a_record_is_none() {
        let root = Credentials::initial(
            EmulatedUid::ROOT,
            EmulatedGid::ROOT,
            vec![EmulatedGid::ROOT],
        );
        let words: Vec<_> = encode(&root).into_iter().map(AtomicU64::new).collect();
        for length in 0..words.len() {
            assert_eq!(decode(&words[..length]), None);
        }
    }
}
