//! Where every page of a guest is.
//!
//! ```text
//!  pagemap --- runs of pages ---> Census --+
//!  marks of discarded pages -----^         |
//!  smaps, KSM's counters ------------------+--> Ledger, whose counts sum to the guest's size
//!  swap areas, zswap's counters -----------+
//! ```
//!
//! A guest runs on while it is looked at. Each page is counted once, as it was seen; counters of the kernel that were
//! read at another moment only move pages between states that agree with what was seen, and never more than there are.

mod census;
mod sampling;
mod sensors;
mod swap_kinds;
mod watch;

pub(crate) use sampling::Random;
pub use sensors::Sensors;
pub use swap_kinds::Certainty;
pub use watch::{Look, Watch};
