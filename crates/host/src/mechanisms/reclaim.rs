//! Swap: the VM's process, or the kernel in its control group, puts pages of the guest there. The guest has no say.

use std::time::Duration;

use napa_api::control::{Command, MemoryCommand, ReclaimEnd, ReclaimReport};
use napa_policy::{Consent, Direction, Order, Works};
use napa_units::{Bytes, Pages};
use serde_json::Value;

use super::{Answered, Draft, Facts, Mechanism, Rate, Urgency, Wish, read};
use crate::calls::CallError;

/// What the VM is asked for at a time: small enough that a later order is not late, large enough that asking costs
/// nothing.
const PART: Pages = Pages::covering(Bytes::mib(64));
/// When most of an order is done, at least and at most.
const DELAY: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(30)];
/// How long a VM is left alone that has nothing more to take, or nowhere to put it.
const REST: Duration = Duration::from_secs(3);
/// The same after it refused.
const REFUSED: Duration = Duration::from_secs(30);
/// Answers in a row that took nothing before it is left alone.
const IDLE_MAX: u32 = 3;

/// The way to swap of one guest.
#[derive(Debug, Default)]
pub struct Reclaim {
    /// Ordered, and not taken yet.
    owed: Pages,
    /// Nothing is offered before.
    rests_until: Duration,
    /// Answers in a row that took nothing.
    idle: u32,
    rate: Rate,
}

impl Reclaim {
    fn rest(&mut self, until: Duration) {
        (self.owed, self.idle, self.rests_until) = (Pages(0), 0, until);
    }

    fn note(&mut self, report: &ReclaimReport, now: Duration) {
        let taken = Pages::covering(report.taken);
        self.rate.note(taken, Duration::from_millis(report.time_ms.max(1)));
        self.owed = Pages(self.owed.0.saturating_sub(taken.0));
        self.idle = if taken == Pages(0) { self.idle + 1 } else { 0 };
        match report.end {
            ReclaimEnd::Complete => {}
            ReclaimEnd::OutOfTime if self.idle < IDLE_MAX => {}
            ReclaimEnd::OutOfTime
            | ReclaimEnd::NothingLeft
            | ReclaimEnd::LimitReached
            | ReclaimEnd::SwapFull => self.rest(now + REST),
        }
    }
}

impl Mechanism for Reclaim {
    fn name(&self) -> &'static str {
        "swap"
    }

    fn offers(&self, facts: &Facts<'_>) -> Vec<Draft> {
        let Some(step) = facts.room.next else { return Vec::new() };
        let pages_max = facts.resident.min(facts.room.pages);
        if facts.now < self.rests_until || pages_max == Pages(0) {
            return Vec::new();
        }
        let [least, most] = DELAY;
        vec![Draft {
            direction: Direction::Take,
            pages_max,
            price: step.price(),
            delay: self.rate.time_for(self.owed.max(PART), least, most),
            // What the guest touches comes back, and nothing else brings it back.
            reversible: false,
            consent: Consent::Host,
            works: Works::Amount,
            outstanding: self.owed,
            taken: facts.swapped,
        }]
    }

    fn order(&mut self, order: Order, _facts: &Facts<'_>) {
        self.owed = match order {
            Order::Take(pages) => pages,
            Order::Return(_) | Order::Cancel => Pages(0),
        };
    }

    fn wish(&self, facts: &Facts<'_>) -> Option<Wish> {
        let size = self.owed.min(PART).bytes();
        let command = Command::Memory(MemoryCommand::Reclaim { size });
        (size > Bytes(0) && facts.now >= self.rests_until).then_some(Wish { urgency: Urgency::Work, command })
    }

    fn answered(&mut self, command: Command, outcome: Result<&Value, &CallError>, at: Answered) {
        if !matches!(command, Command::Memory(MemoryCommand::Reclaim { .. })) {
            return;
        }
        match read::<ReclaimReport>(outcome) {
            Some(report) => self.note(&report, at.now),
            None => self.rest(at.now + REFUSED),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{facts, now};
    use super::super::{Step, SwapRoom};
    use super::*;

    fn size(reclaim: &Reclaim, facts: &Facts<'_>) -> Option<Bytes> {
        match reclaim.wish(facts)?.command {
            Command::Memory(MemoryCommand::Reclaim { size }) => Some(size),
            other => panic!("{other:?}"),
        }
    }

    fn answer(reclaim: &mut Reclaim, taken: Bytes, end: &str) {
        let report = json!({
            "name": "vm", "asked": 0, "taken": taken, "came_back": 0, "time_ms": 500, "mechanism": "page_out",
            "end": end,
        });
        let command = Command::Memory(MemoryCommand::Reclaim { size: Bytes(4096) });
        reclaim.answered(command, Ok(&report), now());
    }

    #[test]
    fn an_order_is_carried_out_in_parts() {
        let mut reclaim = Reclaim::default();
        assert_eq!(size(&reclaim, &facts()), None);
        reclaim.order(Order::Take(Pages::covering(Bytes::mib(100))), &facts());
        assert_eq!(size(&reclaim, &facts()), Some(Bytes::mib(64)));
        answer(&mut reclaim, Bytes::mib(64), "complete");
        assert_eq!(size(&reclaim, &facts()), Some(Bytes::mib(36)));
        assert_eq!(reclaim.offers(&facts())[0].outstanding.bytes(), Bytes::mib(36));
        assert_eq!(reclaim.rate.pages_per_second(), Some(32_768.0));
        answer(&mut reclaim, Bytes::mib(40), "complete");
        assert_eq!(size(&reclaim, &facts()), None);
        reclaim.order(Order::Take(Pages(5)), &facts());
        reclaim.order(Order::Cancel, &facts());
        assert_eq!(size(&reclaim, &facts()), None);
    }

    #[test]
    fn what_gives_nothing_is_left_alone_for_a_while() {
        for (end, answers) in
            [("nothing_left", 1), ("swap_full", 1), ("limit_reached", 1), ("out_of_time", IDLE_MAX)]
        {
            let mut reclaim = Reclaim::default();
            reclaim.order(Order::Take(Pages(50)), &facts());
            for _ in 0..answers {
                assert!(size(&reclaim, &facts()).is_some(), "{end}");
                answer(&mut reclaim, Bytes(0), end);
            }
            assert!(size(&reclaim, &facts()).is_none() && reclaim.offers(&facts()).is_empty(), "{end}");
            let later = Facts { now: facts().now + REST, ..facts() };
            assert_eq!(reclaim.offers(&later)[0].outstanding, Pages(0));
        }
        let mut reclaim = Reclaim::default();
        reclaim.order(Order::Take(Pages(50)), &facts());
        let late = CallError::Late { method: "reclaim", bound: REST };
        let command = Command::Memory(MemoryCommand::Reclaim { size: Bytes(4096) });
        reclaim.answered(command, Err(&late), now());
        assert!(reclaim.offers(&Facts { now: facts().now + REST, ..facts() }).is_empty());
    }

    #[test]
    fn an_offer_is_as_large_as_the_guest_and_the_room_for_it() {
        let offer = |next, pages| {
            let facts = Facts { room: SwapRoom { next, pages: Pages(pages) }, ..facts() };
            Reclaim::default().offers(&facts).first().map(|offer| (offer.pages_max, offer.price))
        };
        assert_eq!(offer(Some(Step::CompressedSwap), 1000), Some((Pages(100), Step::CompressedSwap.price())));
        assert_eq!(offer(Some(Step::DiskSwap), 7), Some((Pages(7), Step::DiskSwap.price())));
        assert_eq!(offer(Some(Step::DiskSwap), 0), None);
        assert_eq!(offer(None, 0), None);
    }
}
