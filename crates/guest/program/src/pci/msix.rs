//! MSI-X: one message per queue (PCI Local Bus 3.0 §6.8.2).

use super::Function;
use crate::physical::Registers;

const IDENTIFIER: u8 = 0x11;
const CONTROL: u16 = 2;
const TABLE: u16 = 4;
const CONTROL_ENABLE: u16 = 1 << 15;
const CONTROL_MASK_ALL: u16 = 1 << 14;
const CONTROL_SIZE_MASK: u16 = 0x7ff;
const ENTRY_BYTES: u64 = 16;
const MESSAGE_ADDRESS: u32 = 0xfee0_0000;

/// The vector table of one function.
#[derive(Debug, Clone, Copy)]
pub struct VectorTable {
    registers: Registers,
    entries: u16,
}

impl VectorTable {
    /// Switches MSI-X on; every entry stays masked until it is set. None if the function has no MSI-X.
    pub fn enable(function: &Function) -> Option<Self> {
        let capability =
            function.capabilities.iter().find(|capability| capability.identifier == IDENTIFIER)?;
        let configuration = function.configuration;
        let control = configuration.read_u16(capability.offset + CONTROL);
        let table = configuration.read_u32(capability.offset + TABLE);
        let entries = (control & CONTROL_SIZE_MASK) + 1;
        let bytes = u32::from(entries) * ENTRY_BYTES as u32;
        let registers = function.registers((table & 7) as u8, table & !7, bytes)?;
        configuration.write_u16(capability.offset + CONTROL, control & !CONTROL_MASK_ALL | CONTROL_ENABLE);
        Some(Self { registers, entries })
    }

    /// How many entries there are, 1 to 2048.
    pub fn entries(&self) -> u16 {
        self.entries
    }

    /// Lets entry `entry` send `vector` to the processor `apic_id` (0 to 254). False if there is no such entry.
    pub fn set(&self, entry: u16, apic_id: u32, vector: u8) -> bool {
        if entry >= self.entries {
            return false;
        }
        let base = u64::from(entry) * ENTRY_BYTES;
        self.registers.write_u32(base, MESSAGE_ADDRESS | (apic_id & 0xff) << 12);
        self.registers.write_u32(base + 4, 0);
        self.registers.write_u32(base + 8, u32::from(vector));
        self.registers.write_u32(base + 12, 0);
        true
    }
}
