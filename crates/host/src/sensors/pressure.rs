//! Time lost for want of memory (Documentation/accounting/psi.rst).

use std::path::Path;
use std::time::Duration;

use super::SensorError;
use super::text::Text;

/// Time lost since the counters began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stalls {
    /// In which some task waited.
    pub some: Duration,
    /// In which all tasks waited.
    pub full: Duration,
}

impl Stalls {
    /// Reads a pressure file, the host's or a control group's.
    ///
    /// # Errors
    /// It is not as the kernel writes it.
    pub fn read(file: &Path) -> Result<Self, SensorError> {
        Self::of(&Text::read(file)?)
    }

    /// Reads the text of one.
    pub(super) fn of(text: &Text) -> Result<Self, SensorError> {
        let total = |kind| {
            let line = text.required(kind, text.entry(kind))?;
            let word = line.split_whitespace().find_map(|word| word.strip_prefix("total="));
            let word = text.required("total=", word)?;
            let microseconds: u64 = word.parse().map_err(|_| text.nonsense(format!("total is '{word}'")))?;
            Ok(Duration::from_micros(microseconds))
        };
        Ok(Self { some: total("some")?, full: total("full")? })
    }
}

/// Shares of the time between two readings, 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shares {
    /// In which some task waited.
    pub some: f64,
    /// In which all tasks waited.
    pub full: f64,
}

/// Makes shares out of sums.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meter {
    last: Option<(Stalls, Duration)>,
}

impl Meter {
    /// The shares since the last reading; nothing at the first, and where the counters began anew.
    pub fn shares(&mut self, stalls: Stalls, now: Duration) -> Shares {
        let Some((before, then)) = self.last.replace((stalls, now)) else { return Shares::default() };
        let elapsed = now.saturating_sub(then).as_secs_f64();
        let share = |after: Duration, before: Duration| match elapsed > 0.0 {
            true => (after.saturating_sub(before).as_secs_f64() / elapsed).min(1.0),
            false => 0.0,
        };
        Shares { some: share(stalls.some, before.some), full: share(stalls.full, before.full) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Fixture;

    fn check(text: &str, expected: Option<[u64; 2]>) {
        let host = Fixture::new(&[("p", text)]);
        let found = Stalls::read(&host.path("p")).ok();
        let expected = expected.map(|[some, full]| Stalls {
            some: Duration::from_micros(some),
            full: Duration::from_micros(full),
        });
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn both_lines_have_a_sum() {
        let line = |kind, total| format!("{kind} avg10=1.50 avg60=0.10 avg300=0.02 total={total}\n");
        check(&(line("some", "77") + &line("full", "5")), Some([77, 5]));
        check(&line("some", "77"), None);
        check(&(line("some", "-7") + &line("full", "5")), None);
        check(&(line("some", "nan") + &line("full", "5")), None);
        check("some avg10=1.5", None);
        check("", None);
    }

    #[test]
    fn shares_are_between_nothing_and_everything() {
        let stalls =
            |some, full| Stalls { some: Duration::from_millis(some), full: Duration::from_millis(full) };
        let second = Duration::from_secs;
        let mut meter = Meter::default();
        assert_eq!(meter.shares(stalls(900, 800), second(1)), Shares::default());
        assert_eq!(meter.shares(stalls(1150, 900), second(2)), Shares { some: 0.25, full: 0.1 });
        // The same moment twice, more than there is time, and counters that begin anew.
        assert_eq!(meter.shares(stalls(1200, 950), second(2)), Shares::default());
        assert_eq!(meter.shares(stalls(9200, 950), second(3)), Shares { some: 1.0, full: 0.0 });
        assert_eq!(meter.shares(stalls(0, 0), second(4)), Shares::default());
    }
}
