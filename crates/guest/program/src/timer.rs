//! An interrupt after a time, from the local APIC. There is none before somebody asks for it: an idle guest must not
//! wake its host.

use crate::{apic, clock, services};
use core::sync::atomic::{AtomicU64, Ordering};

/// Counts per millisecond; 0 before it was measured.
static COUNTS_PER_MS: AtomicU64 = AtomicU64::new(0);
/// When the timer that a workload has set goes off. Only the boot processor has a timer.
static SET_FOR_NS: AtomicU64 = AtomicU64::new(NEVER);
const NEVER: u64 = u64::MAX;
const MEASURE_NS: u64 = 2_000_000;
const NS_PER_MS: u64 = 1_000_000;

/// Sends [`crate::interrupts::VECTOR_TIMER`] to this processor once, `ns` from now. The longest time is what the 32-bit
/// counter holds, about four seconds: a sleeper must look at the clock and set the timer again.
pub fn once(ns: u64) {
    SET_FOR_NS.store(clock::now().saturating_add(ns), Ordering::Relaxed);
    apic::start_timer(counts(ns));
}

/// Stops the timer.
pub fn stop() {
    SET_FOR_NS.store(NEVER, Ordering::Relaxed);
    apic::stop_timer();
}

/// Halts until an interrupt was taken, at the latest at `end_ns`. The timer that is set stays so.
pub fn halt_until(end_ns: u64) {
    let set_for = SET_FOR_NS.load(Ordering::Relaxed);
    if set_for <= end_ns {
        services::halt();
        return;
    }
    apic::start_timer(counts(end_ns.saturating_sub(clock::now())));
    services::halt();
    match set_for {
        NEVER => apic::stop_timer(),
        set_for => apic::start_timer(counts(set_for.saturating_sub(clock::now()))),
    }
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
