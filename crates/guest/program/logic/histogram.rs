//! Latencies in buckets that grow with them: sixteen to an octave, so a percentile is at most 6.25 % too high.
//!
//! One processor records, any may read: the counters are atomic, but only their owner adds.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

const SUB_BITS: u32 = 4;
const SUB: usize = 1 << SUB_BITS;
/// Values from 2^40 ns (18 minutes) share the last bucket.
const OCTAVES: usize = 40 - SUB_BITS as usize + 1;
const BUCKETS: usize = OCTAVES * SUB;

/// Counts of one processor.
#[derive(Debug)]
pub struct Histogram {
    counts: [AtomicU64; BUCKETS],
    largest: AtomicU64,
}

/// Counts that no longer change: the sum over processors, or the difference of two such sums.
#[derive(Debug)]
pub struct Snapshot {
    counts: [u64; BUCKETS],
    largest: u64,
}

fn bucket(value: u64) -> usize {
    if value < SUB as u64 {
        return value as usize;
    }
    let octave = value.ilog2() - SUB_BITS;
    let sub = (value >> octave) as usize & (SUB - 1);
    ((octave as usize + 1) * SUB + sub).min(BUCKETS - 1)
}

/// The largest value that falls into bucket `index`.
fn upper_bound(index: usize) -> u64 {
    if index < SUB {
        return index as u64;
    }
    let octave = index / SUB - 1;
    ((SUB + index % SUB + 1) as u64) * (1 << octave) - 1
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [const { AtomicU64::new(0) }; BUCKETS], largest: AtomicU64::new(0) }
    }
}

impl Histogram {
    /// Adds one value. Only the owning processor calls this.
    pub fn record(&self, value: u64) {
        let count = &self.counts[bucket(value)];
        count.store(count.load(Relaxed) + 1, Relaxed);
        if value > self.largest.load(Relaxed) {
            self.largest.store(value, Relaxed);
        }
    }
}

impl Default for Snapshot {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], largest: 0 }
    }
}

impl Snapshot {
    /// Adds what `histogram` holds now.
    pub fn add(&mut self, histogram: &Histogram) {
        for (sum, count) in self.counts.iter_mut().zip(&histogram.counts) {
            *sum += count.load(Relaxed);
        }
        self.largest = self.largest.max(histogram.largest.load(Relaxed));
    }

    /// Turns this, an older snapshot of the same histograms, into what has come since. The maximum is then known to its
    /// bucket only, unless it is the maximum of all.
    pub fn become_what_came_until(&mut self, later: &Self) {
        for (count, later) in self.counts.iter_mut().zip(&later.counts) {
            *count = later.saturating_sub(*count);
        }
        let top = self.counts.iter().rposition(|&count| count > 0);
        self.largest = top.map_or(0, |top| upper_bound(top).min(later.largest));
    }

    /// Takes over all of `other`.
    pub fn copy_from(&mut self, other: &Self) {
        self.counts.copy_from_slice(&other.counts);
        self.largest = other.largest;
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.counts.fill(0);
        self.largest = 0;
    }

    /// How many values there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The largest value; 0 if there is none.
    #[must_use]
    pub fn largest(&self) -> u64 {
        self.largest
    }

    /// The value that `percent` (0 to 100) of all values do not exceed, rounded up to its bucket; 0 if there is none.
    #[must_use]
    pub fn percentile(&self, percent: u64) -> u64 {
        let wanted = (self.count() * percent).div_ceil(100).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper_bound(index).min(self.largest);
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(values: &[u64]) -> Snapshot {
        let histogram = Histogram::default();
        values.iter().for_each(|&value| histogram.record(value));
        let mut snapshot = Snapshot::default();
        snapshot.add(&histogram);
        snapshot
    }

    #[test]
    fn an_empty_histogram_reads_zero() {
        let empty = of(&[]);
        assert_eq!(
            (empty.count(), empty.percentile(50), empty.percentile(99), empty.largest()),
            (0, 0, 0, 0)
        );
    }

    #[test]
    fn small_values_are_exact() {
        let values: Vec<u64> = (1..=10).collect();
        let snapshot = of(&values);
        assert_eq!((snapshot.percentile(50), snapshot.percentile(99), snapshot.largest()), (5, 10, 10));
    }

    #[test]
    fn what_came_after_a_snapshot_is_separable() {
        let histogram = Histogram::default();
        (0..100).for_each(|_| histogram.record(1_000_000));
        let mut earlier = Snapshot::default();
        earlier.add(&histogram);
        (0..10).for_each(|_| histogram.record(500));
        let mut later = Snapshot::default();
        later.add(&histogram);
        let mut recent = earlier;
        recent.become_what_came_until(&later);
        assert_eq!(recent.count(), 10);
        assert!((500..532).contains(&recent.largest()), "{}", recent.largest());
        assert_eq!(later.largest(), 1_000_000);
    }

    #[test]
    fn values_beyond_the_last_bucket_are_kept() {
        let snapshot = of(&[u64::MAX, 1]);
        assert_eq!((snapshot.count(), snapshot.largest()), (2, u64::MAX));
    }

    proptest! {
        #[test]
        fn a_value_lies_in_its_bucket_and_is_known_to_a_sixteenth(value in 0_u64..(1 << 40)) {
            let index = bucket(value);
            prop_assert!(value <= upper_bound(index));
            prop_assert!(index == 0 || value > upper_bound(index - 1));
            prop_assert!(upper_bound(index) - value <= value / 16);
        }

        #[test]
        fn percentiles_bracket_the_sorted_values(mut values in prop::collection::vec(0_u64..1_000_000_000, 1..200)) {
            let snapshot = of(&values);
            values.sort_unstable();
            for percent in [1, 50, 99, 100] {
                let exact = values[(values.len() as u64 * percent).div_ceil(100) as usize - 1];
                let found = snapshot.percentile(percent);
                prop_assert!(found >= exact && found <= exact + exact / 16, "{percent}: {found} for {exact}");
            }
        }
    }
}
