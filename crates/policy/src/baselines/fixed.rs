//! The policy of hosts without overcommitment: each guest has its limit, and nothing is ever moved.

use serde::{Deserialize, Serialize};

use crate::baselines::unmoved;
use crate::{Decision, Observation, Policy};

/// Every guest may have its limit. If that does not fit, the kernel's own reclaim has to see to it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Static {}

impl Policy for Static {
    fn name(&self) -> &'static str {
        "static"
    }

    fn decide(&mut self, observation: &Observation) -> Decision {
        Decision { reasons: vec!["nothing is ever moved".to_owned()], ..unmoved(observation) }
    }
}
