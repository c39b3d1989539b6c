//! What the compiler expects of an operating system: memory functions, and a place for panics.

#![allow(unsafe_code, reason = "the memory functions are defined by raw pointers")]

use crate::{console, power, print_line};
use core::arch::asm;
use core::panic::PanicInfo;

/// # Safety
/// As for C's memcpy.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: the caller gives `count` bytes at both places; boot.s cleared the direction flag.
    unsafe {
        asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags));
    }
    to
}

/// # Safety
/// As for C's memmove.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= count {
        // SAFETY: copying upwards overwrites no byte of `from` that is still to be read.
        return unsafe { memcpy(to, from, count) };
    }
    // SAFETY: as above, downwards from the last byte; the direction flag is cleared again.
    unsafe {
        asm!("std", "rep movsb", "cld", inout("rcx") count => _,
            inout("rdi") to.wrapping_add(count).wrapping_sub(1) => _,
            inout("rsi") from.wrapping_add(count).wrapping_sub(1) => _, options(nostack));
    }
    to
}

/// # Safety
/// As for C's memset.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
    // SAFETY: the caller gives `count` bytes; the direction flag is clear.
    unsafe {
        asm!("rep stosb", inout("rcx") count => _, inout("rdi") to => _, in("al") byte as u8,
            options(nostack, preserves_flags));
    }
    to
}

/// # Safety
/// As for C's memcmp.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, count: usize) -> i32 {
    for index in 0..count {
        // SAFETY: the caller gives `count` readable bytes. Volatile, or the loop becomes a call of itself.
        let left = unsafe { one.wrapping_add(index).read_volatile() };
        // SAFETY: as above.
        let right = unsafe { other.wrapping_add(index).read_volatile() };
        if left != right {
            return i32::from(left) - i32::from(right);
        }
    }
    0
}

/// # Safety
/// As for BSD's bcmp, to which the optimiser turns comparisons for equality.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(one: *const u8, other: *const u8, count: usize) -> i32 {
    // SAFETY: the same condition.
    unsafe { memcmp(one, other, count) }
}

/// Named by the unwind tables of the precompiled `core`; with `panic = "abort"` nothing calls it.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    console::seize();
    match info.location() {
        Some(place) => {
            print_line!("FAIL reason=\"panic at {}:{}: {}\"", place.file(), place.line(), info.message())
        }
        None => print_line!("FAIL reason=\"panic: {}\"", info.message()),
    }
    power::panicked()
}
