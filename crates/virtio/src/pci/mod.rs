//! A virtio device as a PCI function (VIRTIO 1.3 §4.1): configuration space, MSI-X, one memory BAR.
//!
//! BAR 0, 32 KiB, in pages so that a doorbell never shares one with a register:
//!
//! | offset | what |
//! |---|---|
//! | 0x0000 | common configuration |
//! | 0x1000 | ISR status |
//! | 0x2000 | device configuration |
//! | 0x3000 | doorbells, four bytes a queue |
//! | 0x4000 | MSI-X table |
//! | 0x6000 | MSI-X pending bits |

mod common;
mod config_space;
mod function;
mod msix;

pub use function::{Transport, TransportParts};

/// Size of BAR 0, in bytes; the BAR must be aligned to it.
pub const BAR_SIZE: u64 = 0x8000;

pub(crate) mod layout {
    //! Offsets in BAR 0.
    pub const COMMON: u64 = 0x0000;
    pub const COMMON_LENGTH: u64 = 0x40;
    pub const ISR: u64 = 0x1000;
    pub const DEVICE: u64 = 0x2000;
    pub const DEVICE_LENGTH: u64 = 0x1000;
    pub const NOTIFY: u64 = 0x3000;
    pub const NOTIFY_LENGTH: u64 = 0x1000;
    pub const NOTIFY_MULTIPLIER: u64 = 4;
    pub const MSIX_TABLE: u64 = 0x4000;
    pub const MSIX_TABLE_LENGTH: u64 = 0x2000;
    pub const MSIX_PENDING: u64 = 0x6000;
    pub const MSIX_PENDING_LENGTH: u64 = 0x1000;
}

/// A function on the PCI bus, as the machine's bus sees it.
pub trait PciFunction: Send + Sync {
    /// Reads `data.len()` (1, 2 or 4) bytes of configuration space. Past its end there are zeros.
    fn read_config(&self, offset: u16, data: &mut [u8]);

    /// Writes `data` (1, 2 or 4 bytes) to configuration space.
    fn write_config(&self, offset: u16, data: &[u8]);

    /// Where BAR 0 answers now: start and size. `None` while memory decoding is off.
    fn window(&self) -> Option<(u64, u64)>;

    /// Reads from BAR 0.
    fn read_bar(&self, offset: u64, data: &mut [u8]);

    /// Writes to BAR 0.
    fn write_bar(&self, offset: u64, data: &[u8]);

    /// Quietens the device as a reset by its driver does. Waits for the threads that serve it.
    fn reset(&self);
}

#[cfg(test)]
mod tests;
