//! The napa memory crate.
