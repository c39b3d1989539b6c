//! The napa units crate.
