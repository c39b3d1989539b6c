//! What the kernel offers and the usual crates do not wrap: the io_uring reactor, KVM odds and ends,
//! signals, and what can be known about the host.

pub mod host;
pub mod reactor;
pub mod signal;
pub mod socket;
