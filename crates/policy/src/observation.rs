//! What is known about a host and its guests at one moment.

use std::time::Duration;

use napa_units::{Bytes, Pages, Shares, VmId};
use serde::{Deserialize, Serialize};

use crate::{Fraction, Offer};

/// All that a policy may look at: one moment of one host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// Time since the observation before; zero if there was none.
    pub elapsed: Duration,
    /// The host.
    pub host: HostObservation,
    /// Its guests that run, each once.
    pub guests: Vec<GuestObservation>,
    /// What mechanisms can do about it, each once.
    pub offers: Vec<Offer>,
}

/// The host's memory. Nothing here comes from a guest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostObservation {
    /// RAM that VMs may hold: the budget, or all of the host's RAM without what the host keeps for itself.
    pub capacity: Bytes,
    /// RAM that the VMs' processes hold now, each page counted once (the sum of [`GuestObservation::held`]).
    pub held: Bytes,
    /// RAM that the host could give to anybody now, without swapping.
    pub available: Bytes,
    /// Swap that there is.
    pub swap_total: Bytes,
    /// Swap that nobody uses now.
    pub swap_free: Bytes,
    /// Swap promised to VMs: what their limits exceed the RAM by.
    pub swap_promised: Bytes,
    /// How long tasks of the host, or of the VMs' part of it, waited for memory.
    pub pressure: Pressure,
    /// What the VMs' memory grew by in a second, at most, in 99 of 100 seconds lately. A size a second.
    pub allocation_rate_p99: Bytes,
    /// RAM that sharing saves, less what it costs.
    pub sharing_profit: Bytes,
}

impl HostObservation {
    /// RAM that VMs may still take: the less of what the budget and what the host leave.
    pub fn free(&self) -> Bytes {
        Bytes(self.capacity.0.saturating_sub(self.held.0).min(self.available.0))
    }

    /// RAM that VMs hold beyond what they may.
    pub fn excess(&self) -> Bytes {
        Bytes(self.held.0.saturating_sub(self.capacity.0))
    }
}

/// Waiting for memory, as parts of the last second (pressure stall information).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pressure {
    /// Time in which some task waited.
    pub some: Fraction,
    /// Time in which all tasks that had something to do waited.
    pub full: Fraction,
}

/// One guest. Everything but the hints was measured from outside, so the guest cannot forge it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuestObservation {
    /// Which VM.
    pub id: VmId,
    /// The guest's size: it is never given more.
    pub limit: Bytes,
    /// RAM that it may have whatever the others do.
    pub reservation: Bytes,
    /// What it counts against others.
    pub shares: Shares,
    /// RAM that the VM's process needs beside the guest's memory.
    pub overhead: Bytes,
    /// RAM that the VM's process holds, its part of shared pages counted in proportion (Pss).
    pub held: Bytes,
    /// The guest's memory in RAM, shared pages counted whole.
    pub resident: Bytes,
    /// Of `resident`, what is shared with itself or with others.
    pub shared: Bytes,
    /// The guest's memory in swap, compressed or on a disk.
    pub swapped: Bytes,
    /// The guest's memory that was never touched or holds zeros only, and takes no RAM.
    pub zero: Bytes,
    /// The guest's memory that it has given back, for now, in its balloon.
    pub ballooned: Bytes,
    /// An estimate of what it uses, if there is one.
    pub working_set: Option<WorkingSet>,
    /// Its pages that came back from swap, a second.
    pub refaults: Pages,
    /// How long the VM's process waited for memory.
    pub pressure: Pressure,
    /// What the guest says itself, if it says anything. It may lie.
    pub hints: Option<GuestHints>,
}

impl GuestObservation {
    /// A guest of this size that has touched nothing, without a reservation.
    pub fn untouched(id: VmId, limit: Bytes) -> Self {
        Self {
            id,
            limit,
            reservation: Bytes(0),
            shares: Shares::default(),
            overhead: Bytes(0),
            held: Bytes(0),
            resident: Bytes(0),
            shared: Bytes(0),
            swapped: Bytes(0),
            zero: limit,
            ballooned: Bytes(0),
            working_set: None,
            refaults: Pages(0),
            pressure: Pressure::default(),
            hints: None,
        }
    }
}

/// How much of its memory a guest uses, as estimated from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkingSet {
    /// What it touched within the time that the source looks at.
    pub bytes: Bytes,
    /// How old the estimate is.
    pub age: Duration,
}

/// What a guest says through its balloon (VIRTIO 1.3 §5.5.6.4). Each may be missing, and all may be lies.
///
/// Counters count since the guest started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestHints {
    /// All memory that its kernel manages, without what is in the balloon.
    pub total: Option<Bytes>,
    /// What it could give to programs without swapping.
    pub available: Option<Bytes>,
    /// What it has no use for.
    pub free: Option<Bytes>,
    /// Its caches of files.
    pub caches: Option<Bytes>,
    /// Counter: tasks that it killed for want of memory.
    pub oom_kills: Option<u64>,
    /// Counter: allocations that had to wait.
    pub alloc_stalls: Option<u64>,
    /// Counter: pages that tasks had to look at to find memory for themselves.
    pub direct_scans: Option<u64>,
    /// Counter: faults that had to wait for a disk.
    pub major_faults: Option<u64>,
}
