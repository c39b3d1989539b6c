//! Where the memory of a host and of its VMs is, and what was decided about it.

use std::fmt;

use napa_units::Bytes;
use serde::{Deserialize, Serialize};

use super::Time;

/// The memory of a host at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct HostReport {
    /// When it was looked at.
    pub time: Time,
    /// How scarce memory is.
    pub level: Level,
    /// Why the level is what it is, in words.
    pub reasons: Vec<String>,
    /// What decides.
    pub policy: String,
    /// Whether VMs may start.
    pub admission_open: bool,
    /// The host's own figures.
    pub host: HostFigures,
    /// What was promised to VMs.
    pub guarantees: Guarantees,
    /// The VMs that run, by name.
    pub vms: Vec<VmMemoryRow>,
    /// What was decided at this moment.
    pub decisions: Vec<Decided>,
    /// What could not be read or done, in words.
    pub troubles: Vec<String>,
}

/// How scarce the memory of a host is, from plenty to none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Plenty.
    #[default]
    High,
    /// Enough.
    Clear,
    /// Memory is shared and asked back from guests.
    Soft,
    /// Memory is put into swap as well.
    Hard,
    /// Memory is put into swap at once, and no VM starts.
    Low,
}

impl Level {
    /// From plenty to none.
    pub const ALL: [Self; 5] = [Self::High, Self::Clear, Self::Soft, Self::Hard, Self::Low];

    /// What it is called, also in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Clear => "clear",
            Self::Soft => "soft",
            Self::Hard => "hard",
            Self::Low => "low",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The memory of the host itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct HostFigures {
    /// RAM of the host.
    pub ram: Bytes,
    /// RAM that guests may hold: the budget, or what the host does not keep for itself.
    pub capacity: Bytes,
    /// RAM that the VMs hold: the sum of their proportional set sizes.
    pub held: Bytes,
    /// RAM that can be had without swapping, by the kernel's estimate.
    pub available: Bytes,
    /// RAM that nothing uses.
    pub free: Bytes,
    /// What merging equal pages saves, in bytes, less what it costs. `None`: the kernel does not say.
    pub sharing_profit: Option<i64>,
    /// Share of the last seconds in which some process waited for memory, 0 to 1.
    pub pressure_some: f64,
    /// Share of the last seconds in which all processes waited for memory, 0 to 1.
    pub pressure_full: f64,
    /// Swap.
    pub swap: SwapFigures,
}

/// The swap of a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SwapFigures {
    /// All of it.
    pub total: Bytes,
    /// What is in it.
    pub used: Bytes,
    /// RAM that holds compressed pages (zswap and zram).
    pub compressed: Bytes,
}

/// What a host has promised to its VMs. Sharing and ballooning count for nothing here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Guarantees {
    /// The sum of their limits: what they may come to need.
    pub limits: Bytes,
    /// The sum of their reservations: what each can always have in RAM.
    pub reservations: Bytes,
    /// Swap that was promised to them.
    pub swap_promised: Bytes,
}

/// The memory of a VM that runs, in a row. The guest's own words are marked so; a guest can lie.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct VmMemoryRow {
    /// Name of the VM.
    pub name: String,
    /// The most that the guest can have.
    pub limit: Bytes,
    /// What it can always have.
    pub reservation: Bytes,
    /// Its shares of contended memory.
    pub shares: u32,
    /// What it is entitled to hold in RAM now.
    pub entitlement: Bytes,
    /// Guest memory that is in RAM and its own.
    pub resident: Bytes,
    /// What its process holds in RAM, merged pages in proportion (proportional set size).
    pub pss: Bytes,
    /// Guest memory that is in RAM, merged with equal pages.
    pub shared: Bytes,
    /// Guest memory that takes no RAM: never touched, or zeros.
    pub zero: Bytes,
    /// Guest memory that the guest gave back, by the balloon or by reports.
    pub discarded: Bytes,
    /// Guest memory in the balloon.
    pub ballooned: Bytes,
    /// What the guest is asked to have in the balloon.
    pub balloon_target: Bytes,
    /// Guest memory in swap.
    pub swapped: Bytes,
    /// What the guest uses, by the estimate that decisions are made with. `None`: not known so far.
    pub working_set: Option<Bytes>,
    /// Memory that new programs of the guest could have, in the guest's words. `None`: it says nothing.
    pub guest_available: Option<Bytes>,
    /// Share of the last seconds in which some thread of the VM waited for memory, 0 to 1. `None`: the kernel does not
    /// say.
    pub pressure: Option<f64>,
    /// Pages that came back from swap soon after they went, in a second.
    pub refaults: f64,
    /// Whether it does what it is asked.
    pub cooperation: Cooperation,
    /// Why it is entitled to that, in words.
    pub reason: String,
}

/// Whether a guest gives back what it is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Cooperation {
    /// It does.
    #[default]
    Cooperative,
    /// It has made no progress for a while.
    Stuck,
    /// It has no balloon, or does not use it.
    Uncooperative,
}

/// A decision, with its reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Decided {
    /// When.
    pub time: Time,
    /// About which VM. `None`: about the host.
    pub vm: Option<String>,
    /// What by: the mechanism's name, such as `balloon`.
    pub what: String,
    /// Whether memory was taken or given.
    pub direction: Direction,
    /// How much.
    pub bytes: Bytes,
    /// Why, in words.
    pub reason: String,
}

/// Which way memory goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From a VM to the host.
    Take,
    /// From the host to a VM.
    Return,
    /// An order was taken back.
    Cancel,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_in_order_and_named_as_in_json() {
        assert!(Level::ALL.is_sorted());
        for level in Level::ALL {
            assert_eq!(serde_json::to_value(level).unwrap(), level.to_string());
        }
    }
}
