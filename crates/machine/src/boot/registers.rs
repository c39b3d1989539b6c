//! The state in which the boot vCPU enters the kernel.

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};
use napa_memory::GuestRam;

use super::{BootError, Entry, write};

const GDT: u64 = 0x500;
const PML4: u64 = 0x9000;
const PDPT: u64 = 0xa000;
/// Four page directories: 4 GiB in pages of 2 MiB.
const DIRECTORIES: u64 = 0xb000;
const DIRECTORY_COUNT: u64 = 4;

const CODE_32: u64 = 0x00cf_9b00_0000_ffff;
const CODE_64: u64 = 0x00af_9b00_0000_ffff;
const DATA: u64 = 0x00cf_9300_0000_ffff;
const TSS: u64 = 0x0000_8b00_0000_0067;

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const PRESENT_WRITABLE: u64 = 0x3;
const LARGE: u64 = 0x80;
/// Bit 1 of RFLAGS is always one.
const RFLAGS: u64 = 2;

/// Prepares descriptor and page tables in `ram`, and fills in the registers for `entry`.
pub(crate) fn prepare(ram: &GuestRam, entry: Entry, sregs: &mut kvm_sregs) -> Result<kvm_regs, BootError> {
    let (code, registers) = match entry {
        Entry::Pvh { entry, start_info } => {
            sregs.cr0 = CR0_PE | CR0_ET;
            (
                CODE_32,
                kvm_regs { rip: entry.into(), rbx: start_info.into(), rflags: RFLAGS, ..Default::default() },
            )
        }
        Entry::Linux64 { entry, zero_page } => {
            write_page_tables(ram)?;
            sregs.cr3 = PML4;
            sregs.cr4 |= CR4_PAE;
            sregs.cr0 = CR0_PE | CR0_ET | CR0_PG;
            sregs.efer |= EFER_LME | EFER_LMA;
            (CODE_64, kvm_regs { rip: entry, rsi: zero_page, rflags: RFLAGS, ..Default::default() })
        }
    };
    // Selectors 0x10 and 0x18 are what the 64-bit protocol asks for; PVH does not care.
    let descriptors = [0, 0, code, DATA, TSS];
    let bytes: Vec<u8> = descriptors.iter().flat_map(|descriptor| descriptor.to_le_bytes()).collect();
    write(ram, "the descriptor table", GDT, &bytes)?;
    sregs.gdt.base = GDT;
    sregs.gdt.limit = bytes.len() as u16 - 1;
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
    sregs.cs = segment(0x10, code);
    let data = segment(0x18, DATA);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = segment(0x20, TSS);
    Ok(registers)
}

/// The first 4 GiB mapped to themselves.
fn write_page_tables(ram: &GuestRam) -> Result<(), BootError> {
    write(ram, "the page tables", PML4, &(PDPT | PRESENT_WRITABLE).to_le_bytes())?;
    let directories = (0..DIRECTORY_COUNT).map(|index| (DIRECTORIES + index * 0x1000) | PRESENT_WRITABLE);
    write(ram, "the page tables", PDPT, &entries(directories))?;
    let pages = (0..DIRECTORY_COUNT * 512).map(|index| (index << 21) | PRESENT_WRITABLE | LARGE);
    write(ram, "the page tables", DIRECTORIES, &entries(pages))
}

fn entries(entries: impl Iterator<Item = u64>) -> Vec<u8> {
    entries.flat_map(u64::to_le_bytes).collect()
}

/// The cached form of a flat descriptor.
fn segment(selector: u16, descriptor: u64) -> kvm_segment {
    let bit = |at: u32| ((descriptor >> at) & 1) as u8;
    let limit = (descriptor & 0xffff) as u32 | ((descriptor >> 32) & 0xf_0000) as u32;
    kvm_segment {
        base: 0,
        limit: if bit(55) == 1 { limit << 12 | 0xfff } else { limit },
        selector,
        type_: ((descriptor >> 40) & 0xf) as u8,
        present: bit(47),
        dpl: ((descriptor >> 45) & 3) as u8,
        db: bit(54),
        s: bit(44),
        l: bit(53),
        g: bit(55),
        avl: bit(52),
        unusable: 0,
        padding: 0,
    }
}
