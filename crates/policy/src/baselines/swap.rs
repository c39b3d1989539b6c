//! Swapping alone, as a kernel without a control group for each guest does it.

use napa_units::{Bytes, Pages};
use serde::{Deserialize, Serialize};

use crate::baselines::{fold, unmoved};
use crate::draft::Draft;
use crate::{Consent, Decision, Direction, Observation, Offer, Policy, Works};

/// Swaps when less than 1/64 is free, until 1/32 is, as `kswapd` does between its watermarks: from all guests as much
/// as they hold, since one list of all pages by age knows no owner.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Swap {
    awake: bool,
}

impl Policy for Swap {
    fn name(&self) -> &'static str {
        "swap"
    }

    fn decide(&mut self, observation: &Observation) -> Decision {
        let host = &observation.host;
        let (free, low, high) = (host.free().0, host.capacity.0 / 64, host.capacity.0 / 32);
        self.awake = free < low || (self.awake && free < high);
        let mut decision = unmoved(observation);
        if !self.awake {
            return decision;
        }
        let wanted = Bytes(high.saturating_sub(free).saturating_add(host.excess().0));
        let takes = |offer: &&Offer| {
            (offer.consent, offer.direction, offer.works) == (Consent::Host, Direction::Take, Works::Amount)
        };
        let takes: Vec<&Offer> = observation.offers.iter().filter(takes).collect();
        let all = fold(takes.iter().map(|offer| offer.pages_max.bytes()));
        let mut draft = Draft::default();
        for offer in &takes {
            let part =
                u128::from(wanted.0) * u128::from(offer.pages_max.bytes().0) / u128::from(all.0.max(1));
            draft
                .order(offer, Pages(part as u64 / 4096), || "its part of the oldest pages of all".to_owned());
        }
        decision.grants = draft.finish();
        decision.reasons.push(format!("takes {wanted} from all guests by what they hold"));
        decision
    }
}
