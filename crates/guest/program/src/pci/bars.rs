//! Base address registers. Where no firmware ran they are zero, and the guest assigns them itself.

use super::{COMMAND, COMMAND_MEMORY, Configuration, FUNCTIONS_MAX, Function};
use crate::paging::{BOOT_MAPPED_END, map_registers};
use guest_logic::memory_map::{FreeMemory, OutOfMemory, Range};
use heapless::Vec;

const BAR_0: u16 = 0x10;
const BARS: u8 = 6;
const IO_SPACE: u32 = 1;
const TYPE_64_BIT: u32 = 0b100;
const TYPE_MASK: u32 = 0b110;
const HEADER_TYPE_MASK: u8 = 0x7f;
/// Where machines without firmware leave room for BARs, below the configuration space.
const WINDOW_START: u64 = 0xc000_0000;
const WINDOW_END: u64 = 0xe000_0000;

fn register(bar: u8) -> u16 {
    BAR_0 + 4 * u16::from(bar)
}

fn is_64_bit(low: u32) -> bool {
    low & (IO_SPACE | TYPE_MASK) == TYPE_64_BIT
}

/// The addresses of the memory BARs; 0 for those that are absent, not assigned, or in I/O space.
pub fn read(configuration: Configuration) -> [u64; 6] {
    let mut addresses = [0; 6];
    for (bar, low) in memory_bars(configuration) {
        let high = if is_64_bit(low) { configuration.read_u32(register(bar) + 4) } else { 0 };
        addresses[usize::from(bar)] = u64::from(high) << 32 | u64::from(low & !0xf);
    }
    addresses
}

/// Numbers and first words of the memory BARs of an ordinary function.
fn memory_bars(configuration: Configuration) -> Vec<(u8, u32), 6> {
    let mut list = Vec::new();
    if configuration.read_u8(super::HEADER_TYPE) & HEADER_TYPE_MASK != 0 {
        return list;
    }
    let mut bar = 0;
    while bar < BARS {
        let low = configuration.read_u32(register(bar));
        if low & IO_SPACE == 0 {
            list.push((bar, low)).expect("there are six");
        }
        bar += if is_64_bit(low) { 2 } else { 1 };
    }
    list
}

/// Gives addresses to the BARs of virtio functions that have none. What is assigned already is left alone.
pub fn assign(functions: &mut Vec<Function, FUNCTIONS_MAX>) {
    let lacking = |function: &Function| {
        function.vendor == crate::virtio::VENDOR && function.bars.iter().all(|&address| address == 0)
    };
    if !functions.iter().any(lacking) {
        return;
    }
    let mut next = first_free(functions);
    for function in functions.iter_mut().filter(|function| lacking(function)) {
        let command = function.configuration.read_u16(COMMAND);
        function.configuration.write_u16(COMMAND, command & !COMMAND_MEMORY);
        for (bar, low) in memory_bars(function.configuration) {
            let bytes = size(function.configuration, bar, low);
            let start = next.next_multiple_of(bytes.max(1));
            if bytes == 0 || start + bytes > WINDOW_END {
                continue;
            }
            function.configuration.write_u32(register(bar), start as u32);
            function.bars[usize::from(bar)] = start;
            next = start + bytes;
        }
    }
}

/// Maps the BARs of virtio functions that lie above what was mapped at boot.
pub fn map(functions: &[Function], free: &mut FreeMemory) -> Result<(), OutOfMemory> {
    for function in functions.iter().filter(|function| function.vendor == crate::virtio::VENDOR) {
        for (bar, low) in memory_bars(function.configuration) {
            let start = function.bars[usize::from(bar)];
            if start >= BOOT_MAPPED_END {
                let end = start.saturating_add(size(function.configuration, bar, low));
                map_registers(Range { start, end }, free)?;
            }
        }
    }
    Ok(())
}

/// The end of the last BAR that lies in the window already.
fn first_free(functions: &[Function]) -> u64 {
    let mut end = WINDOW_START;
    for function in functions {
        for (bar, low) in memory_bars(function.configuration) {
            let start = function.bars[usize::from(bar)];
            if (WINDOW_START..WINDOW_END).contains(&start) {
                end = end.max(start + size(function.configuration, bar, low));
            }
        }
    }
    end
}

/// The size of a BAR in bytes, 0 if it is absent, by writing ones and looking which stay (PCI 3.0 §6.2.5.1).
fn size(configuration: Configuration, bar: u8, low: u32) -> u64 {
    let command = configuration.read_u16(COMMAND);
    configuration.write_u16(COMMAND, command & !COMMAND_MEMORY);
    configuration.write_u32(register(bar), u32::MAX);
    let mask = configuration.read_u32(register(bar)) & !0xf;
    configuration.write_u32(register(bar), low);
    configuration.write_u16(COMMAND, command);
    u64::from(mask & mask.wrapping_neg())
}
