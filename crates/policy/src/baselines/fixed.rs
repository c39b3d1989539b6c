//! The policy of hosts without overcommitment: each guest has its limit, and nothing is ever moved.

use serde::{Deserialize, Serialize};

use crate::{Cooperation, Decision, GuestDecision, Level, Observation, Policy};

/// Every guest may have its limit. If that does not fit, the kernel's own reclaim has to see to it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Static {}

impl Policy for Static {
    fn name(&self) -> &'static str {
        "static"
    }

    fn decide(&mut self, observation: &Observation) -> Decision {
        let guests = observation.guests.iter().map(|guest| GuestDecision {
            guest: guest.id,
            entitlement: guest.limit,
            working_set: guest.resident,
            cooperation: Cooperation::Cooperative,
            protected: napa_units::Bytes(0),
            brake: None,
            reason: format!("its limit is {}", guest.limit),
        });
        Decision {
            level: Level::High,
            guests: guests.collect(),
            grants: Vec::new(),
            admission_open: true,
            reasons: vec!["nothing is ever moved".to_owned()],
        }
    }
}

#[cfg(test)]
mod tests {
    use napa_units::{Bytes, VmId};

    use super::*;
    use crate::GuestObservation;

    #[test]
    fn every_guest_has_its_limit_and_nothing_moves() {
        let guests = vec![GuestObservation::untouched(VmId(7), Bytes::mib(512))];
        let decision = Static::default().decide(&Observation { guests, ..Observation::default() });
        assert_eq!((decision.guests[0].guest, decision.guests[0].entitlement), (VmId(7), Bytes::mib(512)));
        assert!(decision.grants.is_empty() && decision.admission_open);
    }
}
