//! Page tables: everything below 4 GiB at boot, RAM and device registers above it on demand, each address where it
//! lies, in pages of 2 MiB that ring 3 may use.

#![allow(unsafe_code, reason = "writes the page tables")]

use guest_logic::memory_map::{FreeMemory, OutOfMemory, Range};

/// The end of what [`start`] maps.
pub const BOOT_MAPPED_END: u64 = 1 << 32;
const LARGE_PAGE: u64 = 2 << 20;
const PAGE: u64 = 4096;
const PRESENT_WRITABLE_USER: u64 = 0x7;
const UNCACHED: u64 = 0x18;
const LARGE: u64 = 0x80;
const ADDRESS_MASK: u64 = 0x000f_ffff_ffff_f000;
/// Device registers below 4 GiB start here in every machine this guest knows.
const DEVICES_START: u64 = 0xc000_0000;
/// Ring 3 reaches the lower half of 48 bits.
const REACHABLE_END: u64 = 1 << 47;

unsafe extern "C" {
    static mut boot_pml4: [u64; 512];
    static mut low_page_directories: [u64; 3 * 512];
}

/// Fills the directories from 1 to 4 GiB; boot.s mapped the first GiB and linked them.
pub fn start() {
    let directories = (&raw mut low_page_directories).cast::<u64>();
    for (index, address) in ((1 << 30)..BOOT_MAPPED_END).step_by(LARGE_PAGE as usize).enumerate() {
        let cache = if address >= DEVICES_START { UNCACHED } else { 0 };
        // SAFETY: 1,536 entries, as many as the loop has steps. Nothing has used these addresses yet, so no processor
        // holds a stale translation.
        unsafe {
            directories.wrapping_add(index).write_volatile(address | LARGE | cache | PRESENT_WRITABLE_USER)
        };
    }
}

/// Maps RAM that lies above 4 GiB, with tables taken from `free`, which must lie in mapped memory.
pub fn map_ram(range: Range, free: &mut FreeMemory) -> Result<(), OutOfMemory> {
    map(range, 0, free)
}

/// Maps device registers, wherever they are. Tables are taken from `free` and stay.
pub fn map_registers(range: Range, free: &mut FreeMemory) -> Result<(), OutOfMemory> {
    map(range, UNCACHED, free)
}

fn map(range: Range, cache: u64, free: &mut FreeMemory) -> Result<(), OutOfMemory> {
    let mut address = range.start.max(BOOT_MAPPED_END) & !(LARGE_PAGE - 1);
    while address < range.end.min(REACHABLE_END) {
        let level3 = next_table((&raw mut boot_pml4).cast(), address >> 39 & 511, free)?;
        let level2 = next_table(level3, address >> 30 & 511, free)?;
        let entry = level2.wrapping_add((address >> 21 & 511) as usize);
        // SAFETY: the entry of a table that this module linked.
        unsafe { entry.write_volatile(address | LARGE | cache | PRESENT_WRITABLE_USER) };
        address += LARGE_PAGE;
    }
    Ok(())
}

fn next_table(table: *mut u64, index: u64, free: &mut FreeMemory) -> Result<*mut u64, OutOfMemory> {
    let entry = table.wrapping_add(index as usize);
    // SAFETY: `table` is a page table and `index` below 512.
    let value = unsafe { entry.read_volatile() };
    if value & 1 != 0 {
        return Ok((value & ADDRESS_MASK) as *mut u64);
    }
    let new = free.take(PAGE, PAGE)?.start;
    // SAFETY: the page was free and, being the first of the lowest range, is mapped.
    unsafe { (new as *mut u8).write_bytes(0, PAGE as usize) };
    // SAFETY: as above; the table below is complete before it is linked.
    unsafe { entry.write_volatile(new | PRESENT_WRITABLE_USER) };
    Ok(new as *mut u64)
}
