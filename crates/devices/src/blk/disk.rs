//! What all queues of one disk share.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use super::complaints::Complaints;
use super::image::Image;
use super::operation::Allocation;
use super::request::{Limits, SECTOR_BYTES};

/// Length of a serial number (VIRTIO 1.3 §5.2.6), padded with zeros.
pub(super) const SERIAL_BYTES: usize = virtio_bindings::bindings::virtio_blk::VIRTIO_BLK_ID_BYTES as usize;

/// A disk: its image, and what was learnt about it.
pub(super) struct Disk {
    /// Name in messages.
    pub name: String,
    /// What backs it.
    pub image: Image,
    /// What its requests have to respect.
    pub limits: Limits,
    /// Serial number.
    pub serial: [u8; SERIAL_BYTES],
    /// Failures of its requests.
    pub complaints: Complaints,
    is_write_through: AtomicBool,
    /// Kinds of allocation that the file system turned out not to have, a bit each.
    lacking: AtomicU8,
}

impl Disk {
    /// A disk on `image`. What is longer than a serial number is cut off.
    pub fn new(name: String, image: Image, serial: &str) -> Self {
        let mut padded = [0; SERIAL_BYTES];
        padded.iter_mut().zip(serial.bytes()).for_each(|(to, from)| *to = from);
        let limits = Limits {
            capacity: image.capacity,
            // The page cache takes any sector; direct I/O takes the storage's blocks.
            block: image.alignment.map_or(SECTOR_BYTES, |alignment| alignment.offset),
            is_readonly: image.is_readonly,
        };
        Self {
            name,
            image,
            limits,
            serial: padded,
            complaints: Complaints::default(),
            is_write_through: AtomicBool::new(false),
            lacking: AtomicU8::new(0),
        }
    }

    /// Whether a write is on the disk for good when it completes (VIRTIO 1.3 §5.2.6.2).
    pub fn is_write_through(&self) -> bool {
        self.is_write_through.load(Ordering::Relaxed)
    }

    /// Makes the writes that follow last without a flush.
    pub fn write_through(&self) {
        self.is_write_through.store(true, Ordering::Relaxed);
    }

    /// Lets the driver flush when it wants what it wrote to last.
    pub fn write_back(&self) {
        self.is_write_through.store(false, Ordering::Relaxed);
    }

    /// Whether `allocation` may work here.
    pub fn has(&self, allocation: Allocation) -> bool {
        self.lacking.load(Ordering::Relaxed) & allocation.bit() == 0
    }

    /// Remembers that the file system does not know `allocation`.
    pub fn note_lack(&self, allocation: Allocation) {
        self.lacking.fetch_or(allocation.bit(), Ordering::Relaxed);
    }
}
