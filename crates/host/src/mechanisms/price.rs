//! The strategy: in which order memory is taken.

use napa_policy::Price;

/// The ways to get memory from guests, the cheapest for them first. The policy takes a dearer one only where the
/// cheaper ones do not give enough, so this order is the strategy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Pages of zeros are given back, and equal pages merged: nobody misses anything.
    Sharing,
    /// The guest gives up what it can do without, and knows that it is gone.
    Ballooning,
    /// Pages are kept compressed in RAM: they come back within microseconds.
    CompressedSwap,
    /// Pages go to a disk.
    DiskSwap,
}

impl Step {
    /// What the policy compares.
    pub const fn price(self) -> Price {
        Price(match self {
            Self::Sharing => 10,
            // Free page reporting (20) needs no order: what a guest frees comes back by itself.
            Self::Ballooning => 30,
            Self::CompressedSwap => 40,
            // Moving a VM to another host (50) is for whoever has several hosts.
            Self::DiskSwap => 60,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_later_costs_more() {
        let steps = [Step::Sharing, Step::Ballooning, Step::CompressedSwap, Step::DiskSwap];
        assert!(steps.is_sorted_by_key(|step| step.price()) && steps.is_sorted());
    }
}
