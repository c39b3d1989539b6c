//! The devices of a VM: one folder each, all named in [`catalog`] or [`ports`].
//!
//! Virtio devices implement [`napa_virtio::Device`]; what sits on I/O ports implements
//! [`napa_virtio::BusDevice`]. No device knows PCI slots, KVM or another device.

use std::sync::Arc;

pub mod balloon;
pub mod blk;
pub mod catalog;
pub mod console;
pub mod mem;
pub mod net;
pub mod pmem;
pub mod ports;
pub mod rng;
pub mod serial;
pub mod terminal;
pub mod vsock;

mod exit_port;
mod i8042;
mod image_lock;
mod open;
mod pvpanic;
mod rtc;
mod stop_port;
#[cfg(test)]
mod testing;

pub use open::{Context, OpenError};
pub use stop_port::StopRequest;
pub use terminal::{ConsoleBackend, ConsoleCommand, restore_terminal};

/// Takes the news that the guest has ended itself, in whatever way. Called on a vCPU thread while the
/// guest's access is under way, perhaps several times; it must not wait for that vCPU.
pub type ExitSink = Arc<dyn Fn(napa_api::Exit) + Send + Sync>;
