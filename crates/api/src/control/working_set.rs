//! How much memory a VM uses, and what it is asked about that.

use napa_units::Bytes;
use serde::{Deserialize, Serialize};

/// Pages were taken away from a VM, to see which of them come back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SampleReport {
    /// Name of the VM.
    pub name: String,
    /// What the guest had in memory before.
    pub resident: Bytes,
    /// Pages that were taken.
    pub taken: u64,
}

/// How much memory a VM uses, by what came back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct WorkingSet {
    /// Name of the VM.
    pub name: String,
    /// The memory that counts as used: the greatest of this estimate and the averages, but not more than the guest has
    /// and says it uses.
    pub working_set: Bytes,
    /// How much of what was in memory is used, by this sample.
    pub estimate: Bytes,
    /// The true value is hardly below this (95 % confidence).
    pub low: Bytes,
    /// The true value is hardly above this.
    pub high: Bytes,
    /// What the VM's own control group has seen meanwhile. `None`: it has none with the memory controller.
    pub group: Option<GroupInterval>,
    /// Moving average over samples, forgetting within 10 seconds.
    pub average_fast: Bytes,
    /// Moving average over samples, forgetting within 5 minutes.
    pub average_slow: Bytes,
    /// What the guest says it uses, by the statistics of its balloon. `None`: it says nothing.
    pub used_by_guest: Option<Bytes>,
    /// What the guest had in memory when pages were taken.
    pub resident: Bytes,
    /// Pages that were taken.
    pub taken: u64,
    /// Those of them that came back.
    pub returned: u64,
    /// How long they had time for it, in milliseconds.
    pub interval_ms: u64,
}

/// What a VM's control group has seen during a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct GroupInterval {
    /// What came back from swap (`workingset_refault_anon`), the pages of the sample and neighbours that the kernel
    /// read with others included.
    pub refaulted: Bytes,
    /// The same in a second.
    pub refaulted_per_second: Bytes,
    /// The part of the working set that was in swap when the sample began: what came back but for the sample's own
    /// pages, and at most what was in swap.
    pub beyond_memory: Bytes,
    /// Time in which some thread of the VM waited for memory, in microseconds. `None`: the kernel does not measure it.
    pub stalled_some_us: Option<u64>,
    /// Time in which all its threads that had work waited for memory, in microseconds.
    pub stalled_full_us: Option<u64>,
}

/// Where guest memory is in a VM's process, for those who look at it from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct MappingReport {
    /// Name of the VM.
    pub name: String,
    /// The VM's process, as it knows itself.
    pub pid: u32,
    /// Its addresses of guest memory.
    pub ranges: Vec<AddressRange>,
    /// Guest memory.
    pub size: Bytes,
    /// What the guest says it uses, by the statistics of its balloon. `None`: it says nothing.
    pub used_by_guest: Option<Bytes>,
}

/// Addresses of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct AddressRange {
    /// The first.
    pub start: u64,
    /// The first behind them.
    pub end: u64,
}
