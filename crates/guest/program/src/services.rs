//! The calls into ring 0. They are slow (microseconds where the host emulates ring 0): not for inner loops.

#![allow(unsafe_code, reason = "INT3 is an instruction, and what it calls changes the processor")]

use core::arch::asm;

const HALT: u64 = 0;
const READ_MSR: u64 = 1;
const WRITE_MSR: u64 = 2;
const CPUID: u64 = 3;
const STOP: u64 = 4;
const TRIPLE_FAULT: u64 = 5;

fn call(number: u64, first: u64, second: u64, third: u64) -> (u64, u64) {
    let (low, high);
    // SAFETY: `number` is one of the services above; each of them keeps all registers but these.
    unsafe {
        asm!("int3", inout("rax") number => low, inout("rdx") third => high, in("rdi") first, in("rsi") second,
            out("rcx") _, out("r8") _);
    }
    (low, high)
}

/// Halts with interrupts on until one was taken, then returns with interrupts off.
pub fn halt() {
    call(HALT, 0, 0, 0);
}

/// Reads a model-specific register that this processor has.
pub fn read_msr(register: u32) -> u64 {
    let (low, high) = call(READ_MSR, u64::from(register), 0, 0);
    high << 32 | low & 0xffff_ffff
}

/// Writes a model-specific register that this processor has.
pub fn write_msr(register: u32, value: u64) {
    call(WRITE_MSR, u64::from(register), value, 0);
}

/// What CPUID says in ring 0: in ring 3 some hosts answer with their own processor's values.
#[derive(Debug, Default, Clone, Copy)]
#[repr(C)]
pub struct Cpuid {
    pub eax: u32,
    pub ebx: u32,
    pub ecx: u32,
    pub edx: u32,
}

/// Runs CPUID.
pub fn cpuid(leaf: u32, subleaf: u32) -> Cpuid {
    let mut registers = Cpuid::default();
    call(CPUID, u64::from(leaf), u64::from(subleaf), (&raw mut registers) as u64);
    core::hint::black_box(registers)
}

/// Halts this processor for ever, interrupts off.
pub fn stop() -> ! {
    loop {
        call(STOP, 0, 0, 0);
    }
}

/// Raises an exception that cannot be delivered.
pub fn triple_fault() -> ! {
    call(TRIPLE_FAULT, 0, 0, 0);
    stop()
}
