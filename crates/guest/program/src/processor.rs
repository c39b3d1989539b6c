//! What each processor has of its own: a stack, by which it is recognised, and a task state segment.

#![allow(
    unsafe_code,
    reason = "reads the stack pointer and writes the tables that boot.s gave to the processor"
)]

use core::arch::asm;
use guest_logic::acpi::PROCESSORS_MAX;

/// Size and alignment of a stack. Its lowest word holds the processor's index.
pub const STACK_BYTES: u64 = 65_536;
/// Bytes of a task state segment with an I/O bitmap for all ports, in whole pages.
pub const TSS_BYTES: u64 = 12_288;
const RING0_STACK_TOP: u64 = 4;
const IO_MAP_BASE: u64 = 102;
const IO_MAP: u16 = 104;
const IO_MAP_BYTES: u64 = 8192;

unsafe extern "C" {
    static mut boot_tss: [u8; TSS_BYTES as usize];
    static mut boot_ring0_stack: [u8; 4096];
}

/// The index of the processor that runs this, 0 for the boot processor.
pub fn index() -> usize {
    let stack: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rsp", out(reg) stack, options(nomem, nostack, preserves_flags)) };
    let base = (stack & !(STACK_BYTES - 1)) as *const usize;
    // SAFETY: every stack is aligned to its size, and its lowest word was written before the processor ran on it.
    let index = unsafe { base.read() };
    index.min(PROCESSORS_MAX - 1)
}

/// Completes the boot processor's task state segment, which ring 3 needs for every port and every interrupt.
pub fn prepare_boot_task() {
    let ring0_stack = (&raw mut boot_ring0_stack) as u64;
    prepare_task((&raw mut boot_tss) as u64, ring0_stack + 4096);
}

/// Writes a task state segment into the zeroed [`TSS_BYTES`] at `tss`: ring 0's stack and free access to all ports.
pub fn prepare_task(tss: u64, ring0_stack_top: u64) {
    // SAFETY: the caller owns the segment; the field is not aligned.
    unsafe { ((tss + RING0_STACK_TOP) as *mut u64).write_unaligned(ring0_stack_top) };
    // SAFETY: as above.
    unsafe { ((tss + IO_MAP_BASE) as *mut u16).write_unaligned(IO_MAP) };
    // SAFETY: as above; the byte after the bitmap must be all ones (Intel SDM volume 1, 19.5.2).
    unsafe { ((tss + u64::from(IO_MAP) + IO_MAP_BYTES) as *mut u8).write(0xff) };
}

/// A value for the boot processor alone: the others cannot get at it.
pub struct BootOnly<T>(T);

// SAFETY: `get` lets one processor through, always the same, so nothing is shared.
unsafe impl<T> Sync for BootOnly<T> {}

impl<T> BootOnly<T> {
    /// Puts the value in.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value; a panic on any other processor than the boot processor.
    pub fn get(&self) -> &T {
        assert_eq!(index(), 0, "only the boot processor may use this");
        &self.0
    }
}
