//! The napa devices crate.
