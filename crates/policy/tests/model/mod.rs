//! A small model of a host and its guests, for closed loops: memory as a fluid, in steps of 50 ms.
//!
//! It is no measurement. It is coarse and hard on a policy where it has to choose: reclaim takes some hot memory with
//! the cold, guests grow as fast as they can fault, orders need time and bandwidth.
//!
//! With `NAPA_MODEL_SEED=N` only that seed is run, with `NAPA_MODEL_TRACE=1` every decision is printed.

#![allow(dead_code, unused_imports, reason = "each test binary uses its part of the model")]

mod guest;
mod host;
mod report;

pub use guest::{Answers, Guest, Says};
pub use host::Host;
pub use report::Report;

/// One step of the model, in seconds.
pub const STEP: f64 = 0.05;

/// MiB as the model reckons, in bytes.
pub const fn mib(count: u64) -> f64 {
    (count << 20) as f64
}

/// Numbers that look random and are the same for the same seed (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// A number from 0 to 1, without 1.
    pub fn part(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number between these two.
    pub fn between(&mut self, least: f64, most: f64) -> f64 {
        least + (most - least) * self.part()
    }
}

/// The seeds to run: fixed ones, or the one that `NAPA_MODEL_SEED` names.
pub fn seeds() -> Vec<u64> {
    match std::env::var("NAPA_MODEL_SEED") {
        Ok(seed) => vec![seed.parse().expect("NAPA_MODEL_SEED is a number")],
        Err(_) => vec![1, 2, 3],
    }
}
