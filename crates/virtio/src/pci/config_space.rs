//! The 256 bytes of PCI configuration space, and which bits of them a guest may change (PCI 3.0 §6.1).

use super::{BAR_SIZE, layout};

const SIZE: usize = 256;
const VENDOR_ID: u16 = 0x1af4;
/// PCI device id of a modern virtio device is this plus its virtio id (VIRTIO 1.3 §4.1.2.1).
const DEVICE_ID_BASE: u16 = 0x1040;

pub const COMMAND: usize = 0x04;
pub const COMMAND_MEMORY: u16 = 1 << 1;
const COMMAND_WRITABLE: u16 = COMMAND_MEMORY | 1 << 2 | 1 << 10;
const STATUS_CAPABILITIES: u16 = 1 << 4;
pub const BAR0: usize = 0x10;
const CAPABILITIES_POINTER: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;

/// MSI-X capability: its control word is at + 2 (PCI 3.0 §6.8.2.3).
pub const MSIX: usize = 0x40;
pub const MSIX_CONTROL: usize = MSIX + 2;
const MSIX_CONTROL_WRITABLE: u16 = 0xc000;

/// The capability through which configuration space reaches BAR 0 (VIRTIO 1.3 §4.1.4.9).
pub const ACCESS: usize = 0x98;
pub const ACCESS_OFFSET: usize = ACCESS + 8;
pub const ACCESS_LENGTH: usize = ACCESS + 12;
pub const ACCESS_DATA: usize = ACCESS + 16;

pub struct ConfigSpace {
    bytes: [u8; SIZE],
    writable: [u8; SIZE],
}

impl ConfigSpace {
    /// Configuration space of a virtio device with this id and number of MSI-X vectors, whose BAR 0
    /// the firmware (here: the plan) has put at `bar`.
    pub fn new(virtio_id: u16, vectors: u16, bar: u32) -> Self {
        let mut space = Self { bytes: [0; SIZE], writable: [0; SIZE] };
        space.put(0x00, &VENDOR_ID.to_le_bytes());
        space.put(0x02, &(DEVICE_ID_BASE + virtio_id).to_le_bytes());
        space.put(COMMAND, &COMMAND_MEMORY.to_le_bytes());
        space.allow(COMMAND, &COMMAND_WRITABLE.to_le_bytes());
        space.put(0x06, &STATUS_CAPABILITIES.to_le_bytes());
        space.put(0x08, &[1, 0]); // Revision 1: modern.
        let [subclass, class] = class_code(virtio_id).to_le_bytes();
        space.put(0x0a, &[subclass, class]);
        space.put(BAR0, &bar.to_le_bytes());
        // Address bits below the size are fixed at zero, which is how a guest finds the size.
        space.allow(BAR0, &(!(BAR_SIZE as u32 - 1)).to_le_bytes());
        space.put(0x2c, &VENDOR_ID.to_le_bytes());
        space.put(0x2e, &(DEVICE_ID_BASE + virtio_id).to_le_bytes());
        space.put(CAPABILITIES_POINTER, &[MSIX as u8]);
        space.allow(INTERRUPT_LINE, &[0xff]);
        space.put_capabilities(vectors);
        space
    }

    pub fn read(&self, offset: u16, data: &mut [u8]) {
        crate::read_config_bytes(&self.bytes, u64::from(offset), data);
    }

    /// Changes the bits that may be changed.
    pub fn write(&mut self, offset: u16, data: &[u8]) {
        let start = usize::from(offset).min(SIZE);
        for ((byte, writable), new) in self.bytes[start..].iter_mut().zip(&self.writable[start..]).zip(data) {
            *byte = (*byte & !writable) | (new & writable);
        }
    }

    pub fn word(&self, offset: usize) -> u16 {
        u16::from_le_bytes([self.bytes[offset], self.bytes[offset + 1]])
    }

    pub fn long(&self, offset: usize) -> u32 {
        u32::from(self.word(offset)) | u32::from(self.word(offset + 2)) << 16
    }

    fn put(&mut self, offset: usize, data: &[u8]) {
        self.bytes[offset..offset + data.len()].copy_from_slice(data);
    }

    fn allow(&mut self, offset: usize, mask: &[u8]) {
        self.writable[offset..offset + mask.len()].copy_from_slice(mask);
    }

    fn put_capabilities(&mut self, vectors: u16) {
        let table = (layout::MSIX_TABLE as u32).to_le_bytes();
        let pending = (layout::MSIX_PENDING as u32).to_le_bytes();
        self.put(MSIX, &[0x11, 0x50]);
        self.put(MSIX_CONTROL, &(vectors - 1).to_le_bytes());
        self.allow(MSIX_CONTROL, &MSIX_CONTROL_WRITABLE.to_le_bytes());
        self.put(MSIX + 4, &table);
        self.put(MSIX + 8, &pending);

        self.put_virtio_capability(0x50, 0x60, 16, 1, layout::COMMON, layout::COMMON_LENGTH);
        self.put_virtio_capability(0x60, 0x78, 20, 2, layout::NOTIFY, layout::NOTIFY_LENGTH);
        self.put(0x70, &(layout::NOTIFY_MULTIPLIER as u32).to_le_bytes());
        self.put_virtio_capability(0x78, 0x88, 16, 3, layout::ISR, 1);
        self.put_virtio_capability(0x88, ACCESS as u8, 16, 4, layout::DEVICE, layout::DEVICE_LENGTH);
        self.put_virtio_capability(ACCESS, 0, 20, 5, 0, 0);
        self.allow(ACCESS + 4, &[0xff]);
        self.allow(ACCESS_OFFSET, &[0xff; 8]);
    }

    /// `struct virtio_pci_cap` (VIRTIO 1.3 §4.1.4), all in BAR 0.
    fn put_virtio_capability(&mut self, at: usize, next: u8, length: u8, kind: u8, offset: u64, size: u64) {
        self.put(at, &[0x09, next, length, kind, 0, 0, 0, 0]);
        self.put(at + 8, &(offset as u32).to_le_bytes());
        self.put(at + 12, &(size as u32).to_le_bytes());
    }
}

/// PCI class and subclass by which people recognise the device in a listing.
const fn class_code(virtio_id: u16) -> u16 {
    match virtio_id {
        1 => 0x0200,  // Ethernet controller.
        2 => 0x0180,  // Mass storage controller.
        3 => 0x0780,  // Communication controller.
        19 => 0x0280, // Network controller.
        _ => 0x00ff,
    }
}
