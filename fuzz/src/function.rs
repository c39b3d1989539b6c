//! A driver of one PCI function, by its registers alone.

use arbitrary::{Result, Unstructured};
use napa_machine::layout::ECAM_START;
use napa_machine::{Buses, PciSlot};

/// Entries of every queue that this driver makes.
pub const QUEUE_SIZE: u16 = 16;
/// Bytes of memory for the rings of one queue.
pub const RINGS_BYTES: u64 = 0x400;

const BAR0: u16 = 0x10;
const COMMAND: u16 = 0x04;
const STATUS: u64 = 0x14;
const NOTIFY: u64 = 0x3000;
const MSIX_TABLE: u64 = 0x4000;
const MSIX_CONTROL: u16 = 0x42;
const VERSION_1: u64 = 1 << 32;
/// Acknowledged, driver found, features agreed, ready.
const STATUS_READY: u8 = 0xf;

/// One function as its driver sees it.
pub struct Function<'a> {
    buses: &'a Buses,
    slot: u8,
    bar: u64,
}

/// Where a queue's rings are.
#[derive(Clone, Copy)]
pub struct Rings {
    /// Descriptor table.
    pub descriptors: u64,
    /// Available ring.
    pub available: u64,
    /// Used ring.
    pub used: u64,
}

impl Rings {
    /// Rings one after the other from `base` on.
    pub const fn at(base: u64) -> Self {
        Self { descriptors: base, available: base + 0x100, used: base + 0x200 }
    }
}

impl<'a> Function<'a> {
    /// The function that the plan put at `place`, wherever its driver has moved it since.
    pub fn new(buses: &'a Buses, place: &PciSlot) -> Self {
        let mut function = Self { buses, slot: place.slot, bar: 0 };
        function.bar = u64::from(function.config(BAR0) & !0xf);
        function
    }

    /// Four bytes of configuration space.
    pub fn config(&self, offset: u16) -> u32 {
        let mut data = [0; 4];
        self.buses.memory_read(self.ecam(offset), &mut data);
        u32::from_le_bytes(data)
    }

    /// Writes to configuration space.
    pub fn set_config(&self, offset: u16, data: &[u8]) {
        self.buses.memory_write(self.ecam(offset), data);
    }

    /// Puts BAR 0 at `address` and switches decoding on.
    pub fn move_to(&mut self, address: u32) {
        self.set_config(BAR0, &address.to_le_bytes());
        self.set_config(COMMAND, &[6, 0]);
        self.bar = u64::from(address);
    }

    /// Reads a register.
    pub fn read(&self, offset: u64, size: usize) -> u64 {
        let mut data = [0; 8];
        self.buses.memory_read(self.bar.wrapping_add(offset), &mut data[..size]);
        u64::from_le_bytes(data)
    }

    /// Writes a register.
    pub fn write(&self, offset: u64, size: usize, value: u64) {
        self.buses.memory_write(self.bar.wrapping_add(offset), &value.to_le_bytes()[..size]);
    }

    /// The device status byte.
    pub fn status(&self) -> u8 {
        self.read(STATUS, 1) as u8
    }

    /// Resets the device.
    pub fn reset(&self) {
        self.write(STATUS, 1, 0);
    }

    /// Goes from reset to features agreed: those of the device that `wanted` has too.
    pub fn negotiate(&self, wanted: u64) {
        for status in [0, 1, 3] {
            self.write(STATUS, 1, status);
        }
        for half in 0..2 {
            self.write(0x00, 4, half);
            let offered = self.read(0x04, 4);
            self.write(0x08, 4, half);
            self.write(0x0c, 4, offered & ((wanted | VERSION_1) >> (32 * half)));
        }
        self.write(STATUS, 1, 0xb);
    }

    /// Number of queues.
    pub fn queues(&self) -> u64 {
        self.read(0x12, 2)
    }

    /// Describes a queue and enables it.
    pub fn set_queue(&self, index: u64, rings: Rings) {
        self.write(0x16, 2, index);
        self.write(0x18, 2, u64::from(QUEUE_SIZE));
        self.write(0x1a, 2, index + 1);
        for (offset, address) in [(0x20, rings.descriptors), (0x28, rings.available), (0x30, rings.used)] {
            self.write(offset, 8, address);
        }
        self.write(0x1c, 2, 1);
    }

    /// Says that the driver is ready.
    pub fn set_ready(&self) {
        self.write(STATUS, 1, u64::from(STATUS_READY));
    }

    /// Rings the doorbell of a queue.
    pub fn notify(&self, index: u64) {
        self.write(NOTIFY + 4 * index, 2, index);
    }

    /// Writes an entry of the MSI-X table and the control word as a driver does, and at times otherwise.
    pub fn set_interrupt(&self, vector: u64, input: &mut Unstructured<'_>) -> Result<()> {
        let entry = MSIX_TABLE + 16 * vector;
        for (offset, value) in [(0, 0xfee0_0000), (4, 0), (8, 0x41 + vector)] {
            self.write(entry + offset, 4, value);
        }
        self.write(entry + 12, 4, u64::from(input.arbitrary::<bool>()?));
        let control = *input.choose(&[0x8000_u16, 0xc000, 0x0000])?;
        self.set_config(MSIX_CONTROL, &control.to_le_bytes());
        Ok(())
    }

    fn ecam(&self, offset: u16) -> u64 {
        ECAM_START + (u64::from(self.slot) << 15) + u64::from(offset)
    }
}
