//! The quantities napa reckons with, as types that cannot be mixed up.
//!
//! Pure values: no I/O, no clock, no allocation of guest memory.

mod address;
mod ledger;
mod size;
mod vm;

pub use address::{Gfn, GuestAddress, PAGE_SIZE, Pages};
pub use ledger::{Ledger, PageState};
pub use size::{Bytes, SizeError};
pub use vm::{Shares, VmId};
