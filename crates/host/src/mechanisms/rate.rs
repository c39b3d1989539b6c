//! How fast a mechanism is, as measured.

use std::time::Duration;

use napa_units::Pages;

/// How much a new measurement counts against those before.
const NEW: f64 = 0.3;

/// Pages that move in a second: a moving average over what was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate(Option<f64>);

impl Rate {
    /// Takes a measurement. One over no time says nothing.
    pub fn note(&mut self, pages: Pages, time: Duration) {
        if time.is_zero() {
            return;
        }
        let measured = pages.0 as f64 / time.as_secs_f64();
        self.0 = Some(self.0.map_or(measured, |before| before + NEW * (measured - before)));
    }

    /// Pages in a second. `None`: nothing was measured so far.
    #[cfg(test)]
    pub const fn pages_per_second(self) -> Option<f64> {
        self.0
    }

    /// How long so many pages take: at least `least`, and `most` where nothing moves.
    pub fn time_for(self, pages: Pages, least: Duration, most: Duration) -> Duration {
        match self.0 {
            None => least,
            Some(rate) if rate * most.as_secs_f64() <= pages.0 as f64 => most,
            Some(rate) => Duration::from_secs_f64(pages.0 as f64 / rate).max(least),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_follows_what_is_measured() {
        let second = Duration::from_secs(1);
        let mut rate = Rate::default();
        assert_eq!(rate.time_for(Pages(100), second, second * 10), second);
        rate.note(Pages(5), Duration::ZERO);
        assert_eq!(rate.pages_per_second(), None);
        rate.note(Pages(100), second);
        assert_eq!(rate.pages_per_second(), Some(100.0));
        assert_eq!(rate.time_for(Pages(500), second, second * 10), second * 5);
        assert_eq!(rate.time_for(Pages(5000), second, second * 10), second * 10);
        (0..50).for_each(|_| rate.note(Pages(0), second));
        assert!(rate.pages_per_second().unwrap() < 1.0);
        assert_eq!(rate.time_for(Pages(1), second, second * 10), second * 10);
    }
}
