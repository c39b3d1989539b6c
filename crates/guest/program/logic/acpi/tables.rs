//! Finding a table: root pointer, root table, signature, length and checksum (ACPI 6.5 §5.2.5 to §5.2.8).

use crate::start_info::{PhysicalMemory, u32_at, u64_at};

/// Length of the header that every table starts with.
pub(super) const HEADER_BYTES: usize = 36;
/// No table of a virtual machine comes near this; a larger length is damage.
const TABLE_BYTES_MAX: usize = 1 << 20;
const BIOS_AREA: core::ops::Range<u64> = 0xe_0000..0x10_0000;

/// The list of tables.
pub(super) struct Root<'a> {
    entries: &'a [u8],
    entry_bytes: usize,
}

/// A table with its header, if its length and checksum hold.
pub(super) fn table(memory: &impl PhysicalMemory, address: u64, signature: [u8; 4]) -> Option<&[u8]> {
    let header = memory.bytes(address, HEADER_BYTES)?;
    let length = u32_at(header, 4) as usize;
    if header[..4] != signature || !(HEADER_BYTES..=TABLE_BYTES_MAX).contains(&length) {
        return None;
    }
    let bytes = memory.bytes(address, length)?;
    sums_to_zero(bytes).then_some(bytes)
}

/// The root table of the root pointer at `rsdp`; 0 looks for the pointer in the BIOS area.
pub(super) fn root(memory: &impl PhysicalMemory, rsdp: u64) -> Option<Root<'_>> {
    let pointer = if rsdp == 0 { search(memory)? } else { pointer(memory, rsdp)? };
    let (xsdt, rsdt) = (if pointer[15] >= 2 { u64_at(pointer, 24) } else { 0 }, u32_at(pointer, 16));
    if let Some(bytes) = (xsdt != 0).then(|| table(memory, xsdt, *b"XSDT")).flatten() {
        return Some(Root { entries: &bytes[HEADER_BYTES..], entry_bytes: 8 });
    }
    let bytes = table(memory, u64::from(rsdt), *b"RSDT")?;
    Some(Root { entries: &bytes[HEADER_BYTES..], entry_bytes: 4 })
}

impl<'a> Root<'a> {
    /// The first table of this signature.
    pub(super) fn find(&self, memory: &'a impl PhysicalMemory, signature: [u8; 4]) -> Option<&'a [u8]> {
        self.entries.chunks_exact(self.entry_bytes).find_map(|entry| {
            let address = if self.entry_bytes == 8 { u64_at(entry, 0) } else { u64::from(u32_at(entry, 0)) };
            table(memory, address, signature)
        })
    }
}

fn search(memory: &impl PhysicalMemory) -> Option<&[u8]> {
    BIOS_AREA.step_by(16).find_map(|address| pointer(memory, address))
}

fn pointer(memory: &impl PhysicalMemory, address: u64) -> Option<&[u8]> {
    let first = memory.bytes(address, 20)?;
    if &first[..8] != b"RSD PTR " || !sums_to_zero(first) {
        return None;
    }
    if first[15] < 2 { Some(first) } else { memory.bytes(address, 36) }
}

fn sums_to_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)) == 0
}
