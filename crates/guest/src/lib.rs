//! The embedded guest: an ELF that boots by PVH, in napa and in other hypervisors, and takes its work from the command
//! line (`docs/guest.md`).
//!
//! This crate only carries the image. The program itself is the package in `program/`, which `build.rs` builds.

/// The ELF image, linked at 1 MiB. It carries a PVH entry note, and the note of owner `napa`, type 1, that tells a
/// loader that it runs its code in ring 3.
pub static IMAGE: &[u8] = include_bytes!(env!("NAPA_GUEST_IMAGE"));

#[cfg(test)]
mod tests {
    use super::*;

    const PT_NOTE: u32 = 4;

    fn u16_at(offset: usize) -> usize {
        usize::from(u16::from_le_bytes(IMAGE[offset..offset + 2].try_into().unwrap()))
    }

    fn u32_at(offset: usize) -> u32 {
        u32::from_le_bytes(IMAGE[offset..offset + 4].try_into().unwrap())
    }

    fn u64_at(offset: usize) -> usize {
        u64::from_le_bytes(IMAGE[offset..offset + 8].try_into().unwrap()) as usize
    }

    /// Owner, type and the first word of the descriptor of every note (ELF-64 object file format, version 1.5).
    fn notes() -> Vec<(String, u32, u32)> {
        let headers = (0..u16_at(56)).map(|index| u64_at(32) + index * u16_at(54));
        let note =
            headers.into_iter().find(|&header| u32_at(header) == PT_NOTE).expect("there is a note segment");
        let (mut place, end) = (u64_at(note + 8), u64_at(note + 8) + u64_at(note + 32));
        let mut notes = Vec::new();
        while place < end {
            let (name, descriptor) = (u32_at(place) as usize, u32_at(place + 4) as usize);
            let owner = String::from_utf8(IMAGE[place + 12..place + 12 + name - 1].to_vec()).unwrap();
            let value = place + 12 + name.next_multiple_of(4);
            notes.push((owner, u32_at(place + 8), u32_at(value)));
            place = value + descriptor.next_multiple_of(4);
        }
        notes
    }

    #[test]
    fn the_image_is_a_small_64_bit_elf_for_x86() {
        const MACHINE_X86_64: usize = 62;
        assert_eq!(&IMAGE[..5], b"\x7fELF\x02");
        assert_eq!(u16_at(18), MACHINE_X86_64);
        assert!(IMAGE.len() < 256 << 10, "{} bytes", IMAGE.len());
    }

    #[test]
    fn a_loader_finds_the_entry_and_that_it_is_for_ring_3() {
        const PHYS32_ENTRY: u32 = 18;
        let entry = u64_at(24) as u32;
        assert!(entry >= 1 << 20);
        assert_eq!(notes(), [("napa".to_string(), 1, 1), ("Xen".to_string(), PHYS32_ENTRY, entry)]);
    }
}
