//! Other ways to manage a host's memory, behind the same trait: what napa is measured against.
//!
//! Each follows the law that its documentation names, as far as offers and grants can express it. None has levels, and
//! none closes admission.

mod fixed;
mod ksm;
mod mom;
mod proxmox;
mod swap;
#[cfg(test)]
mod tests;

pub use fixed::Static;
pub use ksm::Ksm;
pub use mom::Mom;
pub use proxmox::Proxmox;
pub use swap::Swap;

use std::collections::HashMap;

use napa_units::{Bytes, Pages, VmId};

use crate::draft::Draft;
use crate::{
    Consent, Cooperation, Decision, Direction, GuestDecision, GuestObservation, Level, Observation, Offer,
    Works,
};

/// The decision to leave everything as it is, with each guest's limit as its entitlement.
fn unmoved(observation: &Observation) -> Decision {
    let guests = observation.guests.iter().map(|guest| GuestDecision {
        guest: guest.id,
        entitlement: guest.limit,
        working_set: guest.resident,
        cooperation: Cooperation::Cooperative,
        protected: Bytes(0),
        brake: None,
        reason: format!("its limit is {}", guest.limit),
    });
    Decision {
        level: Level::High,
        guests: guests.collect(),
        grants: Vec::new(),
        admission_open: true,
        reasons: Vec::new(),
    }
}

fn fold(sizes: impl Iterator<Item = Bytes>) -> Bytes {
    Bytes(sizes.fold(0, |sum: u64, bytes| sum.saturating_add(bytes.0)))
}

/// The balloons of an observation: what can be taken from a guest with its consent, and what can be returned.
struct Balloons<'a> {
    offers: HashMap<VmId, [Option<&'a Offer>; 2]>,
}

impl<'a> Balloons<'a> {
    fn new(observation: &'a Observation) -> Self {
        let mut offers: HashMap<VmId, [Option<&Offer>; 2]> = HashMap::new();
        for offer in &observation.offers {
            let (Some(guest), Consent::Guest, Works::Amount) = (offer.guest, offer.consent, offer.works)
            else {
                continue;
            };
            let side = usize::from(offer.direction == Direction::Return);
            offers.entry(guest).or_default()[side].get_or_insert(offer);
        }
        Self { offers }
    }

    /// Whether the guest has a balloon.
    fn has(&self, guest: VmId) -> bool {
        self.offers.contains_key(&guest)
    }

    /// The guest's size without what it has given.
    fn size(guest: &GuestObservation) -> Bytes {
        Bytes(guest.limit.0.saturating_sub(guest.ballooned.0))
    }

    /// Orders the guest's balloon to leave it this much.
    fn resize(&self, guest: &GuestObservation, target: Bytes, draft: &mut Draft, reason: &str) {
        let [take, back] = self.offers.get(&guest.id).copied().unwrap_or_default();
        let size = Self::size(guest);
        let (offer, change) =
            if target < size { (take, size.0 - target.0) } else { (back, target.0 - size.0) };
        if let Some(offer) = offer {
            draft.order(offer, Pages(change / 4096), || reason.to_owned());
        }
    }
}
