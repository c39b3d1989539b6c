//! The napa guest crate.
