//! The local APIC, by its memory-mapped registers or as x2APIC (Intel SDM volume 3, chapter 11).
//!
//! The registers in memory are the default: ring 3 reaches them without a service.

use crate::interrupts;
use crate::physical::Registers;
use crate::services::{cpuid, read_msr, write_msr};
use core::sync::atomic::{AtomicBool, Ordering};

static X2APIC: AtomicBool = AtomicBool::new(false);
const REGISTERS: Registers = Registers::new(0xfee0_0000, 0x1000);

const MSR_APIC_BASE: u32 = 0x1b;
const APIC_BASE_X2APIC: u64 = 1 << 10;
const APIC_BASE_ENABLED: u64 = 1 << 11;
const MSR_X2APIC_FIRST: u32 = 0x800;
const CPUID_X2APIC: u32 = 1 << 21;

const ID: u32 = 0x20;
const TASK_PRIORITY: u32 = 0x80;
const SPURIOUS: u32 = 0xf0;
const REQUESTS: u32 = 0x200;
const COMMAND_LOW: u32 = 0x300;
const COMMAND_HIGH: u32 = 0x310;
const LOCAL_TIMER: u32 = 0x320;
const LOCAL_INTERRUPT_0: u32 = 0x350;
const LOCAL_INTERRUPT_1: u32 = 0x360;
const TIMER_INITIAL: u32 = 0x380;
const TIMER_CURRENT: u32 = 0x390;
const TIMER_DIVIDE: u32 = 0x3e0;

const ENABLED: u32 = 1 << 8;
const NON_MASKABLE: u32 = 0x400;
const MASKED: u32 = 1 << 16;
const DIVIDE_BY_1: u32 = 0b1011;
const COMMAND_INIT: u32 = 0x4500;
const COMMAND_STARTUP: u32 = 0x4600;
const COMMAND_FIXED: u32 = 0x4000;

/// The first identifier that the memory-mapped form cannot address.
const XAPIC_ID_END: u32 = 255;

fn write(register: u32, value: u32) {
    if X2APIC.load(Ordering::Relaxed) {
        write_msr(MSR_X2APIC_FIRST + (register >> 4), u64::from(value));
    } else {
        REGISTERS.write_u32(u64::from(register), value);
    }
}

fn read(register: u32) -> u32 {
    if X2APIC.load(Ordering::Relaxed) {
        read_msr(MSR_X2APIC_FIRST + (register >> 4)) as u32
    } else {
        REGISTERS.read_u32(u64::from(register))
    }
}

/// Chooses the form, on the boot processor, and switches its APIC on. The x2APIC is used if it is `wanted` and there
/// is one, if the firmware switched it on, or if a processor's identifier needs it.
pub fn start(wanted: bool, highest_id: u32) {
    let offered = cpuid(1, 0).ecx & CPUID_X2APIC != 0;
    let on = read_msr(MSR_APIC_BASE) & APIC_BASE_X2APIC != 0;
    if on || offered && (wanted || highest_id >= XAPIC_ID_END) {
        X2APIC.store(true, Ordering::Relaxed);
        interrupts::use_x2apic();
    }
    start_processor();
}

/// Switches this processor's APIC on; interrupts of the old controller stay out. A non-maskable interrupt ends the guest
/// as an exception does, with the place where it was: a way to ask a guest that hangs.
pub fn start_processor() {
    if X2APIC.load(Ordering::Relaxed) {
        let base = read_msr(MSR_APIC_BASE);
        write_msr(MSR_APIC_BASE, base | APIC_BASE_ENABLED | APIC_BASE_X2APIC);
    }
    write(LOCAL_INTERRUPT_0, MASKED);
    write(LOCAL_INTERRUPT_1, NON_MASKABLE);
    write(TASK_PRIORITY, 0);
    write(SPURIOUS, ENABLED | u32::from(interrupts::VECTOR_SPURIOUS));
}

/// This processor's identifier.
pub fn id() -> u32 {
    let id = read(ID);
    if X2APIC.load(Ordering::Relaxed) { id } else { id >> 24 }
}

fn command(target: u32, low: u32) {
    if X2APIC.load(Ordering::Relaxed) {
        write_msr(MSR_X2APIC_FIRST + (COMMAND_LOW >> 4), u64::from(target) << 32 | u64::from(low));
    } else {
        write(COMMAND_HIGH, target << 24);
        write(COMMAND_LOW, low);
    }
}

/// Sends INIT.
pub fn send_init(target: u32) {
    command(target, COMMAND_INIT);
}

/// Sends STARTUP: the processor begins in real mode at `page` * 4096.
pub fn send_startup(target: u32, page: u8) {
    command(target, COMMAND_STARTUP | u32::from(page));
}

/// Sends an interrupt.
pub fn send_interrupt(target: u32, vector: u8) {
    command(target, COMMAND_FIXED | u32::from(vector));
}

/// Whether this processor would take an interrupt with this vector if it took any.
pub fn is_pending(vector: u8) -> bool {
    let word = read(REQUESTS + 0x10 * u32::from(vector >> 5));
    word >> (vector & 31) & 1 != 0
}

/// Lets the timer count down from `count` once, with an interrupt at zero.
pub fn start_timer(count: u32) {
    write(TIMER_DIVIDE, DIVIDE_BY_1);
    write(LOCAL_TIMER, u32::from(interrupts::VECTOR_TIMER));
    write(TIMER_INITIAL, count);
}

/// Lets the timer count down from its highest value without an interrupt.
pub fn start_timer_silently() {
    write(TIMER_DIVIDE, DIVIDE_BY_1);
    write(LOCAL_TIMER, u32::from(interrupts::VECTOR_TIMER) | MASKED);
    write(TIMER_INITIAL, u32::MAX);
}

/// What the timer has left to count.
pub fn timer_count() -> u32 {
    read(TIMER_CURRENT)
}

/// Stops the timer.
pub fn stop_timer() {
    write(TIMER_INITIAL, 0);
}
