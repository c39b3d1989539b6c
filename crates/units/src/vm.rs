//! What tells the VMs of a host apart, and weighs them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A VM of a host. Numbers are given once: those of a VM that was removed are not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VmId(pub u64);

impl fmt::Display for VmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How much a VM counts when memory is short, per byte of its limit.
///
/// Two VMs with the same limit and the same demand are entitled to memory as their shares are to each other. Of two
/// VMs with the same shares the one with twice the limit is entitled to twice as much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shares(pub u32);

impl Default for Shares {
    fn default() -> Self {
        Self(100)
    }
}

impl fmt::Display for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
