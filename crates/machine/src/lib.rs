//! The napa machine crate.
