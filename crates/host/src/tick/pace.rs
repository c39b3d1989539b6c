//! How often and how closely it is looked. No I/O.

use std::time::Duration;

use napa_units::Bytes;

use super::PERIOD;
use crate::mechanisms::{Haste, Urgency};

/// How fast guests may come to grow although they did not lately: two processors that write fresh pages.
const GROWTH_MIN: Bytes = Bytes::gib(2);
/// The shortest time between two glances, and between two ticks.
pub const GLANCE_MIN: Duration = Duration::from_millis(100);

/// How long what is dear may be read in one tick: half a percent of a processor while there is plenty.
pub const fn study_budget(haste: Haste) -> Duration {
    match haste {
        Haste::None => Duration::from_millis(4),
        Haste::Some => Duration::from_millis(10),
        Haste::Great => Duration::from_millis(30),
    }
}

/// How long it is safe not to look: a quarter of the time in which what is free could be gone. `None`: until the next
/// tick.
pub fn glance(free: Bytes, growth: Bytes) -> Option<Duration> {
    let seconds = free.0 as f64 / growth.max(GROWTH_MIN).0 as f64 / 4.0;
    (seconds < PERIOD.as_secs_f64()).then(|| Duration::from_secs_f64(seconds).max(GLANCE_MIN))
}

/// Whether what is seen at a glance cannot wait for the next tick: VMs hold more than they may, or half of what was
/// free at the last tick is gone and what is left could be gone within two ticks.
pub fn is_urgent(free_then: Bytes, free_now: Bytes, growth: Bytes) -> bool {
    let is_scarce = free_now.0 as f64 <= growth.max(GROWTH_MIN).0 as f64 * 2.0 * PERIOD.as_secs_f64();
    free_now == Bytes(0) || (is_scarce && free_now.0 < free_then.0 / 2)
}

/// Calls of one urgency that may be under way at the same time. What keeps a disk or a processor busy is bounded by how
/// many of them there are.
pub fn calls_max(urgency: Urgency, processors: usize) -> usize {
    match urgency {
        Urgency::Search => 1,
        Urgency::Probe => 4,
        Urgency::Work => (2 * processors).max(4),
        Urgency::Poll => 64,
        Urgency::Order => 256,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_less_is_free_the_more_often_it_is_looked() {
        for (free, growth, expected) in [
            (Bytes::gib(8), Bytes(0), None),
            (Bytes::gib(4), Bytes(0), Some(500)),
            (Bytes::gib(8), Bytes::gib(4), Some(500)),
            (Bytes::mib(10), Bytes(0), Some(100)),
            (Bytes(0), Bytes(0), Some(100)),
        ] {
            assert_eq!(glance(free, growth), expected.map(Duration::from_millis), "{free} {growth}");
        }
    }

    #[test]
    fn what_is_gone_or_going_cannot_wait() {
        for (then, now, expected) in [
            (Bytes::gib(2), Bytes(0), true),
            (Bytes(0), Bytes(0), true),
            (Bytes::gib(2), Bytes::mib(1000), true),
            (Bytes::gib(2), Bytes::mib(1200), false),
            (Bytes::gib(64), Bytes::gib(16), false),
        ] {
            assert_eq!(is_urgent(then, now, Bytes(0)), expected, "{then} {now}");
        }
    }
}
