//! What rules are about.

use std::fmt;

use napa_units::Bytes;

use super::HostFacts;
use crate::VmConfig;
use crate::config::{BalloonConfig, ShareConfig};

/// Something that a VM is configured to have, or that its host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Feature {
    /// A balloon device.
    Balloon,
    /// The balloon device takes reports of free pages.
    FreePageReporting,
    /// Equal pages may be merged, within the VM or a trust domain.
    Sharing,
    /// Guest memory is backed with transparent huge pages.
    HugePages,
    /// A control group of the VM's own.
    Cgroup,
    /// Memory that other groups cannot take.
    MemoryLow,
    /// A bound on the VM's swap.
    SwapMax,
    /// The bound on the VM's swap is zero.
    NoSwapAllowed,
    /// Pages go into swap.
    Swap,
    /// Read-only images in memory.
    Pmem,
    /// The host runs guests without VT-x and SVM.
    PvmHost,
}

impl Feature {
    /// The features that a configuration asks for.
    pub fn of_config(config: &VmConfig) -> Vec<Self> {
        let sharing = !matches!(config.share_or_default(), ShareConfig::Off | ShareConfig::Zero);
        let asked = [
            (Self::Balloon, config.balloon != BalloonConfig::Off),
            (Self::FreePageReporting, config.balloon == BalloonConfig::On),
            (Self::Sharing, sharing),
            (Self::HugePages, config.huge_pages),
            (Self::Cgroup, config.cgroup.is_some()),
            (Self::MemoryLow, config.memory_low.is_some()),
            (Self::SwapMax, config.swap_max.is_some()),
            (Self::NoSwapAllowed, config.swap_max == Some(Bytes(0))),
            (Self::Pmem, !config.pmems.is_empty()),
        ];
        asked.into_iter().filter(|(_, is_asked)| *is_asked).map(|(feature, _)| feature).collect()
    }

    /// The features of a host.
    pub fn of_host(host: &HostFacts) -> Vec<Self> {
        let has = [(Self::Swap, !host.swaps.is_empty()), (Self::PvmHost, host.is_pvm)];
        has.into_iter().filter(|(_, is_so)| *is_so).map(|(feature, _)| feature).collect()
    }
}

impl fmt::Display for Feature {
    /// The flag, or a few words for what no flag names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Balloon => "--balloon",
            Self::FreePageReporting => "--balloon on",
            Self::Sharing => "--share vm or domain=NAME",
            Self::HugePages => "--huge-pages",
            Self::Cgroup => "--cgroup",
            Self::MemoryLow => "--memory-low",
            Self::SwapMax => "--swap-max",
            Self::NoSwapAllowed => "--swap-max 0",
            Self::Swap => "swap",
            Self::Pmem => "--pmem",
            Self::PvmHost => "a host without VT-x and SVM",
        })
    }
}
