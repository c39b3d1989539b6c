//! Guest memory: which regions there are, access to them, and where the pages of its RAM are.
//!
//! RAM is private anonymous memory: kernel samepage merging, transparent huge pages, swap and
//! copy-on-write clones all need that. An image is a file in the page cache, which a guest reads and nobody writes; it
//! is memory that devices may address, but none of the guest's RAM. Nothing here knows KVM or a device.

mod blocks;
mod image;
mod ledger;
mod merge;
mod pageout;
mod pages;
mod ram;
mod working_set;
mod zeros;

pub use blocks::{Backing, Blocks, BlocksError};
pub use image::{ImageMapError, is_writable, map_image};
pub use ledger::{Certainty, Look, Sensors, Watch};
pub use merge::{make_mergeable, take_apart};
pub use pageout::{End, PageOut, PageOutError, Taken};
pub use pages::{DiscardError, PageStates, Piece};
pub use ram::{GuestRam, RamError, RamRegion, allocate, host_address, prefer_huge_pages};
pub use working_set::{Averages, Estimate, Sample, SampleError, TAKEN_MAX};
pub use zeros::{Progress, Splitting, ZeroPages};
