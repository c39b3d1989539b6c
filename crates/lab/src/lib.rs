//! The napa lab crate.
