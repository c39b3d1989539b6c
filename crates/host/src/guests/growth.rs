//! How fast the guests' memory grows.

use std::collections::VecDeque;
use std::time::Duration;

use napa_units::Bytes;

/// Moments that are remembered: five minutes of ticks.
const MOMENTS_MAX: usize = 300;

/// How fast the memory of all guests together has grown lately.
#[derive(Clone, Debug, Default)]
pub struct Growth {
    /// Bytes in a second.
    moments: VecDeque<u64>,
    last: Option<(Bytes, Duration)>,
}

impl Growth {
    /// Takes what all guests together have, wherever it is: what was taken from them meanwhile has grown all the same.
    pub fn note(&mut self, whole: Bytes, now: Duration) {
        if let Some((before, then)) = self.last.replace((whole, now)) {
            let elapsed = now.saturating_sub(then).as_secs_f64();
            if elapsed > 0.0 {
                let grown = whole.0.saturating_sub(before.0) as f64;
                self.moments.push_back((grown / elapsed) as u64);
                if self.moments.len() > MOMENTS_MAX {
                    self.moments.pop_front();
                }
            }
        }
    }

    /// What it grew by in a second, at most, in 99 of 100 moments.
    pub fn p99(&self) -> Bytes {
        let mut sorted: Vec<u64> = self.moments.iter().copied().collect();
        sorted.sort_unstable();
        let rank = (sorted.len() * 99).div_ceil(100);
        Bytes(rank.checked_sub(1).map_or(0, |index| sorted[index]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_moment_in_a_hundred_may_be_worse() {
        let mut growth = Growth::default();
        assert_eq!(growth.p99(), Bytes(0));
        let mut whole = 0;
        for second in 0..=200 {
            whole += if second % 100 == 50 { 1000 } else { second % 10 };
            growth.note(Bytes(whole), Duration::from_secs(second));
        }
        assert_eq!(growth.p99(), Bytes(9));
        // What shrinks does not grow, and no time is no moment.
        growth.note(Bytes(0), Duration::from_secs(201));
        growth.note(Bytes(1 << 40), Duration::from_secs(201));
        assert_eq!(growth.p99(), Bytes(9));
        assert!(growth.moments.len() <= MOMENTS_MAX);
    }
}
