//! The start info of the PVH protocol (Xen, docs/misc/pvh.pandoc and xen/include/public/arch-x86/hvm/start_info.h).

use linux_loader::loader::elf::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};
use napa_memory::GuestRam;
use vm_memory::ByteValued;

use super::{BootError, BootInfo, CMDLINE_ADDRESS, write};

const START_INFO: u64 = 0x6000;
const MODULE_LIST: u64 = 0x6100;
const MEMORY_MAP: u64 = 0x6200;
const MAGIC: u32 = 0x336e_c578;
/// The first version with a memory map.
const VERSION: u32 = 1;

/// Writes the start info and returns its address.
pub(super) fn write_start_info(ram: &GuestRam, info: &BootInfo<'_>) -> Result<u32, BootError> {
    let map = info.memory_map();
    let mut start = hvm_start_info {
        magic: MAGIC,
        version: VERSION,
        cmdline_paddr: if info.cmdline.is_empty() { 0 } else { CMDLINE_ADDRESS },
        rsdp_paddr: info.root_pointer.0,
        memmap_paddr: MEMORY_MAP,
        memmap_entries: map.len() as u32,
        ..Default::default()
    };
    if let Some(initrd) = info.initrd {
        let module = hvm_modlist_entry { paddr: initrd.start, size: initrd.size, ..Default::default() };
        write(ram, "the module list", MODULE_LIST, module.as_slice())?;
        start.modlist_paddr = MODULE_LIST;
        start.nr_modules = 1;
    }
    for (index, entry) in map.into_iter().enumerate() {
        let line =
            hvm_memmap_table_entry { addr: entry.start, size: entry.size, type_: entry.kind, reserved: 0 };
        let at = MEMORY_MAP + (index * size_of::<hvm_memmap_table_entry>()) as u64;
        write(ram, "the memory map", at, line.as_slice())?;
    }
    write(ram, "the start info", START_INFO, start.as_slice())?;
    Ok(START_INFO as u32)
}
