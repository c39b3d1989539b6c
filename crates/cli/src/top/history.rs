//! What a VM had over time.

use std::collections::VecDeque;
use std::time::Duration;

use napa_api::host::{Time, VmMemoryRow};
use napa_units::Bytes;

/// Samples that are kept for a VM: ten minutes at one in a second, 29 KiB.
const SAMPLES_MAX: usize = 600;

/// Where a VM's memory was at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    pub time: Time,
    pub resident: Bytes,
    pub shared: Bytes,
    pub swapped: Bytes,
    pub ballooned: Bytes,
    pub entitlement: Bytes,
}

/// The last samples of a VM, from old to new.
#[derive(Clone, Debug, Default)]
pub struct History {
    samples: VecDeque<Sample>,
}

impl History {
    /// Adds what a report says. A clock that was set back starts anew.
    pub fn push(&mut self, time: Time, row: &VmMemoryRow) {
        if self.samples.back().is_some_and(|last| last.time > time) {
            self.samples.clear();
        }
        if self.samples.len() == SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample {
            time,
            resident: row.resident,
            shared: row.shared,
            swapped: row.swapped,
            ballooned: row.ballooned,
            entitlement: row.entitlement,
        });
    }

    /// The most memory that a sample accounts for.
    pub fn highest(&self) -> Bytes {
        let sum = |sample: &Sample| {
            let parts = [sample.resident, sample.shared, sample.swapped, sample.ballooned];
            parts.iter().fold(0_u64, |sum, part| sum.saturating_add(part.0)).max(sample.entitlement.0)
        };
        Bytes(self.samples.iter().map(sum).max().unwrap_or(0))
    }

    /// The last `columns` slots of `step` each, from old to new: the last sample of each. A slot without one repeats the
    /// one before it, up to an age of `gap_max`.
    pub fn columns(&self, columns: usize, step: Duration, gap_max: Duration) -> Vec<Option<Sample>> {
        let step_ms = (step.as_millis() as u64).max(1);
        let gap_ms_max = gap_max.as_millis() as u64;
        let Some(newest) = self.samples.back() else { return vec![None; columns] };
        let last_slot = newest.time.0 / step_ms;
        let mut samples = self.samples.iter().peekable();
        let mut current: Option<Sample> = None;
        let slot = |back: usize| {
            let slot = last_slot.checked_sub(back as u64)?;
            while let Some(sample) = samples.next_if(|sample| sample.time.0 / step_ms <= slot) {
                current = Some(*sample);
            }
            current.filter(|sample| slot * step_ms <= sample.time.0 + gap_ms_max)
        };
        (0..columns).rev().map(slot).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A history with a sample at each of these times, whose resident memory is that number.
    fn history(times_ms: impl IntoIterator<Item = u64>) -> History {
        let mut history = History::default();
        for time in times_ms {
            history.push(Time(time), &VmMemoryRow { resident: Bytes(time), ..VmMemoryRow::default() });
        }
        history
    }

    #[track_caller]
    fn check(times_ms: &[u64], step_ms: u64, gap_ms: u64, expected: [Option<u64>; 4]) {
        let (step, gap) = (Duration::from_millis(step_ms), Duration::from_millis(gap_ms));
        let found = history(times_ms.iter().copied()).columns(4, step, gap);
        let found: Vec<Option<u64>> =
            found.iter().map(|sample| sample.map(|sample| sample.resident.0)).collect();
        assert_eq!(found, expected, "{times_ms:?}");
    }

    #[test]
    fn a_column_is_the_last_sample_of_its_slot() {
        check(&[], 1000, 3000, [None; 4]);
        check(&[5000], 1000, 3000, [None, None, None, Some(5000)]);
        check(&[3000, 4000, 4500, 5001], 1000, 3000, [None, Some(3000), Some(4500), Some(5001)]);
        check(
            &[1000, 2000, 3000, 4000, 5000, 6000],
            2000,
            3000,
            [Some(1000), Some(3000), Some(5000), Some(6000)],
        );
    }

    #[test]
    fn a_short_gap_is_bridged_and_a_long_one_seen() {
        check(&[2000, 5000], 1000, 3000, [Some(2000), Some(2000), Some(2000), Some(5000)]);
        check(&[2000, 5000], 1000, 1000, [Some(2000), Some(2000), None, Some(5000)]);
        check(&[500, 3000], 1000, 0, [Some(500), None, None, Some(3000)]);
    }

    #[test]
    fn old_samples_go_and_a_clock_set_back_starts_anew() {
        assert_eq!(history(0..2000).samples.len(), SAMPLES_MAX);
        assert_eq!(history([5000, 6000, 100]).samples.len(), 1);
    }
}
