//! The two ways to configuration space: memory-mapped by ECAM, or the ports of mechanism #1.

use crate::paging;
use crate::physical::Registers;
use crate::port;
use guest_logic::acpi::Platform;
use guest_logic::memory_map::{FreeMemory, OutOfMemory, Range};

const ADDRESS_PORT: u16 = 0xcf8;
const DATA_PORT: u16 = 0xcfc;
const BUS_BYTES: u64 = 1 << 20;

/// How this machine's configuration space is reached.
#[derive(Debug, Clone, Copy)]
pub enum Access {
    /// Bus 0 in memory.
    Memory(Registers),
    /// By ports.
    Ports,
}

impl Access {
    /// Memory if ACPI describes it for bus 0, else ports.
    pub fn find(platform: &Platform, free: &mut FreeMemory) -> Result<Self, OutOfMemory> {
        let Some(space) = platform.configuration_space.filter(|space| space.first_bus == 0) else {
            return Ok(Self::Ports);
        };
        let end = space.address.saturating_add(BUS_BYTES);
        paging::map_registers(Range { start: space.address, end }, free)?;
        Ok(Self::Memory(Registers::new(space.address, BUS_BYTES)))
    }
}

/// The configuration space of one function of bus 0. Offsets lie below 256 and are aligned to their width.
#[derive(Debug, Clone, Copy)]
pub struct Configuration {
    access: Access,
    /// Device number, 0 to 31.
    pub device: u8,
    /// Function number, 0 to 7.
    pub function: u8,
}

impl Configuration {
    /// The space of `device`.`function`.
    pub fn new(access: Access, device: u8, function: u8) -> Self {
        Self { access, device, function }
    }

    fn ecam_offset(self, offset: u16) -> u64 {
        u64::from(self.device) << 15 | u64::from(self.function) << 12 | u64::from(offset)
    }

    fn select(self, offset: u16) {
        let place = u32::from(self.device) << 11 | u32::from(self.function) << 8 | u32::from(offset & 0xfc);
        port::write_u32(ADDRESS_PORT, 1 << 31 | place);
    }

    /// Reads a double word.
    pub fn read_u32(self, offset: u16) -> u32 {
        match self.access {
            Access::Memory(registers) => registers.read_u32(self.ecam_offset(offset)),
            Access::Ports => {
                self.select(offset);
                port::read_u32(DATA_PORT)
            }
        }
    }

    /// Reads a word.
    pub fn read_u16(self, offset: u16) -> u16 {
        (self.read_u32(offset & !3) >> (8 * (offset & 2))) as u16
    }

    /// Reads a byte.
    pub fn read_u8(self, offset: u16) -> u8 {
        (self.read_u32(offset & !3) >> (8 * (offset & 3))) as u8
    }

    /// Writes a double word.
    pub fn write_u32(self, offset: u16, value: u32) {
        match self.access {
            Access::Memory(registers) => registers.write_u32(self.ecam_offset(offset), value),
            Access::Ports => {
                self.select(offset);
                port::write_u32(DATA_PORT, value);
            }
        }
    }

    /// Writes a word.
    pub fn write_u16(self, offset: u16, value: u16) {
        match self.access {
            Access::Memory(registers) => registers.write_u16(self.ecam_offset(offset), value),
            Access::Ports => {
                self.select(offset);
                port::write_u16(DATA_PORT + (offset & 2), value);
            }
        }
    }
}
