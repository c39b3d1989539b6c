//! What follows from a sample, and from several over time.

use std::time::Duration;

use napa_units::Pages;

/// Quantile of the normal distribution: 95 of 100 such intervals hold the true value.
const Z: f64 = 1.96;
/// The fast average forgets most of a sample after this time.
const FAST: Duration = Duration::from_secs(10);
/// The slow average forgets most of a sample after this time.
const SLOW: Duration = Duration::from_secs(300);

/// How many pages are in use, by a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// The likeliest value.
    pub pages: Pages,
    /// The true value is hardly below this (95 % confidence).
    pub low: Pages,
    /// The true value is hardly above this.
    pub high: Pages,
}

impl Estimate {
    /// Of `taken` pages out of `resident`, `returned` came back (Wilson's score interval, which holds for small samples
    /// and for none or all that came back). `None`: no page was taken.
    pub fn of(resident: Pages, taken: u64, returned: u64) -> Option<Self> {
        if taken == 0 {
            return None;
        }
        let (count, part) = (taken as f64, returned.min(taken) as f64 / taken as f64);
        let scale = 1.0 + Z * Z / count;
        let middle = (part + Z * Z / (2.0 * count)) / scale;
        let reach = Z / scale * (part * (1.0 - part) / count + Z * Z / (4.0 * count * count)).sqrt();
        let pages = |part: f64| Pages((part.clamp(0.0, 1.0) * resident.0 as f64).round() as u64);
        let (low, high) = (pages(middle - reach), pages(middle + reach));
        Some(Self { pages: pages(part), low: low.min(pages(part)), high: high.max(pages(part)) })
    }
}

/// Moving averages of the estimates of one guest.
///
/// The larger of the two counts, with the last estimate: a guest that wakes up is believed at once, one that falls
/// asleep keeps its memory for some minutes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Averages {
    values: Option<(f64, f64)>,
    last: f64,
}

impl Averages {
    /// Takes in an estimate that came so long after the one before.
    pub fn add(&mut self, estimate: Pages, since_last: Duration) {
        let value = estimate.0 as f64;
        let towards = |old: f64, time: Duration| {
            let kept = (-since_last.as_secs_f64() / time.as_secs_f64()).exp();
            value + (old - value) * kept
        };
        self.values = Some(match self.values {
            Some((fast, slow)) => (towards(fast, FAST), towards(slow, SLOW)),
            None => (value, value),
        });
        self.last = value;
    }

    /// The average that follows changes within seconds.
    pub fn fast(&self) -> Pages {
        Pages(self.values.map_or(0.0, |(fast, _)| fast).round() as u64)
    }

    /// The average that follows changes within minutes.
    pub fn slow(&self) -> Pages {
        Pages(self.values.map_or(0.0, |(_, slow)| slow).round() as u64)
    }

    /// The greatest of both and the last estimate.
    pub fn greatest(&self) -> Pages {
        self.fast().max(self.slow()).max(Pages(self.last.round() as u64))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_interval_is_that_of_wilson() {
        // 20 of 100: 0.1334 to 0.2888.
        let estimate = Estimate::of(Pages(10_000), 100, 20).unwrap();
        assert_eq!(estimate, Estimate { pages: Pages(2000), low: Pages(1334), high: Pages(2888) });
        let none = Estimate::of(Pages(10_000), 100, 0).unwrap();
        assert_eq!((none.pages, none.low, none.high), (Pages(0), Pages(0), Pages(370)));
        let all = Estimate::of(Pages(10_000), 100, 100).unwrap();
        assert_eq!((all.pages, all.low, all.high), (Pages(10_000), Pages(9630), Pages(10_000)));
        assert_eq!(Estimate::of(Pages(10_000), 0, 0), None);
    }

    #[test]
    fn a_guest_that_wakes_is_believed_and_one_that_sleeps_keeps_its_memory() {
        let mut averages = Averages::default();
        let step = Duration::from_secs(10);
        averages.add(Pages(1000), step);
        assert_eq!((averages.fast(), averages.slow()), (Pages(1000), Pages(1000)));
        averages.add(Pages(0), step);
        assert_eq!((averages.fast(), averages.slow()), (Pages(368), Pages(967)));
        assert_eq!(averages.greatest(), Pages(967));
        averages.add(Pages(5000), step);
        assert!(averages.fast() < Pages(5000));
        assert_eq!(averages.greatest(), Pages(5000));
    }

    proptest! {
        #[test]
        fn an_estimate_lies_in_its_interval(resident in 0..1_u64 << 40, taken in 1..200_u64, returned in 0..300_u64) {
            let Estimate { pages, low, high } = Estimate::of(Pages(resident), taken, returned).unwrap();
            prop_assert!(low <= pages && pages <= high && high <= Pages(resident));
        }

        #[test]
        fn averages_lie_between_the_estimates(
            estimates in proptest::collection::vec((0..1_u64 << 40, 0..1000_u64), 1..20)) {
            let mut averages = Averages::default();
            for (pages, seconds) in &estimates {
                averages.add(Pages(*pages), Duration::from_secs(*seconds));
            }
            let (least, most) = (estimates.iter().min().unwrap().0, estimates.iter().map(|pair| pair.0).max().unwrap());
            for average in [averages.fast(), averages.slow(), averages.greatest()] {
                prop_assert!((least..=most).contains(&average.0), "{:?}", average);
            }
        }
    }
}
