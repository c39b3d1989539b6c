//! The common configuration structure: negotiation and queue set-up (VIRTIO 1.3 §4.1.4.3).
//!
//! Only registers; what a status change brings about is decided by the function.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};

use virtio_queue::{Queue as Ring, QueueT};
use vm_memory::GuestAddress;

use crate::Feature;
use crate::health::status;
use crate::interrupt::NO_VECTOR;

pub struct Common {
    offered: u64,
    accepted: u64,
    offered_select: u32,
    accepted_select: u32,
    queue_select: u16,
    vector_count: u16,
    pub status: Arc<AtomicU8>,
    pub config_vector: Arc<AtomicU16>,
    pub queues: Vec<QueueSetup>,
}

/// One queue as the driver sets it up.
pub struct QueueSetup {
    pub size: u16,
    pub size_max: u16,
    pub vector: Arc<AtomicU16>,
    pub enabled: bool,
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
}

/// What a write to the common configuration asks the function to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    Nothing,
    Activate,
    Reset,
}

impl Common {
    pub fn new(device_features: u64, queue_sizes: &[u16], vector_count: u16, status: Arc<AtomicU8>) -> Self {
        let queues = queue_sizes.iter().map(|size| QueueSetup::new(*size)).collect();
        Self {
            offered: device_features | Feature::TRANSPORT,
            accepted: 0,
            offered_select: 0,
            accepted_select: 0,
            queue_select: 0,
            vector_count,
            status,
            config_vector: Arc::new(AtomicU16::new(NO_VECTOR)),
            queues,
        }
    }

    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    /// The register at `offset`, read as a whole; `None` where there is none.
    pub fn read(&self, offset: u64, generation: u8) -> u64 {
        let queue = self.queues.get(usize::from(self.queue_select));
        match offset {
            0x00 => u64::from(self.offered_select),
            0x04 => u64::from(half(self.offered, self.offered_select)),
            0x08 => u64::from(self.accepted_select),
            0x0c => u64::from(half(self.accepted, self.accepted_select)),
            0x10 => u64::from(self.config_vector.load(Ordering::Acquire)),
            0x12 => self.queues.len() as u64,
            0x14 => u64::from(self.status.load(Ordering::Acquire)),
            0x15 => u64::from(generation),
            0x16 => u64::from(self.queue_select),
            0x1e => u64::from(self.queue_select),
            // A queue that does not exist has size zero (VIRTIO 1.3 §4.1.4.3.1).
            _ => queue.map_or(0, |queue| queue.read(offset)),
        }
    }

    pub fn write(&mut self, offset: u64, value: u64) -> Request {
        match offset {
            0x00 => self.offered_select = value as u32,
            0x08 => self.accepted_select = value as u32,
            0x0c => self.accept(value as u32),
            0x10 => self.config_vector.store(self.vector(value as u16), Ordering::Release),
            0x14 => return self.write_status(value as u8),
            0x16 => self.queue_select = value as u16,
            _ => self.write_queue(offset, value),
        }
        Request::Nothing
    }

    /// All registers as after power-on.
    pub fn reset(&mut self) {
        self.accepted = 0;
        self.offered_select = 0;
        self.accepted_select = 0;
        self.queue_select = 0;
        self.config_vector.store(NO_VECTOR, Ordering::Release);
        self.queues.iter_mut().for_each(QueueSetup::reset);
        self.status.store(0, Ordering::Release);
    }

    fn accept(&mut self, bits: u32) {
        // Features are settled once the device has agreed to them (VIRTIO 1.3 §3.1.1).
        if self.has_status(status::FEATURES_OK) {
            return;
        }
        match self.accepted_select {
            0 => self.accepted = (self.accepted & !0xffff_ffff) | u64::from(bits),
            1 => self.accepted = (self.accepted & 0xffff_ffff) | u64::from(bits) << 32,
            _ => {}
        }
    }

    fn write_status(&mut self, new: u8) -> Request {
        if new == 0 {
            return Request::Reset;
        }
        let old = self.status.load(Ordering::Acquire);
        let driver_bits =
            status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK | status::FAILED;
        let mut add = new & driver_bits & !old;
        if add & status::FEATURES_OK != 0 && !self.features_are_acceptable() {
            add &= !status::FEATURES_OK;
        }
        // DRIVER_OK counts only after features were settled (VIRTIO 1.3 §3.1.1).
        if add & status::DRIVER_OK != 0 && (old | add) & status::FEATURES_OK == 0 {
            add &= !status::DRIVER_OK;
        }
        self.status.fetch_or(add, Ordering::AcqRel);
        if add & status::DRIVER_OK != 0 { Request::Activate } else { Request::Nothing }
    }

    fn features_are_acceptable(&self) -> bool {
        self.accepted & !self.offered == 0 && self.accepted & Feature::VERSION_1 != 0
    }

    fn write_queue(&mut self, offset: u64, value: u64) {
        let vector = self.vector(value as u16);
        let is_running = self.has_status(status::DRIVER_OK);
        let Some(queue) = self.queues.get_mut(usize::from(self.queue_select)) else { return };
        match offset {
            0x1a => queue.vector.store(vector, Ordering::Release),
            // An enabled queue is fixed until the next reset (VIRTIO 1.3 §4.1.4.3.2).
            _ if queue.enabled || is_running => {}
            _ => queue.write(offset, value),
        }
    }

    /// A vector that the table does not have is refused by reading back as none (VIRTIO 1.3 §4.1.5.1.2).
    fn vector(&self, value: u16) -> u16 {
        if value < self.vector_count { value } else { NO_VECTOR }
    }

    fn has_status(&self, bits: u8) -> bool {
        self.status.load(Ordering::Acquire) & bits != 0
    }
}

impl QueueSetup {
    fn new(size_max: u16) -> Self {
        Self {
            size: size_max,
            size_max,
            vector: Arc::new(AtomicU16::new(NO_VECTOR)),
            enabled: false,
            descriptors: 0,
            available: 0,
            used: 0,
        }
    }

    /// The ring that the driver described, or why it cannot be one.
    pub fn ring(&self, features: u64) -> Result<Ring, virtio_queue::Error> {
        let mut ring = Ring::new(self.size_max)?;
        ring.try_set_size(self.size)?;
        ring.try_set_desc_table_address(GuestAddress(self.descriptors))?;
        ring.try_set_avail_ring_address(GuestAddress(self.available))?;
        ring.try_set_used_ring_address(GuestAddress(self.used))?;
        ring.set_event_idx(features & Feature::EVENT_IDX != 0);
        ring.set_ready(true);
        Ok(ring)
    }

    fn reset(&mut self) {
        self.vector.store(NO_VECTOR, Ordering::Release);
        (self.size, self.enabled) = (self.size_max, false);
        (self.descriptors, self.available, self.used) = (0, 0, 0);
    }

    fn read(&self, offset: u64) -> u64 {
        match offset {
            0x18 => u64::from(self.size),
            0x1a => u64::from(self.vector.load(Ordering::Acquire)),
            0x1c => u64::from(self.enabled),
            0x20 => self.descriptors,
            0x24 => self.descriptors >> 32,
            0x28 => self.available,
            0x2c => self.available >> 32,
            0x30 => self.used,
            0x34 => self.used >> 32,
            _ => 0,
        }
    }

    fn write(&mut self, offset: u64, value: u64) {
        match offset {
            0x18 => self.size = value as u16,
            0x1c => self.enabled = value == 1,
            0x20 => set_low(&mut self.descriptors, value),
            0x24 => set_high(&mut self.descriptors, value),
            0x28 => set_low(&mut self.available, value),
            0x2c => set_high(&mut self.available, value),
            0x30 => set_low(&mut self.used, value),
            0x34 => set_high(&mut self.used, value),
            _ => {}
        }
    }
}

fn half(bits: u64, select: u32) -> u32 {
    match select {
        0 => bits as u32,
        1 => (bits >> 32) as u32,
        _ => 0,
    }
}

/// 64-bit fields may be written in two halves (VIRTIO 1.3 §4.1.3.1); the function splits wider writes.
fn set_low(field: &mut u64, value: u64) {
    *field = (*field & !0xffff_ffff) | (value & 0xffff_ffff);
}

fn set_high(field: &mut u64, value: u64) {
    *field = (*field & 0xffff_ffff) | value << 32;
}
