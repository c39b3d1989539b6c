//! What the kernel offers and the usual crates do not wrap: the io_uring reactor, KVM odds and ends,
//! signals, and what can be known about the host and about this process's own memory.

pub mod cgroup;
pub mod damon;
pub mod host;
pub mod ksm;
pub mod lost_memory;
pub mod mglru;
pub mod own_memory;
pub mod reactor;
pub mod signal;
pub mod socket;
pub mod swap;
pub mod userfaultfd;
