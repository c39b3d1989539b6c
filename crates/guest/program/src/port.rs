//! I/O ports.
//!
//! The functions are safe: the guest owns its machine, and every port this program writes is one whose device does
//! not write memory.

#![allow(unsafe_code, reason = "IN and OUT are instructions")]

use core::arch::asm;

/// Reads a byte.
pub fn read_u8(port: u16) -> u8 {
    let value;
    // SAFETY: touches no memory.
    unsafe { asm!("in al, dx", out("al") value, in("dx") port, options(nomem, nostack, preserves_flags)) };
    value
}

/// Writes a byte.
pub fn write_u8(port: u16, value: u8) {
    // SAFETY: touches no memory.
    unsafe { asm!("out dx, al", in("al") value, in("dx") port, options(nomem, nostack, preserves_flags)) };
}

/// Writes a word.
pub fn write_u16(port: u16, value: u16) {
    // SAFETY: touches no memory.
    unsafe { asm!("out dx, ax", in("ax") value, in("dx") port, options(nomem, nostack, preserves_flags)) };
}

/// Reads a double word.
pub fn read_u32(port: u16) -> u32 {
    let value;
    // SAFETY: touches no memory.
    unsafe { asm!("in eax, dx", out("eax") value, in("dx") port, options(nomem, nostack, preserves_flags)) };
    value
}

/// Writes a double word.
pub fn write_u32(port: u16, value: u32) {
    // SAFETY: touches no memory.
    unsafe { asm!("out dx, eax", in("eax") value, in("dx") port, options(nomem, nostack, preserves_flags)) };
}
