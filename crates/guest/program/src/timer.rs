//! An interrupt after a time, from the local APIC. There is none before somebody asks for it: an idle guest must not
//! wake its host.

use crate::apic;
use crate::clock;
use core::sync::atomic::{AtomicU64, Ordering};

/// Counts per millisecond; 0 before it was measured.
static COUNTS_PER_MS: AtomicU64 = AtomicU64::new(0);
const MEASURE_NS: u64 = 2_000_000;
const NS_PER_MS: u64 = 1_000_000;

/// Sends [`crate::interrupts::VECTOR_TIMER`] to this processor once, `ns` from now. The longest time is what the 32-bit
/// counter holds, about four seconds: a sleeper must look at the clock and set the timer again.
pub fn once(ns: u64) {
    apic::start_timer(counts(ns));
}

/// Stops the timer.
pub fn stop() {
    apic::stop_timer();
}

fn counts(ns: u64) -> u32 {
    let counts = u128::from(ns) * u128::from(counts_per_ms()) / u128::from(NS_PER_MS);
    u32::try_from(counts).unwrap_or(u32::MAX).max(1)
}

fn counts_per_ms() -> u64 {
    let known = COUNTS_PER_MS.load(Ordering::Relaxed);
    if known != 0 {
        return known;
    }
    let start = clock::now();
    apic::start_timer_silently();
    while clock::now().saturating_sub(start) < MEASURE_NS {
        core::hint::spin_loop();
    }
    let counted = u64::from(u32::MAX - apic::timer_count());
    let elapsed = clock::now().saturating_sub(start).max(1);
    apic::stop_timer();
    let measured = (counted * NS_PER_MS / elapsed).max(1);
    COUNTS_PER_MS.store(measured, Ordering::Relaxed);
    measured
}
