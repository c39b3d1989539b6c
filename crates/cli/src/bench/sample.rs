//! What repetitions of one measurement come to.

use serde::Serialize;

/// The median of some values, with their range.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// Half of the values are no larger.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// How many.
    pub count: usize,
}

impl Sample {
    /// Sums values up; `None` if there are none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            1 => sorted[middle],
            _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
        };
        Some(Self { median, min, max, count: sorted.len() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        for (values, median) in
            [(&[3.0][..], 3.0), (&[3.0, 1.0], 2.0), (&[9.0, 1.0, 2.0], 2.0), (&[4.0, 1.0, 2.0, 8.0], 3.0)]
        {
            assert_eq!(Sample::of(values).unwrap().median, median);
        }
        assert_eq!(Sample::of(&[]), None);
    }

    proptest! {
        #[test]
        fn the_median_is_within_the_range(values in prop::collection::vec(0.0_f64..1e12, 1..50)) {
            let sample = Sample::of(&values).unwrap();
            prop_assert!(sample.min <= sample.median && sample.median <= sample.max);
            prop_assert_eq!(sample.count, values.len());
        }
    }
}
