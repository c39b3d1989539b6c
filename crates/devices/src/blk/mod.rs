//! Disks: virtio-blk (VIRTIO 1.3 §5.2) on raw images and block devices.
//!
//! Each queue has a worker that turns requests into operations of its reactor's ring; nothing blocks,
//! nothing is copied, and nothing is allocated per request once a queue has seen its usual depth.
//! A disk never trusts the driver: ranges are checked before the image is touched ([`request`]).

mod aligned;
mod bounce;
mod complaints;
mod config;
mod disk;
mod geometry;
mod image;
mod operation;
mod pending;
#[doc(hidden)] // Public for the fuzzer only.
pub mod request;
mod worker;

use std::sync::Arc;

use napa_api::config::DiskConfig;
use napa_sys::reactor::Worker;
use napa_virtio::{Activation, Device, DeviceError, Placed, Placement, read_config_bytes};
use virtio_bindings::bindings::virtio_blk as abi;

use self::config::{WRITEBACK_OFFSET, config_space};
use self::disk::Disk;
use self::image::{Image, ImageError};
use self::worker::BlockWorker;
use crate::{Context, OpenError};

/// Entries of each queue.
const QUEUE_SIZE: u16 = 256;
/// Queues that a disk has unless told otherwise: more than the I/O threads of a VM bring nothing.
const QUEUES_DEFAULT_MAX: u32 = 4;
/// Device id (VIRTIO 1.3 §5).
const DEVICE_ID: u16 = 2;

/// Opens the disks of a VM.
///
/// # Errors
/// An image that cannot be used: which, why, and what mends it.
pub fn open(context: &Context<'_>) -> Result<Vec<Box<dyn Device>>, OpenError> {
    let queues_default = context.config.cpus.clamp(1, QUEUES_DEFAULT_MAX) as u16;
    let open = |(index, config): (usize, &DiskConfig)| -> Result<Box<dyn Device>, OpenError> {
        let block = Block::open(format!("disk{index}"), config, queues_default)?;
        Ok(Box::new(block))
    };
    context.config.disks.iter().enumerate().map(open).collect()
}

/// One disk.
struct Block {
    disk: Arc<Disk>,
    queues: u16,
    /// What the driver accepted; nothing before it was ready.
    features: u64,
}

impl Block {
    fn open(name: String, config: &DiskConfig, queues_default: u16) -> Result<Self, OpenError> {
        let path = config.path.display();
        let image = Image::open(config).map_err(|error| match error {
            ImageError::Host(what, source) => {
                OpenError::Host { what: format!("disk {path}: cannot {what}"), source }
            }
            error => OpenError::Input(format!("disk {path} {error}")),
        })?;
        let disk = Disk::new(name, image, config.serial.as_deref().unwrap_or_default());
        Ok(Self { disk: Arc::new(disk), queues: config.queues.unwrap_or(queues_default), features: 0 })
    }

    fn has(&self, feature: u32) -> bool {
        self.features & (1 << feature) != 0
    }

    /// Chooses the cache mode that the driver's features ask for (VIRTIO 1.3 §5.2.5.2).
    fn choose_cache_mode(&self) {
        match self.has(abi::VIRTIO_BLK_F_FLUSH) {
            true => self.disk.write_back(),
            false => self.disk.write_through(),
        }
    }
}

impl Device for Block {
    fn name(&self) -> &str {
        &self.disk.name
    }

    fn id(&self) -> u16 {
        DEVICE_ID
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; usize::from(self.queues)]
    }

    fn features(&self) -> u64 {
        let always = [
            abi::VIRTIO_BLK_F_SEG_MAX,
            abi::VIRTIO_BLK_F_BLK_SIZE,
            abi::VIRTIO_BLK_F_TOPOLOGY,
            abi::VIRTIO_BLK_F_FLUSH,
        ];
        let readonly = [abi::VIRTIO_BLK_F_RO];
        let writable =
            [abi::VIRTIO_BLK_F_CONFIG_WCE, abi::VIRTIO_BLK_F_DISCARD, abi::VIRTIO_BLK_F_WRITE_ZEROES];
        let several = [abi::VIRTIO_BLK_F_MQ];
        let access: &[u32] = if self.disk.limits.is_readonly { &readonly } else { &writable };
        let queues: &[u32] = if self.queues > 1 { &several } else { &[] };
        always.iter().chain(access).chain(queues).fold(0, |bits, feature| bits | 1 << feature)
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let image = &self.disk.image;
        let space = config_space(image.capacity, image.blocks, self.queues, !self.disk.is_write_through());
        read_config_bytes(&space, offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        if offset != WRITEBACK_OFFSET as u64 || !self.has(abi::VIRTIO_BLK_F_CONFIG_WCE) {
            return;
        }
        match data.first() {
            Some(0) => self.disk.write_through(),
            Some(1) => self.disk.write_back(),
            _ => {}
        }
    }

    fn activate(&mut self, activation: Activation) -> Result<Vec<Placed>, DeviceError> {
        self.features = activation.features;
        self.choose_cache_mode();
        let place = |(index, queue)| -> Option<Placed> {
            let worker = BlockWorker::new(queue?, Arc::clone(&self.disk));
            Some((Placement::Io(index), Box::new(worker)))
        };
        Ok(activation.queues.into_iter().enumerate().filter_map(place).collect())
    }

    fn reset(&mut self, workers: Vec<Box<dyn Worker>>) {
        drop(workers);
        self.features = 0;
        self.disk.write_back();
    }
}

#[cfg(test)]
mod tests;
