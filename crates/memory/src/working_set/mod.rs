//! How much memory a guest uses, found without asking it.
//!
//! A random hundred of the pages that it has in memory are taken away, into swap. Those that it needs come back by
//! themselves, and their part of the hundred is the part of its memory that it has used meanwhile. A guest cannot know
//! which pages were taken, so it can only raise the estimate by using memory.

mod estimate;
mod sample;

pub use estimate::{Averages, Estimate};
pub use sample::{Sample, SampleError, TAKEN_MAX};
