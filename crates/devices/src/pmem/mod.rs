//! Images in memory: virtio-pmem (VIRTIO 1.3 §5.19), read-only.
//!
//! The image is memory of the guest's, and that memory is the host's page cache: all guests with one image have one
//! copy of it between them, and with DAX a guest keeps no copy of its own. What a guest writes there is dropped,
//! and a flush fails, so that no program in the guest believes its data safe.

mod image;
mod worker;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use napa_api::config::PmemConfig;
use napa_units::{Bytes, GuestAddress};
use napa_virtio::{Activation, Device, DeviceError, DeviceMemory, Placed, Placement, read_config_bytes};
use virtio_bindings::virtio_ids::VIRTIO_ID_PMEM;

use self::image::{Image, ImageError};
use self::worker::FlushWorker;
use crate::{Context, OpenError};

/// Entries of the request queue: flushes are few, and answered at once.
const QUEUE_SIZE: u16 = 64;

/// Opens the images of a VM.
///
/// # Errors
/// An image that cannot be used: which, why, and what mends it.
pub fn open(context: &Context<'_>) -> Result<Vec<Box<dyn Device>>, OpenError> {
    let open = |(index, config): (usize, &PmemConfig)| -> Result<Box<dyn Device>, OpenError> {
        Ok(Box::new(Pmem::open(format!("pmem{index}"), config)?))
    };
    context.config.pmems.iter().enumerate().map(open).collect()
}

struct Pmem {
    name: String,
    image: Image,
    /// Where the guest sees it; known once the machine is planned.
    start: GuestAddress,
    /// The user knows that the guest wants to write.
    has_complained: Arc<AtomicBool>,
}

impl Pmem {
    fn open(name: String, config: &PmemConfig) -> Result<Self, OpenError> {
        let path = config.path.display();
        let image = Image::open(&config.path).map_err(|error| match error {
            ImageError::Host(what, source) => {
                OpenError::Host { what: format!("--pmem {path}: cannot {what}"), source }
            }
            error => OpenError::Input(format!("--pmem {path} {error}")),
        })?;
        Ok(Self { name, image, start: GuestAddress(0), has_complained: Arc::default() })
    }

    fn size(&self) -> Bytes {
        self.image.window
    }
}

impl Device for Pmem {
    fn name(&self) -> &str {
        &self.name
    }

    fn id(&self) -> u16 {
        VIRTIO_ID_PMEM as u16
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE]
    }

    fn features(&self) -> u64 {
        0
    }

    fn memory(&self) -> Option<DeviceMemory> {
        Some(DeviceMemory::Image { file: self.image.file.clone(), size: self.size() })
    }

    fn place_memory(&mut self, start: GuestAddress) {
        self.start = start;
    }

    /// Start and size (VIRTIO 1.3 §5.19.4).
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let space = [self.start.0.to_le_bytes(), self.size().0.to_le_bytes()].concat();
        read_config_bytes(&space, offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<Vec<Placed>, DeviceError> {
        let queues = activation.queues.into_iter().flatten();
        let worker = |queue| {
            Box::new(FlushWorker::new(self.name.clone(), queue, Arc::clone(&self.has_complained))) as _
        };
        Ok(queues.map(|queue| (Placement::Control, worker(queue))).collect())
    }
}

#[cfg(test)]
mod tests;
