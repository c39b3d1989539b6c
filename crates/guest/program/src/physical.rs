//! Guest-physical memory and device registers. All of it is mapped where it lies, up to the end of what
//! `paging.rs` mapped.

#![allow(
    unsafe_code,
    reason = "turns addresses that the machine's tables name into references and registers"
)]

use crate::paging;
use core::sync::atomic::{AtomicBool, Ordering};
use guest_logic::start_info::PhysicalMemory;

unsafe extern "C" {
    #[link_name = "image_end"]
    safe static IMAGE_END: [u8; 0];
}

/// The first address above the guest's own image.
pub fn image_end() -> u64 {
    IMAGE_END.as_ptr() as u64
}

/// Memory as the loader and the firmware left it. Their structures are read before any memory is handed out, and the
/// areas that hold them are not RAM to the allocator.
pub struct FirmwareMemory;

impl PhysicalMemory for FirmwareMemory {
    fn bytes(&self, address: u64, length: usize) -> Option<&[u8]> {
        let end = address.checked_add(length as u64)?;
        if address == 0 || end > paging::BOOT_MAPPED_END {
            return None;
        }
        // SAFETY: the range is mapped and nothing writes it while the tables are read.
        Some(unsafe { core::slice::from_raw_parts(address as *const u8, length) })
    }
}

/// Longest text that [`copy_text`] takes, in bytes.
const TEXT_MAX: usize = 2047;

/// Copies the NUL-terminated text at `address` to a place where it stays. Works once: there is one command line.
pub fn copy_text(address: u64) -> Result<&'static str, &'static str> {
    static mut TEXT: [u8; TEXT_MAX] = [0; TEXT_MAX];
    static TAKEN: AtomicBool = AtomicBool::new(false);
    assert!(!TAKEN.swap(true, Ordering::Relaxed), "the command line is copied once");
    let text = &raw mut TEXT;
    let byte =
        |index: usize| FirmwareMemory.bytes(address.wrapping_add(index as u64), 1).map(|bytes| bytes[0]);
    // SAFETY: the check above makes this the only reference.
    let text = unsafe { &mut *text };
    for index in 0..=TEXT_MAX {
        match byte(index) {
            None => return Err("not readable"),
            Some(0) => return core::str::from_utf8(&text[..index]).map_err(|_| "not UTF-8"),
            Some(byte) if index < TEXT_MAX => text[index] = byte,
            Some(_) => break,
        }
    }
    Err("longer than 2047 bytes")
}

/// Device registers at a mapped address.
#[derive(Debug, Clone, Copy)]
pub struct Registers {
    address: u64,
    bytes: u64,
}

impl Registers {
    /// The registers of `bytes` at `address`, which `paging` has mapped and which are not RAM.
    pub const fn new(address: u64, bytes: u64) -> Self {
        Self { address, bytes }
    }

    /// The part of them from `offset` on, `bytes` long; none if it does not lie inside.
    pub fn part(self, offset: u64, bytes: u64) -> Option<Self> {
        let end = offset.checked_add(bytes)?;
        (end <= self.bytes).then_some(Self { address: self.address + offset, bytes })
    }

    fn at<T>(self, offset: u64) -> *mut T {
        assert!(offset + size_of::<T>() as u64 <= self.bytes, "register {offset:#x} lies outside its device");
        (self.address + offset) as *mut T
    }

    /// Reads a byte.
    pub fn read_u8(self, offset: u64) -> u8 {
        // SAFETY: inside mapped registers; reading them has no effect on memory.
        unsafe { self.at::<u8>(offset).read_volatile() }
    }

    /// Writes a byte.
    pub fn write_u8(self, offset: u64, value: u8) {
        // SAFETY: inside mapped registers; the callers give devices only memory that they own.
        unsafe { self.at::<u8>(offset).write_volatile(value) }
    }

    /// Reads a word.
    pub fn read_u16(self, offset: u64) -> u16 {
        // SAFETY: as for bytes.
        unsafe { self.at::<u16>(offset).read_volatile() }
    }

    /// Writes a word.
    pub fn write_u16(self, offset: u64, value: u16) {
        // SAFETY: as for bytes.
        unsafe { self.at::<u16>(offset).write_volatile(value) }
    }

    /// Reads a double word.
    pub fn read_u32(self, offset: u64) -> u32 {
        // SAFETY: as for bytes.
        unsafe { self.at::<u32>(offset).read_volatile() }
    }

    /// Writes a double word.
    pub fn write_u32(self, offset: u64, value: u32) {
        // SAFETY: as for bytes.
        unsafe { self.at::<u32>(offset).write_volatile(value) }
    }
}

/// Writes a byte to a register that ACPI named; beyond what is mapped, does nothing.
pub fn write_register_u8(address: u64, value: u8) {
    if address != 0 && address < paging::BOOT_MAPPED_END {
        Registers::new(address, 1).write_u8(0, value);
    }
}
