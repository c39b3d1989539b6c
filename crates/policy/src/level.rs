//! How short memory is, with hysteresis.
//!
//! The unit is m, what a host wants free at least: about 3 % of a small host and 1 % of a large one, and no less than
//! the guests take in two seconds.
//!
//! ```text
//!   free    0      m/4      m/2       m                          4m
//!           │ low   │ hard   │  soft  │          clear           │  high
//!                      a worse level is entered at once; a better one when free memory has been
//!                      a quarter beyond its threshold for ten seconds
//! ```

use std::time::Duration;

use napa_units::Bytes;
use serde::{Deserialize, Serialize};

use crate::words::Figure;
use crate::{HostObservation, Level, Pressure};

/// How long it has to be better before the level is.
const HOLD: Duration = Duration::from_secs(10);
/// Waiting of some task that makes memory short whatever is free.
const SOME_MAX: f64 = 0.05;
/// Waiting of all tasks that makes memory very short whatever is free.
const FULL_MAX: f64 = 0.10;

/// The unit of the thresholds: what a host wants free at least.
///
/// 1/32 of the first 28 GiB and 1/100 of what is beyond, or what guests take in two of their busiest seconds if that
/// is more, but never more than a sixteenth of all.
pub fn unit(host: &HostObservation) -> Bytes {
    let first = host.capacity.0.min(Bytes::gib(28).0);
    let usual = first / 32 + (host.capacity.0 - first) / 100;
    let busy = host.allocation_rate_p99.0.saturating_mul(2);
    Bytes(usual.max(busy).min(host.capacity.0 / 16).max(1))
}

/// The level now and since when it could be a better one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ladder {
    level: Level,
    better: Option<Better>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Better {
    held: Duration,
    level: Level,
}

impl Default for Ladder {
    fn default() -> Self {
        Self { level: Level::High, better: None }
    }
}

impl Ladder {
    /// The level after an observation.
    pub fn update(&mut self, host: &HostObservation, unit: Bytes, elapsed: Duration) -> Level {
        let entered = worse_of(by_free(host.free(), unit, 4), by_pressure(host, unit));
        let left = worse_of(by_free(host.free(), unit, 5), by_pressure(host, unit));
        if entered >= self.level {
            (self.level, self.better) = (entered, None);
        } else if left >= self.level {
            self.better = None;
        } else {
            let since = self.better.map_or(Duration::ZERO, |better| better.held.saturating_add(elapsed));
            let level = self.better.map_or(left, |better| worse_of(better.level, left));
            self.better = Some(Better { held: since, level });
            if since >= HOLD {
                (self.level, self.better) = (level, None);
            }
        }
        self.level
    }

    /// Why the level is what it is.
    pub fn reason(&self, host: &HostObservation, unit: Bytes) -> String {
        let (free, capacity) = (Figure(host.free()), Figure(host.capacity));
        let mut text = format!("{}: {free} of {capacity} is free, m is {}", self.level, Figure(unit));
        if host.excess().0 > 0 {
            text += &format!(", {} beyond what VMs may hold", Figure(host.excess()));
        }
        let Pressure { some, full } = host.pressure;
        if by_pressure(host, unit) > Level::High {
            text += &format!(", and tasks waited for memory {some} of the time (all of them {full})");
        }
        if let Some(better) = self.better {
            text += &format!(", {} for {} s of {}", better.level, better.held.as_secs(), HOLD.as_secs());
        }
        text
    }
}

/// The level of this much free memory, with thresholds in quarters of a quarter of the unit: 4 to enter, 5 to leave.
fn by_free(free: Bytes, unit: Bytes, quarters: u128) -> Level {
    let below = |sixteenths: u128| u128::from(free.0) * 16 < u128::from(unit.0) * sixteenths * quarters / 4;
    match () {
        () if below(4) => Level::Low,
        () if below(8) => Level::Hard,
        () if below(16) => Level::Soft,
        () if below(64) => Level::Clear,
        () => Level::High,
    }
}

/// The level that waiting says. With plenty of free memory the waiting is not for the host's.
fn by_pressure(host: &HostObservation, unit: Bytes) -> Level {
    match host.pressure {
        _ if by_free(host.free(), unit, 4) == Level::High => Level::High,
        Pressure { full, .. } if full.get() > FULL_MAX => Level::Low,
        Pressure { some, .. } if some.get() > SOME_MAX => Level::Hard,
        _ => Level::High,
    }
}

fn worse_of(one: Level, other: Level) -> Level {
    one.max(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Fraction;

    /// 32 GiB would have m = 1 GiB; here m is 1000 MiB to make the figures readable.
    const UNIT: Bytes = Bytes::mib(1000);

    fn host(free_mib: u64) -> HostObservation {
        HostObservation {
            capacity: Bytes::gib(100),
            held: Bytes(Bytes::gib(100).0 - Bytes::mib(free_mib).0),
            available: Bytes::gib(100),
            ..HostObservation::default()
        }
    }

    fn waiting(free_mib: u64, some: f64, full: f64) -> HostObservation {
        let pressure = Pressure { some: Fraction::new(some), full: Fraction::new(full) };
        HostObservation { pressure, ..host(free_mib) }
    }

    fn after(observations: &[HostObservation]) -> Level {
        let mut ladder = Ladder::default();
        let levels = observations.iter().map(|host| ladder.update(host, UNIT, Duration::from_secs(1)));
        levels.last().expect("there is an observation")
    }

    #[test]
    fn each_threshold_is_where_it_is_drawn() {
        for (free_mib, level) in [
            (5000, Level::High),
            (4000, Level::High),
            (3999, Level::Clear),
            (1000, Level::Clear),
            (999, Level::Soft),
            (500, Level::Soft),
            (499, Level::Hard),
            (250, Level::Hard),
            (249, Level::Low),
            (0, Level::Low),
        ] {
            assert_eq!(after(&[host(free_mib)]), level, "{free_mib} MiB free");
        }
    }

    #[test]
    fn waiting_counts_unless_there_is_plenty() {
        assert_eq!(after(&[waiting(2000, 0.06, 0.0)]), Level::Hard);
        assert_eq!(after(&[waiting(2000, 0.05, 0.11)]), Level::Low);
        assert_eq!(after(&[waiting(2000, 0.05, 0.10)]), Level::Clear);
        assert_eq!(after(&[waiting(4000, 1.0, 1.0)]), Level::High);
    }

    #[test]
    fn a_better_level_has_to_hold_for_ten_seconds() {
        let then = |hosts: &[HostObservation]| after(&[&[host(400)], hosts].concat());
        // Not far enough beyond the threshold, not long enough, and both.
        assert_eq!(then(&vec![host(600); 60]), Level::Hard);
        assert_eq!(then(&vec![host(700); 10]), Level::Hard);
        assert_eq!(then(&vec![host(700); 11]), Level::Soft);
        assert_eq!(then(&vec![host(6000); 11]), Level::High);
        // The worst of the ten seconds counts, and a relapse starts them again.
        let wavering = [vec![host(6000); 5], vec![host(1300)], vec![host(6000); 5]].concat();
        assert_eq!(then(&wavering), Level::Clear);
        let relapsed = [vec![host(6000); 9], vec![host(400)], vec![host(6000); 5]].concat();
        assert_eq!(then(&relapsed), Level::Hard);
    }

    #[test]
    fn the_unit_follows_the_size_and_the_rush_but_is_never_most_of_a_host() {
        let of = |capacity, rate_mib| {
            let allocation_rate_p99 = Bytes::mib(rate_mib);
            unit(&HostObservation { capacity, allocation_rate_p99, ..HostObservation::default() }).0 >> 20
        };
        assert_eq!(of(Bytes::gib(4), 0), 128);
        assert_eq!(of(Bytes::gib(4), 100), 200);
        assert_eq!(of(Bytes::gib(4), 100_000), 256);
        assert_eq!(of(Bytes::gib(128), 0), 1920);
        assert_eq!(unit(&HostObservation::default()), Bytes(1));
    }

    #[test]
    fn memory_beyond_the_budget_is_said() {
        let host = HostObservation { held: Bytes::gib(101), ..host(0) };
        let mut ladder = Ladder::default();
        ladder.update(&host, UNIT, Duration::ZERO);
        let words = ladder.reason(&host, UNIT);
        assert_eq!(words, "low: 0 of 100.0 GiB is free, m is 1000 MiB, 1.0 GiB beyond what VMs may hold");
    }
}
