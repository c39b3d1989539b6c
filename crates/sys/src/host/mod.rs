//! What can be known about this host from its own files.
//!
//! Every reader takes a [`Root`], so that a test's host is a folder of made-up files. Nothing is kept: each
//! call reads anew. What a host does not have, or does not show to this user, is `None`, never an error.

mod capabilities;
mod cgroup;
mod devices;
mod io_uring;
mod ksm;
mod memory;
mod module;
mod pressure;
pub(crate) mod root;
mod swap;
mod thp;
mod userfaultfd;

pub use capabilities::Capabilities;
pub use cgroup::Cgroup;
pub use devices::Device;
pub use io_uring::{IoUringRule, try_io_uring};
pub use ksm::{Ksm, KsmRun};
pub use memory::{HugePages, Memory, OvercommitRule};
pub use module::{KvmModule, Mmu, Processor};
pub use pressure::{Pressure, Stall};
pub use root::Root;
pub use swap::{Swap, SwapKind, has_zram, swappiness, zswap_enabled};
pub use thp::ThpRule;
pub use userfaultfd::Userfaultfd;
