//! Virtio devices over PCI, modern interface only, one MSI-X vector per queue (VIRTIO 1.3 §4.1).
//!
//! The drivers are our own: those to be had as a library know no MSI-X vectors, fix the length of queues when they are
//! compiled, and keep too few requests under way to load a host's disk.

pub mod balloon;
pub mod block;
pub mod console;
pub mod entropy;
pub mod net;
pub mod queue;
mod transport;

pub use transport::{DeviceKind, Transport, VENDOR};

/// `VIRTIO_F_INDIRECT_DESC` (VIRTIO 1.3 §6).
pub const FEATURE_INDIRECT: u64 = 1 << 28;
/// `VIRTIO_F_EVENT_IDX`.
pub const FEATURE_EVENT_IDX: u64 = 1 << 29;
/// `VIRTIO_F_VERSION_1`.
pub const FEATURE_VERSION_1: u64 = 1 << 32;
