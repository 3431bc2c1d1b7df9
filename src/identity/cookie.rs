//! The encoding of identities: 64 bits in the soft RLIMIT_LOCKS of a process, and a record's number
//! in the timer slack of a thread. Pure.
//!
//! RLIMIT_LOCKS has had no effect since Linux 2.4.25, prlimit(2) sets it from outside, and fork and
//! exec copy it. It belongs to the process. Where its threads differ, each has a [`Tag`]: its timer
//! slack is the usual 50 µs plus the record's number in nanoseconds (at most 16 µs). clone and exec
//! copy that, too.

use subuidless_fast::cookie::{
    AFTER, CONFINED, FINGERPRINT, FINGERPRINT_BITS, FINGERPRINT_MASK, INDEX_BITS, INDEX_MASK, MARK,
    OURS, PENDING, THREADS, UNCHECKED,
};

/// The number of a record in the container's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Index(u16);

impl Index {
    /// No record: the initial credentials, with which every process starts.
    pub(crate) const INITIAL: Self = Self((1 << INDEX_BITS) - 1);

    pub(crate) fn new(number: usize) -> Option<Self> {
        u16::try_from(number)
            .ok()
            .filter(|number| usize::from(*number) < MAX_RECORDS)
            .map(Self)
    }

    /// The index in the low bits of `bits`; the others are ignored.
    fn from_bits(bits: u64) -> Self {
        let [low, high, ..] = (bits & INDEX_MASK).to_le_bytes();
        Self(u16::from_le_bytes([low, high]))
    }

    /// The number for storing elsewhere; [`Index::from_raw`] is its inverse.
    pub(crate) fn as_raw(self) -> u16 {
        self.0
    }

    pub(crate) fn from_raw(raw: u16) -> Self {
        Self::from_bits(raw.into())
    }

    pub(crate) fn number(self) -> usize {
        usize::from(self.0)
    }
}

/// As many as fit into a cookie, whose last number is [`Index::INITIAL`].
pub(crate) const MAX_RECORDS: usize = (1 << INDEX_BITS) - 1;

/// The content of the soft limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cookie {
    pub(crate) record: Index,
    /// Threads may differ: a thread with a tag has the tag's record.
    pub(crate) threads_differ: bool,
    /// The process has restricted itself (landlock(7)).
    pub(crate) confined: bool,
    pub(crate) exec: Option<PendingExec>,
}

/// An execve(2) that was left to the kernel and changes the credentials if it succeeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PendingExec {
    /// The fingerprint of the calling program.
    pub(crate) fingerprint: Fingerprint,
    /// The record after success.
    pub(crate) record: Index,
    /// The program could not be inspected before: whether it is set-user-ID is determined
    /// afterwards.
    pub(crate) unchecked: bool,
}

/// A hash that distinguishes the memory of one program from that of the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint(u64);

impl Fingerprint {
    /// A hash of addresses that differ between programs, and between runs if they are randomized.
    pub(crate) fn of(addresses: &[u64]) -> Self {
        let mixed = addresses.iter().fold(0u64, |hash, address| {
            (hash ^ address)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(29)
        });
        Self(mixed >> (u64::BITS - FINGERPRINT_BITS))
    }
}

impl Cookie {
    pub(crate) const INITIAL: Self = Self::plain(Index::INITIAL);

    pub(crate) const fn plain(record: Index) -> Self {
        Self {
            record,
            threads_differ: false,
            confined: false,
            exec: None,
        }
    }

    /// The cookie with one record for all threads and no pending execve(2).
    pub(crate) fn settled(self, record: Index) -> Self {
        Self {
            confined: self.confined,
            ..Self::plain(record)
        }
    }

    /// Returns `None` for a limit without the mark.
    pub(crate) fn decode(limit: u64) -> Option<Self> {
        if limit >> MARK != OURS {
            return None;
        }
        let index = |shift: u32| Index::from_bits(limit >> shift);
        let exec = (limit & PENDING != 0).then(|| PendingExec {
            fingerprint: Fingerprint(limit >> FINGERPRINT & FINGERPRINT_MASK),
            record: index(AFTER),
            unchecked: limit & UNCHECKED != 0,
        });
        Some(Self {
            record: index(0),
            threads_differ: limit & THREADS != 0,
            confined: limit & CONFINED != 0,
            exec,
        })
    }

    pub(crate) fn encode(self) -> u64 {
        let mut limit = OURS << MARK | u64::from(self.record.0);
        if self.threads_differ {
            limit |= THREADS;
        }
        if self.confined {
            limit |= CONFINED;
        }
        if let Some(exec) = self.exec {
            limit |=
                PENDING | u64::from(exec.record.0) << AFTER | exec.fingerprint.0 << FINGERPRINT;
            if exec.unchecked {
                limit |= UNCHECKED;
            }
        }
        limit
    }
}

/// The usual timer slack, in nanoseconds (prctl(2), PR_SET_TIMERSLACK).
pub(crate) const USUAL_SLACK: u64 = 50_000;

/// The record of one thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag(pub(crate) Index);

impl Tag {
    /// Returns `None` for a timer slack that is not a tag.
    pub(crate) fn decode(slack: u64) -> Option<Self> {
        let number = slack.checked_sub(USUAL_SLACK + 1)?;
        (number <= INDEX_MASK).then(|| Self(Index::from_bits(number)))
    }

    /// The timer slack, in nanoseconds.
    pub(crate) fn encode(self) -> u64 {
        USUAL_SLACK + 1 + u64::from(self.0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(number: usize) -> Index {
        Index::new(number).unwrap()
    }

    #[test]
    fn cookies_survive_the_round_trip() {
        for record in [index(0), index(MAX_RECORDS - 1), Index::INITIAL] {
            for threads_differ in [false, true] {
                for exec in [
                    None,
                    Some((0, index(7), false)),
                    Some((u64::MAX, Index::INITIAL, true)),
                ] {
                    let exec = exec.map(|(address, record, unchecked)| PendingExec {
                        fingerprint: Fingerprint::of(&[address]),
                        record,
                        unchecked,
                    });
                    let cookie = Cookie {
                        record,
                        threads_differ,
                        confined: !threads_differ,
                        exec,
                    };
                    assert_eq!(Cookie::decode(cookie.encode()), Some(cookie));
                }
            }
        }
    }

    #[test]
    fn limits_that_people_set_are_no_cookies() {
        for limit in [
            0,
            1,
            1024,
            u64::MAX,
            u64::MAX >> 1,
            i64::MAX as u64,
            1 << 63,
        ] {
            assert_eq!(Cookie::decode(limit), None, "{limit:#x}");
        }
    }

    #[test]
    fn a_tag_never_keeps_a_thread_waiting_for_long_and_the_usual_slack_is_none() {
        for slack in [0, 1, 49_999, USUAL_SLACK, 1_000_000, u64::MAX] {
            assert_eq!(Tag::decode(slack), None, "{slack}");
        }
        for record in [index(0), index(MAX_RECORDS - 1), Index::INITIAL] {
            assert!(Tag(record).encode() < USUAL_SLACK + 17_000);
            assert_eq!(Tag::decode(Tag(record).encode()), Some(Tag(record)));
        }
    }

    #[test]
    fn programs_have_different_fingerprints() {
        let of = |start: u64| Fingerprint::of(&[0x40_0000, start, 0x7fff_0000_0000]);
        let different = (0..1000).filter(|page| of(page * 4096) != of(0)).count();
        assert!(different > 990);
    }
}
