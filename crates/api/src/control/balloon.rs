//! What a VM says about its balloon.

use napa_units::Bytes;
use serde::{Deserialize, Serialize};

use super::DeviceState;

/// The balloon of a VM at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct BalloonReport {
    /// Guest memory.
    pub size: Bytes,
    /// What the guest is asked to give up.
    pub target: Bytes,
    /// What the guest says it has given up. Nobody relies on it.
    pub actual: Bytes,
    /// What the guest has given up and not taken back, by the VM's own count of its pages.
    pub held: Bytes,
    /// Whether the guest drives the balloon.
    pub driver: DeviceState,
    /// Whether the guest reports the pages that it frees.
    pub reporting: bool,
    /// Memory reported as free and given back to the host since the VM started. A page counts each time.
    pub reported: Bytes,
    /// Memory given back to the host since the VM started, reported or in the balloon. A page counts each time.
    pub discarded: Bytes,
    /// Calls of the host's kernel that this took.
    pub discards: u64,
    /// Pages that the guest named and does not have.
    pub foreign_pages: u64,
    /// What the guest said last about its memory. `None`: it has said nothing so far.
    pub statistics: Option<BalloonStatistics>,
}

/// What a guest says about its memory (VIRTIO 1.3 §5.5.6.4). Forgeable, like all that a guest says; what it did not say
/// is absent. Counts and amounts are those since the guest's start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct BalloonStatistics {
    /// How long ago the guest said it, in milliseconds.
    pub age_ms: u64,
    /// Memory swapped in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_in: Option<Bytes>,
    /// Memory swapped out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_out: Option<Bytes>,
    /// Page faults that had to wait for a disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub major_faults: Option<u64>,
    /// Page faults that did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minor_faults: Option<u64>,
    /// Memory that nothing uses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free: Option<Bytes>,
    /// All memory that the guest's kernel manages. What is in the balloon counts if the driver takes pages back rather
    /// than have a program killed (`VIRTIO_BALLOON_F_DEFLATE_ON_OOM`), and does not count otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<Bytes>,
    /// Memory that new programs could have without swapping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available: Option<Bytes>,
    /// Memory that caches what is on disks, and can be had without I/O.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caches: Option<Bytes>,
    /// Huge pages that were allocated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub huge_pages_allocated: Option<u64>,
    /// Huge pages that could not be allocated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub huge_pages_refused: Option<u64>,
    /// Programs killed for want of memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_kills: Option<u64>,
    /// Allocations that had to reclaim memory first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocation_stalls: Option<u64>,
    /// Pages looked at by reclaim in the background.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scanned_in_background: Option<u64>,
    /// Pages looked at by reclaim that somebody waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scanned_directly: Option<u64>,
    /// Pages reclaimed in the background.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reclaimed_in_background: Option<u64>,
    /// Pages reclaimed while somebody waited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reclaimed_directly: Option<u64>,
}

/// What came of asking a guest which of its pages are free.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct HintReport {
    /// Guest memory.
    pub size: Bytes,
    /// Memory that the guest called free.
    pub hinted: Bytes,
    /// Whether the guest came to an end with it; it may have found more otherwise.
    pub is_complete: bool,
}
