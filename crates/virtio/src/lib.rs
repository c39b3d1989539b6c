//! Virtio 1.3 over PCI, modern only: negotiation, queues, and the trait that every device implements.
//!
//! A device never sees PCI, interrupts or threads: it says what it has ([`Device`]) and gives a
//! [`Worker`](napa_sys::reactor::Worker) per queue when the driver is ready; the transport places the
//! workers and takes them back on reset.
//!
//! ```text
//!  reset -> ACKNOWLEDGE -> DRIVER -> FEATURES_OK -> DRIVER_OK (workers run)
//!    ^                                                 |
//!    +---------- status = 0 (workers drained) ---------+---> NEEDS_RESET (a worker met nonsense)
//! ```
//!
//! Invariants: what a guest writes is data, never a panic; a worker that meets nonsense in a ring
//! stops, marks its device as needing a reset, and harms nobody else.

mod buffers;
mod bus;
mod device;
mod health;
mod interrupt;
pub mod pci;
mod queue;
mod threads;

pub use buffers::{Buffers, BuffersError, IoVec, StatusByte};
pub use bus::BusDevice;
pub use device::{
    Activation, Device, DeviceError, DeviceMemory, Feature, Placed, Placement, PluggableMemory, SharedDevice,
    read_config_bytes,
};
pub use health::{DeviceMonitor, Health};
pub use interrupt::{Interrupt, MsiMessage, Platform, VectorTable};
pub use queue::{Chain, Queue};
pub use threads::Threads;
