//! What a device is.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, Weak};

use napa_memory::{Backing, GuestRam, PageStates};
use napa_sys::reactor::Worker;
use napa_units::{Bytes, GuestAddress};

use crate::{Health, Interrupt, Queue};

/// Feature bits of the transport and the rings (VIRTIO 1.3 §6).
pub struct Feature;

impl Feature {
    /// VIRTIO_F_INDIRECT_DESC.
    pub const INDIRECT: u64 = 1 << 28;
    /// VIRTIO_F_EVENT_IDX.
    pub const EVENT_IDX: u64 = 1 << 29;
    /// VIRTIO_F_VERSION_1: the driver must accept it.
    pub const VERSION_1: u64 = 1 << 32;
    /// What the transport offers for every device.
    pub const TRANSPORT: u64 = Self::INDIRECT | Self::EVENT_IDX | Self::VERSION_1;
}

/// Why a device could not start serving.
#[derive(Debug, thiserror::Error)]
#[error("{device}: {problem}")]
pub struct DeviceError {
    /// Name of the device.
    pub device: String,
    /// What went wrong.
    pub problem: String,
}

/// Which thread serves a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// The control thread: for what is rare.
    Control,
    /// An I/O thread; queues with the same number share one.
    Io(usize),
}

/// A worker and its place.
pub type Placed = (Placement, Box<dyn Worker>);

/// Guest-physical memory that a device brings along, besides the guest's RAM.
#[derive(Clone, Debug)]
pub enum DeviceMemory {
    /// What a file holds, then zeros. The guest reads it; what it writes is dropped.
    Image {
        /// The file; its pages are shared with all who map it.
        file: Arc<File>,
        /// Size of the memory, at least that of the file; a multiple of the page size.
        size: Bytes,
    },
    /// Blocks that the device plugs and unplugs, all unplugged at first; see [`PluggableMemory`].
    Blocks {
        /// Size of all of them.
        size: Bytes,
        /// Size of each; divides that of all.
        block: Bytes,
        /// What unplugged blocks are for devices: a file in memory, as long as a block.
        scratch: Arc<File>,
        /// How plugged blocks are backed.
        backing: Backing,
    },
}

impl DeviceMemory {
    /// How much of the guest's address space it takes.
    pub const fn size(&self) -> Bytes {
        match self {
            Self::Image { size, .. } | Self::Blocks { size, .. } => *size,
        }
    }

    /// How many of KVM's memory slots it takes.
    pub const fn slots(&self) -> u32 {
        match self {
            Self::Image { .. } => 1,
            Self::Blocks { size, block, .. } => (size.0 / block.0) as u32,
        }
    }
}

/// The blocks of a machine's [`DeviceMemory::Blocks`], by their numbers from 0. An unplugged block is not there for the
/// guest; one that is plugged begins as zeros.
pub trait PluggableMemory: Send + Sync {
    /// Whether a block is plugged; there is none past the end.
    fn is_plugged(&self, block: u64) -> bool;

    /// How much is plugged.
    fn plugged(&self) -> Bytes;

    /// Plugs a block. Does nothing to one that is.
    ///
    /// # Errors
    /// The host refused; the block is as it was.
    fn plug(&self, block: u64) -> io::Result<()>;

    /// Unplugs a block and gives its memory back to the host. Does nothing to one that is not plugged.
    ///
    /// # Errors
    /// The host refused; the block is as it was.
    fn unplug(&self, block: u64) -> io::Result<()>;
}

/// What a driver that is ready gives its device.
pub struct Activation {
    /// All memory that the device may address: RAM, and what devices bring along.
    pub memory: Arc<GuestRam>,
    /// The pages of the guest's RAM, for devices through which the guest gives memory back.
    pub pages: Arc<PageStates>,
    /// Features that both sides accepted.
    pub features: u64,
    /// One entry per queue of [`Device::queue_sizes`]; `None` where the driver did not enable it.
    pub queues: Vec<Option<Queue>>,
    /// Tells the driver that the configuration space has changed.
    pub config_interrupt: Interrupt,
    /// Marks the device as needing a reset.
    pub health: Health,
}

/// A virtio device (VIRTIO 1.3 §5): what it is, its configuration space, and how its queues are served.
pub trait Device: Send {
    /// Name in messages and statistics, such as `disk0`.
    fn name(&self) -> &str;

    /// Device id (VIRTIO 1.3 §5): 1 network, 2 block, 3 console, 4 entropy, 5 balloon, 19 socket, 24 pluggable
    /// memory, 27 persistent memory.
    fn id(&self) -> u16;

    /// Largest size of each queue; powers of two, at most 32768.
    fn queue_sizes(&self) -> Vec<u16>;

    /// Device features offered, without those of the transport.
    fn features(&self) -> u64;

    /// Memory that the device brings along; most have none.
    fn memory(&self) -> Option<DeviceMemory> {
        None
    }

    /// The device's [`memory`](Self::memory) is seen by the guest from `start` on. Told once, before anything else.
    fn place_memory(&mut self, start: GuestAddress) {
        let _ = start;
    }

    /// The blocks of a machine that is about to run, for a device whose [`memory`](Self::memory) is
    /// [`DeviceMemory::Blocks`]. They go with the machine.
    fn adopt_blocks(&mut self, blocks: Weak<dyn PluggableMemory>) {
        let _ = blocks;
    }

    /// Reads the configuration space. Bytes past its end are zero.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Writes the configuration space. Most fields of most devices are read-only.
    fn write_config(&mut self, offset: u64, data: &[u8]) {
        let _ = (offset, data);
    }

    /// The driver is ready: gives the workers that serve the queues.
    ///
    /// # Errors
    /// What the device needs on the host is not to be had; the driver sees NEEDS_RESET.
    fn activate(&mut self, activation: Activation) -> Result<Vec<Placed>, DeviceError>;

    /// The driver has reset the device: takes the drained workers back.
    fn reset(&mut self, workers: Vec<Box<dyn Worker>>) {
        drop(workers);
    }
}

/// A device and those who keep it: it outlives the machine that it is plugged into, so that a guest's
/// reboot finds it again.
pub type SharedDevice = Arc<Mutex<Box<dyn Device>>>;

/// Copies from the bytes of a configuration space; what lies past its end reads as zero.
pub fn read_config_bytes(space: &[u8], offset: u64, data: &mut [u8]) {
    data.fill(0);
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(space.len());
    let count = data.len().min(space.len() - start);
    data[..count].copy_from_slice(&space[start..start + count]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_space_ends_in_zeros() {
        let check = |offset, expected: [u8; 4]| {
            let mut data = [0xff; 4];
            read_config_bytes(&[1, 2, 3], offset, &mut data);
            assert_eq!(data, expected, "at {offset}");
        };
        check(0, [1, 2, 3, 0]);
        check(2, [3, 0, 0, 0]);
        check(3, [0; 4]);
        check(u64::MAX, [0; 4]);
    }
}
