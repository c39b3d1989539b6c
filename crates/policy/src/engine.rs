//! The policies by name, and one type for all of their states.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Decision, Ksm, Mom, Napa, Observation, Policy, Proxmox, Static, Swap};

/// Which policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// napa's own.
    #[default]
    Napa,
    /// Nothing is ever moved.
    Static,
    /// Page sharing alone.
    Ksm,
    /// oVirt's Memory Overcommitment Manager.
    Mom,
    /// Proxmox VE's automatic ballooning.
    Proxmox,
    /// Swapping alone.
    Swap,
}

impl Kind {
    /// All of them, napa's own first.
    pub const ALL: [Self; 6] = [Self::Napa, Self::Static, Self::Ksm, Self::Mom, Self::Proxmox, Self::Swap];

    /// The name on a command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Napa => "napa",
            Self::Static => "static",
            Self::Ksm => "ksm",
            Self::Mom => "mom",
            Self::Proxmox => "proxmox",
            Self::Swap => "swap",
        }
    }

    /// The policy at its beginning.
    pub fn start(self) -> Engine {
        match self {
            Self::Napa => Engine::Napa(Napa::default()),
            Self::Static => Engine::Static(Static::default()),
            Self::Ksm => Engine::Ksm(Ksm::default()),
            Self::Mom => Engine::Mom(Mom::default()),
            Self::Proxmox => Engine::Proxmox(Proxmox::default()),
            Self::Swap => Engine::Swap(Swap::default()),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no policy has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no policy '{0}': choose one of napa, static, ksm, mom, proxmox, swap")]
pub struct UnknownPolicy(pub String);

impl FromStr for Kind {
    type Err = UnknownPolicy;

    fn from_str(text: &str) -> Result<Self, UnknownPolicy> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| UnknownPolicy(text.to_owned()))
    }
}

/// A policy with its state, which can be stored and go on later where it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the variants are what they are named after")]
pub enum Engine {
    Napa(Napa),
    Static(Static),
    Ksm(Ksm),
    Mom(Mom),
    Proxmox(Proxmox),
    Swap(Swap),
}

impl Engine {
    fn policy(&mut self) -> &mut dyn Policy {
        match self {
            Self::Napa(policy) => policy,
            Self::Static(policy) => policy,
            Self::Ksm(policy) => policy,
            Self::Mom(policy) => policy,
            Self::Proxmox(policy) => policy,
            Self::Swap(policy) => policy,
        }
    }

    /// Which policy it is.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Napa(_) => Kind::Napa,
            Self::Static(_) => Kind::Static,
            Self::Ksm(_) => Kind::Ksm,
            Self::Mom(_) => Kind::Mom,
            Self::Proxmox(_) => Kind::Proxmox,
            Self::Swap(_) => Kind::Swap,
        }
    }
}

impl Policy for Engine {
    fn name(&self) -> &'static str {
        self.kind().name()
    }

    fn decide(&mut self, observation: &Observation) -> Decision {
        self.policy().decide(observation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_is_found_by_its_name_and_says_it() {
        for kind in Kind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
            let mut engine = kind.start();
            assert_eq!(
                (engine.kind(), engine.name(), engine.policy().name()),
                (kind, kind.name(), kind.name())
            );
        }
        let error = "esx".parse::<Kind>().unwrap_err().to_string();
        assert!(Kind::ALL.iter().all(|kind| error.contains(kind.name())), "{error}");
    }
}
