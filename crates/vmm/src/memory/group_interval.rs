//! What the VM's control group says about the time between two readings.

use std::time::Duration;

use napa_api::control::GroupInterval;
use napa_sys::cgroup::GroupMemory;
use napa_units::{Bytes, Pages};

/// A sample's time, and what else is known about it.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub time: Duration,
    /// Pages that the sample itself had taken, and that came back.
    pub own_pages: Pages,
    /// Pages that were in swap before the sample took some.
    pub swapped_before: Pages,
}

/// The difference of two readings. A page that came back from swap was wanted and was not in memory, so it belongs to the
/// working set beside what the sample finds there; one that went and came several times is counted each time by the
/// kernel, hence the bound.
pub fn of(before: &GroupMemory, after: &GroupMemory, span: Span) -> GroupInterval {
    let refaults = after.refaults.saturating_sub(before.refaults);
    let beyond_memory = refaults.saturating_sub(span.own_pages.0).min(span.swapped_before.0);
    let refaulted = Pages(refaults).bytes();
    let time_ms = span.time.as_millis().max(1);
    let in_a_second = u128::from(refaulted.0) * 1000 / time_ms;
    let stalled = before.pressure.zip(after.pressure);
    GroupInterval {
        refaulted,
        refaulted_per_second: Bytes(u64::try_from(in_a_second).unwrap_or(u64::MAX)),
        beyond_memory: Pages(beyond_memory).bytes(),
        stalled_some_us: stalled.map(|(from, to)| to.some.total_us.saturating_sub(from.some.total_us)),
        stalled_full_us: stalled.map(|(from, to)| to.full.total_us.saturating_sub(from.full.total_us)),
    }
}

#[cfg(test)]
mod tests {
    use napa_sys::cgroup::GroupEvents;
    use napa_sys::host::{Pressure, Stall};

    use super::*;

    fn reading(refaults: u64, pressure: Option<[u64; 2]>) -> GroupMemory {
        let stall = |total_us| Stall { avg10: 0.0, avg60: 0.0, avg300: 0.0, total_us };
        GroupMemory {
            current: Bytes(4096),
            swap: None,
            swap_max: None,
            zswap: None,
            zswapped: None,
            anonymous: Bytes(4096),
            refaults,
            major_faults: 0,
            pressure: pressure.map(|[some, full]| Pressure { some: stall(some), full: stall(full) }),
            events: GroupEvents::default(),
        }
    }

    fn span(own_pages: u64, swapped_before: u64) -> Span {
        Span {
            time: Duration::from_secs(2),
            own_pages: Pages(own_pages),
            swapped_before: Pages(swapped_before),
        }
    }

    #[test]
    fn what_came_back_beside_the_samples_own_pages_is_wanted_too() {
        let (before, after) = (reading(100, Some([1000, 500])), reading(400, Some([51_000, 600])));
        let found = of(&before, &after, span(90, 1000));
        let expected = GroupInterval {
            refaulted: Pages(300).bytes(),
            refaulted_per_second: Pages(150).bytes(),
            beyond_memory: Pages(210).bytes(),
            stalled_some_us: Some(50_000),
            stalled_full_us: Some(100),
        };
        assert_eq!(found, expected);
        // No more than was away, however often it went and came.
        assert_eq!(of(&before, &after, span(90, 7)).beyond_memory, Pages(7).bytes());
        // The kernel does not count a page that comes back long after it went.
        assert_eq!(of(&before, &after, span(301, 1000)).beyond_memory, Bytes(0));
    }

    #[test]
    fn a_kernel_without_pressure_and_counters_that_went_back_are_fine() {
        let found = of(&reading(400, Some([9, 9])), &reading(100, None), span(0, 1000));
        assert_eq!((found.refaulted, found.beyond_memory), (Bytes(0), Bytes(0)));
        assert_eq!((found.stalled_some_us, found.stalled_full_us), (None, None));
    }
}
