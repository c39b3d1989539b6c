//! The last good value of a sensor.

use std::time::Duration;

use super::SensorError;

/// What a sensor said last, and what is wrong since.
#[derive(Debug)]
pub struct Kept<T> {
    value: Option<T>,
    /// When the value was read, on the daemon's own clock.
    at: Duration,
    trouble: Option<SensorError>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { value: None, at: Duration::ZERO, trouble: None }
    }
}

impl<T> Kept<T> {
    /// Takes a reading of time `now`. A bad one leaves the value as it was.
    pub fn note(&mut self, reading: Result<T, SensorError>, now: Duration) {
        match reading {
            Ok(value) => *self = Self { value: Some(value), at: now, trouble: None },
            Err(error) => self.trouble = Some(error),
        }
    }

    /// The last good value. `None`: there never was one.
    pub const fn value(&self) -> Option<&T> {
        self.value.as_ref()
    }

    /// How old it is.
    pub fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.at)
    }

    /// Why the value is not from the last reading. `None`: it is.
    pub const fn trouble(&self) -> Option<&SensorError> {
        self.trouble.as_ref()
    }

    /// Whether the last reading failed.
    pub const fn is_stale(&self) -> bool {
        self.trouble.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_reading_leaves_the_last_good_one_and_marks_it() {
        let at = Duration::from_secs;
        let mut kept = Kept::default();
        kept.note(Err(SensorError::Gone { file: "f".into() }), at(1));
        assert_eq!((kept.value(), kept.is_stale()), (None, true));
        kept.note(Ok(5), at(2));
        assert_eq!((kept.value(), kept.is_stale()), (Some(&5), false));
        kept.note(Err(SensorError::Gone { file: "f".into() }), at(4));
        assert_eq!((kept.value(), kept.is_stale(), kept.age(at(5))), (Some(&5), true, at(3)));
        assert_eq!(kept.trouble().unwrap().to_string(), "f is gone");
    }
}
