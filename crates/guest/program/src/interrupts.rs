//! The interrupt descriptor table, vectors, and sleeping until something happened.

#![allow(unsafe_code, reason = "writes the descriptor table and shares the counters with assembly")]

use crate::{background, console, power, print_line};
use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering};

global_asm!(include_str!("boot.s"));
global_asm!(include_str!("interrupts.s"));

/// Another processor asks this one to look.
pub const VECTOR_WAKE: u8 = 0x20;
/// The host may have asked for a stop.
pub const VECTOR_STOP: u8 = 0x21;
/// The local timer.
pub const VECTOR_TIMER: u8 = 0x22;
/// The first vector for devices; there are [`DEVICE_VECTORS`].
pub const VECTOR_DEVICES: u8 = 0x30;
/// How many vectors devices can have.
pub const DEVICE_VECTORS: u8 = 0x30;
/// The local APIC's vector for interrupts that went away.
pub const VECTOR_SPURIOUS: u8 = 0xff;

const VECTOR_BREAKPOINT: u8 = 3;
const FIRST_INTERRUPT: u8 = 0x20;
const INTERRUPTS: u8 = 64;
const RING0_CODE: u64 = 0x10;
const GATE_RING0: u64 = 0x8e00;
const GATE_RING3: u64 = 0xee00;

unsafe extern "C" {
    static mut idt: [[u64; 2]; 256];
    static interrupt_counts: [AtomicU64; 256];
    static exception_stubs: u8;
    static interrupt_stubs_xapic: u8;
    static interrupt_stubs_x2apic: u8;
    static stop_stub_xapic: u8;
    static stop_stub_x2apic: u8;
    static spurious_stub: u8;
    static service_entry: u8;
}

fn set_gate(vector: u8, handler: u64, kind: u64) {
    let low = handler & 0xffff | RING0_CODE << 16 | kind << 32 | (handler >> 16 & 0xffff) << 48;
    let gate = [low, handler >> 32];
    let table = (&raw mut idt).cast::<[u64; 2]>();
    // SAFETY: the table has 256 gates; only the boot processor writes it, before the vector is used.
    unsafe { table.wrapping_add(usize::from(vector)).write_volatile(gate) };
}

/// Fills the table that boot.s loaded, for a local APIC at its usual address.
pub fn start() {
    for vector in 0..FIRST_INTERRUPT {
        set_gate(vector, (&raw const exception_stubs) as u64 + 16 * u64::from(vector), GATE_RING0);
    }
    set_gate(VECTOR_BREAKPOINT, (&raw const service_entry) as u64, GATE_RING3);
    set_gate(VECTOR_SPURIOUS, (&raw const spurious_stub) as u64, GATE_RING0);
    set_interrupts((&raw const interrupt_stubs_xapic) as u64, (&raw const stop_stub_xapic) as u64);
}

/// Ends interrupts by the x2APIC's register from now on.
pub fn use_x2apic() {
    set_interrupts((&raw const interrupt_stubs_x2apic) as u64, (&raw const stop_stub_x2apic) as u64);
}

fn set_interrupts(stubs: u64, stop_stub: u64) {
    for offset in 0..INTERRUPTS {
        set_gate(FIRST_INTERRUPT + offset, stubs + 32 * u64::from(offset), GATE_RING0);
    }
    set_gate(VECTOR_STOP, stop_stub, GATE_RING0);
}

/// How often `vector` came, on any processor.
pub fn count(vector: u8) -> u64 {
    // SAFETY: the array lives for ever and is changed atomically.
    let counts = unsafe { &interrupt_counts };
    counts[usize::from(vector)].load(Ordering::Acquire)
}

/// Sleeps until `ready`. Interrupts are off outside the halt, so none can come between the look and the halt; what
/// makes it ready must send one.
pub fn sleep_until(mut ready: impl FnMut() -> bool) {
    while !ready() {
        background::halt();
    }
}

/// Where an exception goes on, in ring 3 on the panic stack.
#[unsafe(no_mangle)]
extern "C" fn exception_main(vector: u64, error: u64, instruction: u64, address: u64, ring: u64) -> ! {
    console::seize();
    print_line!(
        "FAIL reason=\"exception {vector} in ring {ring} at {instruction:#x}: error {error:#x}, address {address:#x}\""
    );
    power::panicked()
}
