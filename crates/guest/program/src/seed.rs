//! A number that no other guest has.

#![allow(unsafe_code, reason = "RDRAND is an instruction")]

use crate::clock;
use crate::services::cpuid;
use core::arch::asm;
use core::arch::x86_64::_rdtsc;
use guest_logic::random::mix;

const CPUID_RDRAND: u32 = 1 << 30;
/// More failures in a row than a working source has (Intel SDM volume 1, 7.3.17.1).
const TRIES: u32 = 10;

/// Differs from call to call and from guest to guest: by the processor's random numbers where it has them, and by the
/// time in any case.
pub fn unique() -> u64 {
    // SAFETY: reads a counter that ring 3 may read.
    let ticks = unsafe { _rdtsc() };
    let drawn = (0..TRIES).find_map(|_| draw()).unwrap_or(0);
    mix(drawn ^ mix(ticks) ^ clock::now().rotate_left(32))
}

fn draw() -> Option<u64> {
    if cpuid(1, 0).ecx & CPUID_RDRAND == 0 {
        return None;
    }
    let (value, valid): (u64, u8);
    // SAFETY: the processor has the instruction, which changes a register and the flags.
    unsafe { asm!("rdrand {}", "setc {}", out(reg) value, out(reg_byte) valid, options(nomem, nostack)) };
    (valid != 0).then_some(value)
}
