//! Grants in the making: bounded by what is offered, one for each offer.

use std::collections::HashSet;

use napa_units::Pages;

use crate::{Direction, Grant, Offer, OfferId, Order, Works};

/// Grants that are being collected.
#[derive(Debug, Default)]
pub struct Draft {
    grants: Vec<Grant>,
    ordered: HashSet<OfferId>,
}

impl Draft {
    /// Orders what the offer gives, up to this many pages, in the offer's direction. Returns how many were ordered:
    /// none if nothing is left of the offer, or if it already has a grant.
    pub fn order(&mut self, offer: &Offer, pages: Pages, reason: impl FnOnce() -> String) -> Pages {
        let pages = pages.min(offer.pages_max);
        let stops = offer.works == Works::Search && offer.outstanding > Pages(0);
        if (pages == Pages(0) && !stops) || !self.ordered.insert(offer.id) {
            return Pages(0);
        }
        let order = match offer.direction {
            Direction::Take => Order::Take(pages),
            Direction::Return => Order::Return(pages),
        };
        self.grants.push(Grant { offer: offer.id, guest: offer.guest, order, reason: reason() });
        pages
    }

    /// Cancels what is outstanding of the offer, unless it already has a grant.
    pub fn cancel(&mut self, offer: &Offer, reason: impl FnOnce() -> String) {
        if self.ordered.insert(offer.id) {
            self.grants.push(Grant {
                offer: offer.id,
                guest: offer.guest,
                order: Order::Cancel,
                reason: reason(),
            });
        }
    }

    /// Takes back what was ordered of the offer in this decision, and cancels what is outstanding of it from before.
    pub fn withdraw(&mut self, offer: &Offer, reason: impl FnOnce() -> String) {
        if self.ordered.remove(&offer.id) {
            self.grants.retain(|grant| grant.offer != offer.id);
        }
        if offer.outstanding > Pages(0) {
            self.cancel(offer, reason);
        }
    }

    /// The grants, in the order in which they were made.
    pub fn finish(self) -> Vec<Grant> {
        self.grants
    }
}
