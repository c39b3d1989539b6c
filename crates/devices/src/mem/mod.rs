//! Memory that the guest plugs and unplugs in blocks, on request (VIRTIO 1.3 §5.15).
//!
//! ```text
//!   napa plug ---> requested size ---> guest ---> requests ---> decisions ---> blocks of the machine
//! ```
//!
//! What is not plugged is not there: the guest reads ones and writes into the void, and a device that it leads there meets
//! one scratch block. So a driver has to know that (VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE). A reset of the device changes no
//! block (§5.15.5.2); a machine that starts anew has none plugged.

mod handle;
mod request;
#[cfg(test)]
mod tests;
mod worker;

use std::fs::File;
use std::sync::{Arc, Weak};

use napa_memory::Backing;
use napa_sys::reactor::Worker;
use napa_units::GuestAddress;
use napa_virtio::{Activation, Device, DeviceError, DeviceMemory, Placed, Placement, PluggableMemory};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use virtio_bindings::virtio_ids::VIRTIO_ID_MEM;

pub use self::handle::{Hotplug, HotplugError};
use self::worker::RequestWorker;
use crate::{Context, OpenError};

/// Entries of the request queue: Linux has one request under way.
const QUEUE_SIZE: u16 = 64;
/// VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE (VIRTIO 1.3 §5.15.3).
const UNPLUGGED_INACCESSIBLE: u64 = 1 << 1;

/// Opens the device if memory can be plugged.
///
/// # Errors
/// The host has no memory for the scratch block.
pub fn open(context: &Context<'_>) -> Result<Vec<Box<dyn Device>>, OpenError> {
    let Some(hotplug) = context.hotplug else { return Ok(Vec::new()) };
    let failed = |error: rustix::io::Errno| OpenError::Host {
        what: "--hotplug-memory: cannot make a file in memory".into(),
        source: error.into(),
    };
    let scratch = memfd_create("napa-unplugged", MemfdFlags::CLOEXEC).map_err(failed)?;
    ftruncate(&scratch, hotplug.block().0).map_err(failed)?;
    let backing = if context.config.huge_pages { Backing::HugePages } else { Backing::Ordinary };
    let memory = DeviceMemory::Blocks {
        size: hotplug.size(),
        block: hotplug.block(),
        scratch: Arc::new(File::from(scratch)),
        backing,
    };
    Ok(vec![Box::new(MemDevice { hotplug: Arc::clone(hotplug), memory })])
}

/// The guest's side of a [`Hotplug`].
struct MemDevice {
    hotplug: Arc<Hotplug>,
    memory: DeviceMemory,
}

impl Device for MemDevice {
    fn name(&self) -> &str {
        "mem0"
    }

    fn id(&self) -> u16 {
        VIRTIO_ID_MEM as u16
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE]
    }

    fn features(&self) -> u64 {
        UNPLUGGED_INACCESSIBLE
    }

    fn memory(&self) -> Option<DeviceMemory> {
        Some(self.memory.clone())
    }

    fn place_memory(&mut self, start: GuestAddress) {
        self.hotplug.place(start);
    }

    fn adopt_blocks(&mut self, blocks: Weak<dyn PluggableMemory>) {
        self.hotplug.adopt(blocks);
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        self.hotplug.read_config(offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<Vec<Placed>, DeviceError> {
        if activation.features & UNPLUGGED_INACCESSIBLE == 0 {
            let problem =
                "the guest's driver does not know that unplugged memory is inaccessible: boot a newer kernel";
            return Err(DeviceError { device: self.name().into(), problem: problem.into() });
        }
        self.hotplug.bind(activation.config_interrupt, activation.health);
        let worker =
            |queue| Box::new(RequestWorker::new(Arc::clone(&self.hotplug), queue)) as Box<dyn Worker>;
        let queues = activation.queues.into_iter().flatten();
        Ok(queues.map(|queue| (Placement::Control, worker(queue))).collect())
    }

    fn reset(&mut self, workers: Vec<Box<dyn Worker>>) {
        drop(workers);
        self.hotplug.unbind();
    }
}
