//! Pages of zeros are given back, and the kernel merges equal ones.
//!
//! An order is a pace. The VM looks for about a second each time that it is asked, so the pace is kept by how often that
//! is.

use std::time::Duration;

use napa_api::config::ShareConfig;
use napa_api::control::{Command, MemoryCommand, ShareOrder, ShareReport};
use napa_policy::{Consent, Direction, Order, Works};
use napa_units::Pages;
use serde_json::Value;

use super::{Answered, Draft, Facts, Mechanism, Step, Urgency, Wish, read};
use crate::calls::CallError;

/// The kernel merges what it has seen twice.
const DELAY: Duration = Duration::from_secs(120);
/// The shortest and longest time between two looks.
const PAUSE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(600)];
/// After a refusal.
const REFUSED: Duration = Duration::from_secs(60);

/// Sharing by one guest.
#[derive(Debug, Default)]
pub struct Share {
    /// Pages to look at in a second; zero: none.
    pace: Pages,
    /// Pages of the guest in memory, when the pace was ordered.
    resident: Pages,
    /// When to ask next.
    next: Duration,
    /// What the VM had not got to when it last answered.
    left: Pages,
    /// What was given back as pages of zeros, ever.
    given_back: Pages,
    /// What is merged.
    merged: Pages,
}

impl Share {
    fn note(&mut self, report: &ShareReport, at: Answered) {
        let left = Pages::covering(report.left);
        // With nothing left, a whole round is over, and the next one begins at the first page.
        let begun = if self.left == Pages(0) { self.resident.max(left) } else { self.left };
        let looked_at = begun.0.saturating_sub(left.0).max(1);
        (self.left, self.given_back) = (left, Pages::covering(report.given_back));
        self.merged = Pages::covering(report.merged.unwrap_or_default());
        let [least, most] = PAUSE;
        let pause = Duration::from_secs_f64(looked_at as f64 / self.pace.0.max(1) as f64);
        self.next = at.now + pause.clamp(least, most);
    }
}

impl Mechanism for Share {
    fn name(&self) -> &'static str {
        "sharing"
    }

    fn offers(&self, facts: &Facts<'_>) -> Vec<Draft> {
        let merges = !matches!(facts.share, ShareConfig::Zero | ShareConfig::Off);
        let can_do = |means: &napa_api::control::MeansReport| {
            means.no_zero_pages.is_none() || (merges && means.no_merging.is_none())
        };
        let is_possible = facts.means.is_some_and(can_do)
            && *facts.share != ShareConfig::Off
            && !(merges && facts.has_strangers);
        if !is_possible {
            return Vec::new();
        }
        vec![Draft {
            direction: Direction::Take,
            pages_max: facts.resident,
            price: Step::Sharing.price(),
            delay: DELAY,
            reversible: false,
            consent: Consent::Host,
            works: Works::Search,
            outstanding: self.pace,
            taken: Pages(self.merged.0 + self.given_back.0),
        }]
    }

    fn order(&mut self, order: Order, facts: &Facts<'_>) {
        self.pace = match order {
            Order::Take(pages) => pages,
            Order::Return(_) | Order::Cancel => Pages(0),
        };
        self.resident = facts.resident;
    }

    fn wish(&self, facts: &Facts<'_>) -> Option<Wish> {
        let is_due = self.pace > Pages(0) && facts.now >= self.next && !self.offers(facts).is_empty();
        let command = Command::Memory(MemoryCommand::Share(ShareOrder::On));
        is_due.then_some(Wish { urgency: Urgency::Search, command })
    }

    fn answered(&mut self, command: Command, outcome: Result<&Value, &CallError>, at: Answered) {
        if command != Command::Memory(MemoryCommand::Share(ShareOrder::On)) {
            return;
        }
        match read::<ShareReport>(outcome) {
            Some(report) => self.note(&report, at),
            None => self.next = at.now + REFUSED,
        }
    }
}

#[cfg(test)]
mod tests {
    use napa_api::control::{MeansReport, ReclaimMechanism};
    use serde_json::json;

    use super::super::tests::{facts, now};
    use super::*;

    fn means(no_zero_pages: Option<&str>, no_merging: Option<&str>) -> MeansReport {
        let why = |text: Option<&str>| text.map(str::to_owned);
        let (no_zero_pages, no_merging) = (why(no_zero_pages), why(no_merging));
        MeansReport { no_zero_pages, no_merging, reclaim: ReclaimMechanism::PageOut }
    }

    #[test]
    fn it_is_offered_where_something_can_be_shared() {
        let (both, no) = (means(None, None), Some("no"));
        let (vm, zero, off) = (ShareConfig::Vm, ShareConfig::Zero, ShareConfig::Off);
        for (means, share, has_strangers, expected) in [
            (Some(&both), &vm, false, true),
            (Some(&means(no, None)), &vm, false, true),
            (Some(&means(None, no)), &vm, false, true),
            (Some(&means(no, no)), &vm, false, false),
            (None, &vm, false, false),
            (Some(&both), &vm, true, false),
            (Some(&both), &zero, true, true),
            (Some(&means(no, None)), &zero, false, false),
            (Some(&both), &off, false, false),
        ] {
            let facts = Facts { means, share, has_strangers, ..facts() };
            assert_eq!(!Share::default().offers(&facts).is_empty(), expected, "{facts:?}");
        }
    }

    #[test]
    fn the_pace_is_kept_by_how_often_the_vm_is_asked() {
        let means = means(None, None);
        let facts = Facts { means: Some(&means), ..facts() };
        let mut share = Share::default();
        assert_eq!(share.wish(&facts), None);
        share.order(Order::Take(Pages(20)), &facts);
        let command = share.wish(&facts).unwrap().command;
        let report = |left: u64| {
            json!({
                "scope": "vm", "is_on": true, "merged": 8192, "zero": null, "profit": null, "full_scans": null,
                "given_back": 4096, "left": left * 4096,
            })
        };
        // Of its 100 pages it has looked at 40, which is as much as two seconds are good for.
        share.answered(command, Ok(&report(60)), now());
        let at = |seconds| Facts { now: now().now + Duration::from_secs(seconds), ..facts };
        assert!(share.wish(&at(1)).is_none() && share.wish(&at(2)).is_some());
        share.answered(command, Ok(&report(0)), now());
        assert!(share.wish(&at(2)).is_none() && share.wish(&at(3)).is_some());
        let offer = share.offers(&facts)[0];
        assert_eq!((offer.outstanding, offer.taken), (Pages(20), Pages(3)));
        share.order(Order::Take(Pages(0)), &facts);
        assert_eq!(share.wish(&at(9)), None);
        share.order(Order::Take(Pages(20)), &facts);
        share.answered(command, Err(&CallError::Late { method: "share", bound: REFUSED }), now());
        assert!(share.wish(&at(59)).is_none() && share.wish(&at(60)).is_some());
    }
}
