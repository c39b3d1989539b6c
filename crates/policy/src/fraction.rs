//! Parts of a whole.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A part of a whole, from 0 to 1. What is no number counts as nothing, what is out of range as its nearest end.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(from = "f64", into = "f64")]
pub struct Fraction(f64);

impl Fraction {
    /// Nothing of it.
    pub const ZERO: Self = Self(0.0);
    /// All of it.
    pub const ONE: Self = Self(1.0);

    /// The nearest part to this number.
    pub fn new(value: f64) -> Self {
        if value.is_nan() { Self::ZERO } else { Self(value.clamp(0.0, 1.0)) }
    }

    /// The number, from 0 to 1.
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl From<f64> for Fraction {
    fn from(value: f64) -> Self {
        Self::new(value)
    }
}

impl From<Fraction> for f64 {
    fn from(fraction: Fraction) -> Self {
        fraction.0
    }
}

impl fmt::Display for Fraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} %", self.0 * 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_is_a_number_between_nothing_and_all() {
        for (value, expected) in [
            (f64::NAN, 0.0),
            (f64::INFINITY, 1.0),
            (f64::NEG_INFINITY, 0.0),
            (-0.5, 0.0),
            (0.25, 0.25),
            (7.0, 1.0),
        ] {
            assert_eq!(Fraction::new(value).get(), expected, "{value}");
        }
        assert_eq!(Fraction::new(0.056).to_string(), "5.6 %");
        assert_eq!(serde_json::from_str::<Fraction>("3.5").unwrap(), Fraction::ONE);
    }
}
