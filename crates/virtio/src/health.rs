//! The device status byte, and how a worker says that it cannot go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::Interrupt;

/// Bits of the device status field (VIRTIO 1.3 §2.1).
pub(crate) mod status {
    pub const ACKNOWLEDGE: u8 = 1;
    pub const DRIVER: u8 = 2;
    pub const DRIVER_OK: u8 = 4;
    pub const FEATURES_OK: u8 = 8;
    pub const NEEDS_RESET: u8 = 0x40;
    pub const FAILED: u8 = 0x80;
}

/// Lets the workers of a device report that the guest must reset it (VIRTIO 1.3 §2.1.1, §2.4).
#[derive(Clone)]
pub struct Health {
    device: Arc<str>,
    status: Arc<AtomicU8>,
    config_interrupt: Interrupt,
}

impl Health {
    /// Health of the device called `device`, whose status byte is `status`.
    pub fn new(device: &str, status: Arc<AtomicU8>, config_interrupt: Interrupt) -> Self {
        Self { device: device.into(), status, config_interrupt }
    }

    /// Marks the device as needing a reset and tells the driver. Said once until the next reset.
    pub fn fail(&self, reason: impl std::fmt::Display) {
        let before = self.status.fetch_or(status::NEEDS_RESET, Ordering::AcqRel);
        if before & status::NEEDS_RESET == 0 {
            eprintln!("napa: {}: {reason}; the guest has to reset the device", self.device);
            if before & status::DRIVER_OK != 0 {
                self.config_interrupt.signal();
            }
        }
    }

    /// Whether the device waits for a reset.
    pub fn has_failed(&self) -> bool {
        self.status.load(Ordering::Acquire) & status::NEEDS_RESET != 0
    }
}

/// Shows from any thread whether a guest uses a device. Takes no lock.
#[derive(Clone)]
pub struct DeviceMonitor(Arc<AtomicU8>);

impl DeviceMonitor {
    pub(crate) fn new(status: Arc<AtomicU8>) -> Self {
        Self(status)
    }

    /// A driver has taken the device.
    pub fn is_driven(&self) -> bool {
        self.0.load(Ordering::Acquire) & status::DRIVER_OK != 0
    }

    /// The driver has broken the rules and not reset the device since.
    pub fn needs_reset(&self) -> bool {
        self.0.load(Ordering::Acquire) & status::NEEDS_RESET != 0
    }
}
