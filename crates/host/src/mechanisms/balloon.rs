//! The balloon: the guest gives up memory, if it likes.

use std::time::Duration;

use napa_api::control::{BalloonReport, Command, DeviceState, MemoryCommand};
use napa_policy::{Consent, Direction, Order, Works};
use napa_units::{Bytes, Pages};
use serde_json::Value;

use super::{Answered, Draft, Facts, Haste, Mechanism, Rate, Step, Urgency, Wish, read};
use crate::calls::CallError;

/// When most of an order is done by a guest that does it, at least and at most.
const DELAY: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];
/// How often it is looked how far a guest has come.
const POLL: Duration = Duration::from_millis(400);
/// A VM that said it has no balloon is asked again after so long: a reboot does not give it one, but a mistake may end.
const ABSENT: Duration = Duration::from_secs(300);

/// The balloon of one guest.
#[derive(Debug, Default)]
pub struct Balloon {
    /// What the VM said last, and when.
    report: Option<(BalloonReport, Duration)>,
    /// When the guest's own figures were last asked for.
    statistics: Option<Duration>,
    /// A target that the VM was not told yet.
    wanted: Option<Bytes>,
    /// Not to be asked before.
    absent_until: Duration,
    rate: Rate,
}

impl Balloon {
    /// The balloon of a guest that drives it.
    fn driven(&self) -> Option<&BalloonReport> {
        let (report, _) = self.report.as_ref()?;
        (report.driver == DeviceState::Active).then_some(report)
    }

    fn target(&self, report: &BalloonReport) -> Bytes {
        self.wanted.unwrap_or(report.target)
    }

    fn note(&mut self, report: BalloonReport, now: Duration) {
        if let Some((before, then)) = &self.report {
            let moved = before.held.0.abs_diff(report.held.0);
            if before.target != before.held && moved > 0 {
                self.rate.note(Pages::covering(Bytes(moved)), now.saturating_sub(*then));
            }
        }
        self.report = Some((report, now));
    }
}

impl Mechanism for Balloon {
    fn name(&self) -> &'static str {
        "balloon"
    }

    fn offers(&self, _facts: &Facts<'_>) -> Vec<Draft> {
        let Some(report) = self.driven() else { return Vec::new() };
        let (target, held) = (self.target(report), report.held);
        let [least, most] = DELAY;
        let between = |more: Bytes, less: Bytes| Pages::covering(Bytes(more.0.saturating_sub(less.0)));
        let draft = |direction, pages_max, outstanding| Draft {
            direction,
            pages_max,
            price: Step::Ballooning.price(),
            delay: self.rate.time_for(outstanding, least, most),
            reversible: true,
            consent: Consent::Guest,
            works: Works::Amount,
            outstanding,
            taken: Pages::covering(held),
        };
        vec![
            draft(Direction::Take, between(report.size, held), between(target, held)),
            draft(Direction::Return, Pages::covering(held), between(held, target)),
        ]
    }

    fn order(&mut self, order: Order, _facts: &Facts<'_>) {
        let Some(report) = self.driven() else { return };
        let held = report.held.0;
        let target = Bytes(match order {
            Order::Take(pages) => held.saturating_add(pages.bytes().0).min(report.size.0),
            Order::Return(pages) => held.saturating_sub(pages.bytes().0),
            Order::Cancel => held,
        });
        self.wanted = (target != report.target).then_some(target);
    }

    fn wish(&self, facts: &Facts<'_>) -> Option<Wish> {
        let ask = |urgency, command| Some(Wish { urgency, command: Command::Memory(command) });
        if facts.now < self.absent_until {
            return None;
        }
        if let Some(target) = self.wanted {
            return ask(Urgency::Order, MemoryCommand::Balloon { target: Some(target) });
        }
        let since = |then: Duration| facts.now.saturating_sub(then);
        // A guest without a driver answers nothing: it is only looked whether it has got one.
        if self.driven().is_some() && self.statistics.is_none_or(|then| since(then) >= period(facts.haste)) {
            return ask(Urgency::Poll, MemoryCommand::BalloonStatistics);
        }
        let is_due = match &self.report {
            None => true,
            Some((report, then)) if report.driver == DeviceState::Active => {
                report.target != report.held && since(*then) >= POLL
            }
            Some((_, then)) => since(*then) >= period(Haste::None),
        };
        if is_due { ask(Urgency::Poll, MemoryCommand::Balloon { target: None }) } else { None }
    }

    fn answered(&mut self, command: Command, outcome: Result<&Value, &CallError>, at: Answered) {
        let Command::Memory(command) = command else { return };
        match command {
            MemoryCommand::Balloon { target } => {
                if target.is_some() && target == self.wanted {
                    // Whatever became of it: the next order counts from what is seen then.
                    self.wanted = None;
                }
            }
            MemoryCommand::BalloonStatistics => self.statistics = Some(at.now),
            _ => return,
        }
        if outcome.is_err_and(CallError::is_refusal) {
            self.report = None;
            self.absent_until = at.now + ABSENT;
        }
        if let Some(report) = read(outcome) {
            self.note(report, at.now);
        }
    }

    fn balloon(&self) -> Option<(&BalloonReport, Duration)> {
        self.report.as_ref().map(|(report, at)| (report, *at))
    }
}

/// How often the guest is asked how its memory is: each time wakes it.
const fn period(haste: Haste) -> Duration {
    match haste {
        Haste::None => Duration::from_secs(10),
        Haste::Some => Duration::from_secs(2),
        Haste::Great => Duration::from_secs(1),
    }
}

#[cfg(test)]
mod tests {
    use napa_api::control::RpcError;
    use serde_json::json;

    use super::super::tests::{facts, now};
    use super::*;

    fn report(held: u64, target: u64) -> Value {
        json!({
            "size": 1 << 30, "target": target << 20, "actual": held << 20, "held": held << 20, "driver": "active",
            "reporting": true, "reported": 0, "discarded": 0, "discards": 0, "foreign_pages": 0, "statistics": null,
        })
    }

    const LOOK: Command = Command::Memory(MemoryCommand::Balloon { target: None });

    fn balloon(held: u64, target: u64) -> Balloon {
        let mut balloon = Balloon::default();
        balloon.answered(LOOK, Ok(&report(held, target)), now());
        balloon.statistics = Some(now().now);
        balloon
    }

    fn tell(target: u64) -> Option<Command> {
        Some(Command::Memory(MemoryCommand::Balloon { target: Some(Bytes::mib(target)) }))
    }

    #[test]
    fn an_order_counts_from_what_is_done_and_replaces_the_one_before() {
        let pages = |size| Pages::covering(Bytes::mib(size));
        for (order, expected) in [
            (Order::Take(pages(10)), tell(74)),
            (Order::Take(pages(1 << 20)), tell(1024)),
            (Order::Return(pages(14)), tell(50)),
            (Order::Return(pages(99)), tell(0)),
            (Order::Cancel, tell(64)),
            (Order::Take(pages(36)), None),
        ] {
            let mut balloon = balloon(64, 100);
            balloon.order(order, &facts());
            assert_eq!(balloon.wish(&facts()).map(|wish| wish.command), expected, "{order:?}");
            if let Some(command) = expected {
                balloon.answered(command, Ok(&report(64, 74)), now());
                assert_eq!(balloon.wish(&facts()), None);
            }
        }
    }

    #[test]
    fn offers_say_what_is_outstanding_in_which_direction() {
        let outstanding =
            |balloon: &Balloon| balloon.offers(&facts()).iter().map(|o| o.outstanding.bytes()).collect();
        let found: Vec<Bytes> = outstanding(&balloon(64, 100));
        assert_eq!(found, [Bytes::mib(36), Bytes(0)]);
        let found: Vec<Bytes> = outstanding(&balloon(64, 60));
        assert_eq!(found, [Bytes(0), Bytes::mib(4)]);
        let mut balloon = balloon(64, 64);
        balloon.order(Order::Take(Pages::covering(Bytes::mib(8))), &facts());
        let found: Vec<Bytes> = outstanding(&balloon);
        assert_eq!(found, [Bytes::mib(8), Bytes(0)]);
    }

    #[test]
    fn without_a_driver_or_a_balloon_there_is_no_offer() {
        let mut idle = report(0, 0);
        idle["driver"] = json!("idle");
        let mut balloon = Balloon::default();
        assert_eq!(balloon.wish(&facts()).map(|wish| wish.command), Some(LOOK));
        balloon.answered(LOOK, Ok(&idle), now());
        assert!(balloon.offers(&facts()).is_empty() && balloon.wish(&facts()).is_none());
        let refusal = CallError::Exchange(RpcError::new(-32000, "no balloon").into());
        balloon.answered(LOOK, Err(&refusal), now());
        let later = Facts { now: now().now + Duration::from_secs(60), ..facts() };
        assert_eq!(balloon.wish(&later), None);
    }

    #[test]
    fn what_the_guest_moves_is_measured() {
        let mut balloon = balloon(64, 100);
        let later = Answered { now: now().now + Duration::from_secs(2), ..now() };
        balloon.answered(LOOK, Ok(&report(84, 100)), later);
        assert_eq!(balloon.rate.pages_per_second(), Some(2560.0));
    }
}
