//! The PVH start-of-day structure (`hvm_start_info`, Xen public/arch-x86/hvm/start_info.h, version 1).

use crate::memory_map::Range;
use heapless::Vec;

/// Where the loader left what, and the RAM it gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartInfo {
    /// Address of the NUL-terminated command line; 0 if there is none.
    pub command_line: u64,
    /// Address of the ACPI root pointer; 0 if unknown.
    pub rsdp: u64,
    /// RAM, in the loader's order. At most [`RAM_RANGES_MAX`].
    pub ram: Vec<Range, RAM_RANGES_MAX>,
}

/// Real memory maps have two to five ranges of RAM; what exceeds this bound is left unused.
pub const RAM_RANGES_MAX: usize = 16;
/// A bound on the walk through a map whose length is not to be trusted.
const ENTRIES_MAX: u32 = 128;
const MAGIC: u32 = 0x336e_c578;
const HEADER_BYTES: usize = 56;
const ENTRY_BYTES: usize = 24;
const TYPE_RAM: u32 = 1;

/// Guest-physical memory as the parsers of this crate read it.
pub trait PhysicalMemory {
    /// `length` bytes at `address`; none if any of them is not readable.
    fn bytes(&self, address: u64, length: usize) -> Option<&[u8]>;
}

/// A start-of-day structure that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadStartInfo {
    /// It does not lie in readable memory.
    Unreadable,
    /// The magic number is another: not entered by PVH.
    Magic(u32),
    /// Version 0 has no memory map.
    Version(u32),
}

/// Reads the little-endian number at `offset`; zero beyond the end.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    bytes.get(offset..offset + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

/// Reads the little-endian number at `offset`; zero beyond the end.
pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from(u32_at(bytes, offset)) | u64::from(u32_at(bytes, offset + 4)) << 32
}

/// Reads the structure at `address`.
pub fn parse(memory: &impl PhysicalMemory, address: u64) -> Result<StartInfo, BadStartInfo> {
    let header = memory.bytes(address, HEADER_BYTES).ok_or(BadStartInfo::Unreadable)?;
    match (u32_at(header, 0), u32_at(header, 4)) {
        (MAGIC, 0) => return Err(BadStartInfo::Version(0)),
        (MAGIC, _) => {}
        (magic, _) => return Err(BadStartInfo::Magic(magic)),
    }
    let entries = u32_at(header, 48).min(ENTRIES_MAX);
    let map =
        memory.bytes(u64_at(header, 40), entries as usize * ENTRY_BYTES).ok_or(BadStartInfo::Unreadable)?;
    let mut ram = Vec::new();
    for entry in map.chunks_exact(ENTRY_BYTES).filter(|entry| u32_at(entry, 16) == TYPE_RAM) {
        let (start, length) = (u64_at(entry, 0), u64_at(entry, 8));
        let range = Range { start, end: start.saturating_add(length) };
        if ram.push(range).is_err() {
            break;
        }
    }
    Ok(StartInfo { command_line: u64_at(header, 24), rsdp: u64_at(header, 32), ram })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Physical memory that starts at zero.
    pub(crate) struct Flat(pub Vec<u8>);
    use std::vec::Vec;

    impl PhysicalMemory for Flat {
        fn bytes(&self, address: u64, length: usize) -> Option<&[u8]> {
            let start = usize::try_from(address).ok()?;
            self.0.get(start..start.checked_add(length)?)
        }
    }

    fn memory(version: u32, entries: &[(u64, u64, u32)]) -> Flat {
        let mut bytes = vec![0; 64];
        bytes[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4..8].copy_from_slice(&version.to_le_bytes());
        bytes[24..32].copy_from_slice(&0x2_0000_u64.to_le_bytes());
        bytes[32..40].copy_from_slice(&0xe_0000_u64.to_le_bytes());
        bytes[40..48].copy_from_slice(&64_u64.to_le_bytes());
        bytes[48..52].copy_from_slice(&(entries.len() as u32).to_le_bytes());
        for (start, length, kind) in entries {
            bytes.extend(start.to_le_bytes());
            bytes.extend(length.to_le_bytes());
            bytes.extend(kind.to_le_bytes());
            bytes.extend([0; 4]);
        }
        Flat(bytes)
    }

    #[test]
    fn ram_is_taken_and_other_kinds_are_not() {
        let info = parse(&memory(1, &[(0, 0x9_fc00, 1), (0xf_0000, 0x1_0000, 2), (1 << 20, 1 << 27, 1)]), 0)
            .unwrap();
        assert_eq!(info.command_line, 0x2_0000);
        assert_eq!(info.rsdp, 0xe_0000);
        let expected =
            [Range { start: 0, end: 0x9_fc00 }, Range { start: 1 << 20, end: (1 << 20) + (1 << 27) }];
        assert_eq!(info.ram, expected);
    }

    #[test]
    fn foreign_and_old_structures_are_refused() {
        assert_eq!(parse(&memory(0, &[]), 0), Err(BadStartInfo::Version(0)));
        assert_eq!(parse(&Flat(vec![0; 64]), 0), Err(BadStartInfo::Magic(0)));
        assert_eq!(parse(&Flat(vec![0; 8]), 0), Err(BadStartInfo::Unreadable));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            if bytes.len() >= 8 {
                bytes[0..4].copy_from_slice(&MAGIC.to_le_bytes());
            }
            let _ = parse(&Flat(bytes), 0);
        }
    }
}
