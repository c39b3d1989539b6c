//! The frequency of this machine's time stamp counter, which an emulated host sees too.
//!
//! A host that is told the frequency boots faster than one that measures it, and measures it wrongly
//! while the machine is busy; its own guests then get no stable clock.

#![allow(unsafe_code)] // The counter is read by an intrinsic that the compiler counts as unsafe.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// Long enough for an error far below one part in a thousand.
const SAMPLE: Duration = Duration::from_millis(50);

/// The frequency in kHz.
pub(crate) fn frequency_khz() -> u64 {
    let (ticks, start) = (ticks(), Instant::now());
    sleep(SAMPLE);
    let (elapsed_ticks, elapsed) = (self::ticks() - ticks, start.elapsed());
    (u128::from(elapsed_ticks) * 1_000_000 / elapsed.as_nanos()) as u64
}

fn ticks() -> u64 {
    // SAFETY: every x86-64 CPU has the instruction, and Linux lets programs execute it.
    unsafe { std::arch::x86_64::_rdtsc() }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_frequency_is_that_of_a_cpu() {
        assert!((100_000..20_000_000).contains(&super::frequency_khz()));
    }
}
