//! Counters of calls for each syscall: their number, outcomes and durations. Pure.
//!
//! They are on the board (see `crate::wire::board`). Every call pays for [`count`], which is two
//! relaxed additions; the rest runs only for `status`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The number of rows. The last one is shared by all rows of the syscall table from there on, and
/// by calls in no row.
pub(crate) const ROWS: usize = 256;
/// The words of a row: counters of the outcomes, then the histogram.
const ROW_WORDS: usize = OUTCOMES + BUCKETS;
pub(crate) const WORDS: usize = ROWS * ROW_WORDS;

const OUTCOMES: usize = 3;
/// Buckets of the histogram: below 1,024 ns, below 2,048 ns, and so on; the last one is unbounded.
const BUCKETS: usize = 21;
const FIRST_BUCKET_BITS: u32 = 10;

/// Counts of calls by outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Served {
    /// Continued by the kernel.
    pub(crate) continued: u64,
    /// Answered with a value.
    pub(crate) answered: u64,
    /// Answered with an errno.
    pub(crate) failed: u64,
}

impl Served {
    pub(crate) fn total(self) -> u64 {
        self.continued + self.answered + self.failed
    }
}

/// The counter of [`Served`] that a call increments.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outcome {
    Continued,
    Answered,
    Failed,
}

/// The counters of one syscall, or of several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Count {
    pub(crate) served: Served,
    buckets: [u64; BUCKETS],
}

impl Count {
    pub(crate) fn add(&mut self, other: &Self) {
        self.served.continued += other.served.continued;
        self.served.answered += other.served.answered;
        self.served.failed += other.served.failed;
        for (bucket, other) in self.buckets.iter_mut().zip(other.buckets) {
            *bucket += other;
        }
    }

    /// The duration, in nanoseconds, that `percent` of the calls did not exceed. Returns `None` if
    /// there were no calls.
    ///
    /// Interpolated within a bucket, so it is wrong by a factor of two at most.
    pub(crate) fn quantile(&self, percent: u64) -> Option<u64> {
        let total: u64 = self.buckets.iter().sum();
        let wanted = total.checked_mul(percent)?.div_ceil(100).max(1);
        let mut below = 0;
        for (index, &calls) in self.buckets.iter().enumerate() {
            if calls > 0 && below + calls >= wanted {
                let (start, end) = bounds(index);
                let share = (end - start).checked_mul(wanted - below)? / calls;
                return Some(start + share);
            }
            below += calls;
        }
        None
    }
}

/// The first duration of a bucket and the first one above it, in nanoseconds. The last bucket is
/// treated as if it had an end.
fn bounds(bucket: usize) -> (u64, u64) {
    let end = 1 << (FIRST_BUCKET_BITS as usize + bucket);
    (if bucket == 0 { 0 } else { end / 2 }, end)
}

fn bucket(elapsed: Duration) -> usize {
    let nanoseconds = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
    let bits = u64::BITS - nanoseconds.leading_zeros();
    (bits.saturating_sub(FIRST_BUCKET_BITS) as usize).min(BUCKETS - 1)
}

/// Counts a call in `words`, of which there are [`WORDS`]; `row` is its index in the syscall table.
pub(crate) fn count(words: &[AtomicU64], row: Option<usize>, outcome: Outcome, elapsed: Duration) {
    let start = row.unwrap_or(ROWS).min(ROWS - 1) * ROW_WORDS;
    let outcome = match outcome {
        Outcome::Continued => 0,
        Outcome::Answered => 1,
        Outcome::Failed => 2,
    };
    words[start + outcome].fetch_add(1, Ordering::Relaxed);
    words[start + OUTCOMES + bucket(elapsed)].fetch_add(1, Ordering::Relaxed);
}

/// The counters of each row.
pub(crate) fn counts(words: &[AtomicU64]) -> impl Iterator<Item = Count> {
    words.chunks_exact(ROW_WORDS).map(|row| {
        let word = |index: usize| row[index].load(Ordering::Relaxed);
        Count {
            served: Served {
                continued: word(0),
                answered: word(1),
                failed: word(2),
            },
            buckets: std::array::from_fn(|index| word(OUTCOMES + index)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Vec<AtomicU64> {
        (0..WORDS).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn calls_are_counted_by_row_and_outcome() {
        let words = words();
        let elapsed = Duration::from_micros(3);
        count(&words, Some(0), Outcome::Answered, elapsed);
        count(&words, Some(0), Outcome::Failed, elapsed);
        count(&words, Some(7), Outcome::Continued, elapsed);
        count(&words, None, Outcome::Continued, elapsed);
        count(&words, Some(100_000), Outcome::Continued, elapsed);
        let counts: Vec<Count> = counts(&words).collect();
        assert_eq!(counts.len(), ROWS);
        let total = |row: usize| counts[row].served.total();
        assert_eq!((total(0), total(7), total(ROWS - 1)), (2, 1, 2));
        assert_eq!((counts[0].served.answered, counts[0].served.failed), (1, 1));
        let mut sum = Count::default();
        counts.iter().for_each(|count| sum.add(count));
        assert_eq!(sum.served.total(), 5);
    }

    #[test]
    fn quantiles_are_right_within_a_factor_of_two() {
        let words = words();
        assert_eq!(Count::default().quantile(50), None);
        // 1 to 100 times 10 microseconds.
        for step in 1..=100 {
            let elapsed = Duration::from_micros(10 * step);
            count(&words, Some(1), Outcome::Answered, elapsed);
        }
        let count = counts(&words).nth(1).unwrap();
        for percent in [1, 50, 90, 99, 100] {
            let found = count.quantile(percent).unwrap();
            let right = 10_000 * percent;
            assert!(
                found >= right / 2 && found <= right * 2,
                "{percent} %: {found}"
            );
        }
    }

    #[test]
    fn the_shortest_and_the_longest_calls_have_a_bucket() {
        assert_eq!(bucket(Duration::ZERO), 0);
        assert_eq!(bucket(Duration::from_nanos(1023)), 0);
        assert_eq!(bucket(Duration::from_nanos(1024)), 1);
        assert_eq!(bounds(1), (1024, 2048));
        assert_eq!(bucket(Duration::from_secs(1)), BUCKETS - 1);
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }
}
