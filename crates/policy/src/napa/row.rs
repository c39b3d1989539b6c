//! One guest as the decision sees it: what was observed, what it is entitled to, what can be done.

use std::collections::HashMap;

use napa_units::{Bytes, Pages, VmId};

use crate::offer::Consent;
use crate::working_set::charge;
use crate::{Direction, GuestHints, GuestObservation, Observation, Offer, Works};

/// One guest, its figures and its offers.
#[derive(Debug)]
pub struct Row<'a> {
    pub guest: &'a GuestObservation,
    /// What it says, brought up to date.
    pub hints: Option<GuestHints>,
    /// What it uses, with the buffer.
    pub working_set: Bytes,
    pub entitled: Bytes,
    /// What it is charged with.
    pub charge: Bytes,
    pub offers: Offers<'a>,
}

impl Row<'_> {
    /// What it has beyond its entitlement.
    pub fn beyond(&self) -> Bytes {
        Bytes(self.charge.0.saturating_sub(self.entitled.0))
    }

    /// What it has given by its consent.
    pub fn given(&self) -> Pages {
        self.offers.given()
    }

    /// What the host takes from it now without asking.
    pub fn being_taken(&self) -> Pages {
        Pages(self.offers.takes.iter().fold(0, |sum, offer| offer.outstanding.0.saturating_add(sum)))
    }
}

/// The offers about one guest, the cheapest of each kind first.
#[derive(Debug, Default)]
pub struct Offers<'a> {
    /// Memory that it can be asked for.
    pub asks: Vec<&'a Offer>,
    /// Memory that the host can take.
    pub takes: Vec<&'a Offer>,
    /// Memory that it has given, and that can go back.
    pub gives: Vec<&'a Offer>,
    /// Memory that the host took, and can bring back.
    pub brings: Vec<&'a Offer>,
}

impl Offers<'_> {
    /// What it has given by its consent.
    pub fn given(&self) -> Pages {
        let sum =
            |offers: &[&Offer]| offers.iter().fold(0_u64, |sum, offer| sum.saturating_add(offer.taken.0));
        // The same number stands in both directions, and either may be missing.
        Pages(sum(&self.asks).max(sum(&self.gives)))
    }
}

/// The offers of an observation, sorted.
#[derive(Debug, Default)]
pub struct Sorted<'a> {
    pub guests: HashMap<VmId, Offers<'a>>,
    /// Those that look for something to gain, for one guest or for all.
    pub searches: Vec<&'a Offer>,
}

impl<'a> Sorted<'a> {
    pub fn new(observation: &'a Observation) -> Self {
        let mut sorted = Self::default();
        let mut offers: Vec<&Offer> = observation.offers.iter().collect();
        offers.sort_by_key(|offer| (offer.price, offer.id));
        for offer in offers {
            match (offer.works, offer.direction, offer.guest) {
                (Works::Search, Direction::Take, _) => sorted.searches.push(offer),
                (Works::Search, Direction::Return, _) | (Works::Amount, _, None) => {}
                (Works::Amount, direction, Some(id)) => {
                    let guest = sorted.guests.entry(id).or_default();
                    match (direction, offer.consent) {
                        (Direction::Take, Consent::Guest) => guest.asks.push(offer),
                        (Direction::Take, Consent::Host) => guest.takes.push(offer),
                        (Direction::Return, Consent::Guest) => guest.gives.push(offer),
                        (Direction::Return, Consent::Host) => guest.brings.push(offer),
                    }
                }
            }
        }
        sorted
    }
}

/// A row without its entitlement, which needs all the others.
pub fn row<'a>(
    guest: &'a GuestObservation,
    hints: Option<GuestHints>,
    working_set: Bytes,
    offers: Offers<'a>,
) -> Row<'a> {
    Row { guest, hints, working_set, entitled: Bytes(0), charge: charge(guest), offers }
}
