//! The napa api crate.
