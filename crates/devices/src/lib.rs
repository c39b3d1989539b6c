//! The devices of a VM: one folder each, all named in [`catalog`].
//!
//! Virtio devices implement [`napa_virtio::Device`]; what sits on I/O ports implements
//! [`napa_virtio::BusDevice`]. No device knows PCI slots, KVM or another device.

pub mod blk;
pub mod catalog;
pub mod net;

mod open;
#[cfg(test)]
mod testing;

pub use open::{Context, OpenError};
