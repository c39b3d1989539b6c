//! The napa sys crate.
