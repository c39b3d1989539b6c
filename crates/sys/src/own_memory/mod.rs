//! What the kernel says about the memory of this process, by files that were opened before the sandbox closed.
//!
//! A file under `/proc/self` that is open can be read again and again where no path can be opened any more. All of it
//! is a picture of something that moves: two files read one after the other need not agree.

mod pagemap;
mod smaps;
mod text_file;

pub use pagemap::{PAGEMAP_SCAN, Pagemap, Run, Seen, SwapAreas};
pub use smaps::MappingSums;
pub use text_file::TextFile;
