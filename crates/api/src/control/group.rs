//! What the kernel says about a VM's own control group.

use napa_units::Bytes;
use serde::{Deserialize, Serialize};

/// The memory of a VM's control group, which is the guest's and all that the VM's process and the kernel need for it.
/// Counts are since the group was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct GroupReport {
    /// Memory charged to the group.
    pub current: Bytes,
    /// What it has in swap. `None`: the kernel does not count it.
    pub swap: Option<Bytes>,
    /// The most that it may have in swap. `None`: no limit but the host's.
    pub swap_max: Option<Bytes>,
    /// Compressed memory that its pages in zswap take. `None`: the kernel does not count it.
    pub zswap: Option<Bytes>,
    /// Pages that came back from swap soon after they went.
    pub refaults: u64,
    /// Page faults that had to wait for a disk.
    pub major_faults: u64,
    /// Time in which some thread of the VM waited for memory, in microseconds. `None`: the kernel does not measure it.
    pub stalled_us: Option<u64>,
    /// How often memory was taken although the group was below its `memory.low`.
    pub low_events: u64,
    /// How often processes of the group were killed for want of memory.
    pub kills: u64,
}
