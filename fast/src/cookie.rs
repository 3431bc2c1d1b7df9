//! The mark of a process whose credentials may differ from the container's first ones: its soft
//! RLIMIT_LOCKS, which has had no effect since Linux 2.4.25, and which fork and exec copy.

/// The bits of a record's number; the number with all of them set stands for the first credentials.
pub const INDEX_BITS: u32 = 14;
pub const FINGERPRINT_BITS: u32 = 20;

// From the low bits up: the record, the record after a pending execve(2), the fingerprint, four
// flags; the mark is in the highest 12 bits.
pub const INDEX_MASK: u64 = (1 << INDEX_BITS) - 1;
pub const FINGERPRINT_MASK: u64 = (1 << FINGERPRINT_BITS) - 1;
pub const AFTER: u32 = INDEX_BITS;
pub const FINGERPRINT: u32 = AFTER + INDEX_BITS;
/// The threads of the process may differ.
pub const THREADS: u64 = 1 << (FINGERPRINT + FINGERPRINT_BITS);
/// An execve(2) is pending.
pub const PENDING: u64 = THREADS << 1;
pub const UNCHECKED: u64 = PENDING << 1;
/// The process has restricted itself (landlock(7)).
pub const CONFINED: u64 = UNCHECKED << 1;
pub const MARK: u32 = 52;
/// The mark: the high bits of no limit that people set.
pub const OURS: u64 = 0x5b1;

const _: () = assert!(CONFINED < 1 << MARK);

/// Whether a process with this soft limit certainly has the first credentials, in all threads.
#[must_use]
pub fn is_first(soft: u64) -> bool {
    let is_plain = soft & (THREADS | PENDING) == 0;
    soft >> MARK != OURS || (is_plain && soft & INDEX_MASK == INDEX_MASK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_cookies_of_no_record_and_limits_of_others_are_first() {
        let ours = OURS << MARK;
        let none = ours | INDEX_MASK;
        for first in [0, u64::MAX, 8192, none, none | CONFINED] {
            assert!(is_first(first), "{first:x}");
        }
        for other in [ours, ours | 1, none - 1, none | THREADS, none | PENDING] {
            assert!(!is_first(other), "{other:x}");
        }
    }
}
