//! Guest RAM: which regions there are, access to them, and where their pages are.
//!
//! RAM is private anonymous memory: kernel samepage merging, transparent huge pages, swap and
//! copy-on-write clones all need that. Nothing here knows KVM or a device.

mod ledger;
mod merge;
mod pageout;
mod pages;
mod ram;
mod working_set;

pub use ledger::{Certainty, Look, Sensors, Watch};
pub use merge::{make_mergeable, take_apart};
pub use pageout::{End, PageOut, PageOutError, Taken};
pub use pages::{DiscardError, PageStates};
pub use ram::{GuestRam, RamError, RamRegion, allocate, host_address, prefer_huge_pages};
pub use working_set::{Averages, Estimate, Sample, SampleError, TAKEN_MAX};
