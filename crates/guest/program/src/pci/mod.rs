//! PCI functions of bus 0: finding them, their capabilities, their registers (PCI Local Bus 3.0, chapter 6).

mod bars;
mod configuration;
mod msix;

pub use configuration::Configuration;
pub use msix::VectorTable;

use crate::physical::Registers;
use guest_logic::acpi::Platform;
use guest_logic::memory_map::{FreeMemory, OutOfMemory};
use heapless::Vec;

/// Functions that are looked at; a virtual machine's bus 0 has few.
pub const FUNCTIONS_MAX: usize = 32;
const DEVICES: u8 = 32;
const NO_VENDOR: u16 = 0xffff;

const VENDOR: u16 = 0x00;
const DEVICE: u16 = 0x02;
const COMMAND: u16 = 0x04;
const STATUS: u16 = 0x06;
const CLASS: u16 = 0x0a;
const HEADER_TYPE: u16 = 0x0e;
const CAPABILITIES: u16 = 0x34;
const COMMAND_MEMORY: u16 = 1 << 1;
const COMMAND_BUS_MASTER: u16 = 1 << 2;
const COMMAND_NO_INTX: u16 = 1 << 10;
const STATUS_CAPABILITIES: u16 = 1 << 4;
const MULTIPLE_FUNCTIONS: u8 = 0x80;
/// Capabilities that are looked at; virtio devices have about eight. It also bounds the walk through a damaged list.
const CAPABILITIES_MAX: usize = 24;

/// One function.
#[derive(Debug, Clone)]
pub struct Function {
    /// Its configuration space.
    pub configuration: Configuration,
    /// Vendor identifier.
    pub vendor: u16,
    /// Device identifier.
    pub device: u16,
    /// Class and subclass.
    pub class: u16,
    /// Its capabilities, in the order of the list.
    pub capabilities: Vec<Capability, CAPABILITIES_MAX>,
    bars: [u64; 6],
}

/// A capability in the configuration space.
#[derive(Debug, Clone, Copy)]
pub struct Capability {
    /// What it is.
    pub identifier: u8,
    /// Where it starts.
    pub offset: u16,
}

/// Finds the functions of bus 0, gives their BARs addresses where the firmware did not, and maps them.
pub fn discover(
    platform: &Platform,
    free: &mut FreeMemory,
) -> Result<Vec<Function, FUNCTIONS_MAX>, OutOfMemory> {
    let access = configuration::Access::find(platform, free)?;
    let mut functions = Vec::new();
    for device in 0..DEVICES {
        let first = Configuration::new(access, device, 0);
        if first.read_u16(VENDOR) == NO_VENDOR {
            continue;
        }
        let count = if first.read_u8(HEADER_TYPE) & MULTIPLE_FUNCTIONS == 0 { 1 } else { 8 };
        let present = (0..count)
            .map(|function| Configuration::new(access, device, function))
            .filter(|configuration| configuration.read_u16(VENDOR) != NO_VENDOR)
            .map(Function::new);
        for function in present {
            if functions.push(function).is_err() {
                break;
            }
        }
    }
    bars::assign(&mut functions);
    bars::map(&functions, free)?;
    Ok(functions)
}

impl Function {
    fn new(configuration: Configuration) -> Self {
        Self {
            configuration,
            vendor: configuration.read_u16(VENDOR),
            device: configuration.read_u16(DEVICE),
            class: configuration.read_u16(CLASS),
            capabilities: capabilities(configuration),
            bars: bars::read(configuration),
        }
    }

    /// Lets it answer in memory, reach memory, and interrupt by messages only.
    pub fn enable(&self) {
        let command = self.configuration.read_u16(COMMAND);
        let wanted = COMMAND_MEMORY | COMMAND_BUS_MASTER | COMMAND_NO_INTX;
        self.configuration.write_u16(COMMAND, command | wanted);
    }

    /// The registers of `bytes` at `offset` in BAR `bar`; none if the BAR has no address.
    pub fn registers(&self, bar: u8, offset: u32, bytes: u32) -> Option<Registers> {
        let base = self.bars.get(usize::from(bar)).copied().filter(|&base| base != 0)?;
        Some(Registers::new(base.checked_add(u64::from(offset))?, u64::from(bytes)))
    }
}

fn capabilities(configuration: Configuration) -> Vec<Capability, CAPABILITIES_MAX> {
    let mut list = Vec::new();
    if configuration.read_u16(STATUS) & STATUS_CAPABILITIES == 0 {
        return list;
    }
    let mut offset = u16::from(configuration.read_u8(CAPABILITIES) & 0xfc);
    while offset != 0 {
        let header = configuration.read_u16(offset);
        if list.push(Capability { identifier: header as u8, offset }).is_err() {
            break;
        }
        offset = header >> 8 & 0xfc;
    }
    list
}
