//! The frequency of this machine's time stamp counter, which an emulated host sees too.
//!
//! A host that is told the frequency boots faster than one that measures it, and measures it wrongly
//! while the machine is busy; its own guests then get no stable clock.

#![allow(unsafe_code)] // The counter is read by an intrinsic that the compiler counts as unsafe.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// Long enough for an error far below one part in a thousand.
const SAMPLE: Duration = Duration::from_millis(50);

/// A reading of both clocks is taken when it was not interrupted for longer than this.
const READING_MAX: Duration = Duration::from_micros(5);

/// After this many interrupted readings the last one has to do.
const READINGS_MAX: u32 = 10_000;

/// The frequency in kHz.
pub(crate) fn frequency_khz() -> u64 {
    let (first_ticks, first) = read_together();
    sleep(SAMPLE);
    let (second_ticks, second) = read_together();
    (u128::from(second_ticks - first_ticks) * 1_000_000 / (second - first).as_nanos()) as u64
}

/// The counter and the time of one moment, also on a machine that is busy with something else.
fn read_together() -> (u64, Instant) {
    let mut reading = (ticks(), Instant::now());
    for _ in 0..READINGS_MAX {
        let before = Instant::now();
        reading = (ticks(), before);
        if before.elapsed() < READING_MAX {
            break;
        }
    }
    reading
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
