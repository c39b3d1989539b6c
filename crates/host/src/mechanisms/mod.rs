//! What can be done with the memory of a guest: one file and one line of the [`catalog`] each.
//!
//! A mechanism of one guest is a small state machine without I/O: it makes offers from facts, takes orders, says what
//! the VM has to be asked for next, and learns from the answer. Whoever owns it does the asking. Nothing outside of this
//! folder knows a mechanism by name.

mod balloon;
mod price;
mod protection;
mod rate;
mod reclaim;
mod share;

use std::time::Duration;

use napa_api::config::ShareConfig;
use napa_api::control::{BalloonReport, Command, MeansReport};
use napa_policy::{Consent, Direction, Offer, OfferId, Order, Price, Works};
use napa_units::{Pages, VmId};
use serde_json::Value;

pub use self::price::Step;
pub use self::protection::Protected;
use self::rate::Rate;
use crate::calls::CallError;

/// The mechanisms, each for one guest.
pub fn catalog() -> Vec<Box<dyn Mechanism>> {
    vec![
        Box::new(share::Share::default()),
        Box::new(balloon::Balloon::default()),
        Box::new(reclaim::Reclaim::default()),
    ]
}

/// Mechanisms a guest has at most; part of how offers are numbered.
const MECHANISMS_MAX: u64 = 16;

/// What mechanisms can know about a guest.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Time on the daemon's own clock.
    pub now: Duration,
    /// The guest's memory in RAM.
    pub resident: Pages,
    /// The guest's memory in swap.
    pub swapped: Pages,
    /// How far its pages may be merged.
    pub share: &'a ShareConfig,
    /// By what means memory can be taken. `None`: the VM was not asked so far.
    pub means: Option<&'a MeansReport>,
    /// What the host's swap has room for.
    pub room: SwapRoom,
    /// Strangers on the host let the kernel merge their pages with whoever shares.
    pub has_strangers: bool,
    /// Whether memory is short: then figures have to be fresh.
    pub haste: Haste,
}

/// How fresh figures have to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Haste {
    /// There is plenty of memory.
    #[default]
    None,
    /// Orders are given.
    Some,
    /// Every second counts.
    Great,
}

/// What the host's swap has room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SwapRoom {
    /// Where the next page goes. `None`: nowhere.
    pub next: Option<Step>,
    /// How many pages.
    pub pages: Pages,
}

/// What the VM is asked next, and how soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Why.
    pub urgency: Urgency,
    /// What for.
    pub command: Command,
}

/// Why a VM is asked. The last goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// A figure that is useful now and then.
    Probe,
    /// Work that costs the host's processors much and is not urgent.
    Search,
    /// A figure that somebody waits for.
    Poll,
    /// An order that writes much.
    Work,
    /// An order that is done at once.
    Order,
}

/// One mechanism of one guest.
pub trait Mechanism: std::fmt::Debug + Send {
    /// What it is called in decisions.
    fn name(&self) -> &'static str;

    /// What it could do now.
    fn offers(&self, facts: &Facts<'_>) -> Vec<Draft>;

    /// Takes an order, which replaces the one before.
    fn order(&mut self, order: Order, facts: &Facts<'_>);

    /// What it would ask the VM for. `None`: nothing at the moment.
    fn wish(&self, facts: &Facts<'_>) -> Option<Wish>;

    /// Learns what came of a command that it wished for. It is told of all answers of its VM.
    fn answered(&mut self, command: Command, outcome: Result<&Value, &CallError>, at: Answered);

    /// How the balloon is, if this is it.
    fn balloon(&self) -> Option<(&BalloonReport, Duration)> {
        None
    }
}

/// When an answer came.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// On the daemon's own clock.
    pub now: Duration,
    /// How long it took.
    pub took: Duration,
}

/// An offer without its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Whether the host gets memory.
    pub direction: Direction,
    /// The most that can be ordered.
    pub pages_max: Pages,
    /// What it costs the guest.
    pub price: Price,
    /// When most of it is done.
    pub delay: Duration,
    /// Whether an order gives it back.
    pub reversible: bool,
    /// Who has to agree.
    pub consent: Consent,
    /// What an order means.
    pub works: Works,
    /// Ordered and not done.
    pub outstanding: Pages,
    /// What it has taken.
    pub taken: Pages,
}

impl Draft {
    /// The offer of the mechanism at this place of the catalog.
    pub fn offer(self, guest: VmId, mechanism: usize) -> Offer {
        let Self { direction, pages_max, price, delay, reversible, consent, works, outstanding, taken } =
            self;
        let side = match direction {
            Direction::Take => 0,
            Direction::Return => 1,
        };
        let id = OfferId((guest.0 * MECHANISMS_MAX + mechanism as u64) * 2 + side);
        let guest = Some(guest);
        Offer {
            id,
            guest,
            direction,
            pages_max,
            price,
            delay,
            reversible,
            consent,
            works,
            outstanding,
            taken,
        }
    }
}

/// Whose offer it is: the guest, and the place in the catalog.
pub const fn owner(id: OfferId) -> (VmId, usize) {
    let number = id.0 / 2;
    (VmId(number / MECHANISMS_MAX), (number % MECHANISMS_MAX) as usize)
}

/// Reads an answer. One that cannot be read counts as none.
fn read<T: serde::de::DeserializeOwned>(outcome: Result<&Value, &CallError>) -> Option<T> {
    serde::Deserialize::deserialize(outcome.ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A guest of which 100 pages are in RAM, on a host with room in its compressed swap.
    pub fn facts() -> Facts<'static> {
        Facts {
            now: Duration::from_secs(100),
            resident: Pages(100),
            swapped: Pages(5),
            share: &ShareConfig::Vm,
            means: None,
            room: SwapRoom { next: Some(Step::CompressedSwap), pages: Pages(1000) },
            has_strangers: false,
            haste: Haste::Some,
        }
    }

    /// An answer that came a moment ago.
    pub fn now() -> Answered {
        Answered { now: Duration::from_secs(100), took: Duration::from_millis(500) }
    }

    #[test]
    fn an_offer_keeps_its_number_and_says_whose_it_is() {
        assert!(catalog().len() < MECHANISMS_MAX as usize);
        let mut seen = std::collections::BTreeSet::new();
        for guest in [VmId(0), VmId(1), VmId(77)] {
            for mechanism in 0..catalog().len() {
                for direction in [Direction::Take, Direction::Return] {
                    let draft = Draft {
                        direction,
                        pages_max: Pages(1),
                        price: Price(1),
                        delay: Duration::ZERO,
                        reversible: false,
                        consent: Consent::Host,
                        works: Works::Amount,
                        outstanding: Pages(0),
                        taken: Pages(0),
                    };
                    let id = draft.offer(guest, mechanism).id;
                    assert_eq!(owner(id), (guest, mechanism));
                    assert!(seen.insert(id));
                }
            }
        }
    }
}
