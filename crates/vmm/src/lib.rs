//! The napa vmm crate.
